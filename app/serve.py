"""Serves on a listening socket, in this process or in worker processes that share the socket.

A worker is `python -m app.serve FD`: the same code, with settings from the environment.
"""

import asyncio
import ctypes
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable

import uvicorn
import uvloop
from uvicorn.config import STARTUP_FAILURE

from app.base.http.limits.clients import Connections, connections_within_file_limit
from app.base.http.limits.server import Limits, protocol_with
from app.base.process import logs
from app.settings import Settings

log = logging.getLogger("aftermath")

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
GRACEFUL_SHUTDOWN_SECONDS = 20


class CannotServe(Exception):
    """The service cannot start. The message gives the reason and the remedy."""


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
    """Serves until a signal arrives or, with workers, until canceled. Raises CannotServe."""
    if settings.workers == 1:
        await serve_here(settings, listening)  # if a part of it stops, its health checks fail
    else:
        await _serve_by_workers(settings, listening)


async def serve_here(settings: Settings, listening: socket.socket, *, is_worker: bool = False) -> bool:
    """Serves in this process until SIGTERM or SIGINT. Returns whether all its parts were still running.

    A worker also stops when one of its parts, such as the queue, has stopped: a probe of the shared port may reach
    another worker, so that no one would notice. It completes the requests it has, and what it has answered 2xx is in
    the database or in the spool.
    """
    running = True

    def stop() -> None:
        nonlocal running
        running = False
        server.should_exit = server.should_exit or is_worker

    server = uvicorn.Server(
        uvicorn.Config(
            _app(settings, stop),
            http=protocol_with(
                Limits(
                    receive_seconds=settings.receive_seconds,
                    write_seconds=settings.write_seconds,
                    unread_bytes=settings.max_bytes_in_flight,
                    connections=Connections(connections_within_file_limit(settings.max_connections)),
                )
            ),
            ws="none",
            lifespan="on",
            proxy_headers=False,  # anyone could set them; behind a proxy its address stands for all its clients
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_SECONDS,
        )
    )

    # Until uvicorn has handlers of its own, no signal may be lost. Afterwards, uvicorn raises the one that stopped it
    # again for these handlers, and that must not end the process before the built-in PostgreSQL has stopped.
    def on_signal(*_: object) -> None:
        server.should_exit = True

    for number in STOP_SIGNALS:
        asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(number, on_signal)
    tune_garbage_collection()
    await server.serve(sockets=[listening])
    return running


def _app(settings: Settings, on_end: Callable[[], None]) -> logs.Application:
    """Imports the service only here, so that other commands and the parent of workers start fast. The collector would
    take a quarter of the time, and finds nothing.
    """
    gc.disable()
    try:
        from app.main import create_app

        return create_app(settings, on_end=on_end)
    finally:
        gc.enable()


def tune_garbage_collection() -> None:
    """Batches create tens of thousands of objects that are freed together. With the default thresholds, the collector
    would scan all live objects many times a second.
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
    """Runs a worker process and restarts it when it dies, until canceled. Raises CannotServe if it cannot start.

    uvicorn's supervisor is not used: if it is killed, its workers survive and keep the port.
    """
    assert settings.database_url is not None
    while True:
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "app.serve", str(listening.fileno())),
            env=os.environ | {"AFTERMATH_DATABASE_URL": settings.database_url.get_secret_value()},
            pass_fds=(listening.fileno(),),
            # Ctrl-C signals the whole process group, but workers must only stop when this process stops them.
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
            raise CannotServe("a worker could not start; see the log above for the reason")
        if status == os.EX_SOFTWARE:
            log.error("a part of a worker has stopped (see above); starting another worker")
        else:
            log.error("a worker exited unexpectedly with status %d; starting another", status)
        await asyncio.sleep(1)


def _end_with_parent() -> None:
    """Runs in a child of the main thread: makes the kernel kill it when the parent ends, even if that was killed."""
    if _prctl is not None:
        _prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


# Looked up here, because nothing may be loaded between fork and exec.
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def main() -> None:
    """Runs a worker process. The parent opened the socket and passes its file descriptor."""
    settings = Settings()
    logs.configure(settings.log_level)
    listening = socket.socket(fileno=int(sys.argv[1]))
    if not uvloop.run(serve_here(settings, listening, is_worker=True)):
        sys.exit(os.EX_SOFTWARE)


if __name__ == "__main__":
    main()
