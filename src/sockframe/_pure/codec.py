"""Encoder and Decoder: frames from bytes and bytes from frames, without I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from operator import index
from typing import TYPE_CHECKING, Any, NoReturn, final

from .. import errors
from ..errors import CONTEXT, Fault
from ..framings import Framing
from .batch import FrameBatch, new_batch
from .kinds import FAULT, FRAME, LONG, NEED, Data, Kind, Long, Refusal, Scan, Wrapped, kind_of

if TYPE_CHECKING:
    from typing_extensions import Buffer

#: Bytes that an unfinished frame may hold beyond twice what arrived.
SLACK = 65536

ONE = (None,)  # what is taken off a list, by one of several threads, and given back: neither takes any memory


# ---- arguments ----

def hold(value: Any, what: str) -> bytes:
    """Return the bytes of an argument."""
    if type(value) is bytes:
        return value
    try:
        view = memoryview(value)
    except TypeError:
        if hasattr(type(value), "__buffer__"):
            raise
        raise errors.not_bytes_error(what, value) from None
    with view:
        if not view.c_contiguous and view.nbytes:
            raise errors.not_contiguous_error(what)
        return view.tobytes()


def hold_writable(value: Any, what: str) -> memoryview:
    """Return a view of a writable argument, as flat bytes."""
    try:
        view = memoryview(value)
    except TypeError:
        if hasattr(type(value), "__buffer__"):
            raise
        raise errors.not_bytes_error(what, value) from None
    if not view.c_contiguous and view.nbytes:
        raise errors.not_contiguous_error(what)
    if view.readonly:
        raise errors.read_only_error(what)
    return view.cast("B") if view.nbytes else memoryview(bytearray())


def compiled(framing: Any) -> Kind:
    """Return the compiled framing, kept with the framing object itself."""
    if not isinstance(framing, Framing):
        raise errors.not_framing_error(framing)
    return kind_of(framing)


# ---- payload to frame ----

def join_frame(wrapped: Wrapped, payload: bytes) -> bytes:
    """Return the frame of a wrapped payload."""
    header, replaced, trailer, _, body = wrapped
    if body is None:
        body = payload[replaced:] if replaced else payload
    return header + body + trailer


def wrap_payload(kind: Kind, payload: bytes, last: bool, index: int | None) -> Wrapped:
    """Make what goes around a payload, or raise that it can't be sent."""
    try:
        wrapped = kind.wrap(payload)
        if last:
            raise Refusal(Fault.WRAP_LAST)
    except Refusal as refusal:
        raise errors.wrap_error(refusal.fault, refusal.number, refusal.limit, index) from None
    except ValueError as error:
        if index is None or type(error) is not ValueError:
            raise
        raise errors.own_wrap_error(error, index) from error
    return wrapped


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
        return join_frame(wrap_payload(self._kind, data, False, None), data)

    def encode_many(self, payloads: Iterable[Buffer]) -> bytes:
        """Return the frames of all payloads of an iterable, one after the other, as bytes.

        An error names the payload's place, counted from 0.
        """
        kind = self._kind
        parts: list[bytes] = []
        last = False
        for i, payload in enumerate(tuple(payloads)):
            data = hold(payload, "payload")
            wrapped = wrap_payload(kind, data, last, i)
            last = wrapped.last
            parts.append(join_frame(wrapped, data))
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

    __slots__ = ("_at", "_begin", "_ended", "_fault", "_framing", "_idle", "_kind", "_least", "_lent", "_long",
                 "_own_fault", "_passed_over", "_resume", "_store", "_whole")

    def __init__(self, framing: Framing) -> None:
        if hasattr(self, "_kind"):
            raise errors.reentry_error("Decoder")
        self._kind = compiled(framing)
        self._framing = framing
        self._store: Data = b""              # the bytes held, from _begin on: a bytearray while there are any
        self._begin = 0
        self._resume = self._least = self._whole = 0  # what is known of the unfinished frame
        self._at = 0
        self._lent: bytearray | None = None  # the memory that get_buffer() lent
        self._fault: tuple[Any, ...] | None = None
        self._own_fault: tuple[str, bytes] | None = None
        self._long: Long | None = None
        self._passed_over = 0
        self._ended = False
        self._idle = [*ONE, *ONE]  # without its second item in the midst of a call

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
            self._idle += ONE

    @property
    def need(self) -> int:
        """The least number of bytes missing for the next frame; 0 where next_frame() has an answer."""
        if self._fault is not None or self._ended:
            return 0
        self._enter()
        try:
            begin, end, status = self._begin, len(self._store), LONG
            if self._long is not None:
                scan = self._long.scan.copy()
            else:
                scan = Scan()
                scan.resume = self._resume
                status = self._run(self._store, begin, end, scan)
            while status == LONG:
                kind = scan.by
                assert kind is not None
                status = kind.skip(self._store, begin, end, False, scan)
                if status == FRAME and kind.overlong == "skip":
                    begin += scan.size
                    scan.resume = 0
                    status = self._run(self._store, begin, end, scan)
            return scan.need if status == NEED else 0
        finally:
            self._idle += ONE

    @property
    def buffered(self) -> int:
        """The number of bytes held that are not yet delivered as frames."""
        return len(self._store) - self._begin

    @property
    def skipped(self) -> int:
        """The number of overlong frames that were skipped."""
        return self._passed_over

    @property
    def position(self) -> int:
        """The stream offset of the next frame, in bytes; of the bad one after a fault."""
        return self._at - (self._long.scan.passed if self._long is not None else 0)

    def decode(self, data: Buffer) -> list[bytes]:
        """Feed `data` and return every frame that is now whole, as a list of bytes."""
        self._enter()
        try:
            new = hold(data, "data")
            self._accept(len(new))
            return self._decode_bytes(new)
        finally:
            self._idle += ONE

    def decode_batch(self, data: Buffer) -> FrameBatch:
        """Feed `data` and return every frame that is now whole, as a `FrameBatch`.

        In the core the payloads of bytes that come while nothing is held stay where they are.
        """
        self._enter()
        try:
            new = hold(data, "data")
            self._accept(len(new))
            batch = new_batch()  # what fails must fail before frames are taken
            batch._frames = self._decode_bytes(new)
            return batch
        finally:
            self._idle += ONE

    def feed(self, data: Buffer) -> None:
        """Take `data`, for next_frame() or iteration."""
        self._enter()
        try:
            new = hold(data, "data")
            self._accept(len(new))
            self._append(new)
        finally:
            self._idle += ONE

    def next_frame(self) -> bytes | None:
        """Return the next frame, or None until more bytes come."""
        self._enter()
        try:
            self._check()
            return self._take()
        finally:
            self._idle += ONE

    def next_batch(self) -> FrameBatch:
        """Return all frames that are whole, as a `FrameBatch`: an empty one until more bytes come."""
        self._enter()
        try:
            self._check()
            return self._take_batch(self.buffered + 1)
        finally:
            self._idle += ONE

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._enter()
        try:
            self._check()
            frame = self._take()
        finally:
            self._idle += ONE
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
            self._idle += ONE

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
            self._idle += ONE

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
            self._idle += ONE

    def take_buffered(self) -> bytes:
        """Return all bytes held and forget them: what follows belongs to someone else."""
        self._enter()
        try:
            if self._fault is not None and self._fault[0]:
                self._check()
            return self._take_rest()
        finally:
            self._idle += ONE

    def _midway(self) -> bool:
        """Say whether an overlong frame is being passed over, of which nothing need be held."""
        return self._long is not None

    def __reduce__(self) -> NoReturn:
        raise errors.no_copy_error(self)

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError("type 'Decoder' is not an acceptable base type")

    # ---- what the methods are made of; the callers have entered ----

    def _enter(self) -> None:
        """Refuse a call from inside another one."""
        try:
            del self._idle[1]
        except IndexError:
            raise errors.reentry_error("Decoder") from None

    def _check(self) -> None:
        """Raise the fault that was found, if any."""
        if self._fault is not None:
            if self._fault[0] > 0:
                raise errors.scan_error(*self._fault)
            raise (errors.own_error if self._fault[0] else errors.incomplete_error)(*self._fault[1:])

    def _accept(self, size: int) -> None:
        """So many bytes have come: refuse them behind a fault, or behind the end; a buffer that was lent is void."""
        self._check()
        if self._ended and size:
            raise errors.ended_error()
        self._lent = None

    def _use(self, kind: Kind) -> None:
        """Read what is held, and all that follows, by another framing."""
        self._kind = kind
        self._resume = self._least = self._whole = 0

    def _forget(self) -> None:
        """Hold no bytes."""
        self._store = b""
        self._begin = 0
        self._lent = None
        self._long = None
        self._resume = self._least = self._whole = 0

    def _run(self, data: Data, begin: int, end: int, scan: Scan, ended: bool = False) -> int:
        """Look for one frame at data[begin]."""
        self._own_fault = None
        try:
            return self._kind.scan(data, begin, end, ended, scan)
        except errors.MalformedFrameError as error:
            self._own_fault = (str(error), error.header)
            return FAULT

    def _await_more(self, scan: Scan, held: int) -> None:
        """Note what a scan of an unfinished frame found. Another one is of use once `least` bytes are here: a
        fault may show with any byte, but where the scan says otherwise."""
        self._resume = scan.resume
        self._whole = scan.size
        self._least = max(held + 1, scan.quiet)

    def _look(self, scan: Scan) -> int:
        """Look for the next frame in what is held."""
        begin = self._begin
        held = len(self._store) - begin
        if not held or held < self._least:
            return NEED
        scan.resume = self._resume
        status = self._run(self._store, begin, begin + held, scan)
        if status == NEED:
            self._await_more(scan, held)
        else:
            self._resume = self._least = self._whole = 0
        return status

    def _record(self, scan: Scan, data: Data, begin: int, position: int) -> None:
        """Keep the fault of the frame at data[begin], at that position in the stream, and no bytes."""
        fault: tuple[Any, ...]
        if self._own_fault is not None:
            fault = (-1, self._own_fault[0], position, self._own_fault[1])
        else:
            header = bytes(data[begin:begin + CONTEXT])
            if self._long is not None:
                header = (self._long.head + header)[:CONTEXT]
                position -= self._long.scan.passed
            fault = (scan.fault, scan.number, scan.limit, position, scan.seen, header[:scan.seen])
        self._forget()  # the last call that can be interrupted
        self._fault = fault
        self._at = position

    def _begin_long(self, scan: Scan, data: Data, begin: int) -> None:
        """Begin to pass over an overlong frame."""
        kind = scan.by
        assert kind is not None
        payload = None
        if kind.overlong == "truncate":
            payload = bytes(data[begin + scan.start:begin + scan.start + kind.limit])
        self._long = Long(scan.copy(), b"", payload)

    def _pass_long(self, data: Data, begin: int, end: int, ended: bool, out: list[bytes],
                   scan: Scan) -> int:
        """Pass over more of an overlong frame: scan.size bytes are done with."""
        assert self._long is not None
        known, head, payload = self._long
        kind = known.by
        assert kind is not None
        after = known.copy()
        status = kind.skip(data, begin, end, ended, after)
        for name in ("size", "need", "fault", "number", "limit", "seen"):
            setattr(scan, name, getattr(after, name))
        if status == FAULT:
            return status
        if len(head) < CONTEXT:
            head += bytes(data[begin:begin + min(after.size, CONTEXT - len(head))])
        if status == FRAME:
            if payload is not None:
                out.append(payload)
            else:
                self._passed_over += 1
            self._long = None
        else:
            self._long = Long(after, head, payload)
        return status

    def _harvest(self, data: bytes, at: int, limit: int, out: list[bytes], scan: Scan) -> tuple[int, int]:
        """Append the payloads of the frames from data[at] on, at most `limit` of them; return the status,
        and where what is not done with begins. What is known of the first frame, and of the one that is
        not whole at last, is in the decoder."""
        end = len(data)
        frames = self._kind.frames
        while len(out) < limit:
            if self._long is not None:
                status = self._pass_long(data, at, end, False, out, scan)
                if status == FAULT:
                    return status, at
                at += scan.size
                if status == NEED:
                    return status, at
                continue
            if at == end or end - at < self._least:
                return NEED, at
            scan.resume = self._resume
            if not self._kind.own:
                begin, at = at, frames(data, at, out, scan, limit - len(out))
                if at > begin:
                    self._resume = self._least = self._whole = 0
                if at == end or len(out) >= limit:
                    continue
            status = self._run(data, at, end, scan)
            if status == FRAME:
                payload = data[at + scan.start:at + scan.stop]
                out.append(payload if scan.by is None else scan.by.unstuff(payload))
                at += scan.size
                self._resume = self._least = self._whole = 0
            elif status == LONG:
                self._begin_long(scan, data, at)
                self._resume = self._least = self._whole = 0
                # Where one frame is overlong, many may be: do not split what is left anew for each of them.
                frames = partial(Kind.frames, self._kind)
            else:
                if status == NEED:
                    self._await_more(scan, end - at)
                return status, at
        return FRAME, at

    def _append(self, data: bytes) -> None:
        """Hold these bytes too."""
        self._cut_off(self._begin)
        self._begin = 0
        if not self._store:
            self._store = bytearray(data)
            return
        try:
            self._store += data
        except BufferError:  # a view that a framing of the user's has kept
            self._store = self._store + data

    def _cut_off(self, size: int) -> None:
        """Forget the first `size` bytes of the store."""
        if size == len(self._store):
            self._store = b""
        elif size:
            self._delete(slice(size))

    def _cut_back(self, held: int) -> None:
        """Hold no more than the first `held` bytes held."""
        if self.buffered > held:
            self._delete(slice(self._begin + held, None))

    def _delete(self, place: slice) -> None:
        """Take the bytes at one end of the store away."""
        assert isinstance(self._store, bytearray)
        try:
            del self._store[place]
        except BufferError:  # a view that a framing of the user's has kept
            self._store = bytearray(self._store)
            del self._store[place]

    def _cut(self, begin: int, end: int) -> bytes:
        """Return a piece of the store, copied once."""
        if end - begin < 4096:
            return bytes(self._store[begin:end])
        with memoryview(self._store) as view, view[begin:end] as part:
            return part.tobytes()

    def _skip(self, size: int) -> None:
        """Forget the first `size` bytes held, which were delivered as a frame."""
        if self._begin + size == len(self._store):
            self._store = b""
            self._begin = 0
        else:
            self._begin += size
        self._at += size
        self._resume = self._least = self._whole = 0

    def _take_rest(self) -> bytes:
        """Return all bytes held and forget them."""
        rest = bytes(self._store[self._begin:])
        at = self._at + len(rest)
        self._forget()  # the last call that can be interrupted
        self._at = at
        return rest

    def _payload(self, scan: Scan) -> bytes:
        """Return the payload of the frame that was found at the start of what is held."""
        payload = self._cut(self._begin + scan.start, self._begin + scan.stop)
        return payload if scan.by is None else scan.by.unstuff(payload)

    def _lift(self, scan: Scan) -> bytes:
        """Take the frame that was found off what is held."""
        frame = self._payload(scan)
        self._skip(scan.size)
        return frame

    def _take(self) -> bytes | None:
        """Take the next frame off what is held, or return None."""
        scan = Scan()
        status = LONG if self._long is not None else self._look(scan)
        if status == FRAME:
            return self._lift(scan)
        if status == FAULT:
            self._record(scan, self._store, self._begin, self._at)
            self._check()
        if status == LONG:
            if self._long is None:
                self._begin_long(scan, self._store, self._begin)
            frames = self._take_many(1, SLACK)
            return frames[0] if frames else None
        if self._begin > self.buffered + SLACK:
            self._cut_off(self._begin)
            self._begin = 0
        return None

    def _take_many(self, limit: int, room: int) -> list[bytes]:
        """Take at most `limit` frames, or about `room` bytes of them, off what is held."""
        out: list[bytes] = []
        scan = Scan()
        used = 0
        state = self._state()
        # Only a frame that is now whole is worth a copy: an unfinished one grows where it lies.
        status = LONG if self._long is not None else self._look(scan)
        if status == NEED:
            return out
        if status == FRAME and limit == 1:
            return [self._lift(scan)]
        try:
            if status == FRAME:
                out.append(self._payload(scan))
                used = scan.size
            elif status == LONG and self._long is None:
                self._begin_long(scan, self._store, self._begin)
            data = bytes(self._store[self._begin:self._begin + room])
            if status != FAULT and used < room:
                status, used = self._harvest(data, used, limit, out, scan)
            while status == NEED and (used < room or limit == 1) and room < self.buffered:
                # The frame that `room` cuts is the last one.
                room = min(self.buffered, 2 * room)
                data = bytes(self._store[self._begin:self._begin + room])
                status, used = self._harvest(data, used, len(out) + 1, out, scan)
            if status == FAULT:
                self._record(scan, data, used, self._at + used)
            else:
                self._cut_off(self._begin + used)
                self._begin = 0
                self._at += used
        except BaseException:
            self._restore(state)
            raise
        if status == FAULT and not out:
            self._check()
        return out

    def _take_batch(self, room: int) -> FrameBatch:
        """Take the frames that are whole, or about `room` bytes of them, off what is held, as a batch."""
        batch = new_batch()  # what fails must fail before frames are taken
        batch._frames = self._take_many(self.buffered + 1, room)
        return batch

    def _decode_bytes(self, data: bytes) -> list[bytes]:
        """Find all frames in what is held and `data`."""
        scan = Scan()
        out: list[bytes] = []
        held = self.buffered
        state = self._state()
        status, at = FRAME, 0
        try:
            if held:
                # Only a frame that is now whole is worth a copy: an unfinished one grows where it lies.
                self._append(data)
                if self._long is None:
                    status = self._look(scan)
                    if status == NEED:
                        return []
                    if status == FRAME:
                        out.append(self._payload(scan))
                        at = scan.size
                    elif status == LONG:
                        self._begin_long(scan, self._store, 0)
                data = bytes(self._store)
            if status != FAULT:
                status, at = self._harvest(data, at, len(data) + 1, out, scan)
            if status == FAULT:
                self._record(scan, data, at, self._at + at)
            else:
                self._store = bytearray(memoryview(data)[at:]) if at < len(data) else b""
                self._begin = 0
                self._at += at
        except BaseException:
            self._restore(state)
            raise
        if status == FAULT and not out:
            self._check()
        return out

    def _close(self, cut: bool = False) -> list[bytes]:
        """End the stream: return its last frames, or raise that one is cut off: also one that this end alone would
        make, where the stream was `cut`."""
        if self._ended:
            return []
        scan = Scan()
        out: list[bytes] = []
        state = self._state()
        try:
            data = bytes(self._store[self._begin:])
            status, at = self._harvest(data, 0, len(data) + 1, out, scan)
            if status == NEED:
                count, passing = len(out), self._long
                status = self._last(data, at, out, scan)
                if cut and len(out) > count:
                    del out[count:]
                    self._long = passing
                    status, scan.size, scan.need = NEED, 0, 1
                if status != FAULT:
                    at += scan.size
            held = len(data) - at
            if status == FAULT:
                self._record(scan, data, at, self._at + at)
            elif status == NEED and (held or self._long is not None) and scan.need:
                partial, passed = data[at:at + CONTEXT], 0
                if self._long is not None:
                    partial, passed = (self._long.head + partial)[:CONTEXT], self._long.scan.passed
                self._store, self._begin = bytearray(data[at:]), 0  # the last call that can be interrupted
                self._fault = (0, partial, passed + held, scan.need, self._at + at - passed)
                self._at += at
            else:
                end = self._at + len(data)
                self._forget()  # the last call that can be interrupted
                self._at = end
        except BaseException:
            self._restore(state)
            raise
        self._ended = True
        if not out:
            self._check()
        return out

    def _last(self, data: bytes, at: int, out: list[bytes], scan: Scan) -> int:
        """Look for the frame that the end of the stream makes of what is left; scan.size bytes are done with."""
        status = LONG
        if self._long is None:
            scan.resume = self._resume
            status = self._run(data, at, len(data), scan, True)
            if status == FRAME:
                payload = data[at + scan.start:at + scan.stop]
                out.append(payload if scan.by is None else scan.by.unstuff(payload))
            elif status == LONG:
                self._begin_long(scan, data, at)
            elif status == NEED:
                scan.size = 0
        if status == LONG:
            status = self._pass_long(data, at, len(data), True, out, scan)
        return status

    def _state(self) -> tuple[Any, ...]:
        """Return what `_restore` needs after a call that failed."""
        return self.buffered, self._resume, self._least, self._whole, self._long, self._passed_over

    def _restore(self, state: tuple[Any, ...]) -> None:
        """Be as before a call that failed: all that was held then still is."""
        held, self._resume, self._least, self._whole, self._long, self._passed_over = state
        self._cut_back(held)
