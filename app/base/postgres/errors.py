"""Errors when the built-in PostgreSQL does not start.

CannotStart                 the message gives the reason and the remedy
├── DataDirInUse            another service uses the data directory
└── OtherMajorVersion       the files belong to another version of PostgreSQL
"""


class CannotStart(Exception):
    """The built-in PostgreSQL does not start. The message gives the reason and the remedy."""


class DataDirInUse(CannotStart):
    """Another process uses the data directory."""


class OtherMajorVersion(CannotStart):
    """The cluster was created by a version of PostgreSQL whose files this version cannot read."""
