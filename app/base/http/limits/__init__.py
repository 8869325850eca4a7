"""Limits for everything that a client sends or leaves open."""
