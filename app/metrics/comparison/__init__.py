"""One measure in two periods: better, worse, or cannot tell."""
