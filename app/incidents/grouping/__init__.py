"""From signals to alerts, and from alerts to incidents: `decide.py` has the steps, `law/` the rules behind them."""
