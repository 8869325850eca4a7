"""The law of incidents, as pure functions."""
