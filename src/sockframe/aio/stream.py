"""FramedStream: whole frames over a connection of an event loop."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from asyncio import get_running_loop
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from itertools import islice
from operator import index
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from .. import errors
from .._wing import AsyncFrames, Decoder, Encoder, FrameBatch
from ..errors import EndOfStream
from ..framings import UNLIMITED, Framing, LengthPrefix
from ..sockets import check_context
from .link import Link, batches, connection_error, wake

if TYPE_CHECKING:
    import ssl

    from typing_extensions import Buffer, Self


class StreamLink(Link):
    """The end of a connection that a FramedStream is on top of."""

    def __init__(self, framing: Framing, read_limit: int, write_limit: int,
                 begin: Callable[[FramedStream], object] | None = None) -> None:
        super().__init__(framing, read_limit, write_limit)
        self.begin = begin
        self.stream = FramedStream(self, framing)
        self.arrived = self.stream._arrived

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if self.begin is not None:
            begin, self.begin = self.begin, None
            begin(self.stream)

    def buffer_updated(self, nbytes: int) -> None:
        if self.took(nbytes):
            self.arrived(nbytes)

    def eof_received(self) -> bool:
        stays = super().eof_received()
        self.stream._wake()
        return stays

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.stream._wake()


class FramedStream:
    """Sends and receives whole frames over a connection of an event loop; `connect` and `serve` make it.

    It behaves as `FramedSocket` does, and raises what that raises; for deadlines there are `asyncio.timeout` and
    `asyncio.wait_for`. A call that is cancelled, at any time, has lost nothing: a receive leaves the frame to the
    next one, and a send either has been taken as a whole or has not begun. A frame that is here already is received
    without a pass of the event loop. One task receives at a time: a second one gets a `RuntimeError`, and so does
    every call from another loop or thread. Any number of tasks may send.

    While nobody receives, no more than `read_limit` bytes and one read are held, and the peer has to wait, until all
    frames that are here are received. While the transport holds more than `write_limit` bytes for a peer that does
    not read, sends wait.
    """

    __slots__ = ("__weakref__", "_borrowed", "_closed", "_decoder", "_frames", "_framing", "_given_up", "_link",
                 "_loop", "_missing", "_paused", "_ready", "_rest", "_stopped", "_turning", "_waiter", "_written")

    def __init__(self, link: StreamLink, framing: Framing) -> None:
        self._link = link
        self._loop = link.loop
        self._decoder = link.decoder
        self._framing = framing
        self._waiter: Any = None     # the future of the task that receives
        self._missing = 0            # bytes without which it need not look again
        self._rest: list[bytes] = []  # frames that were found and not yet delivered
        self._borrowed = False       # the decoder reads by another framing, for one frame
        self._paused = False         # reading is, by ourselves
        self._stopped = False        # and for good: the server ends
        self._turning = False        # TLS is being begun, or the connection given up
        self._closed = False
        self._given_up = False       # the connection is another's
        self._written = False        # our half has ended
        self._frames = AsyncFrames(self._wait_next)
        self._set_ready()

    # ---- what it is ----

    @property
    def framing(self) -> Framing:
        """The framing. Setting it reads all bytes not yet delivered as frames by the new one."""
        return self._framing

    @framing.setter
    def framing(self, framing: Framing) -> None:
        self._check_open()
        self._decoder.framing = framing
        self._link._write_framing(framing)
        self._framing = framing
        self._borrowed = False
        self._set_ready()
        self._wake()

    @property
    def transport(self) -> Any:
        """The `asyncio.Transport`; `transport.abort()` closes without waiting for what is unsent."""
        return self._link.transport

    @property
    def unsent(self) -> int:
        """The number of bytes of frames sent that are not yet the kernel's, nor TLS's."""
        return self._link.unsent

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the transport knows: "peername", "socket", "ssl_object" and the like."""
        return self._link.transport.get_extra_info(name, default)

    def is_closing(self) -> bool:
        """Say whether it is closed, or is being closed."""
        return self._closed or self._link.lost or bool(self._link.transport.is_closing())

    def pending(self) -> int:
        """Return the number of bytes that are here and not yet delivered."""
        return self._decoder.buffered + sum(map(len, self._rest))

    # ---- receiving ----

    async def recv(self, framing: Framing | None = None) -> bytes:
        """Return the next payload, as bytes; with `framing`, this one frame is read by it.

        Raises `EndOfStream` at a clean end, `IncompleteFrameError` where the stream ends inside a frame, and where
        the connection was lost, behind the frames that had arrived, `ConnectionError`.
        """
        if get_running_loop() is not self._loop:
            raise errors.wrong_loop_error(self)
        if framing is None and (ready := self._ready) is not None and (frame := ready.next_frame()) is not None:
            return frame
        found: bytes = await self._receive(self._take_one, framing)
        return found

    async def recv_many(self, limit: int | None = None) -> list[bytes]:
        """Wait for one frame at least and return the payloads of all that are here, as a list of bytes.

        There are at most `limit`; unless it is given, what is held bounds them, see `read_limit`. Raises what recv()
        raises.
        """
        most = None if limit is None else index(limit)
        if most is not None and most < 1:
            raise errors.limit_error(most)
        frames: list[bytes] = await self._receive(lambda: self._take_many(most))
        return frames

    async def recv_batch(self) -> FrameBatch:
        """Wait for one frame at least and return all that are here, as a `FrameBatch`. Raises what recv() raises."""
        batch: FrameBatch = await self._receive(self._take_batch)
        return batch

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._check_loop()
        return self._frames

    def __anext__(self) -> Coroutine[Any, Any, bytes]:
        return self._frames.__anext__()

    # ---- sending ----

    async def send(self, payload: Buffer) -> None:
        """Send one payload as a frame.

        A payload that could not be received as the same bytes raises `ValueError`, and nothing is sent. While the
        transport holds more than `write_limit` bytes, it waits; cancelled in that, it has sent nothing. That it
        returns says that the frame is on its way, at the end of this pass of the event loop at the latest. Raises
        `ConnectionError` where the connection was lost, or our half of it has ended.
        """
        link = self._link
        if get_running_loop() is not self._loop or link.full or link.wary:
            await self._room()
        link.put(link.encode(payload))

    async def send_many(self, payloads: Iterable[Buffer]) -> None:
        """Send the payloads of an iterable as frames.

        Of a list or tuple all are checked first, and where one is bad none is sent; it is sent as a whole or, where
        it raises, not at all. Any other iterable is pulled a bounded batch at a time, as the peer takes them, each
        checked and sent as one.
        """
        link = self._link
        if isinstance(payloads, (list, tuple)):
            await self._room()
            link.put(link.encode_many(payloads))
            return
        self._check_loop()
        for batch in batches(payloads):
            await self._room()
            link.put(link.encode_many(batch))

    async def drain(self) -> None:
        """Give what was sent to the transport, and wait while it holds more than `write_limit` bytes."""
        self._check_alive()
        self._link.flush()
        while self._link.full:
            await self._link.room()
            self._check_alive()

    def write_eof(self) -> None:
        """End our half of the connection, behind all that was sent; the peer's stays open.

        Raises `OSError` (EOPNOTSUPP) under TLS, where an event loop's transports can't.
        """
        self._check_sending()
        link = self._link
        if not link.transport.can_write_eof():
            raise errors.no_write_eof_error()
        link.flush()
        self._written = link.wary = True
        link.transport.write_eof()

    # ---- the connection ----

    def close(self) -> None:
        """Close the connection, once what was sent is the kernel's; a task that waits in a receive ends with `OSError`
        (EBADF)."""
        if self._closed:
            return
        if self._loop.is_closed():
            self._closed = True
            return
        self._check_thread()
        link = self._link
        self._closed = True
        link.part()
        self._forget()
        wake(link._writers)

    async def wait_closed(self) -> None:
        """Wait until the connection is closed: what was sent is the kernel's, or can't be sent.

        Raises `ConnectionError` where it could not.
        """
        self._check_loop()
        link = self._link
        lost = link.lost
        await link.gone()
        if link.failure is not None and not lost and self._closed and not self._given_up:
            raise connection_error(link.failure)

    async def start_tls(self, context: ssl.SSLContext, leftover: str = "error", *, server_side: bool = False,
                        server_hostname: str | None = None, **options: Any) -> int:
        """Go on under TLS (RFC 8446), from here in the stream: STARTTLS.

        What was sent goes first; then the handshake is done. `context` is an `ssl.SSLContext`; a client gives the
        `server_hostname` that the server's certificate must name. `leftover` says what becomes of bytes that were
        received already: with "error" they are a `FramingError`, and nothing has changed; "carry" takes them for the
        beginning of the peer's TLS; "discard" drops them (RFC 3207, section 6). Returns how many were carried or
        discarded, in bytes. What the handshake raises, and being cancelled in it, closes the connection. `options`
        are those of `loop.start_tls`.
        """
        self._check_alive()
        check_context(context)
        link, decoder = self._link, self._decoder
        if leftover not in ("error", "carry", "discard"):
            raise ValueError(f'leftover must be "error", "carry" or "discard", not {leftover!r}')
        if link.tls is not None:
            raise errors.tls_twice_error()
        if context.check_hostname and not server_side and not server_hostname:
            raise ValueError("server_hostname is needed: the context checks the server's name")
        self._begin_turn()
        try:
            decoder.feed(b"")  # there may be a fault
            if link.ended:
                raise errors.end_of_stream(decoder.position)
            held = decoder.buffered
            if self._rest or (leftover == "error" and (held or decoder._midway())):
                raise errors.leftover_error(held)
        except BaseException:
            self._end_turn()
            raise
        link.flush()
        received = decoder.take_buffered()
        plain = link.transport
        # Not by a loop's factory, which may make eager ones: what is carried is given to TLS after its first step.
        beginning: Any = asyncio.Task(self._loop.start_tls(
            plain, link, context, server_side=server_side, server_hostname=server_hostname, **options),
            loop=self._loop)
        if leftover == "carry" and received:
            self._loop.call_soon(self._loop.call_soon, carry, plain, received)
        try:
            link.transport = await beginning
        except BaseException as error:
            plain.abort()
            link.connection_lost(error if isinstance(error, Exception) else None)
            self.close()
            raise
        finally:
            self._end_turn()
        link.connection_made(link.transport)
        self._arrived(0)
        return held

    async def detach(self) -> tuple[socket.socket, bytes]:
        """Give up the connection: return its socket, and the bytes received that are not yet delivered as frames.

        What was sent goes first. The socket is a new one, blocking, over the same connection: a transport does not
        give up its own, but closes it. `FramedSocket(sock, framing, received=leftover)` goes on with it. Raises
        `ValueError` under TLS, which a transport keeps to itself, and `FramingError` inside an overlong frame that is
        passed over.
        """
        self._check_alive()
        link = self._link
        if link.tls is not None:
            raise errors.no_handover_error()
        self._begin_turn()
        try:
            await link.emptied()
            if self._closed or link.lost:
                raise errors.closed_error() if self._closed else connection_error(link.failure)
            if self._decoder._midway():
                raise errors.midway_error(self._decoder.position)
            sock = socket.socket(fileno=os.dup(link.transport.get_extra_info("socket").fileno()))
            try:
                leftover = b"".join((*self._rest, self._decoder.take_buffered()))
            except BaseException:
                sock.close()
                raise
        finally:
            self._end_turn()
        self._closed = self._given_up = link.deaf = link.wary = True
        link.transport.abort()
        self._forget()
        sock.setblocking(True)
        return sock, leftover

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        self.close()
        try:
            await self.wait_closed()
        except ConnectionError:
            if error is None:
                raise

    def __reduce__(self) -> NoReturn:
        raise errors.no_copy_error(self)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "lost" if self._link.lost else repr(self._link.transport)
        return f"<{type(self).__name__} {state}>"

    # ---- who may call ----

    def _check_loop(self) -> None:
        """Refuse a call from another loop, or from none."""
        if get_running_loop() is not self._loop:
            raise errors.wrong_loop_error(self)

    def _check_thread(self) -> None:
        """Refuse a call from another thread while the loop runs."""
        running = asyncio._get_running_loop()
        if running is not self._loop and (running is not None or self._loop.is_running()):
            raise errors.wrong_loop_error(self)

    def _check_open(self) -> None:
        """Refuse a call on a closed stream, or in the midst of its change of hands."""
        if self._closed:
            raise errors.closed_error()
        if self._turning:
            raise errors.reentry_error(type(self).__name__)

    def _check_alive(self) -> None:
        """Refuse a call from elsewhere, when closed, or when there is no peer."""
        self._check_loop()
        self._check_open()
        link = self._link
        if link.lost or (link.ended and link.tls is not None):
            raise connection_error(link.failure)

    def _check_sending(self) -> None:
        """Refuse to send likewise, and behind our end."""
        self._check_alive()
        if self._written:
            raise errors.os_error(errno.EPIPE)

    def _begin_turn(self) -> None:
        """Let nobody else receive or send, while the connection changes hands."""
        if self._waiter is not None:
            raise errors.concurrent_error(self)
        self._turning = self._link.wary = True
        if self._borrowed:
            self._decoder.framing = self._framing
            self._borrowed = False
        self._set_ready()
        self._link.transport.pause_reading()

    def _end_turn(self) -> None:
        """Let others on again."""
        link = self._link
        self._turning = False
        link.wary = self._closed or self._written or link.lost
        self._set_ready()
        if not link.lost and not link.deaf and not self._paused:
            link.transport.resume_reading()

    # ---- what receiving is made of ----

    def _set_ready(self) -> None:
        """Say where the next frame may be taken at once, if anywhere."""
        slow = self._closed or self._turning or self._borrowed or self._rest or self._waiter is not None
        self._ready = self._frames.ready = None if slow else self._decoder

    async def _receive(self, take: Callable[[], Any], framing: Framing | None = None) -> Any:
        """Return what `take` finds, once it finds something."""
        self._check_loop()
        while True:
            self._check_open()
            if self._waiter is not None:
                raise errors.concurrent_error(self)
            if self._borrowed or framing is not None:
                self._decoder.framing = framing or self._framing
                self._borrowed = framing is not None
                self._set_ready()
            found = take()
            if found:
                if self._paused:
                    self._resume()
                return found[0] if type(found) is tuple else found
            if self._link.ended or self._link.lost:
                self._end()
            else:
                await self._wait()

    def _take_one(self) -> tuple[bytes] | None:
        """Take one frame."""
        if self._rest:
            frame: bytes | None = self._rest.pop(0)
            self._set_ready()
        else:
            frame = self._decoder.next_frame()
            if frame is not None and self._borrowed:
                self._decoder.framing = self._framing
                self._borrowed = False
                self._set_ready()
        return None if frame is None else (frame,)

    def _take_many(self, limit: int | None) -> list[bytes]:
        """Take at most `limit` frames, or all."""
        if self._rest:
            count = len(self._rest) if limit is None else limit
            frames, self._rest = self._rest[:count], self._rest[count:]
            self._set_ready()
            return frames
        if limit is None:
            return self._decoder.decode(b"")
        frames = []
        try:
            frames.extend(islice(self._decoder, limit))
        except errors.FramingError:
            if not frames:
                raise
        except BaseException:
            self._rest = frames
            self._set_ready()
            raise
        return frames

    def _take_batch(self) -> FrameBatch | None:
        """Take all frames as a batch."""
        if self._rest:
            framing = LengthPrefix(8, max_length=UNLIMITED)
            batch = Decoder(framing).decode_batch(Encoder(framing).encode_many(self._rest))
            self._rest = []
            self._set_ready()
            return batch
        batch = self._decoder.next_batch()
        return batch if len(batch) else None

    def _end(self) -> None:
        """The stream has ended: keep the frames that this makes, or raise how it has ended."""
        link, decoder = self._link, self._decoder
        if self._stopped:
            raise errors.end_of_stream(decoder.position)
        if not link.ended:
            failure = link.failure
            if isinstance(failure, OSError) and not isinstance(failure, TimeoutError):
                raise failure.with_traceback(None)
            raise connection_error(failure)
        self._rest = link.finish()
        self._set_ready()
        if not self._rest:
            raise errors.end_of_stream(decoder.position)

    async def _wait_next(self) -> bytes:
        """Return the next frame, for `async for`."""
        try:
            found: bytes = await self._receive(self._take_one)
            return found
        except EndOfStream:
            raise StopAsyncIteration from None

    async def _wait(self) -> None:
        """Wait until there may be a frame."""
        self._link.flush()
        self._missing = self._decoder.need
        if self._paused:
            self._resume(True)
        self._waiter = self._loop.create_future()
        self._ready = self._frames.ready = None
        try:
            await self._waiter
        finally:
            self._waiter = None
            self._set_ready()

    def _wake(self) -> None:
        """Let the task that waits look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _arrived(self, count: int) -> None:
        """So many bytes have."""
        if self._waiter is not None and not self._waiter.done():
            self._missing -= count
            if self._missing <= 0:
                self._waiter.set_result(None)
        elif not self._paused and not self._turning and self._decoder.buffered > self._link.read_limit:
            self._paused = True
            self._link.transport.pause_reading()

    def _resume(self, wanted: bool = False) -> None:
        """Read on, where more are wanted, or so few are held that more may come."""
        link = self._link
        if not link.deaf and (wanted or self._decoder.buffered <= link.read_limit // 2):
            self._paused = False
            if not link.lost:
                link.transport.resume_reading()

    def _stop(self) -> None:
        """Receive no more than what is here, and then the end: the server's."""
        link = self._link
        if not self._closed and not link.lost:
            self._stopped = link.ended = True
            link.stop_reading()
            self._wake()

    def _forget(self) -> None:
        """Hold nothing that was received."""
        self._rest = []
        self._decoder = self._link.decoder = Decoder(self._framing)
        self._set_ready()
        self._wake()

    # ---- what sending is made of ----

    async def _room(self) -> None:
        """Wait until there is room, and somebody to send to."""
        self._check_sending()
        while self._link.full:
            await self._link.room()
            self._check_sending()


def carry(transport: Any, data: bytes) -> None:
    """Give TLS the beginning of the peer's: bytes that were received in the clear."""
    protocol = transport.get_protocol()
    while data and protocol is not None:
        room = protocol.get_buffer(len(data))
        count = min(len(room), len(data))
        room[:count] = data[:count]
        data = data[count:]
        protocol.buffer_updated(count)
