"""What a sender must be configured with. Pure."""


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
