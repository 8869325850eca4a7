"""Deployments: their reports, the incidents they caused, and DORA's numbers."""
