"""What a sender must be configured with. Pure."""

from urllib.parse import urlsplit


def alertmanager_receiver(address: str, token: str) -> str:
    """A complete, valid alertmanager.yml. Its route and receivers can also be pasted into an existing file.

    `address` is that of the service, as the sender reaches it.
    """
    return f"""\
route:
  receiver: aftermath
  group_by: [alertname, service]
receivers:
  - name: aftermath
    webhook_configs:
      - url: {address.rstrip("/")}/webhooks/alertmanager
        send_resolved: true
        max_alerts: 0
        http_config:
          authorization:
            credentials: {token}
"""


def prometheus_alerting(address: str, token: str) -> str:
    """The section of prometheus.yml that sends alerts to this service instead of an Alertmanager, or besides one.

    `address` is that of the service, as Prometheus reaches it.
    """
    parts = urlsplit(address)
    return f"""\
alerting:
  alertmanagers:
    - scheme: {parts.scheme}
      path_prefix: {parts.path.rstrip("/")}/am/{token}
      static_configs:
        - targets: ["{parts.netloc}"]
"""
