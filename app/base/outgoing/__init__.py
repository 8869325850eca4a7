"""Requests that leave the service: one guarded client, which all other code uses."""

from app.base.outgoing.addresses import allowed
from app.base.outgoing.client import Answer, NoAnswer, NotAllowed, OutgoingClient, OutgoingSession
from app.base.outgoing.target import parse

__all__ = ["Answer", "NoAnswer", "NotAllowed", "OutgoingClient", "OutgoingSession", "allowed", "parse"]
