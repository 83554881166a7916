"""asyncio's streams, over sockframe's engine: `open_connection`, `start_server`, `StreamReader` and their kin.

Change the import and nothing else. The classes derive from asyncio's, so what `isinstance` says, the writer, flow
control and TLS are those of the Python that runs; reading is done here. A read whose bytes are here takes them by one
call of the engine. Bytes are received straight into its memory where the loop lets a protocol do so (asyncio does), and
a large `readexactly` is given the memory that they are in. Nothing is searched twice for a separator, also not by the
next call.

Beyond the originals: `StreamReader.readinto_exactly`, tuples of separators on every Python, and a `read()` to the end
that keeps its bytes when it is cancelled. Limits and sizes are in bytes.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from asyncio import IncompleteReadError, LimitOverrunError, StreamWriter, events
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, SupportsIndex

from .. import errors
from .._wing import StreamBuffer

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["StreamReader", "StreamReaderProtocol", "StreamWriter", "open_connection", "start_server"]

Connected = Callable[["StreamReader", StreamWriter], "Awaitable[None] | None"]

_DEFAULT_LIMIT = 65536  # asyncio's
_PIECE = 65536  # bytes asked of a receive, where they don't go straight into a reader's memory

# Up to 3.11 asyncio asks the caller by a warning for a loop: what finds the loop tells at which line.
_current_loop: Callable[..., asyncio.AbstractEventLoop] = getattr(events, "_get_event_loop", events.get_event_loop)
_HERE: dict[str, int] = {"stacklevel": 3} if sys.version_info < (3, 12) else {}


async def open_connection(host: str | None = None, port: int | str | None = None, *, limit: int = _DEFAULT_LIMIT,
                          **kwds: Any) -> tuple[StreamReader, StreamWriter]:
    """Connect and return (reader, writer), as `asyncio.open_connection` does; it takes the same arguments."""
    loop = asyncio.get_running_loop()
    reader = StreamReader(limit=limit, loop=loop)
    protocol = StreamReaderProtocol(reader, loop=loop)
    transport, _ = await loop.create_connection(lambda: protocol, host, port, **kwds)  # type: ignore[arg-type]
    return reader, StreamWriter(transport, protocol, reader, loop)


async def start_server(client_connected_cb: Connected, host: Any = None, port: int | str | None = None, *,
                       limit: int = _DEFAULT_LIMIT, **kwds: Any) -> asyncio.Server:
    """Serve each client by `client_connected_cb(reader, writer)`, as `asyncio.start_server` does.

    It takes the same arguments, and returns the same `asyncio.Server`.
    """
    loop = asyncio.get_running_loop()
    return await loop.create_server(_factory(client_connected_cb, limit, loop), host, port,  # type: ignore[arg-type]
                                    **kwds)


def _factory(client_connected_cb: Connected, limit: int,
             loop: asyncio.AbstractEventLoop) -> Callable[[], StreamReaderProtocol]:
    """Return what makes the protocol of each client."""
    return lambda: StreamReaderProtocol(StreamReader(limit=limit, loop=loop), client_connected_cb, loop=loop)


if hasattr(socket, "AF_UNIX"):
    __all__ += ["open_unix_connection", "start_unix_server"]

    async def open_unix_connection(path: Any = None, *, limit: int = _DEFAULT_LIMIT,
                                   **kwds: Any) -> tuple[StreamReader, StreamWriter]:
        """Do what `open_connection` does, over a Unix socket."""
        loop = asyncio.get_running_loop()
        reader = StreamReader(limit=limit, loop=loop)
        protocol = StreamReaderProtocol(reader, loop=loop)
        transport, _ = await loop.create_unix_connection(lambda: protocol, path, **kwds)
        return reader, StreamWriter(transport, protocol, reader, loop)

    async def start_unix_server(client_connected_cb: Connected, path: Any = None, *, limit: int = _DEFAULT_LIMIT,
                                **kwds: Any) -> asyncio.Server:
        """Do what `start_server` does, over a Unix socket."""
        loop = asyncio.get_running_loop()
        return await loop.create_unix_server(_factory(client_connected_cb, limit, loop), path, **kwds)


class StreamReaderProtocol(asyncio.StreamReaderProtocol, asyncio.BufferedProtocol):
    """Brings the bytes of a transport to a `StreamReader`: received into its memory, or by `data_received`.

    A subclass's `data_received`, and the `feed_data` of a reader of another class, get the bytes that they would get of
    asyncio's.
    """

    _direct = True
    _lent: bytearray | None = None
    _stream_reader: Any

    def __init_subclass__(cls, **kwds: Any) -> None:
        super().__init_subclass__(**kwds)
        cls._direct = cls.data_received is StreamReaderProtocol.data_received

    def __init__(self, stream_reader: asyncio.StreamReader | None, client_connected_cb: Connected | None = None,
                 loop: asyncio.AbstractEventLoop | None = None) -> None:
        super().__init__(stream_reader, client_connected_cb,  # type: ignore[arg-type]
                         loop=_current_loop(**_HERE) if loop is None else loop)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes go, as a `BufferedProtocol` does."""
        reader = self._stream_reader
        if self._direct and getattr(reader, "_direct", None) is True:
            view: memoryview = reader._store.get_buffer(sizehint)
            return view
        self._lent = bytearray(_PIECE)
        return memoryview(self._lent)

    def buffer_updated(self, nbytes: int) -> None:
        """Take the bytes that came."""
        if self._lent is not None:
            data = bytes(memoryview(self._lent)[:nbytes])
            self._lent = None
            self.data_received(data)
            return
        reader = self._stream_reader
        if reader is not None:
            assert not reader._eof, "feed_data after feed_eof"
            reader._store.buffer_updated(nbytes)
            reader._arrived()


