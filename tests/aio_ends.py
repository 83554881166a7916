"""Event loops of every kind, and connections of every kind on them."""

from __future__ import annotations

import asyncio
import importlib
import socket
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from peers.programs import lacking
from scripted import LIMIT
from tls_pairs import contexts

from sockframe import LengthPrefix, aio

__all__ = ["contexts"]  # a fixture

FRAMING = LengthPrefix()
OVER = ["tcp", "unix", "tls"]
LOOPS = ["asyncio", "asyncio, debug", "uvloop"]
if sys.version_info >= (3, 12):
    LOOPS.append("asyncio, eager")  # which uvloop does not take

Run = Callable[..., Any]

#: Seconds after which a whole test hangs: one that calculates all the time, beside much else on the machine, does not.
PATIENCE = 6 * LIMIT


def new_loop(kind: str) -> asyncio.AbstractEventLoop:
    """Return an event loop of a kind."""
    if kind.startswith("uvloop"):
        try:
            uvloop = importlib.import_module("uvloop")
        except ImportError:
            lacking("uvloop", "pip install uvloop")
        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    else:
        loop = asyncio.SelectorEventLoop()
    loop.set_debug(kind.endswith("debug"))
    if kind.endswith("eager"):
        loop.set_task_factory(asyncio.eager_task_factory)
    return loop


class Runner:
    """Runs coroutines on a new event loop; `told` are the contexts that its exception handler was given."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.told: list[dict[str, Any]] = []

    def __call__(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any, limit: float = PATIENCE) -> Any:
        """Run a coroutine to its end, which must come, and leave no task behind."""
        loop = new_loop(self.kind)
        loop.slow_callback_duration = 1e9  # the machine may be slow; no test has a clock
        loop.set_exception_handler(lambda _, context: self.told.append(context))
        asyncio.set_event_loop(loop)
        try:
            return loop.run_until_complete(self._run(function, args, limit))
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            asyncio.set_event_loop(None)
            loop.close()

    @staticmethod
    async def _run(function: Callable[..., Coroutine[Any, Any, Any]], args: Any, limit: float) -> Any:
        task = asyncio.ensure_future(function(*args))
        await asyncio.wait([task], timeout=limit)
        hangs = not task.done()
        if hangs:
            task.cancel()
            await asyncio.wait([task])
        assert not hangs, f"still at work after {limit} s"
        result = task.result()
        await passes(3)
        assert asyncio.all_tasks() <= {asyncio.current_task()}, "tasks are left"
        return result


async def passes(count: int) -> None:
    """Let the event loop make some passes."""
    for _ in range(count):
        await asyncio.sleep(0)


async def in_thread(function: Callable[..., Any], *args: Any) -> Any:
    """Make a blocking call while the event loop goes on."""
    return await asyncio.get_running_loop().run_in_executor(None, function, *args)


async def to_end(sock: socket.socket) -> bytes:
    """Receive all until the end."""
    sock.settimeout(LIMIT)
    pieces: list[bytes] = []
    while data := await in_thread(sock.recv, 1 << 20):
        pieces.append(data)
    return b"".join(pieces)


async def until(condition: Callable[[], Any]) -> None:
    """Wait until something is so; the runner gives up in time."""
    while not condition():
        await asyncio.sleep(0.001)


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Iterator[Runner]:
    """Each kind of event loop in turn; what its exception handler is told must be taken off."""
    runner = Runner(request.param)
    yield runner
    assert runner.told == []


class Ends:
    """Makes connections of one wing's `FramedStream`s."""

    def __init__(self, wing: Any, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
        self.wing = wing
        self.contexts = contexts

    @staticmethod
    def on_arrival(stream: Any, call: Callable[[int], object] | None) -> None:
        """Call this in the place of what a stream does when bytes have arrived."""
        stream._link.arrived = stream._arrived if call is None else call

    @asynccontextmanager
    async def serving(self, handler: Any, framing: Any = FRAMING, over: str = "tcp",
                      **options: Any) -> AsyncIterator[Any]:
        """Serve; the server is given what `connected` needs."""
        with tempfile.TemporaryDirectory() as folder:
            address: Any = str(Path(folder, "s")) if over == "unix" else ("127.0.0.1", 0)
            tls = self.contexts[1] if over == "tls" else None
            async with await aio.serve(handler, address, framing, tls=tls, **options) as server:
                yield server

    async def connected(self, server: Any, framing: Any = FRAMING, over: str = "tcp", **options: Any) -> Any:
        """Return a client of a server."""
        if over == "tls":
            options.update(tls=self.contexts[0], server_hostname="localhost")
        return await aio.connect(server.address, framing, **options)

    @asynccontextmanager
    async def pair(self, framing: Any = FRAMING, over: str = "tcp", **limits: Any) -> AsyncIterator[tuple[Any, Any]]:
        """Connect two streams, client and server."""
        loop = asyncio.get_running_loop()
        came, done = loop.create_future(), loop.create_future()

        async def handler(stream: Any) -> None:
            came.set_result(stream)
            await done

        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(self.serving(handler, framing, over, **limits))
            client = await self.connected(server, framing, over, **limits)
            try:
                yield client, await came
            finally:
                client.close()
                done.set_result(None)

    @asynccontextmanager
    async def raw(self, framing: Any = FRAMING, sockets: Any = socket.socketpair,
                  **limits: Any) -> AsyncIterator[tuple[Any, Any]]:
        """Connect a stream with a socket, whose blocking calls must not have to wait."""
        left, right = sockets()
        with right:
            stream = await aio.attach(self.wing.FramedSocket(left, framing), **limits)
            try:
                yield stream, right
            finally:
                stream.transport.abort()
                stream.close()
                await stream.wait_closed()


@pytest.fixture
def ends(wing: Any, contexts: Any, monkeypatch: pytest.MonkeyPatch) -> Ends:
    """Both wings in turn."""
    for name in ("link", "stream", "opening"):
        module = importlib.import_module(f"sockframe.aio.{name}")
        for kind in ("AsyncFrames", "Decoder", "Encoder", "Connection"):
            if hasattr(module, kind):
                monkeypatch.setattr(module, kind, getattr(wing, kind))
    return Ends(wing, contexts)
