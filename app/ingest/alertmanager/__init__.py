"""The part of Alertmanager's API that only asks, for amtool, karma and Grafana's data source."""
