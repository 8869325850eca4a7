"""Calendars of business hours."""
