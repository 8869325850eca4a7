"""`aftermath demo`: posts a realistic day of alerts to a running service, so that new users see numbers.

Every alert has the label `environment="demo"`, so that it never joins a real incident, and `demo_day`, the end of its
day. A second run finds the first by that label and repeats the same day, which changes nothing.
"""

from app.demo.player import CannotPlay, play

__all__ = ["CannotPlay", "play"]
