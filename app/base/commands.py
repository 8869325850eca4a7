"""Commands that pages and messages suggest to people. `app/cli.py` defines what they do."""

PLAY_DEMO = "aftermath demo"
REMOVE_DEMO = "aftermath demo --remove"
