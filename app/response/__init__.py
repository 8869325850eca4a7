"""Responding to an incident: its declaration, its type, who does what, updates, targets and playbooks."""
