"""Aftermath turns the alerts of monitoring tools into incidents, and incidents into numbers."""

from importlib.metadata import version

# Written in pyproject.toml, read from what was installed.
__version__ = version("aftermath")
