"""MessageConnection: messages as multiprocessing sends them, over a descriptor."""

from __future__ import annotations

import os
import select
from io import BytesIO
from operator import index
from struct import Struct
from typing import TYPE_CHECKING, Any, NoReturn

from .. import errors, transport
from .codec import ONE, hold_writable

if TYPE_CHECKING:
    from typing_extensions import Buffer, Self

SMALL = 16384          # a payload up to this size is joined to its header
PIECE = 65536          # bytes asked of a read, at first
MOST = 1 << 20         # and at last

_LENGTH = Struct("!i")
_LONG_LENGTH = Struct("!iQ")
_LONG = b"\xff\xff\xff\xff"  # in front of a length of 8 bytes

_forks = 1             # this process's number, from the first


def count_fork() -> None:
    """This process is a fork."""
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=count_fork)


class MessageConnection:
    """Sends and receives messages over a descriptor as multiprocessing's `Connection`, of which it is half.

    A message has a signed length of 4 bytes in front of it, big-endian, or -1 and an unsigned one of 8. The other half,
    which keeps `_handle`, `_readable` and `_writable` and refuses what they don't allow, is the original's base
    class. No byte behind a message is ever read: others may wait at the descriptor, or read on from there. Sending and
    receiving are for one thread at a time each; a second one, or a signal handler, gets a `RuntimeError`.
    """

    # What a system call has done is put into one of these within the same call in C, by an iterator, so that no
    # signal handler's exception can come between; and no call is made between two that belong together.
    _head = b""                     # the header of the message on its way, as far as it is here,
    _body: BytesIO | None = None    # and its payload,
    _filled = 0                     # of which so many bytes are here, in front of
    _piece = b""                    # what was read last
    _tail = b""                     # what a message sent in part leaves to be sent
    _sent = _wrote = 0              # bytes sent of a message, before the last system call and by it
    _receiving = _sending = 0       # the number of the process that is at it, or 0

    if TYPE_CHECKING:
        _reading: list[None]
        _writing: list[None]
        _handle: Any
        _readable: Any
        _writable: Any

        def close(self) -> None: ...
        def _check_closed(self) -> None: ...
        def _check_readable(self) -> None: ...
        def _check_writable(self) -> None: ...
        def _bad_message_length(self) -> NoReturn: ...

    def __new__(cls, *args: Any, **keywords: Any) -> Self:
        self = super().__new__(cls)
        self._reading, self._writing = [*ONE, *ONE], [*ONE, *ONE]  # without its second item in the midst of a call
        return self

    def send_bytes(self, buf: Buffer, offset: int = 0, size: int | None = None) -> None:
        """Send `size` bytes of a bytes-like object from `offset` on, or all that follow, as a message.

        What an exception interrupts in its midst is finished first by the next call. Raises `OSError`, and
        `ValueError` where the buffer has no such bytes. On a non-blocking descriptor that takes nothing, nothing was
        sent (`BlockingIOError`); of one that takes a part, the rest is waited for.
        """
        if self._handle is None or not self._writable:
            self._refuse_writing()
        if type(buf) is bytes and size is None and offset == 0:
            self._send(buf)
            return
        try:
            view = memoryview(buf)
        except TypeError:
            if hasattr(type(buf), "__buffer__"):
                raise
            raise errors.not_bytes_error("buf", buf) from None
        with view:
            if not view.c_contiguous and view.nbytes:
                raise errors.not_contiguous_error("buf")
            start, length = transport.message_range(index(offset), None if size is None else index(size), view.nbytes)
            with view.cast("B") if view.nbytes else memoryview(b"") as data:
                self._send(data[start:start + length])

    def recv_bytes(self, maxlength: int | None = None) -> bytes:
        """Return the next message, as bytes.

        Raises `EOFError` at the end of the stream, and `OSError` where that is in the midst of a message, for a length
        above `maxlength`, and for one that none can have. Of a message that an exception interrupts, nothing is lost.
        """
        if self._handle is None or not self._readable:
            self._refuse_reading()
        try:
            del self._reading[1]
        except IndexError:
            self._inherit_receive()
        self._receiving = _forks
        try:
            if maxlength is not None and maxlength < 0:
                raise ValueError("negative maxlength")
            if not self._head and not self._piece and maxlength is None:
                # The usual message, for which two reads are enough; where they are not, what follows goes on.
                for self._head in map(os.read, (self._handle,), (4,)):
                    break
                if len(self._head) == 4:
                    size, = _LENGTH.unpack(self._head)
                    if 0 < size <= PIECE and self._handle is not None:
                        for self._piece in map(os.read, (self._handle,), (size,)):
                            break
                        if len(self._piece) == size:
                            message = self._piece
                            self._head = self._piece = b""
                            return message
            size = self._length()
            if size >= 0 and (maxlength is None or size <= maxlength):
                return self._payload(size)
        except TimeoutError as error:
            raise told(error) from None
        finally:
            self._receiving = 0
            self._reading += ONE
        return self._bad_message_length()

    def recv_bytes_into(self, buf: Buffer, offset: int = 0) -> int:
        """Receive the next message into a writable bytes-like object from `offset` on, and return its size in bytes.

        Where it does not fit, it is in the `multiprocessing.BufferTooShort` that is raised. What else is raised is as
        for recv_bytes(); the buffer's contents are then undefined.
        """
        if self._handle is None or not self._readable:
            self._refuse_reading()
        with hold_writable(buf, "buf") as target:
            start = transport.message_range(index(offset), None, len(target))[0]
            if self._handle is None or not self._readable:
                self._refuse_reading()
            try:
                del self._reading[1]
            except IndexError:
                self._inherit_receive()
            self._receiving = _forks
            try:
                size = self._length()
                if size >= 0:
                    message = self._payload(size)
                    if size > len(target) - start:
                        raise errors.too_short_error(message)
                    target[start:start + size] = message
            except TimeoutError as error:
                raise told(error) from None
            finally:
                self._receiving = 0
                self._reading += ONE
        if size < 0:
            self._bad_message_length()
        return size

    def _midway(self) -> bool:
        """Say whether a message is sent or received in part."""
        return bool(self._tail or self._head or self._piece)

    def __reduce__(self) -> NoReturn:
        raise errors.no_copy_error(self)

    # ---- receiving ----

    def _refuse_reading(self) -> None:
        """Refuse to receive where that can't be."""
        self._check_closed()
        self._check_readable()

    def _inherit_receive(self) -> None:
        """Refuse a call from inside another one, unless that is of a thread which stayed behind at a fork."""
        if self._receiving in (0, _forks):
            raise errors.reentry_error(type(self).__name__) from None
        self._forget()

    def _forget(self) -> None:
        """No message is on its way."""
        self._head = self._piece = b""
        self._body = None
        self._filled = 0

    def _take(self, size: int) -> None:
        """Read what is here of a message, at most `size` bytes, as its last piece."""
        if self._handle is None:
            self._check_closed()
        for self._piece in map(os.read, (self._handle,), (size,)):
            break
        if not self._piece:
            raise errors.message_end_error(bool(self._head))

    def _take_head(self, size: int) -> None:
        """Read more of a header of so many bytes."""
        while len(self._head) < size:
            if not self._piece:
                self._take(size - len(self._head))
            self._head += self._piece
            self._piece = b""

    def _length(self) -> int:
        """Receive the header; return the payload's length, or less than 0 for one that none can have."""
        size: int
        self._take_head(4)
        size, = _LENGTH.unpack_from(self._head)
        if size != -1:
            return size
        self._take_head(12)
        size = _LONG_LENGTH.unpack(self._head)[1]
        return size if size < 1 << 63 else -1

    def _payload(self, size: int) -> bytes:
        """Receive the payload, for which no more is set aside than what is here and a piece."""
        if not size:
            self._head = b""
            return b""
        if not self._piece and self._filled < size:
            self._take(min(size - self._filled, PIECE))
        if len(self._piece) == size:
            message = self._piece
            self._head = self._piece = b""
            return message
        body = self._body
        if body is None:
            body = self._body = BytesIO()
        ask = PIECE
        while True:
            if self._piece:
                body.seek(self._filled)  # done again where it was interrupted
                count = body.write(self._piece)
                self._filled += count
                self._piece = b""
            if self._filled == size:
                break
            ask = min(2 * ask, MOST)
            self._take(min(size - self._filled, ask))
        message = body.getvalue()
        self._head = b""
        self._body = None
        self._filled = 0
        return message

    # ---- sending ----

    def _refuse_writing(self) -> None:
        """Refuse to send where that can't be."""
        self._check_closed()
        self._check_writable()

    def _send(self, data: bytes | memoryview) -> None:
        """Send a message, behind what one before it left."""
        if self._handle is None or not self._writable:
            self._refuse_writing()
        try:
            del self._writing[1]
        except IndexError:
            if self._sending in (0, _forks):
                raise errors.reentry_error(type(self).__name__) from None
            self._tail = b""  # it is that of a thread which stayed behind at a fork
            self._sent = self._wrote = 0
        self._sending = _forks
        try:
            if self._tail:
                self._transmit((self._tail,))
            size = len(data)
            if size > SMALL:
                self._transmit((_LENGTH.pack(size) if size <= 0x7fffffff else _LONG_LENGTH.pack(-1, size), data))
                return
            frame = _LENGTH.pack(size) + data
            try:
                for self._wrote in map(os.write, (self._handle,), (frame,)):
                    break
                if self._wrote == size + 4:
                    self._wrote = 0
                    return
            except BaseException:
                self._keep((frame,))
                raise
            self._transmit((frame,))
        except TimeoutError as error:
            raise told(error) from None
        finally:
            self._sending = 0
            self._writing += ONE

    def _transmit(self, pieces: tuple[bytes | memoryview, ...]) -> None:
        """Send these pieces; what an exception leaves of them, once a byte is sent, is the tail."""
        left, size = pieces, sum(map(len, pieces))
        try:
            while True:
                if self._wrote:
                    self._sent += self._wrote
                    self._wrote = 0
                    if self._sent == size:
                        self._sent = 0
                        self._tail = b""
                        return
                    left = rest_of(pieces, self._sent)
                if self._handle is None:
                    self._check_closed()
                try:
                    for self._wrote in map(os.writev, (self._handle,), (left,)):
                        break
                except BlockingIOError:
                    if not self._sent:
                        raise
                    waiting = select.poll()
                    waiting.register(self._handle, select.POLLOUT)
                    waiting.poll()
        except BaseException:
            self._keep(pieces)
            raise

    def _keep(self, pieces: tuple[bytes | memoryview, ...]) -> None:
        """An exception has interrupted these pieces: what is left of them, once a byte is sent, is the tail."""
        sent = self._sent + self._wrote
        self._sent = self._wrote = 0
        if sent:
            try:
                self._tail = b"".join(rest_of(pieces, sent))
            except MemoryError:
                self.close()  # a message without its end must not be followed by another
                raise


def told(error: TimeoutError) -> OSError:
    """Return the error to raise: the kernel's timeout is a dead peer, a signal handler's is its own."""
    return error if error.errno is None else errors.os_error(error.errno)


def rest_of(pieces: tuple[bytes | memoryview, ...], sent: int) -> tuple[bytes | memoryview, ...]:
    """Return what is left of some pieces of which so many bytes are sent."""
    for i, piece in enumerate(pieces):
        if sent < len(piece):
            return memoryview(piece)[sent:], *pieces[i + 1:]
        sent -= len(piece)
    return ()
