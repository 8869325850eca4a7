"""Planned maintenance, during which failures do not count."""
