"""What to configure in a sender, with the address at which the reader has reached the service."""

from app.ingest.receiver import alertmanager_receiver, prometheus_alerting
from app.pages.web.frame import PageRequest


def service_address(asked: PageRequest) -> str:
    """The address of the service, without a slash at its end."""
    public = asked.context.settings.public_url
    return public.rstrip("/") if public else f"{asked.request.url.scheme}://{asked.request.url.netloc}"


def receiver(asked: PageRequest, token: str | None = None) -> str:
    """An alertmanager.yml that sends to this service; without a token it has the word TOKEN in its place."""
    return alertmanager_receiver(service_address(asked), token or "TOKEN")


def alerting(asked: PageRequest, token: str) -> str:
    """The part of prometheus.yml that sends to this service."""
    return prometheus_alerting(service_address(asked), token)
