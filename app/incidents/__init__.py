"""Incidents: how alerts form them, what people do and record, how long they took and what they cost."""
