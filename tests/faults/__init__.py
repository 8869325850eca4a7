"""Faults with real processes. `make test-faults` runs them; `make test` leaves them out, for they take minutes.

After each fault the same is asked, in `afterwards.py`: whatever was answered 2xx is there exactly once, the incidents
are those of the law, nothing but 503 was a 5xx, the service still serves, and its memory is bounded.
"""
