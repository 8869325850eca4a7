"""From webhook to incident: how an alert comes in, is applied in a batch, and is answered.

A request comes from the socket through `base/http/server.py` (time and head limits) to `WebhookApp` in `webhook.py`.
There `admission.py` checks the token against `base/http/credentials.py`, reads the body and has the sender check its
signature; the sender's file in `senders/` reads it as signals (with `alerts.py`), and the delivery waits in `queue.py`
for the next batch. `flush.py` commits the batch in one transaction: `incidents/grouping/rule.py` decides each signal's
key, `grouping/decide.py` locks the keys and applies the law (`read.py` reads what is known, `series.py` ends the
alerts, `placement.py` finds their incidents), and `grouping/write.py` writes alerts, incidents and what `store.py`
records of the deliveries in one statement after a COPY. After the commit each request gets its receipt from the queue,
and `webhook.py` sends it. While the database is down `queue.py` puts deliveries into `base/spool.py` instead, and
`drain.py` hands them to `flush.py` once it is back.
"""
