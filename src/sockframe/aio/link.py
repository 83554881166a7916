"""Link: what every connection of an event loop has, whether a FramedStream or a FrameProtocol is on top."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from .. import errors
from .._wing import Decoder, Encoder
from ..framings import Framing
from ..transport import DONTWAIT

if TYPE_CHECKING:
    from typing_extensions import Buffer

READ_LIMIT = 256 * 1024  # bytes held for a consumer that does not ask, above which no more are read
WRITE_LIMIT = 64 * 1024  # bytes that a transport holds for a slow peer, above which sends wait
GATHER = 65536           # bytes of frames that go to the transport as one
LARGE = 16384            # bytes of frames that are worth no copy to go with others
BATCH = 1024             # payloads pulled from an iterator at a time
ROOM = 65536             # bytes lent to a read
RECORD = 16384           # bytes of payload in one record of TLS (RFC 8446, section 5.1)


class Link(asyncio.BufferedProtocol):
    """A connection's transport, its codec, and what is yet to be sent.

    Frames that are sent while others are in the pass of the loop go to the transport together at its end: a system
    call costs as much as twenty frames. The first goes at once, but where received frames wait to be answered.
    """

    def __init__(self, framing: Framing, read_limit: int = READ_LIMIT, write_limit: int = WRITE_LIMIT) -> None:
        for name, value in (("read_limit", read_limit), ("write_limit", write_limit)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an int, not {type(value).__name__}")
            if value < 1:
                raise ValueError(f"{name} must be 1 or more, not {value}")
        self.decoder = Decoder(framing)
        self.loop = asyncio.get_running_loop()
        self.transport: Any = None
        self.tls: Any = None         # the ssl_object
        self.read_limit = read_limit
        self.write_limit = write_limit
        self.full = False            # the transport holds more than the limit
        self.wary = False            # there may be nobody to send to
        self.deaf = False            # what is received is of no use to anybody
        self.parting = False         # it is being closed
        self.ended = False           # the peer has,
        self.ragged = False          # or its TLS has, without saying so,
        self._cut: Exception | None = None  # in what only the end would make a frame
        self.lost = False            # the connection is,
        self.failure: BaseException | None = None  # by this
        self._lent: memoryview | None = None       # room for a read that is more than the decoder lends
        self._out: list[bytes] = []  # frames that are to go together,
        self._size = 0               # and their bytes
        self._warm = False           # a frame was sent in this pass of the loop
        self._due = False            # and they go at its end
        self._writers: list[Any] = []  # futures of those that wait for room,
        self._mourners: list[Any] = []  # and of those that wait until the connection is gone
        self._write_framing(framing)

    def _write_framing(self, framing: Framing) -> None:
        self.encoder = Encoder(framing)
        self._lasts = may_last(framing)
        self._last = False           # what was sent lasts until the stream ends

    # ---- what a transport calls ----

    def connection_made(self, transport: Any) -> None:
        """The connection is there."""
        self.transport = transport
        self.tls = transport.get_extra_info("ssl_object")
        transport.set_write_buffer_limits(self.write_limit)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Lend room for the next bytes of the stream: never none."""
        if self.deaf:
            return memoryview(bytearray(ROOM))
        if sizehint > ROOM and self.tls is not None:
            # Of what TLS can't put here at once, asyncio loses what is left where the peer's stream has ended.
            self._lent = memoryview(bytearray(sizehint + RECORD))
            return self._lent
        try:
            return self.decoder.get_buffer(ROOM)
        except errors.FramingError:
            self.deaf = True  # nothing behind a fault is of use
            self.loop.call_soon(self._hush)  # at once, uvloop would crash
            return memoryview(bytearray(ROOM))

    def took(self, count: int) -> bool:
        """Hold the bytes that were put into what get_buffer() lent; False where they are of no use."""
        if self.deaf:
            return False
        lent, self._lent = self._lent, None
        if lent is not None:
            self.feed(lent[:count])
        else:
            self.decoder.buffer_updated(count)
        return True

    def feed(self, data: Buffer) -> None:
        """Hold bytes that came in another way."""
        try:
            self.decoder.feed(data)
        except errors.FramingError:
            self.stop_reading()

    def eof_received(self) -> bool:
        """The peer has ended its half; ours stays open, but for TLS, where transports don't have that."""
        if not self.deaf:
            self.ragged = self.tls is not None and not self.drain_tls()
            self.ended = True
        self.wary |= self.tls is not None
        return self.tls is None

    def pause_writing(self) -> None:
        """The transport holds more than the limit."""
        self.full = True

    def resume_writing(self) -> None:
        """The transport has room."""
        self.full = False
        wake(self._writers)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone; what had arrived can still be received."""
        if self.lost:
            return
        if not self.deaf and not self.ended:
            if self.tls is not None:
                self.ragged = not self.drain_tls()
                self.ended = exc is None or not self.ragged
            elif exc is not None:
                self.drain_socket()
        self.lost = self.wary = True
        self.failure = exc
        self._out.clear()
        self._size = 0
        wake(self._writers)
        wake(self._mourners)

    # ---- receiving ----

    def stop_reading(self) -> None:
        """What is received from now on is of no use."""
        self.deaf = True
        self._hush()

    def _hush(self) -> None:
        if not self.parting:  # in which TLS has to hear of the peer's end
            self.transport.pause_reading()

    def drain_tls(self) -> bool:
        """Hold what TLS has decrypted, or can; say whether the peer's TLS has ended, and its end is no accident."""
        import ssl

        try:
            while data := self.tls.read(ROOM):
                self.feed(data)
        except ssl.SSLZeroReturnError:
            return True
        except (OSError, ValueError):
            return False
        return True

    def drain_socket(self) -> None:
        """Hold what has arrived at a socket that failed to send: a transport gives it up unread."""
        with suppress(OSError, AttributeError):
            number = self.transport.get_extra_info("socket").fileno()
            with socket.socket(fileno=os.dup(number)) as sock:
                # An end behind an error is none: the error was told and is forgotten.
                while self.decoder.buffered <= self.read_limit + ROOM and (data := sock.recv(ROOM, DONTWAIT)):
                    self.feed(data)

    def finish(self) -> list[bytes]:
        """Return the frames that the stream's end makes, or raise that one is cut off: also one that this end alone
        would make, where TLS has not said that it is one."""
        if self._cut is not None:
            raise self._cut.with_traceback(None)
        held, position = self.decoder.buffered, self.decoder.position
        frames = self.decoder.finish()
        if frames and self.ragged:
            self._cut = errors.incomplete_error(frames[-1][:errors.CONTEXT], held, 1, position)
            raise self._cut
        return frames

    def part(self) -> None:
        """Close the transport, behind what was sent."""
        self.deaf = self.wary = self.parting = True
        if not self.lost:
            self.flush()
            if self.tls is not None:
                self.transport.resume_reading()
            self.transport.close()

    # ---- sending ----

    def encode(self, payload: Buffer) -> bytes:
        """Return a payload's frame; where it lasts until the stream ends, it is the last one."""
        if not self._lasts:
            return self.encoder.encode(payload)
        return self.encode_many([payload])

    def encode_many(self, payloads: list[Buffer] | tuple[Buffer, ...]) -> bytes:
        """Return the frames of several payloads, of which all are good."""
        if not self._lasts or not payloads:
            return self.encoder.encode_many(payloads)
        if self._last:
            raise errors.wrap_error(errors.Fault.WRAP_LAST, 0, 0)
        frames = self.encoder.encode_many(payloads)
        try:
            self.encoder.encode_many((payloads[-1], payloads[-1]))
        except ValueError:
            self._last = True
        return frames

    def put(self, frames: bytes) -> None:
        """Send frames: at once, or together with what is sent in the same pass of the loop."""
        if len(frames) >= LARGE:
            self.flush()
            self.transport.write(frames)
        elif not self._warm and not self.decoder.buffered:
            self._warm = True
            self.transport.write(frames)
        else:
            self._warm = True
            self._out.append(frames)
            self._size += len(frames)
            if self._size >= GATHER:
                self.flush()
            elif not self._due:
                self._due = True
                self.loop.call_soon(self._flush_due)

    def flush(self) -> None:
        """Give the transport what is to go together."""
        self._warm = False
        if self._out:
            frames = b"".join(self._out)
            self._out.clear()
            self._size = 0
            self.transport.write(frames)

    def _flush_due(self) -> None:
        self._due = False
        if not self.lost:
            self.flush()

    @property
    def unsent(self) -> int:
        """The number of bytes that are not yet the kernel's, nor TLS's."""
        held = 0 if self.lost or self.transport is None else self.transport.get_write_buffer_size()
        return self._size + int(held)

    async def wait_for(self, waiting: list[Any]) -> None:
        """Wait until those of a list are woken."""
        waiter = self.loop.create_future()
        waiting.append(waiter)
        try:
            await waiter
        finally:
            with suppress(ValueError):
                waiting.remove(waiter)

    async def room(self) -> None:
        """Wait while the transport holds more than its limit."""
        while self.full and not self.lost:
            await self.wait_for(self._writers)

    async def gone(self) -> None:
        """Wait until the connection is gone."""
        while not self.lost:
            await self.wait_for(self._mourners)

    async def emptied(self) -> None:
        """Wait until the transport holds nothing."""
        self.flush()
        while self.transport.get_write_buffer_size() and not self.lost:
            self.transport.set_write_buffer_limits(0)  # to be told
            try:
                await self.wait_for(self._writers)
            finally:
                if not self.lost:
                    self.transport.set_write_buffer_limits(self.write_limit)


def wake(waiters: list[Any]) -> None:
    """Let all go on that wait."""
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
    waiters.clear()


def may_last(framing: Framing) -> bool:
    """Say whether a payload may last until the stream ends, so that none can follow."""
    spec = framing.spec()
    return spec.kind == "until_close" or any(map(may_last, spec.children))


def batches(payloads: Iterable[Buffer]) -> Iterable[list[Buffer]]:
    """Pull an iterable a bounded number of payloads, and about GATHER bytes, at a time."""
    source = iter(payloads)
    while True:
        batch, size = [], 0
        for payload in islice(source, BATCH):
            batch.append(payload)
            size += len(payload) if isinstance(payload, (bytes, bytearray)) else memoryview(payload).nbytes
            if size >= GATHER:
                break
        if not batch:
            return
        yield batch


def connection_error(failure: BaseException | None) -> ConnectionError:
    """Make the error of a connection that was lost."""
    if isinstance(failure, ConnectionError):
        return failure.with_traceback(None)
    error = ConnectionResetError(errno.ECONNRESET, "the connection was lost")
    error.__cause__ = failure
    return error
