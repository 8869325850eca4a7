"""`aftermath demo`: plays a believable quarter to a running service, so that new users see what the numbers show.

`quarter.py` decides what happens, as a pure function of a seed and the end of the quarter; `chapter_six.py` has one
outage with its review; `bodies.py` writes the requests; `player.py` sends them; `presence.py` marks everything as the
demo's and removes it.
"""

from app.demo.player import CannotPlay, play
from app.demo.presence import AlreadyPlayed, NameInUse, NotPlayed, Removed, remove

__all__ = ["AlreadyPlayed", "CannotPlay", "NameInUse", "NotPlayed", "Removed", "play", "remove"]
