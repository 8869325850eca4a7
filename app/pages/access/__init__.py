"""Signing in and out, the time zone of the reader, and tokens."""
