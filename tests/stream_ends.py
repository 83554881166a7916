"""The drop-in of asyncio's streams over each wing, on each event loop, for the tests of it."""

import asyncio
import importlib
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from peers.programs import lacking

MIB = 1 << 20


@pytest.fixture
def ours(wing: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The drop-in, over one wing."""
    module = importlib.import_module("sockframe.drop_in.asyncio_streams")
    monkeypatch.setattr(module, "StreamBuffer", wing.StreamBuffer)
    return module


EAGER = ["asyncio, eager"] if sys.version_info >= (3, 12) else []


@pytest.fixture(params=["asyncio", "asyncio, debug", *EAGER, "uvloop"])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    """Each event loop in turn."""
    if request.param == "uvloop":
        try:
            made = importlib.import_module("uvloop").new_event_loop()
        except ImportError:
            lacking("uvloop", "pip install uvloop")
    else:
        made = asyncio.new_event_loop()
        made.set_debug("debug" in request.param)
        if "eager" in request.param:
            made.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined, unused-ignore]
    problems: list[Any] = []
    made.set_exception_handler(lambda _, context: problems.append(context))
    yield made
    made.run_until_complete(made.shutdown_asyncgens())
    made.close()
    assert problems == []


async def pair(module: Any, **options: Any) -> "tuple[Any, Any, socket.socket]":
    """Return (reader, writer) of a connection, and its other end."""
    one, other = socket.socketpair()
    one.setblocking(False)
    other.settimeout(20)
    reader, writer = await module.open_connection(sock=one, **options)
    return reader, writer, other


async def until(true: "Callable[[], object]") -> None:
    """Let the loop run until something is so."""
    for _ in range(2000):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to be so")


async def close(writer: Any, other: socket.socket) -> None:
    """Close a connection and its other end."""
    other.close()
    writer.close()
    await writer.wait_closed()
