"""Serving over a listening socket: in this process, or in worker processes that share the socket.

A worker is `python -m app.serve FD`: the same code with its settings from the environment.
"""

import asyncio
import ctypes
import gc
import logging
import os
import signal
import socket
import sys

import uvicorn
import uvloop
from uvicorn.config import STARTUP_FAILURE

from app.base import logs
from app.base.http.server import protocol_with
from app.main import create_app
from app.settings import Settings

log = logging.getLogger("aftermath")

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
GRACEFUL_SHUTDOWN_SECONDS = 20


class CannotServe(Exception):
    """Why the service cannot start, and what to do."""


def listen(settings: Settings) -> socket.socket:
    """Raises CannotServe."""
    try:
        family, *_, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family, backlog=2048)
    except OSError as error:
        raise CannotServe(
            f"cannot listen on {settings.host}:{settings.port} ({error.strerror}): "
            "choose another address with AFTERMATH_HOST and AFTERMATH_PORT"
        ) from None


async def serve(settings: Settings, listening: socket.socket) -> None:
    """Serves until a signal arrives or, with workers, until cancelled. Raises CannotServe."""
    if settings.workers == 1:
        await serve_here(settings, listening)
    else:
        await _serve_by_workers(settings, listening)


async def serve_here(settings: Settings, listening: socket.socket) -> None:
    """Serves in this process until SIGTERM or SIGINT."""
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(settings),
            http=protocol_with(receive_seconds=settings.receive_seconds),
            lifespan="on",
            proxy_headers=False,  # nothing here needs the client's address
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_SECONDS,
        )
    )
    # uvicorn raises the signal that stopped it again, for the handler that was there before: it must not end the
    # process before the built-in PostgreSQL has stopped.
    for number in STOP_SIGNALS:
        asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(number, lambda *_: None)
    _tune_garbage_collection()
    await server.serve(sockets=[listening])


def _tune_garbage_collection() -> None:
    """Batches create tens of thousands of objects that die together. With the default thresholds the collector would
    walk everything that lives many times a second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


# — workers —


async def _serve_by_workers(settings: Settings, listening: socket.socket) -> None:
    try:
        async with asyncio.TaskGroup() as workers:
            for _ in range(settings.workers):
                workers.create_task(_keep_worker(settings, listening))
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


async def _keep_worker(settings: Settings, listening: socket.socket) -> None:
    """A worker process, replaced by another when it dies, until cancelled. Raises CannotServe if it cannot start.

    Not under uvicorn's own supervisor: its workers outlive it when it is killed, and keep the port.
    """
    assert settings.database_url is not None
    while True:
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "app.serve", str(listening.fileno())),
            env=os.environ | {"AFTERMATH_DATABASE_URL": settings.database_url.get_secret_value()},
            pass_fds=(listening.fileno(),),
            # Ctrl-C goes to the whole process group; workers are to stop when this process stops them.
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
        try:
            status = await worker.wait()
        except asyncio.CancelledError:
            worker.terminate()
            await worker.wait()
            raise
        if status == STARTUP_FAILURE:
            raise CannotServe("a worker could not start; the log above says why")
        log.error("a worker ended unexpectedly (%d); starting another", status)
        await asyncio.sleep(1)


def _end_with_parent() -> None:
    """In a child of the main thread: the kernel kills it when the parent ends, also when the parent is killed."""
    if _prctl is not None:
        _prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


# Looked up here: between fork and exec nothing may be loaded.
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def main() -> None:
    """A worker process. Its socket was opened by its parent and is named by file descriptor."""
    settings = Settings()
    logs.configure(settings.log_level)
    uvloop.run(serve_here(settings, socket.socket(fileno=int(sys.argv[1]))))


if __name__ == "__main__":
    main()
