"""Commands that pages and messages tell people to run. The command line defines what they do."""

PLAY_DEMO = "aftermath demo"
REMOVE_DEMO = "aftermath demo --remove"
