"""Source health: what is wrong with a source, heartbeats, stale alerts, and reconciliation with Alertmanager."""
