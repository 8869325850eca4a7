"""Prints the directory for the temporary files of tests: in memory if there is enough, else the usual one."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

IN_MEMORY = Path("/dev/shm")
ENOUGH = 4 * 2**30  # bytes; a worker of the tests takes about 200 MB


def directory() -> Path:
    """An explicit `TMPDIR` wins."""
    if "TMPDIR" in os.environ or not os.access(IN_MEMORY, os.W_OK) or shutil.disk_usage(IN_MEMORY).free < ENOUGH:
        return Path(tempfile.gettempdir())
    return IN_MEMORY


if __name__ == "__main__":
    sys.stdout.write(f"{directory()}\n")
