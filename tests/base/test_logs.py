"""The format of log lines."""

import logging
import re
from collections.abc import Iterator
from datetime import datetime
from io import StringIO

import pytest

from app.base.process import logs


@pytest.fixture
def lines() -> Iterator[StringIO]:
    """What is logged after `logs.configure`. Restores the configuration of the tests afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    logs.configure("INFO")
    [handler] = root.handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(StringIO())
    yield handler.stream
    root.handlers[:] = handlers
    root.setLevel(level)


def test_every_line_has_its_own_time_to_the_millisecond(lines: StringIO) -> None:
    times = [1_700_000_000.25, 1_700_000_000.75, 1_700_000_001.5, 1_700_000_000.25]
    for created in times:
        record = logging.makeLogRecord({"name": "aftermath", "levelno": logging.INFO, "levelname": "INFO", "msg": "x"})
        record.created, record.msecs = created, created % 1 * 1000
        logging.getLogger("aftermath").handle(record)
    expected = [f"{datetime.fromtimestamp(t):%Y-%m-%d %H:%M:%S},{int(t % 1 * 1000):03d}" for t in times]  # noqa: DTZ006
    assert [line[:23] for line in lines.getvalue().splitlines()] == expected


async def test_a_request_is_one_line_with_the_route_instead_of_its_path(lines: StringIO) -> None:
    async def app(scope: logs.Scope, receive: logs.Receive, send: logs.Send) -> None:
        scope[logs.LOG_FIELDS] = {"source": 1, "opened": 2}
        await send({"type": "http.response.start", "status": 202, "headers": []})

    async def receive() -> dict[str, object]:
        return {}

    async def send(message: object) -> None:
        pass

    await logs.OneLinePerRequest(app)({"type": "http", "method": "POST", "path": "/secret"}, receive, send)
    [line] = lines.getvalue().splitlines()
    assert re.search(
        r" INFO aftermath\.request method=POST route=unmatched status=202 ms=\d+\.\d source=1 opened=2$", line
    )
