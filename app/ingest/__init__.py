"""Webhooks: how deliveries are received, read as signals, and stored in batches. Also quarantine and sources.

A request passes `base/http/server.py` (time limit, size limit of the head) to `WebhookApp` in `webhook.py`. There
`admission.py` checks the token against `base/http/credentials.py`, reads the body and has the sender check its
signature; the sender's file in `senders/` reads it as signals (with `alerts.py` and `json.py`), and the delivery waits
in `queue.py` for the next batch. `flush.py` commits the batch in one transaction: `incidents/grouping/rule.py` decides
each signal's key, `grouping/decide.py` locks the keys and applies the law (`read.py` reads what is stored, `series.py`
computes the ends of alerts, `placement.py` finds their incidents), and `grouping/write.py` writes new alerts by COPY,
then incidents, other alerts and the records of the deliveries from `store.py` in one statement. After the commit the
queue returns the receipt of each delivery, and `webhook.py` sends it. While the database is down, `queue.py` puts
deliveries into `base/spool.py` instead, and `drain.py` passes them to `flush.py` once it is back.
"""
