"""Why the built-in PostgreSQL does not start.

CannotStart                 says why and what to do
├── DataDirInUse            another service has the data directory
└── OtherMajorVersion       the files belong to another PostgreSQL
"""


class CannotStart(Exception):
    """The built-in PostgreSQL does not start; the message says why and what to do."""


class DataDirInUse(CannotStart):
    """Another process works in this data directory."""


class OtherMajorVersion(CannotStart):
    """The cluster was made by a PostgreSQL whose files this one cannot read."""
