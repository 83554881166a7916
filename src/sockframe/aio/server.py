"""Server: what serve() returns."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..errors import EndOfStream
from .stream import FramedStream

if TYPE_CHECKING:
    from typing_extensions import Self

Handler = Callable[[FramedStream], Awaitable[object]]


class Server:
    """A listener and the connections that came to it, like an `asyncio.Server`; serve() makes it.

    Leaving it as an async context manager ends it gracefully: it listens no more, every connection's stream ends
    behind the frames that have arrived, and the handlers come to their own end.
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._loop = asyncio.get_running_loop()
        self._server: Any = None
        self._tasks: dict[asyncio.Task[None], FramedStream] = {}
        self._closing = asyncio.Event()

    @property
    def sockets(self) -> tuple[Any, ...]:
        """The sockets that listen."""
        return tuple(self._server.sockets)

    @property
    def address(self) -> Any:
        """The address that it is bound to: (host, port), or a path; of several the first."""
        name = self._server.sockets[0].getsockname()
        return name[:2] if isinstance(name, tuple) else name

    @property
    def connections(self) -> int:
        """The number of connections that are open."""
        return len(self._tasks)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop."""
        return self._loop

    def is_serving(self) -> bool:
        """Say whether it takes connections."""
        return bool(self._server.is_serving())

    def close(self) -> None:
        """Listen no more; the connections stay."""
        self._closing.set()
        self._server.close()

    def close_clients(self) -> None:
        """End every connection's stream: its handler receives the frames that have arrived, and then the end."""
        for stream in tuple(self._tasks.values()):
            stream._stop()

    def abort_clients(self) -> None:
        """Cancel all handlers, and cut off their connections."""
        for task, stream in tuple(self._tasks.items()):
            stream.transport.abort()
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait until it listens no more, and all handlers have returned and their connections are closed."""
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))
        await self._server.wait_closed()

    async def serve_forever(self) -> None:
        """Serve until cancelled, or closed; then end gracefully."""
        async with self:
            await self._closing.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        self.close()
        self.close_clients()
        await self.wait_closed()

    # ---- connections ----

    def _listen(self, server: Any) -> None:
        self._server = server

    def _begin(self, stream: FramedStream) -> None:
        """Run the handler of a new connection."""
        task = self._loop.create_task(self._run(stream))
        if not task.done():
            self._tasks[task] = stream
            task.add_done_callback(self._tasks.pop)

    async def _run(self, stream: FramedStream) -> None:
        try:
            if self._closing.is_set():
                stream._stop()
            await self._handler(stream)
        except EndOfStream:
            pass
        except asyncio.CancelledError:
            stream.transport.abort()
            raise
        except Exception as error:
            self._loop.call_exception_handler({
                "message": "the handler of a connection has failed: the connection is closed",
                "exception": error, "transport": stream.transport})
        finally:
            stream.close()
        await stream._link.gone()
