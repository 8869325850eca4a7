"""Webhooks: how deliveries are received, read as signals, and stored in batches. Also quarantine and sources.

"How it works" in CONTRIBUTING.md follows a delivery through the files. `endpoints/` has the HTTP; `senders/` reads
requests, with what they share in `reading/`; `intake/` stores what was read; `health/` judges sources and polls
Alertmanagers; `alertmanager/` answers clients of Alertmanager's API that only read. `sender.py` is the contract of
senders, and `handlers.py` that of the areas that store other facts than alerts.
"""
