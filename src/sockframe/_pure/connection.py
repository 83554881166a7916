"""Connection: whole frames over a stream socket."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from operator import index
from selectors import EVENT_READ, EVENT_WRITE
from socket import SHUT_RD
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, NoReturn

from .. import errors, transport
from ..framings import Framing
from ..polling import POLLIN, POLLOUT
from ..transport import DONTWAIT, NEVER, NOSIGNAL, UNSET
from .batch import FrameBatch, new_batch
from .codec import Decoder, compiled, hold, hold_writable, join_frame, wrap_payload
from .kinds import FAULT, FRAME, LONG, NEED, Kind, Scan, Wrapped

if TYPE_CHECKING:
    from typing_extensions import Buffer, Self

RECEIVE = 65536  # bytes asked of a receive
GATHER = 65536   # bytes of small frames for one send
SMALL = 16384    # frames up to this size are gathered
BATCH = 1024     # frames for one send
LOOK = 64        # answers between two looks at the clock, at most
MANY = 1 << 20   # bytes of frames that recv_many() returns, about

# A connection is open; or one thread is closing it; or it is closed, and the last use of its socket closes that; or
# it has left its socket.
OPEN, CLOSING, SHUT, LEFT = range(4)

_forks = 0                    # between this process and the first
_forkers: list[int] = []      # the thread that forked, each time: it alone went on
_sharing = threading.RLock()  # held while one thread sees and changes what others may, of a connection


def count_fork() -> None:
    """This process is a fork."""
    global _forks, _sharing
    _forks += 1
    _forkers.append(threading.get_native_id())
    _sharing = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=count_fork)


class _GoneTurn:
    """The turn of a thread that stayed behind at a fork; what it had begun is not known here."""

    def _is_owned(self) -> bool:
        return False

    def acquire(self, *how: Any) -> bool:
        raise errors.forked_error()


class Connection:
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

    __slots__ = ("_decoder", "_forks", "_inbox", "_kind", "_last", "_methods", "_reading", "_receiving", "_rest",
                 "_sending", "_shut", "_tail", "_tail_at", "_watcher", "_writing", "sock")

    sock: Any
    _forks: int
    _methods: Any
    _reading: Any
    _writing: Any
    _watcher: Any

    def __new__(cls, *args: Any, **keywords: Any) -> Self:
        self = super().__new__(cls)
        self._shut = LEFT   # until it is made
        self._tail = b""    # what a frame sent in part leaves to be sent,
        self._tail_at = 0   # from here on
        self._forks = _forks
        self._methods = None  # what serves a socket that is no plain one
        # Asked for anew each time: gevent puts locks for greenlets there.
        self._reading, self._writing = threading.RLock(), threading.RLock()
        self._receiving = self._sending = False
        self._watcher = None  # the selector that it is registered with
        return self

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
        self.sock = sock
        self._methods = methods
        self._kind = kind
        self._decoder = decoder
        self._rest: list[bytes] | None = None  # frames that the end of the stream made
        self._inbox: list[Any] | None = None   # bytes received that are not yet held, see _absorb
        self._last = False
        self._shut = OPEN

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

    @property
    def closed(self) -> bool:
        """Whether close() or detach() was called."""
        if self._forks != _forks:
            self._after_fork()
        return self._shut > OPEN

    @property
    def unsent(self) -> int:
        """The number of bytes that a frame sent in part leaves for the next send() or flush()."""
        return len(self._tail) - self._tail_at

    @property
    def recv_event(self) -> int:
        """What the next receive waits for: `selectors.EVENT_READ` (1); under TLS also `EVENT_WRITE` (2)."""
        return self._methods.recv_event if self._methods is not None else EVENT_READ

    @property
    def send_event(self) -> int:
        """What the next send or flush waits for: `selectors.EVENT_WRITE` (2); under TLS also `EVENT_READ` (1)."""
        return self._methods.send_event if self._methods is not None else EVENT_WRITE

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

    def send(self, payload: Buffer, *, timeout: float | None = UNSET) -> None:
        """Send one payload as a frame.

        A payload that could not be received as the same bytes raises `ValueError` before any byte is
        sent. Where a timeout or a signal handler interrupts it, `unsent` tells: 0, nothing was taken;
        more, the frame was taken, and its tail goes first with the next send() or flush(); while an
        earlier tail can't be sent, nothing is taken: flush() that first. A non-blocking socket takes the
        whole frame or raises `BlockingIOError`, having taken nothing.

        That it returns says that the kernel has the frame, not the peer. Two peers that both send more than the
        kernel holds before they receive wait for each other: give a timeout, or receive in another thread.
        """
        self._check_open()
        deadline = self._deadline(timeout)
        turn = self._enter(self._writing, deadline)
        try:
            self._send_frame(hold(payload, "payload"), deadline)
        finally:
            turn.release()

    def send_many(self, payloads: Iterable[Buffer], *, timeout: float | None = UNSET) -> None:
        """Send the payloads of an iterable as frames, many with one system call.

        Of a list or tuple all are checked first, and where one is bad none is sent; it is taken as a
        whole, as a payload is by send(). Any other iterable is pulled a bounded batch at a time, each
        checked as one; what was pulled is taken.
        """
        self._check_open()
        deadline = self._deadline(timeout)
        turn = self._enter(self._writing, deadline)
        try:
            if isinstance(payloads, (list, tuple)):
                checked = self._check_payloads(tuple(payloads))
                self._send_frames(iter(checked), checked, deadline)
            else:
                self._send_frames(iter(payloads), None, deadline)
        finally:
            turn.release()

    def _answer(self, payloads: Iterable[bytes], handler: Callable[[bytes], Any],
                turn: int) -> tuple[int, Any, Exception | None] | None:
        """Give each payload to `handler` and send its replies together, without waiting; return None, or how far
        that went: (payloads given, the reply to the last that is yet to be sent, what `handler` raised).

        It goes no further behind a reply that is neither None nor bytes, or can't be sent; where the socket takes no
        more, or had not taken all before; and after `turn` nanoseconds.
        """
        given = tuple(payloads)
        self._check_open()
        writing = self._enter(self._writing, transport.AT_ONCE)
        try:
            if self._tail:
                return 0, None, None
            return self._send_answers(given, handler, turn)
        finally:
            writing.release()

    def flush(self, *, timeout: float | None = UNSET) -> None:
        """Send what an interrupted send() left unsent."""
        self._check_open()
        deadline = self._deadline(timeout)
        turn = self._enter(self._writing, deadline)
        try:
            self._send_tail(deadline)
        finally:
            turn.release()

    def shutdown(self, how: int) -> None:
        """Shut down one half of the connection or both, as `socket.shutdown` does; what is unsent goes first."""
        self._check_open()
        deadline = self._deadline(UNSET)
        turn = self._enter(self._writing, deadline)
        try:
            if how != SHUT_RD:
                self._send_tail(deadline)
            transport.shut_down(self.sock, how, deadline)
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

    def close(self) -> None:
        """Close the connection; calls that wait in other threads end with `OSError` (EBADF)."""
        if self.closed:
            return
        mine = False
        try:
            with _sharing:
                if not self._shut:
                    mine, self._shut = True, CLOSING
            if not mine:
                return
            try:
                if self._watcher is not None:
                    self._watcher.forget(self)
                if self._receiving or self._sending:
                    transport.wake(self.sock if self._methods is None else self._methods)
            finally:
                self._shut = SHUT
            self._close_socket()
        except OSError:
            raise
        except BaseException:
            if mine:
                self._shut = OPEN  # to be closed again
            raise

    def detach(self) -> tuple[Any, bytes]:
        """Give up the socket: return it, and the bytes received that are not yet delivered as frames."""
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
                given = self.sock, b"".join((*(self._rest or ()), decoder._cut(decoder._begin, len(decoder._store))))
                if self._watcher is not None:
                    self._watcher.forget(self)
                decoder._forget()
                self._shut = LEFT
                return given
            finally:
                writing.release()
        finally:
            reading.release()

    def __reduce__(self) -> NoReturn:
        raise errors.no_copy_error(self)

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
                self.sock = self._methods = sock
                try:
                    self._receiving = True
                    try:
                        sock.handshake(deadline)
                    finally:
                        self._receiving = False
                        self._end_use()
                except BlockingIOError:
                    pass  # it goes on with the next call
                except BaseException:
                    self.close()
                    raise
                if self._watcher is not None:
                    self._watcher.upgraded(self)
                return count
            finally:
                writing.release()
        finally:
            reading.release()

    def _watch(self, watcher: Any) -> Any:
        """Tell `watcher` of tails and of closing, from now on; return who was told before."""
        with _sharing:
            before, self._watcher = self._watcher, watcher
        return before

    # ---- turns and deadlines ----

    def _check_open(self) -> None:
        """Refuse a call after close()."""
        if self._shut:
            raise errors.closed_error()
        if self._forks != _forks:
            self._after_fork()

    def _after_fork(self) -> None:
        """Forget the calls of the threads that stayed behind."""
        with _sharing:
            if self._forks == _forks:
                return
            me = threading.get_native_id()
            stayed = all(one == me for one in _forkers[self._forks:])
            self._reading, self._writing = (
                turn if outlives_fork(turn, stayed) else _GoneTurn() for turn in (self._reading, self._writing))
            self._receiving = self._sending = False
            if self._methods is not None:
                self._methods.after_fork()
            self._forks = _forks

    def _deadline(self, timeout: Any) -> int:
        """Return the time at which a call with this timeout ends."""
        if timeout is UNSET:
            timeout = (self._methods or self.sock).gettimeout()
        return transport.deadline_after(timeout)

    def _enter(self, turn: Any, deadline: int) -> Any:
        """Wait for the turn to read or write, which the caller releases; a call from inside another one is refused.

        It is released by its own method in C, so that no signal handler's exception can come before that.
        """
        if turn._is_owned():
            raise errors.reentry_error(type(self).__name__)
        try:
            transport.take_turn(turn, deadline)
            self._check_open()
        except BaseException:
            if turn._is_owned():
                turn.release()
            raise
        return turn

    def _end_use(self) -> None:
        """A system call is over; the last one to leave closes a closed connection's socket."""
        if self._shut:
            self._close_socket()
            raise errors.closed_error()

    def _close_socket(self) -> None:
        """Close the socket of a closed connection, where nobody is at work with it and nobody else does."""
        with _sharing:
            mine = self._shut == SHUT and not self._receiving and not self._sending
            if mine:
                self._shut = LEFT
        if mine:
            transport.close(self.sock)

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

    # ---- sending ----

    def _transmit(self, pieces: list[Any], counts: list[int], deadline: int) -> None:
        """Send all pieces, or raise; `counts` gets the bytes that each system call took, within the
        same call in C, so that no signal handler's exception can come between."""
        sock = self.sock
        if self._methods is not None and len(pieces) > 1:
            pieces = [b"".join(pieces)]
        views = [memoryview(piece) for piece in pieces if piece]
        blocking = self._methods is None and deadline == NEVER and sock.gettimeout() is None
        at = 0
        while at < len(views):
            self._sending = True
            try:
                self._check_open()
                if self._methods is not None:
                    counts.append(self._methods.send(views[at], deadline))
                else:
                    if not blocking and not transport.wait_until(sock, POLLOUT, deadline):
                        raise transport.passed_error(deadline, "the socket can take no more")
                    flags = NOSIGNAL if blocking else NOSIGNAL | DONTWAIT
                    try:
                        counts.extend(map(sock.sendmsg, (views[at:at + 1024],), ((),), (flags,)))
                    except (BlockingIOError, TimeoutError) as error:
                        transport.refuse_wait(error)
                        blocking = False
                        continue
            finally:
                self._sending = False
                self._end_use()
            sent = counts[-1]
            while sent:
                if sent < len(views[at]):
                    views[at] = views[at][sent:]
                    break
                sent -= len(views[at])
                at += 1

    def _push(self, pieces: list[bytes], taken: bool, last: bool, deadline: int) -> None:
        """Send frames, the `last` one of the stream or not. Once a byte of them was sent, or they are `taken`
        anyway, what can't be sent is kept as the tail, and that a non-blocking socket leaves one is no error."""
        counts: list[int] = []
        try:
            self._transmit(pieces, counts, deadline)
        except BaseException as error:
            sent = sum(counts)
            keeps = self._methods is not None and self._methods.keeps and not isinstance(error, ConnectionError)
            if not taken and not sent and not keeps:
                raise
            try:
                self._tail, self._tail_at = b"".join(pieces), sent
            except MemoryError:
                self.close()  # a frame without its end must not be followed by another
                raise
            self._last = last
            if self._watcher is not None:
                self._watcher.want_write(self)
            if not isinstance(error, BlockingIOError):
                raise
            return
        self._last = last

    def _send_tail(self, deadline: int) -> None:
        """Send what an interrupted send left."""
        if not self._tail:
            return
        counts: list[int] = []
        try:
            self._transmit([memoryview(self._tail)[self._tail_at:]], counts, deadline)
            self._tail, self._tail_at = b"", 0
        except BaseException:
            self._tail_at += sum(counts)
            raise

    def _send_frame(self, payload: bytes, deadline: int) -> None:
        """Send one frame."""
        wrapped = wrap_payload(self._kind, payload, self._last, None)
        self._send_tail(deadline)
        self._push(enclose(wrapped, payload), False, wrapped.last, deadline)

    def _check_payloads(self, payloads: tuple[Any, ...]) -> list[tuple[bytes, Wrapped]]:
        """Return the payloads with what goes around them, or raise the error of the first bad one."""
        checked = []
        last = self._last
        for i, item in enumerate(payloads):
            payload = hold(item, "payload")
            wrapped = wrap_payload(self._kind, payload, last, i)
            last = wrapped.last
            checked.append((payload, wrapped))
        return checked

    def _send_frames(self, source: Iterator[Any], whole: list[Any] | None, deadline: int) -> None:
        """Send the frames of an iterator's payloads; of a `whole` list, which is checked, once a byte was
        sent, all are taken."""
        at = 0
        begun = False
        self._send_tail(deadline)
        try:
            while whole is None or at < len(whole):
                self._send_tail(deadline)
                count = self._send_batch(source, at, whole is not None, whole is None or begun, deadline)
                if not count:
                    return
                at += count
                begun = True
                if whole is not None and self._tail:
                    self._take_rest(source, whole, at)
                    return
        except BaseException:
            if whole is not None and (begun or self._tail) and not self._shut:
                self._take_rest(source, whole, at)
            raise

    def _send_batch(self, source: Iterator[Any], at: int, checked: bool, taken: bool, deadline: int) -> int:
        """Send one batch: small frames gathered, up to a large one; return how many there were."""
        gathered: list[bytes] = []
        size = frames = 0
        last = self._last
        broken: BaseException | None = None
        while size < GATHER and frames < BATCH:
            try:
                item = next(source)
            except StopIteration:
                break
            except BaseException as error:
                broken = error
                break
            if checked:
                payload, wrapped = item
            else:
                payload = hold(item, "payload")
                wrapped = wrap_payload(self._kind, payload, last, at + frames)
            frames += 1
            last = wrapped.last
            pieces = enclose(wrapped, payload)
            if sum(map(len, pieces)) > SMALL:
                self._push([b"".join(gathered), *pieces], taken, last, deadline)
                return frames
            header, body, trailer = pieces
            gathered += pieces
            size += len(header) + len(body) + len(trailer)
        if frames:
            self._push([b"".join(gathered)], taken, last, deadline)
        if broken is not None:
            raise broken
        return frames

    def _send_answers(self, given: tuple[bytes, ...], handler: Callable[[bytes], Any],
                      turn: int) -> tuple[int, Any, Exception | None] | None:
        """Do what _answer() says."""
        at = size = 0
        look = few = 1
        last = self._last
        calling = pushing = False
        begun = monotonic_ns()
        end = begun + turn
        reply = failed = None
        gathered: list[bytes] = []
        try:
            while at < len(given) and not self._tail:
                if at == look:
                    # The clock is not asked for each payload: for the more of them at once, the faster the handler is.
                    now = monotonic_ns()
                    if now >= end:
                        break
                    few = min(2 * few, LOOK) if now - begun < turn // 8 else 1
                    look += few
                    begun = now
                calling = True
                reply = handler(given[at])
                calling = False
                at += 1
                if reply is None:
                    continue
                if type(reply) is not bytes:
                    break
                wrapped = wrap_payload(self._kind, reply, last, None)
                last = wrapped.last
                gathered += enclose(wrapped, reply)
                size += len(reply)
                if size >= GATHER:
                    pieces, gathered, size = gathered, [], 0
                    pushing = True
                    self._push(pieces, True, last, transport.AT_ONCE)
                    pushing = False
                reply = None
        except Exception as error:
            if pushing:
                raise
            if calling:
                at += 1
                failed = error
                reply = None
        finally:
            if gathered:
                self._push([b"".join(gathered)], True, last, transport.AT_ONCE)
        try:
            return (at, reply, failed) if at < len(given) or reply is not None or failed is not None else None
        finally:
            failed = None  # or its traceback would hold it

    def _take_rest(self, source: Iterator[tuple[bytes, Wrapped]], whole: list[Any], at: int) -> None:
        """Put the frames that are left of a list behind the tail: what was pulled is there, or was sent up to `at`."""
        try:
            parts = [self._tail[self._tail_at:]]
            for payload, wrapped in source if self._tail else whole[at:]:
                parts.append(join_frame(wrapped, payload))
                self._last = wrapped.last
            self._tail, self._tail_at = b"".join(parts), 0
        except BaseException:
            self.close()  # a list is taken as a whole or not at all
            raise


def outlives_fork(turn: Any, stayed: bool) -> bool:
    """Say whether a turn is free, or that of this thread, if it is the one that forked: another may have the number of
    one that stayed behind, and the locks take it for that."""
    if isinstance(turn, _GoneTurn) or turn._is_owned():
        return stayed or isinstance(turn, _GoneTurn)
    return is_free(turn)


def is_free(turn: Any) -> bool:
    """Say whether nobody holds a lock."""
    if not turn.acquire(False):
        return False
    turn.release()
    return True


def enclose(wrapped: Wrapped, payload: bytes) -> list[bytes]:
    """Lay out a frame in three pieces, its payload as it is."""
    header, replaced, trailer, _, body = wrapped
    if body is None:
        body = payload[replaced:] if replaced else payload
    return [header, body, trailer]
