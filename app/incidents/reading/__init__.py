"""Incidents as they are read: lists and single ones."""
