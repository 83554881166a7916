"""Sender: whole frames to a stream socket."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from socket import SHUT_RD
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from .. import transport
from ..polling import POLLOUT
from ..transport import DONTWAIT, NEVER, NOSIGNAL, UNSET
from .codec import hold, join_frame, wrap_payload
from .endpoint import Endpoint
from .kinds import Kind, Wrapped

if TYPE_CHECKING:
    from typing_extensions import Buffer, Self

GATHER = 65536  # bytes of small frames for one send
SMALL = 16384   # frames up to this size are gathered
BATCH = 1024    # frames for one send
LOOK = 64       # answers between two looks at the clock, at most


class Sender(Endpoint):
    """Sends whole frames over a connected stream socket.

    Of a frame that could be sent only in part it keeps the tail, which goes before all else.
    """

    __slots__ = ("_kind", "_last", "_tail", "_tail_at")

    _kind: Kind

    def __new__(cls, *args: Any, **keywords: Any) -> Self:
        self = super().__new__(cls)
        self._tail = b""    # what a frame sent in part leaves to be sent,
        self._tail_at = 0   # from here on
        self._last = False  # that was the last frame of the stream
        return self

    @property
    def unsent(self) -> int:
        """The number of bytes that a frame sent in part leaves for the next send() or flush()."""
        return len(self._tail) - self._tail_at

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


def enclose(wrapped: Wrapped, payload: bytes) -> list[bytes]:
    """Lay out a frame in three pieces, its payload as it is."""
    header, replaced, trailer, _, body = wrapped
    if body is None:
        body = payload[replaced:] if replaced else payload
    return [header, body, trailer]
