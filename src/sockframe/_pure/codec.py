"""Encoder and Decoder: frames from bytes and bytes from frames, without I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import index
from typing import TYPE_CHECKING, Any, NoReturn, final

from .. import errors
from ..errors import CONTEXT, Fault
from ..framings import Framing
from .kinds import FAULT, FRAME, NEED, Kind, Refusal, Scan, Wrapped, kind_of

if TYPE_CHECKING:
    from typing_extensions import Buffer

#: Bytes that an unfinished frame may hold beyond twice what arrived.
SLACK = 65536


# ---- arguments ----

def hold(value: Any, what: str) -> bytes:
    """Return the bytes of an argument."""
    if type(value) is bytes:
        return value
    try:
        view = memoryview(value)
    except TypeError:
        if hasattr(value, "__buffer__"):
            raise
        raise errors.not_bytes_error(what, value) from None
    with view:
        if not view.c_contiguous:
            raise errors.not_contiguous_error(what)
        return view.tobytes()


def hold_writable(value: Any, what: str) -> memoryview:
    """Return a view of a writable argument, as flat bytes."""
    try:
        view = memoryview(value)
    except TypeError:
        if hasattr(value, "__buffer__"):
            raise
        raise errors.not_bytes_error(what, value) from None
    if not view.c_contiguous:
        raise errors.not_contiguous_error(what)
    if view.readonly:
        raise errors.read_only_error(what)
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


def compiled(framing: Any) -> Kind:
    """Return the compiled framing, kept with the framing object itself."""
    if not isinstance(framing, Framing):
        raise errors.not_framing_error(framing)
    return kind_of(framing)


# ---- payload to frame ----

def join_frame(wrapped: Wrapped, payload: bytes) -> bytes:
    """Return the frame of a wrapped payload."""
    header, replaced, trailer, _ = wrapped
    return header + (payload[replaced:] if replaced else payload) + trailer


@final
class Encoder:
    """Makes frames of payloads: `Encoder(framing)`.

    A payload is any C-contiguous bytes-like object. One that could not be decoded to the same bytes
    raises `ValueError` (`FrameTooLongError` where it is too long) and makes nothing.
    """

    __slots__ = ("_framing", "_kind")

    def __init__(self, framing: Framing) -> None:
        if hasattr(self, "_kind"):
            raise errors.reentry_error("Encoder")
        self._kind = compiled(framing)
        self._framing = framing

    @property
    def framing(self) -> Framing:
        """The framing."""
        return self._framing

    def encode(self, payload: Buffer) -> bytes:
        """Return the frame of one payload, as bytes."""
        data = hold(payload, "payload")
        try:
            return join_frame(self._kind.wrap(data), data)
        except Refusal as refusal:
            raise errors.wrap_error(refusal.fault, refusal.number, refusal.limit) from None

    def encode_many(self, payloads: Iterable[Buffer]) -> bytes:
        """Return the frames of all payloads of an iterable, one after the other, as bytes.

        An error names the payload's place, counted from 0.
        """
        wrap = self._kind.wrap
        parts: list[bytes] = []
        last = False
        for i, payload in enumerate(tuple(payloads)):
            data = hold(payload, "payload")
            try:
                wrapped = wrap(data)
                if last:
                    raise Refusal(Fault.WRAP_LAST, 0, 0)
            except Refusal as refusal:
                raise errors.wrap_error(refusal.fault, refusal.number, refusal.limit, i) from None
            last = wrapped.last
            parts += wrapped.header, data[wrapped.replaced:], wrapped.trailer
        return b"".join(parts)

    def encode_into(self, payload: Buffer, buffer: Buffer, offset: int = 0) -> int:
        """Write the frame of one payload into a writable buffer at `offset` and return its size in bytes.

        Raises `BufferTooSmallError`, having written nothing, where there is not enough room.
        """
        where = index(offset)
        with hold_writable(buffer, "buffer") as target:
            room = len(target)
            if not 0 <= where <= room:
                raise errors.offset_error(where, room)
            frame = self.encode(payload)
            if len(frame) > room - where:
                raise errors.too_small_error(len(frame), room - where)
            target[where:where + len(frame)] = frame
            return len(frame)

    def __reduce__(self) -> NoReturn:
        raise errors.no_copy_error(self)

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError("type 'Encoder' is not an acceptable base type")


# ---- stream to frames ----

@final
class Decoder:
    """Finds the frames of one stream, however it is cut: `Decoder(framing)`.

    A fault in the stream (`MalformedFrameError`, `FrameTooLongError`) comes after all frames in front
    of it and is final: every later call raises it again. Any other exception leaves the decoder as it
    was, with nothing of the new bytes taken. Not to be shared by threads without a lock.
    """

    __slots__ = ("_at", "_begin", "_busy", "_ended", "_fault", "_framing", "_kind", "_least", "_lent",
                 "_resume", "_store", "_whole")

    def __init__(self, framing: Framing) -> None:
        if hasattr(self, "_kind"):
            raise errors.reentry_error("Decoder")
        self._kind = compiled(framing)
        self._framing = framing
        self._store = bytearray()            # the bytes held, from _begin on
        self._begin = 0
        self._resume = self._least = self._whole = 0  # what is known of the unfinished frame
        self._at = 0
        self._lent: bytearray | None = None  # the memory that get_buffer() lent
        self._fault: tuple[Any, ...] | None = None
        self._busy = self._ended = False

    @property
    def framing(self) -> Framing:
        """The framing. Setting it reads all bytes not yet delivered as frames by the new one."""
        return self._framing

    @framing.setter
    def framing(self, framing: Framing) -> None:
        kind = compiled(framing)
        self._enter()
        try:
            self._use(kind)
            self._framing = framing
        finally:
            self._busy = False

    @property
    def need(self) -> int:
        """The least number of bytes missing for the next frame; 0 where next_frame() has an answer."""
        if self._fault is not None or self._ended:
            return 0
        scan = Scan()
        scan.resume = self._resume
        status = self._kind.scan(self._store, self._begin, len(self._store), False, scan)
        return scan.need if status == NEED else 0

    @property
    def buffered(self) -> int:
        """The number of bytes held that are not yet delivered as frames."""
        return len(self._store) - self._begin

    @property
    def skipped(self) -> int:
        """The number of overlong frames that were skipped."""
        return 0

    @property
    def position(self) -> int:
        """The stream offset of the next frame, in bytes; of the bad one after a fault."""
        return self._at

    def decode(self, data: Buffer) -> list[bytes]:
        """Feed `data` and return every frame that is now whole, as a list of bytes."""
        self._enter()
        try:
            new = hold(data, "data")
            self._check()
            if self._ended and new:
                raise errors.ended_error()
            self._lent = None
            return self._decode_bytes(new)
        finally:
            self._busy = False

    def feed(self, data: Buffer) -> None:
        """Take `data`, for next_frame() or iteration."""
        self._enter()
        try:
            new = hold(data, "data")
            self._check()
            if self._ended and new:
                raise errors.ended_error()
            self._lent = None
            self._append(new)
        finally:
            self._busy = False

    def next_frame(self) -> bytes | None:
        """Return the next frame, or None until more bytes come."""
        self._enter()
        try:
            self._check()
            return self._take()
        finally:
            self._busy = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._enter()
        try:
            self._check()
            frame = self._take()
        finally:
            self._busy = False
        if frame is None:
            raise StopIteration
        return frame

    def get_buffer(self, sizehint: int = -1) -> memoryview:
        """Return a writable memoryview for the next bytes of the stream; call buffer_updated() after.

        It has `sizehint` bytes (default 64 KiB), but no more than 64 KiB beyond what is held of the
        unfinished frame. The pair is that of `asyncio.BufferedProtocol`.
        """
        hint = index(sizehint)
        self._enter()
        try:
            self._check()
            if self._ended:
                raise errors.ended_error()
            self._lent = None
            self._lent = bytearray(min(hint, self.buffered + SLACK) if hint > 0 else SLACK)
            return memoryview(self._lent)
        finally:
            self._busy = False

    def buffer_updated(self, nbytes: int) -> None:
        """Take the first `nbytes` bytes that were written into the buffer of get_buffer()."""
        count = index(nbytes)
        self._enter()
        try:
            self._check()
            lent = self._lent if self._lent is not None else b""
            if not 0 <= count <= len(lent):
                raise errors.not_lent_error(count, len(lent))
            self._append(memoryview(lent)[:count].tobytes())
            self._lent = None
        finally:
            self._busy = False

    def finish(self) -> list[bytes]:
        """Say that the stream has ended; return the last frames, as a list of bytes.

        Raises `IncompleteFrameError` where the stream ended inside a frame (after the last frames:
        at the next call).
        """
        self._enter()
        try:
            self._check()
            return self._close()
        finally:
            self._busy = False

    def take_buffered(self) -> bytes:
        """Return all bytes held and forget them: what follows belongs to someone else."""
        self._enter()
        try:
            if self._fault is not None and self._fault[0]:
                self._check()
            return self._take_rest()
        finally:
            self._busy = False

    def __reduce__(self) -> NoReturn:
        raise errors.no_copy_error(self)

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError("type 'Decoder' is not an acceptable base type")

    # ---- what the methods are made of; the callers have entered ----

    def _enter(self) -> None:
        """Refuse a call from inside another one."""
        if self._busy:
            raise errors.reentry_error("Decoder")
        self._busy = True

    def _check(self) -> None:
        """Raise the fault that was found, if any."""
        if self._fault is not None:
            if self._fault[0]:
                raise errors.scan_error(*self._fault)
            raise errors.incomplete_error(*self._fault[1:])

    def _use(self, kind: Kind) -> None:
        """Read what is held, and all that follows, by another framing."""
        self._kind = kind
        self._resume = self._least = self._whole = 0

    def _forget(self) -> None:
        """Hold no bytes."""
        self._store = bytearray()
        self._begin = 0
        self._lent = None
        self._resume = self._least = self._whole = 0

    def _look(self, scan: Scan, used: int) -> int:
        """Look for a frame `used` bytes behind the first byte held."""
        begin = self._begin + used
        held = len(self._store) - begin
        if not held or held < self._least:
            return NEED
        scan.resume = self._resume
        status = self._kind.scan(self._store, begin, begin + held, False, scan)
        if status == NEED:
            self._remember(scan)
        else:
            self._resume = self._least = self._whole = 0
        return status

    def _remember(self, scan: Scan) -> None:
        """Keep what a scan that needs more bytes has found out.

        Of a known frame nothing more can be said before its payload is here; a fault in what closes
        it shows with the first byte of that.
        """
        self._resume = scan.resume
        self._whole = scan.size
        self._least = 0 if not scan.size else scan.size if scan.stop == scan.size else scan.stop + 1

    def _record(self, scan: Scan, data: bytes | bytearray, begin: int, position: int) -> None:
        """Keep the fault of the frame at data[begin], at that position in the stream, and no bytes."""
        header = bytes(data[begin:begin + min(scan.seen, CONTEXT)])
        self._fault = (scan.fault, scan.number, scan.limit, position, scan.seen, header)
        self._at = position
        self._forget()

    def _append(self, data: bytes) -> None:
        """Hold these bytes too."""
        if self._begin:
            del self._store[:self._begin]
            self._begin = 0
        self._store += data

    def _cut_back(self, held: int) -> None:
        """Hold no more than the first `held` bytes held."""
        del self._store[self._begin + held:]

    def _cut(self, begin: int, end: int) -> bytes:
        """Return a piece of the bytes held, copied once."""
        if end - begin < 4096:
            return bytes(self._store[begin:end])
        with memoryview(self._store) as view, view[begin:end] as part:
            return part.tobytes()

    def _skip(self, size: int) -> None:
        """Forget the first `size` bytes held, which were delivered as a frame."""
        if self._begin + size == len(self._store):
            self._store = bytearray()
            self._begin = 0
        else:
            self._begin += size
        self._at += size

    def _take_rest(self) -> bytes:
        """Return all bytes held and forget them."""
        rest = bytes(self._store[self._begin:])
        self._at += len(rest)
        self._forget()
        return rest

    def _take(self) -> bytes | None:
        """Take the next frame off what is held, or return None."""
        scan = Scan()
        status = self._look(scan, 0)
        if status == FRAME:
            begin = self._begin
            frame = self._cut(begin + scan.start, begin + scan.stop)
            self._skip(scan.size)
            return frame
        if status == FAULT:
            self._record(scan, self._store, self._begin, self._at)
            self._check()
        return None

    def _take_many(self, limit: int, room: int) -> list[bytes]:
        """Take at most `limit` frames, or about `room` bytes of them, off what is held."""
        out: list[bytes] = []
        scan = Scan()
        used, status = 0, FRAME
        held = self.buffered
        if limit >= 64 and held >= max(self._least, 1024):
            # Many at once are worth a copy of what is held.
            data = bytes(self._store[self._begin:self._begin + room])
            scan.resume = self._resume
            used = self._kind.frames(data, 0, out, scan, limit)
            self._resume, self._least, self._whole = scan.resume, 0, 0
        while len(out) < limit and used < room:
            status = self._look(scan, used)
            if status != FRAME:
                break
            begin = self._begin + used
            out.append(self._cut(begin + scan.start, begin + scan.stop))
            used += scan.size
        if status == FAULT:
            self._record(scan, self._store, self._begin + used, self._at + used)
            if not out:
                self._check()
            return out
        self._drop(used)
        return out

    def _drop(self, used: int) -> None:
        """Forget the first `used` bytes held, which were delivered."""
        del self._store[:self._begin + used]
        self._begin = 0
        self._at += used

    def _decode_bytes(self, data: bytes) -> list[bytes]:
        """Find all frames in what is held and `data`."""
        scan = Scan()
        held = self.buffered
        known = (self._resume, self._least, self._whole)
        if held:
            # Only a frame that is now whole is worth a copy: an unfinished one grows where it lies.
            self._append(data)
            try:
                status = self._look(scan, 0)
                if status == NEED:
                    return []
                if status == FAULT:
                    self._record(scan, self._store, 0, self._at)
                    self._check()
                data = bytes(self._store)
            except BaseException:
                if self._fault is None:
                    del self._store[held:]
                    self._resume, self._least, self._whole = known
                raise
            out = [data[scan.start:scan.stop]]
            at = scan.size
            scan.resume = 0
        else:
            out, at = [], 0
        try:
            at = self._kind.frames(data, at, out, scan, len(data))
            status = self._kind.scan(data, at, len(data), False, scan) if at < len(data) else NEED
            rest = bytearray(memoryview(data)[at:])
        except BaseException:
            del self._store[held:]
            self._resume, self._least, self._whole = known
            raise
        if status == FAULT:
            self._record(scan, data, at, self._at + at)
            if not out:
                self._check()
            return out
        if rest:
            self._remember(scan)
        else:
            self._resume = self._least = self._whole = 0
        self._store = rest
        self._begin = 0
        self._at += at
        return out

    def _close(self) -> list[bytes]:
        """End the stream: return its last frames, or raise that one is cut off."""
        if self._ended:
            return []
        scan = Scan()
        out: list[bytes] = []
        data = bytes(self._store[self._begin:])
        at = self._kind.frames(data, 0, out, scan, len(data))
        held = len(data) - at
        status = self._kind.scan(data, at, len(data), True, scan)
        if status == FRAME:
            out.append(data[at + scan.start:at + scan.stop])
            at += scan.size
        elif status == FAULT:
            self._record(scan, data, at, self._at + at)
        elif held:
            self._fault = (0, data[at:at + min(held, CONTEXT)], held, scan.need, self._at + at)
        if status != FAULT:
            self._forget()
            self._store += data[at:]
            self._at += at
        self._ended = True
        if not out:
            self._check()
        return out