class StreamReader(asyncio.StreamReader):
    """Reads a stream as asyncio's does, and faster.

    `limit` is how many bytes may come before a separator, and half of those that are held before the transport is told
    to pause.
    """

    _direct = True
    _expected = 0
    _loop: asyncio.AbstractEventLoop
    _eof: bool
    _paused: bool
    _exception: Exception | None
    _transport: Any
    _waiter: asyncio.Future[None] | None

    def __init_subclass__(cls, **kwds: Any) -> None:
        super().__init_subclass__(**kwds)
        cls._direct = cls.feed_data is StreamReader.feed_data

    def __init__(self, limit: int = _DEFAULT_LIMIT, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._store = StreamBuffer(_DEFAULT_LIMIT)
        super().__init__(limit, _current_loop(**_HERE) if loop is None else loop)

    @property
    def _limit(self) -> int:
        """The limit, which some programs set."""
        return self._given_limit

    @_limit.setter
    def _limit(self, limit: int) -> None:
        self._given_limit = limit
        self._store.limit = int(min(limit, sys.maxsize))  # may be infinite

    @property
    def _buffer(self) -> bytearray:
        """What is held, for programs that look at it, or clear it."""
        return _Held(self._store)

    @_buffer.setter
    def _buffer(self, data: Buffer) -> None:
        self._store.take_some(sys.maxsize)
        self._store.feed(data)

    # ---- what comes ----

    def set_exception(self, exc: Exception) -> None:
        """Have this read, and all others, raise `exc`."""
        self._store.guard = sys.maxsize
        super().set_exception(exc)

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        """Take bytes that came."""
        assert not self._eof, "feed_data after feed_eof"
        if data:
            if type(data) is not bytes:
                taken = bytearray()
                taken.extend(data)
                data = bytes(taken)
            self._store.feed(data)
            self._arrived()

    def feed_eof(self) -> None:
        """The stream has ended: reads give what is held, then `b""`."""
        self._store.buffer_updated(0)  # nothing more goes into memory that was lent
        super().feed_eof()

    def at_eof(self) -> bool:
        """Say whether the stream has ended and all of it was read."""
        return self._eof and not self._store.held

    def _arrived(self) -> None:
        """Wake who waits, unless more must come for that; where too much is here, have the transport pause."""
        store = self._store
        if self._waiter is not None:
            if store.missing:
                return
            self._wakeup_waiter()  # type: ignore[attr-defined]
        if store.held - self._expected > 2 * self._given_limit and not self._paused and self._transport is not None:
            try:
                self._transport.pause_reading()
            except NotImplementedError:
                self._transport = None  # it can't: all is held, and it is not asked again
            else:
                self._paused = True
                store.guard = max(store.guard, store.limit + 1)  # what leaves fewer must see to that

    def _go_on(self) -> None:
        """Have a paused transport go on."""
        self._paused = False
        self._store.guard = 0 if self._exception is None else sys.maxsize
        self._transport.resume_reading()

    def _maybe_resume_transport(self) -> None:
        """Have a paused transport go on, where few enough bytes are left."""
        if self._paused and self._store.held <= self._given_limit:
            self._go_on()

    async def _wait_for_data(self, func_name: str, expected: int = 0) -> None:
        """Wait for bytes, so many where they are to be taken at once, or the end; a paused transport goes on."""
        self._check_alone(func_name)
        assert not self._eof, "_wait_for_data after EOF"
        if self._paused:
            self._go_on()
        self._expected = expected
        self._store.expect(expected)
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
            self._expected = 0
            self._store.expect(0)

    def _check_alone(self, func_name: str) -> None:
        """Refuse a second read at a time."""
        if self._waiter is not None:
            raise RuntimeError(f"{func_name}() called while another coroutine is already waiting for incoming data")

    # ---- reading ----

    async def read(self, n: int = -1) -> bytes:
        """Return at most `n` bytes, as soon as there are any; all up to the end where `n` is negative."""
        if self._exception is not None:
            raise self._exception
        store = self._store
        if n < 0:
            while not self._eof:
                await self._wait_for_data("read", sys.maxsize)
            n = store.held
        elif n and not store.held and not self._eof:
            await self._wait_for_data("read")
        data = store.take_some(n)
        self._maybe_resume_transport()
        return data

    async def readexactly(self, n: int) -> bytes:
        """Return `n` bytes; `IncompleteReadError` with `partial`, where the stream ends before."""
        data = self._store.take(n)
        if data is not None:
            return data
        if n < 0:
            raise ValueError("readexactly size can not be less than zero")
        if self._exception is not None:
            raise self._exception
        if n == 0:
            return b""
        await self._wait_for(n)
        data = self._store.take_some(n)
        self._maybe_resume_transport()
        return data

    async def readinto_exactly(self, buffer: Buffer) -> int:
        """Fill a writable buffer and return its size; what comes is received straight into it.

        Raises `IncompleteReadError` with `partial`, where the stream ends before. Cancelled, it leaves the bytes to the
        next read. The buffer must be C-contiguous, and must not be used by others meanwhile.
        """
        store = self._store
        with memoryview(buffer) as given:
            if given.readonly:
                raise errors.read_only_error("buffer")
            if not given.c_contiguous:
                raise errors.not_contiguous_error("buffer")
            if self._exception is not None:
                raise self._exception
            size = given.nbytes
            if not size:
                return 0
            if store.held < size:
                self._check_alone("readinto_exactly")
            with given.cast("B") as view:
                try:
                    store.receive_into(view)
                    while store.missing:
                        if self._eof:
                            raise self._cut_off(size)
                        await self._wait_for_data("readinto_exactly")
                except BaseException:
                    self._give_back()
                    raise
                store.release_target()
        self._maybe_resume_transport()
        return size

    def _give_back(self) -> None:
        """Leave what went into a buffer to the next read; without memory for that the stream is lost."""
        try:
            self._store.give_back()
        except MemoryError as error:
            self._store.release_target()
            self.set_exception(error)

    async def _wait_for(self, n: int) -> None:
        """Wait until `n` bytes are here, or raise that they won't come."""
        while self._store.held < n:
            if self._eof:
                raise self._cut_off(n)
            await self._wait_for_data("readexactly", n)

    def _cut_off(self, expected: int | None) -> IncompleteReadError:
        """Take all bytes and return the error that they are too few."""
        self._store.give_back()
        return IncompleteReadError(self._store.take_some(sys.maxsize), expected)

    async def readuntil(self, separator: Any = b"\n") -> bytes:
        """Return the bytes up to a separator, and the separator.

        It may be a tuple of them: the one that ends first counts. Raises `IncompleteReadError` where the stream ends
        before, and `LimitOverrunError`, which leaves the bytes to be read, where more than the limit come before it.
        """
        data = self._store.take_through(separator)
        if data is not None:
            return data
        separators = _separators(separator)
        if self._exception is not None:
            raise self._exception
        store, longest = self._store, len(separators[-1])
        while (found := store.find(separators)) is None:
            searched = store.held + 1 - longest
            if searched > self._given_limit:
                raise LimitOverrunError("Separator is not found, and chunk exceed the limit", searched)
            if self._eof:
                raise self._cut_off(None)
            await self._wait_for_data("readuntil")
        start, stop = found
        if start > self._given_limit:
            raise LimitOverrunError("Separator is found, but chunk is longer than limit", start)
        data = store.take_some(stop)
        self._maybe_resume_transport()
        return data

    async def readline(self) -> bytes:
        """Return the next line with its `b"\\n"`, which is missing at most from the last; `b""` at the end.

        Raises `ValueError` where the line is longer than the limit, and drops it, or what is held of it.
        """
        line = self._store.take_through(b"\n")
        if line is not None:
            return line
        try:
            return await self.readuntil(b"\n")
        except IncompleteReadError as error:
            return error.partial
        except LimitOverrunError as error:
            found = self._store.find((b"\n",))
            self._store.take_some(found[1] if found is not None else sys.maxsize)
            self._maybe_resume_transport()
            raise ValueError(error.args[0])  # noqa: B904 (as asyncio raises it)

    async def __anext__(self) -> bytes:
        line = self._store.take_through(b"\n")
        if line is None:
            line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    def __repr__(self) -> str:
        info = ["StreamReader"]
        if self._store.held:
            info.append(f"{self._store.held} bytes")
        if self._eof:
            info.append("eof")
        if self._given_limit != _DEFAULT_LIMIT:
            info.append(f"limit={self._given_limit}")
        info += [f"{name}={value!r}" for name, value in (("waiter", self._waiter), ("exception", self._exception),
                                                        ("transport", self._transport)) if value]
        if self._paused:
            info.append("paused")
        return f"<{' '.join(info)}>"


class _Held(bytearray):
    """A copy of what a reader holds, which clears that, too."""

    def __init__(self, store: StreamBuffer) -> None:
        held = store.take_some(sys.maxsize)
        store.feed(held)
        super().__init__(held)
        self._store = store

    def clear(self) -> None:
        super().clear()
        self._store.take_some(sys.maxsize)


def _separators(separator: Any) -> tuple[bytes, ...]:
    """Return the separators as bytes, the shortest first."""
    given = sorted(separator, key=len) if isinstance(separator, tuple) else [separator]
    if not given:
        raise ValueError("Separator should contain at least one element")
    if not len(given[0]):
        raise ValueError("Separator should be at least one-byte string")
    return tuple(bytes(memoryview(one)) for one in given)
