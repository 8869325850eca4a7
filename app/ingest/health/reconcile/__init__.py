"""Reconciling a source with the Alertmanagers behind it: polling them, comparing, and applying the differences."""
