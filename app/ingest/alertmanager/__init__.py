"""The read-only part of Alertmanager's API, for amtool, karma and Grafana's data source."""
