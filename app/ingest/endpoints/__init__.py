"""The HTTP of ingest: webhooks, quarantine, sources and tokens."""
