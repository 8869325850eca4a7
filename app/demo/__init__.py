"""`aftermath demo`: a realistic day of alerts, posted to a running service so that a newcomer sees numbers.

Every alert carries `environment="demo"`, so that it never joins an incident of your own, and `demo_day`, the end of its
day. By that label a second run finds the first and repeats the same day, which changes nothing.
"""

from app.demo.player import CannotPlay, play

__all__ = ["CannotPlay", "play"]
