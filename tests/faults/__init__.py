"""Faults with real processes. `make test-faults` runs them; `make test` does not, because they take minutes.

`afterwards.py` has the checks after each fault: every delivery answered 2xx is stored exactly once, the incidents are
those of the law, 503 was the only 5xx, the service still serves, and its memory is bounded.
"""
