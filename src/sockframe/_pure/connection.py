"""Connection: whole frames over a stream socket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import index
from typing import TYPE_CHECKING, Any

from .. import errors, transport
from ..framings import Framing
from ..polling import POLLIN
from ..transport import DONTWAIT, NEVER, UNSET
from .batch import FrameBatch, new_batch
from .codec import Decoder, compiled, hold, hold_writable
from .kinds import FAULT, FRAME, LONG, NEED, Kind, Scan
from .sender import Sender

if TYPE_CHECKING:
    from typing_extensions import Buffer

RECEIVE = 65536  # bytes asked of a receive
MANY = 1 << 20   # bytes of frames that recv_many() returns, about


class Connection(Sender):
    """Sends and receives whole frames over a connected stream socket: `Connection(sock, framing, received=b"")`.

    `received` are bytes of the stream that were received already, such as what detach() returned.

    One reader and one writer at a time may be at work; other threads wait their turn, which counts
    against their deadlines. `timeout` is in seconds and for the whole call; None waits for ever, 0 does
    not wait; without it, the socket's own timeout is taken. What a timeout, a signal handler or a
    full socket interrupts goes on with the next call: nothing is lost.

    Greenlets take turns as threads do, where gevent has patched the socket. After os.fork() both processes
    have the one stream, as with any socket: one uses it, the other closes it, which does not shut it down.
    Where another thread was receiving at that moment, the child can't receive, and so for sending: its
    calls raise `OSError` (EDEADLK). Of what a subclass overrides, no other method makes use. Where a socket's
    own recv() or send() is in Python, as that of TLS, a handler that raises inside it hides what it had done.
    """

    __slots__ = ("_decoder", "_inbox", "_rest")

    def __init__(self, sock: Any, framing: Framing, *, received: Buffer = b"") -> None:
        kind = compiled(framing)
        transport.refuse_unfit(sock)
        methods = transport.serving(sock)
        decoder = Decoder(framing)
        before = hold(received, "data")
        if before:  # or the decoder would hold something
            decoder.feed(before)
        del decoder._idle  # it is the turn to read that it is for one at a time
        if hasattr(self, "_kind"):
            raise errors.reentry_error(type(self).__name__)
        self._kind = kind
        self._decoder = decoder
        self._rest: list[bytes] | None = None  # frames that the end of the stream made
        self._inbox: list[Any] | None = None   # bytes received that are not yet held, see _absorb
        self._take_socket(sock, methods)

    @property
    def framing(self) -> Framing:
        """The framing. Setting it reads all bytes not yet delivered as frames by the new one."""
        if not hasattr(self, "_kind"):
            raise errors.closed_error()
        return self._kind.framing

    @framing.setter
    def framing(self, framing: Framing) -> None:
        self._check_open()
        self._kind = compiled(framing)

    def recv(self, framing: Framing | None = None, *, timeout: float | None = UNSET) -> bytes:
        """Return the next payload, as bytes; with `framing`, this one frame is read by it.

        Raises `EndOfStream` at a clean end, `IncompleteFrameError` where the stream ends inside a
        frame, `TimeoutError` or, on a non-blocking socket, `BlockingIOError` where no whole frame came.
        """
        self._check_open()
        kind = self._kind if framing is None else compiled(framing)
        deadline = self._deadline(timeout)
        turn = self._enter(self._reading, deadline)
        try:
            return self._receive_frame(kind, deadline)
        finally:
            turn.release()

    def recv_into(self, buffer: Buffer, framing: Framing | None = None, *, timeout: float | None = UNSET) -> int:
        """Receive the next payload into a writable buffer and return its size in bytes.

        Raises `BufferTooSmallError` where the buffer can't hold it: the frame stays the next one. What
        else is raised is as for recv(); the buffer's contents are then undefined.
        """
        self._check_open()
        kind = self._kind if framing is None else compiled(framing)
        deadline = self._deadline(timeout)
        turn = self._enter(self._reading, deadline)
        try:
            with hold_writable(buffer, "buffer") as target:
                return self._receive_frame_into(target, kind, deadline)
        finally:
            turn.release()

    def recv_many(self, limit: int = 1024, *, timeout: float | None = UNSET) -> list[bytes]:
        """Wait for one frame at least and return the payloads of all that are here, as a list of bytes.

        There are at most `limit`, of about 1 MiB in all. Raises what recv() raises.
        """
        self._check_open()
        most = index(limit)
        if most < 1:
            raise errors.limit_error(most)
        deadline = self._deadline(timeout)
        turn = self._enter(self._reading, deadline)
        try:
            return self._receive_frames(most, deadline)
        finally:
            turn.release()

    def recv_batch(self, *, timeout: float | None = UNSET) -> FrameBatch:
        """Wait for one frame at least and return all that are here, as a `FrameBatch`.

        They have about 1 MiB in all at most. Raises what recv() raises.
        """
        self._check_open()
        deadline = self._deadline(timeout)
        turn = self._enter(self._reading, deadline)
        try:
            return self._receive_batch(deadline)
        finally:
            turn.release()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._check_open()
        deadline = self._deadline(UNSET)
        turn = self._enter(self._reading, deadline)
        try:
            return self._receive_frame(self._kind, deadline)
        except errors.EndOfStream:
            raise StopIteration from None
        finally:
            turn.release()

    def pending(self) -> int:
        """Return the number of bytes that are here and not yet delivered, which select() can't see: those
        held, and those that a TLS socket holds."""
        self._check_open()
        held = self._decoder.buffered + sum(map(len, self._rest or ()))
        if self._inbox:
            held += len(self._inbox[0])
        if self._methods is not None:
            held += self._methods.kept()
        return held + transport.socket_pending(self.sock)

    def detach(self) -> tuple[Any, bytes]:
        """Give up the socket: return it, and the bytes received that are not yet delivered as frames.

        Raises `FramingError` inside an overlong frame that is passed over: its rest would be read as other frames.
        """
        self._check_open()
        deadline = self._deadline(UNSET)
        reading = self._enter(self._reading, deadline)
        try:
            writing = self._enter(self._writing, deadline)
            try:
                self._send_tail(deadline)
                self._absorb()
                self._absorb_kept()
                decoder = self._decoder
                if decoder._long is not None:
                    raise errors.midway_error(decoder.position)
                given = self.sock, b"".join((*(self._rest or ()), decoder._cut(decoder._begin, len(decoder._store))))
                self._give_away()
                decoder._forget()
                return given
            finally:
                writing.release()
        finally:
            reading.release()

    def _upgrade(self, wrap: Callable[[Any, bytes], Any], leftover: str, timeout: float | None) -> int:
        """Go on over wrap(sock, received), and do its handshake; return how many bytes were carried or dropped."""
        self._check_open()
        deadline = self._deadline(timeout)
        reading = self._enter(self._reading, deadline)
        try:
            writing = self._enter(self._writing, deadline)
            try:
                self._send_tail(deadline)
                self._absorb()
                self._absorb_kept()
                decoder = self._decoder
                decoder._check()
                if decoder._ended:
                    raise errors.end_of_stream(decoder._at)
                count = decoder.buffered
                if leftover == "error" and (count or decoder._long is not None):
                    raise errors.leftover_error(count)
                held = decoder._cut(decoder._begin, len(decoder._store)) if leftover == "carry" else b""
                sock = wrap(self.sock, held)
                at = decoder._at
                decoder._forget()
                decoder._at = at + count if leftover == "discard" else at
                self._change_socket(sock, deadline)
                return count
            finally:
                writing.release()
        finally:
            reading.release()

    # ---- receiving ----

    def _receive(self, deadline: int) -> None:
        """Receive bytes into the inbox; b"" is the end of the stream.

        They go there within one call in C, so that no signal handler's exception can come between.
        """
        sock = self.sock
        inbox: list[Any] = []
        self._inbox = inbox
        self._receiving = True
        try:
            self._check_open()
            if self._methods is not None:
                inbox.append(self._methods.receive(RECEIVE, deadline))
                return
            blocking = deadline == NEVER and sock.gettimeout() is None
            while True:
                if not blocking and not transport.wait_until(sock, POLLIN, deadline):
                    raise transport.passed_error(deadline, "no whole frame has arrived")
                try:
                    inbox.extend(map(sock.recv, (RECEIVE,), (0 if blocking else DONTWAIT,)))
                    return
                except (BlockingIOError, TimeoutError) as error:
                    transport.refuse_wait(error)
                    blocking = False
        finally:
            self._receiving = False
            self._end_use()

    def _absorb(self) -> None:
        """Hold the bytes in the inbox; one that was interrupted in this is done again."""
        inbox = self._inbox
        if inbox:
            if len(inbox) == 1:
                inbox.append(self._decoder.buffered)
            else:
                self._decoder._cut_back(inbox[1])
            self._decoder._append(inbox[0])
        self._inbox = None

    def _absorb_kept(self) -> None:
        """Hold what an interrupted receive left with the socket's methods."""
        if self._methods is not None:
            self._decoder._append(self._methods.take())

    def _fill(self, deadline: int) -> bool:
        """Receive more bytes into the decoder's store; False is the end of the stream."""
        held = self._decoder.buffered
        self._receive(deadline)
        self._absorb()
        return self._decoder.buffered > held

    def _use(self, kind: Kind) -> None:
        """Read the next frame by this framing."""
        self._absorb()
        if self._decoder._kind is not kind:
            self._decoder._use(kind)

    def _end(self) -> None:
        """The stream has ended: keep the frames that this makes, or raise that one is cut off."""
        self._rest = self._decoder._close(self._methods is not None and self._methods.ragged)

    def _receive_frame(self, kind: Kind, deadline: int) -> bytes:
        """Return the next payload."""
        decoder = self._decoder
        self._use(kind)
        while True:
            if self._rest:
                return self._rest.pop(0)
            decoder._check()
            frame = decoder._take()
            if frame is not None:
                return frame
            if decoder._ended:
                raise errors.end_of_stream(decoder._at)
            if not self._fill(deadline):
                self._end()

    def _receive_frames(self, limit: int, deadline: int) -> list[bytes]:
        """Return the next payloads."""
        decoder = self._decoder
        self._use(self._kind)
        while True:
            if self._rest:
                frames, self._rest = self._rest[:limit], self._rest[limit:]
                return frames
            decoder._check()
            frames = decoder._take_many(limit, MANY)
            if frames:
                return frames
            if decoder._ended:
                raise errors.end_of_stream(decoder._at)
            if not self._fill(deadline):
                self._end()

    def _receive_batch(self, deadline: int) -> FrameBatch:
        """Return the next payloads as a batch."""
        decoder = self._decoder
        self._use(self._kind)
        while True:
            if self._rest:
                batch = new_batch()
                batch._frames, self._rest = self._rest, None
                return batch
            decoder._check()
            batch = decoder._take_batch(MANY)
            if batch._frames:
                return batch
            if decoder._ended:
                raise errors.end_of_stream(decoder._at)
            if not self._fill(deadline):
                self._end()

    def _receive_frame_into(self, target: memoryview, kind: Kind, deadline: int) -> int:
        """Receive the next payload to where the caller wants it."""
        decoder = self._decoder
        scan = Scan()
        self._use(kind)
        while True:
            if self._rest:
                size = len(self._rest[0])
                if size > len(target):
                    raise errors.too_small_error(size, len(target))
                target[:size] = self._rest[0]
                self._rest.pop(0)
                return size
            decoder._check()
            status = LONG if decoder._long is not None else decoder._look(scan)
            if status == FAULT:
                decoder._record(scan, decoder._store, decoder._begin, decoder._at)
                decoder._check()
            if status == LONG:
                if decoder._long is None:
                    decoder._begin_long(scan, decoder._store, decoder._begin)
                frame = decoder._take()
                if frame is not None:
                    self._rest = [frame]
                    continue
            elif status == FRAME or self._known(scan):
                size = scan.stop - scan.start
                begin = decoder._begin + scan.start
                frame = None
                if status == FRAME:
                    frame = decoder._cut(begin, begin + size)
                    if scan.by is not None:
                        frame = scan.by.unstuff(frame)
                        size = len(frame)
                if size > len(target):
                    raise errors.too_small_error(size, len(target))
                if frame is not None:
                    target[:size] = frame
                    decoder._skip(scan.size)
                    return size
            if decoder._ended:
                raise errors.end_of_stream(decoder._at)
            if not self._fill(deadline):
                self._end()

    def _known(self, scan: Scan) -> bool:
        """Say whether the unfinished frame's size is known; then `scan` tells where its payload lies."""
        decoder = self._decoder
        if not decoder._whole:
            return False
        scan.resume = decoder._resume
        return decoder._run(decoder._store, decoder._begin, len(decoder._store), scan) == NEED
