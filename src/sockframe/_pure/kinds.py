"""The table of framing kinds: the Python twin of csrc/, file by file and answer by answer.

`scan` looks for one frame and answers as csrc/sockframe.h says; `frames` takes many whole, good
frames at once and leaves all else to `scan`; `wrap` makes what goes around a payload. Numbers are
compared as csrc does, as unsigned 64-bit ones: what would be larger is `TOP`.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Callable
from typing import NamedTuple

from .. import errors
from ..errors import Fault
from ..framings import MAX_DIGITS, Frame, Framing, Need, Spec

FAULT, NEED, FRAME, LONG = -1, 0, 1, 2
TOP = 2**64 - 1

Data = bytes | bytearray


class Scan:
    """What a scan answers, and where the next one goes on (sf_scan)."""

    __slots__ = ("behind", "by", "fault", "left", "limit", "need", "number", "passed", "quiet", "resume", "seen",
                 "size", "start", "stop")

    def __init__(self) -> None:
        self.resume = self.size = self.start = self.stop = self.need = 0
        self.fault = self.number = self.limit = self.seen = 0
        self.by: Kind | None = None
        self.left = self.behind = self.passed = self.quiet = 0

    def copy(self) -> Scan:
        """Return another scan that knows the same."""
        other = Scan()
        for name in self.__slots__:
            setattr(other, name, getattr(self, name))
        return other

    def found(self, size: int, start: int, stop: int) -> int:
        """A whole frame of `size` bytes, with the payload from `start` to `stop`."""
        self.size, self.start, self.stop, self.by = size, start, stop, None
        return FRAME

    def want(self, need: int) -> int:
        """At least `need` more bytes are missing, and nothing else is known; 0: no frame has begun."""
        self.need, self.size, self.quiet = need, 0, 0
        return NEED

    def wait(self, have: int, size: int, start: int, stop: int) -> int:
        """The whole frame is known and not yet here: `have` bytes of it are."""
        self.need, self.size, self.start, self.stop = size - have, size, start, stop
        self.quiet = min(stop + 1, size)
        return NEED

    def fail(self, fault: Fault, seen: int, number: int = 0, limit: int = 0) -> int:
        """The first `seen` bytes are no frame."""
        self.fault, self.number, self.limit, self.seen = fault, number, limit, seen
        return FAULT

    def skip_known(self, data: Data, begin: int, end: int, text: bytes) -> int:
        """Pass over a frame of known size; `text` is checked, where it closes the frame."""
        here = min(end - begin, self.left)
        for i in range(max(0, self.left - self.behind), here if text else 0):
            place = self.behind - self.left + i
            if place < len(text) and data[begin + i] != text[place]:
                return self.fail(Fault.END, self.passed + i + 1, data[begin + i])
        self.size = here
        self.left -= here
        self.passed += here
        self.need = self.left
        return NEED if self.left else FRAME

    def match(self, fault: Fault, text: bytes, data: Data, at: int, end: int, begin: int) -> int:
        """Check what is here of `text` at `at`: the number of its bytes here, or -1 with the fault."""
        here = min(len(text), end - at)
        for i in range(here):
            if data[at + i] != text[i]:
                self.fail(fault, at - begin + i + 1, data[at + i])
                return -1
        return here


class Long(NamedTuple):
    """An overlong frame that is being passed over: what the next scan needs, its first bytes, and the
    payload that will be delivered, if any."""

    scan: Scan
    head: bytes
    payload: bytes | None


class Wrapped(NamedTuple):
    """What goes around a payload: the frame is header, payload[replaced:] or else `body`, trailer
    (sf_wrapped)."""

    header: bytes = b""
    replaced: int = 0
    trailer: bytes = b""
    last: bool = False
    body: bytes | None = None


class Refusal(Exception):
    """A payload that can't be sent: the fault and its numbers."""

    def __init__(self, fault: Fault, number: int = 0, limit: int = 0) -> None:
        self.fault, self.number, self.limit = fault, number, limit


class Kind:
    """One kind of framing, compiled; it may deliver at most `limit` bytes."""

    own = False  # whether it asks a framing of the user's own

    def __init__(self, framing: Framing, limit: int, overlong: str) -> None:
        self.framing = framing
        self.limit = limit
        self.overlong = overlong
        self.prepare(framing.spec())

    def prepare(self, spec: Spec) -> None:
        """Take the numbers and texts, in their order."""

    def scan(self, data: Data, begin: int, end: int, ended: bool, scan: Scan) -> int:
        """Look for one frame at data[begin]: FRAME, NEED or FAULT, with the details in `scan`."""
        raise NotImplementedError

    def frames(self, data: bytes, at: int, out: list[bytes], scan: Scan, most: int) -> int:
        """Append the payloads of whole frames from data[at] on, at most `most`; return where the next one
        begins. Where there are fewer, `scan.resume` says how much of that one was searched."""
        end = len(data)
        for _ in range(most):
            if at == end:
                break
            status = self.scan(data, at, end, False, scan)
            if status != NEED:
                scan.resume = 0
            if status != FRAME:
                break
            payload = data[at + scan.start:at + scan.stop]
            out.append(payload if scan.by is None else scan.by.unstuff(payload))
            at += scan.size
        return at

    def wrap(self, payload: bytes) -> Wrapped:
        """Return what goes around a payload, or raise `Refusal`."""
        raise NotImplementedError

    def skip(self, data: Data, begin: int, end: int, ended: bool, scan: Scan) -> int:
        """Pass over an overlong frame: NEED, with the first scan.size bytes done with; FRAME, which ends
        behind them; or FAULT."""
        return scan.skip_known(data, begin, end, b"")

    def unstuff(self, body: bytes) -> bytes:
        """Return the payload of what a scan found, where that names this kind."""
        raise NotImplementedError

    def too_long(self, scan: Scan, length: int, seen: int, have: int, size: int, start: int, stop: int) -> int:
        """A payload above the limit (sf_too_long in csrc/kind.h)."""
        if self.overlong == "error" or size >= TOP:
            return scan.fail(Fault.TOO_LONG, seen, length, self.limit)
        if self.overlong == "truncate" and have < start + self.limit:
            scan.want(start + self.limit - have)
            scan.quiet = start + self.limit
            return NEED
        scan.size, scan.start, scan.by = size, start, self
        scan.left, scan.behind, scan.passed = size, size - stop, 0
        scan.resume = seen
        return LONG

    def check_size(self, payload: bytes) -> None:
        """Refuse a payload above the limit."""
        if len(payload) > self.limit:
            raise Refusal(Fault.WRAP_TOO_LONG, len(payload), self.limit)


class Fixed(Kind):
    """FixedLength: every payload has the same length."""

    def prepare(self, spec: Spec) -> None:
        (self.length,) = spec.numbers

    def scan(self, data: Data, begin: int, end: int, ended: bool, scan: Scan) -> int:
        size = end - begin
        if self.length > self.limit:  # in a Tagged with a lower limit
            return self.too_long(scan, self.length, 1, size, self.length, 0, self.length)
        if size < self.length:
            return scan.wait(size, self.length, 0, self.length)
        return scan.found(self.length, 0, self.length)

    def frames(self, data: bytes, at: int, out: list[bytes], scan: Scan, most: int) -> int:
        length = self.length
        end = at + min((len(data) - at) // length, most) * length
        out.extend([data[start:start + length] for start in range(at, end, length)])
        return end

    def wrap(self, payload: bytes) -> Wrapped:
        self.check_size(payload)
        if len(payload) != self.length:
            raise Refusal(Fault.WRAP_SIZE, len(payload), self.length)
        return Wrapped()


class Delimiter(Kind):
    """Delimiter: a payload, then one of the delimiters; a frame ends where the earliest of them ends."""

    def prepare(self, spec: Spec) -> None:
        keep, deliver_tail = spec.numbers
        self.keep, self.deliver_tail = bool(keep), bool(deliver_tail)
        self.texts = spec.texts
        self.by_size = sorted(spec.texts, key=len, reverse=True)
        self.longest = len(self.by_size[0])
        self.single = spec.texts[0] if len(spec.texts) == 1 else None
        escaped = [re.escape(text) for text in self.by_size]
        # Where no delimiter lies inside another one (but at its end), the one that begins first also
        # ends first, and a search for beginnings will do.
        self.nested = any(text in other[:-1] for text in self.by_size for other in self.by_size if text != other)
        self.pattern = re.compile(b"|".join(escaped), re.DOTALL)
        self.ends = re.compile(b"|".join(b"(?<=" + text + b")" for text in escaped), re.DOTALL)

    def find_end(self, data: Data, begin: int, searched: int, end: int) -> tuple[int, int]:
        """Return the earliest end of a delimiter, behind the `searched` bytes from `begin` on, and
        the delimiter's size; (-1, 0) where there is none by `end`."""
        if self.single is not None:
            size = self.longest
            at = data.find(self.single, begin + max(0, searched - size + 1), end)
            return (at + size, size) if at >= 0 else (-1, 0)
        if not self.nested:
            match = self.pattern.search(data, begin + max(0, searched - self.longest + 1), end)
            if match is None:
                return -1, 0
            return match.end(), self.ending(data, begin, match.end())
        for match in self.ends.finditer(data, begin + searched + 1, end):
            taken = self.ending(data, begin, match.end())
            if taken:
                return match.end(), taken
        return -1, 0

    def ending(self, data: Data, begin: int, end: int) -> int:
        """Return the size of the longest delimiter that ends at data[end], or 0."""
        for text in self.by_size:
            if data.endswith(text, begin, end):
                return len(text)
        return 0

    def missing(self, data: Data, begin: int, end: int) -> int:
        """Return the least number of bytes that would complete a delimiter."""
        least = self.longest
        for text in self.texts:
            part = min(len(text) - 1, end - begin)
            while not data.endswith(text[:part], begin, end):
                part -= 1
            least = min(least, len(text) - part)
        return least

    def scan(self, data: Data, begin: int, end: int, ended: bool, scan: Scan) -> int:
        size = end - begin
        bound = self.limit + (1 if self.keep else self.longest)
        stop, taken = self.find_end(data, begin, scan.resume, begin + min(size, bound))
        if stop >= 0:
            stop -= begin
            payload = stop if self.keep else stop - taken
            if payload > self.limit:
                return self.too_long(scan, 0, stop, size, stop, 0, stop)
            return scan.found(stop, 0, payload)
        if size >= bound:
            return self.too_long(scan, 0, bound, size, 0, 0, 0)
        if ended and self.deliver_tail and size:
            if size > self.limit:
                return self.too_long(scan, 0, size, size, size, 0, size)
            return scan.found(size, 0, size)
        scan.resume = size
        return scan.want(self.missing(data, begin, end))

    def frames(self, data: bytes, at: int, out: list[bytes], scan: Scan, most: int) -> int:
        lines = self.by_size == [b"\r\n", b"\n"]
        text = b"\n" if lines else self.single
        if text is None or self.keep:
            return super().frames(data, at, out, scan, most)
        if scan.resume:
            return at  # the frame that was cut is searched on, not again
        parts = (data[at:] if at else data).split(text, most)
        end = len(data) - len(parts.pop())
        if lines and b"\r" in data:
            parts = [part[:-1] if part.endswith(b"\r") else part for part in parts]
        if parts and max(map(len, parts)) > self.limit:
            return super().frames(data, at, out, scan, most)
        out.extend(parts)
        scan.resume = len(data) - end
        return end

    def skip(self, data: Data, begin: int, end: int, ended: bool, scan: Scan) -> int:
        if scan.left:
            return scan.skip_known(data, begin, end, b"")
        size = end - begin
        stop, _ = self.find_end(data, begin, scan.resume, end)
        scan.need = self.missing(data, begin, end)
        if stop < 0 and ended and self.deliver_tail:
            stop = end
        scan.size = stop - begin if stop >= 0 else max(0, size - self.longest + 1)
        scan.passed += scan.size
        scan.resume = size - scan.size
        return NEED if stop < 0 else FRAME

    def wrap(self, payload: bytes) -> Wrapped:
        self.check_size(payload)
        size = len(payload)
        end, taken = self.find_end(payload, 0, 0, size)
        if self.keep:
            if end < 0:
                raise Refusal(Fault.WRAP_UNENDED, size)
            if end != size:
                raise Refusal(Fault.WRAP_DELIMITER, end - taken)
            return Wrapped()
        if end >= 0:
            raise Refusal(Fault.WRAP_DELIMITER, end - taken)
        # The end of the payload and the delimiter together must not make an earlier or a longer one.
        first = self.texts[0]
        tail = payload[-64:]
        end, taken = self.find_end(tail + first, 0, len(tail), len(tail) + len(first))
        if end != len(tail) + len(first) or taken != len(first):
            raise Refusal(Fault.WRAP_DELIMITER, size - len(tail) + end - taken)
        return Wrapped(trailer=first)


class Crlf(Kind):
    """Lines("crlf"): lines ended by CR LF alone; a bare CR or LF is a fault."""

    def scan(self, data: Data, begin: int, end: int, ended: bool, scan: Scan) -> int:
        bound = self.limit + 1
        window = begin + min(end - begin, bound)
        at = self.find_break(data, begin + scan.resume, window)
        if at == window:
            if end - begin >= bound:
                return self.too_long(scan, 0, bound, end - begin, 0, 0, 0)
            scan.resume = end - begin
            return scan.want(2)
        scan.resume = stop = at - begin
        if data[at] == 10:
            return scan.fail(Fault.BARE, stop + 1, 10)
        if at + 1 == end:
            return scan.want(1)
        if data[at + 1] != 10:
            return scan.fail(Fault.BARE, stop + 2, 13)
        return scan.found(stop + 2, 0, stop)

    def skip(self, data: Data, begin: int, end: int, ended: bool, scan: Scan) -> int:
        at = self.find_break(data, begin + scan.resume, end)
        scan.need = 2 if at == end else 1
        size = at - begin
        scan.resume = 0
        if at < end and data[at] == 10:
            return scan.fail(Fault.BARE, scan.passed + size + 1, 10)
        whole = at + 1 < end
        if whole:
            if data[at + 1] != 10:
                return scan.fail(Fault.BARE, scan.passed + size + 2, 13)
            size += 2
        scan.size = size
        scan.passed += size
        return FRAME if whole else NEED

    @staticmethod
    def find_break(data: Data, at: int, end: int) -> int:
        """Return where the first CR or LF is, or `end`."""
        cr = data.find(b"\r", at, end)
        lf = data.find(b"\n", at, end if cr < 0 else cr)
        return lf if lf >= 0 else cr if cr >= 0 else end

    def frames(self, data: bytes, at: int, out: list[bytes], scan: Scan, most: int) -> int:
        if scan.resume:
            return at  # the frame that was cut is searched on, not again
        parts = (data[at:] if at else data).split(b"\r\n", most)
        end = len(data) - len(parts.pop())
        if not parts:
            return at
        if not data.count(b"\r", at, end) == data.count(b"\n", at, end) == len(parts) \
                or max(map(len, parts)) > self.limit:
            return super().frames(data, at, out, scan, most)
        out.extend(parts)
        return end

    def wrap(self, payload: bytes) -> Wrapped:
        self.check_size(payload)
        at = self.find_break(payload, 0, len(payload))
        if at < len(payload):
            raise Refusal(Fault.WRAP_DELIMITER, at)
        return Wrapped(trailer=b"\r\n")


_STRUCTS = {1: "B", 2: "H", 4: "I", 8: "Q"}


def _field_reader(size: int, order: str) -> Callable[[Data, int], int]:
    """Return a function that reads an unsigned number of `size` bytes at a place in some data."""
    if size in _STRUCTS:
        unpack = struct.Struct((">" if order == "big" else "<") + _STRUCTS[size]).unpack_from
        return lambda data, at: unpack(data, at)[0]
    if order == "big":
        return lambda data, at: int.from_bytes(data[at:at + size], "big")
    return lambda data, at: int.from_bytes(data[at:at + size], "little")


class LengthPrefix(Kind):
    """LengthPrefix: a binary length in front of the payload."""

    def prepare(self, spec: Spec) -> None:
        self.header, little, inclusive = spec.numbers
        self.order = "little" if little else "big"
        self.added = self.header if inclusive else 0
        self.read = _field_reader(self.header, self.order)
        self.unpack = struct.Struct((">", "<")[little] + _STRUCTS.get(self.header, "B")).unpack_from

    def scan(self, data: Data, begin: int, end: int, ended: bool, scan: Scan) -> int:
        header, size = self.header, end - begin
        if size < header:
            # With zeros for what is missing, the length is the least that it can still be.
            length = max(0, self.read(bytes(data[begin:end]) + bytes(header - size), 0) - self.added)
            return scan.want(header - size + (0 if length > self.limit else length))
        length = self.read(data, begin)
        if length < self.added:
            return scan.fail(Fault.TOO_SHORT, header, length, self.added)
        length -= self.added
        if length > self.limit:
            return self.too_long(scan, length, header, size, header + length, header, header + length)
        if size - header < length:
            return scan.wait(size, header + length, header, header + length)
        return scan.found(header + length, header, header + length)

    def frames(self, data: bytes, at: int, out: list[bytes], scan: Scan, most: int) -> int:
        if self.added or self.header not in _STRUCTS:
            return super().frames(data, at, out, scan, most)
        header, limit, unpack, append = self.header, self.limit, self.unpack, out.append
        end = len(data)
        last = end - header
        for _ in range(most):
            if at > last:
                break
            length, = unpack(data, at)
            start = at + header
            stop = start + length
            if stop > end or length > limit:
                break
            append(data[start:stop])
            at = stop
        return at

    def wrap(self, payload: bytes) -> Wrapped:
        self.check_size(payload)
        length, largest = len(payload) + self.added, 256**self.header - 1
        if length > largest:
            raise Refusal(Fault.WRAP_CAPACITY, length, largest)
        return Wrapped(length.to_bytes(self.header, self.order))  # type: ignore[arg-type]


class LengthField(Kind):
    """LengthField: a header with the length of the frame in it."""

    def prepare(self, spec: Spec) -> None:
        (self.field, self.offset, little, self.mask, self.shift, self.scale, subtract, self.add, self.align,
         self.strip, signed) = spec.numbers
        (self.end,) = spec.texts
        self.order = "little" if little else "big"
        self.subtract, self.signed = bool(subtract), bool(signed)
        self.sign_bit = 1 << (8 * self.field - 1) if signed else 0
        self.header = self.offset + self.field
        self.read = _field_reader(self.field, self.order)
        self.least = max(self.header, self.strip) + len(self.end)
        self.around = self.strip + len(self.end)

    def frame_size(self, field: int) -> int:
        """Return the frame's size without its padding."""
        value = ((field & self.mask) >> self.shift) * self.scale
        if value > TOP:
            return TOP
        return max(0, value - self.add) if self.subtract else min(TOP, value + self.add)

    def padding(self, size: int) -> int:
        """Return the number of padding bytes behind a frame of `size` bytes."""
        return -size % self.align

    def scan(self, data: Data, begin: int, end: int, ended: bool, scan: Scan) -> int:
        header, size = self.header, end - begin
        if size < header:
            # With zeros for what is missing, the length is the least that it can still be.
            start = bytes(data[begin:end]) + bytes(header - size)
            whole = max(self.least, self.frame_size(self.read(start, self.offset)))
            if whole - self.around > self.limit:
                return scan.want(header - size)
            return scan.want(whole + self.padding(whole) - size)
        field = self.read(data, begin + self.offset)
        if field & self.sign_bit:
            return scan.fail(Fault.NEGATIVE, header, 256**self.field - field)
        whole = self.frame_size(field)
        if whole < self.least:
            return scan.fail(Fault.TOO_SHORT, header, whole, self.least)
        if whole - self.around > self.limit:
            return self.too_long(scan, whole if whole == TOP else whole - self.around, header, size,
                                 whole + self.padding(whole), self.strip, whole - len(self.end))
        total = whole + self.padding(whole)
        stop = whole - len(self.end)
        if size >= stop and scan.match(Fault.END, self.end, data, begin + stop, end, begin) < 0:
            return FAULT
        if size < total:
            return scan.wait(size, total, self.strip, stop)
        return scan.found(total, self.strip, stop)

    def skip(self, data: Data, begin: int, end: int, ended: bool, scan: Scan) -> int:
        return scan.skip_known(data, begin, end, self.end)

    def wrap(self, payload: bytes) -> Wrapped:
        self.check_size(payload)
        size, delivered = len(payload), max(0, self.header - self.strip)
        fits = self.mask & ~self.sign_bit
        whole = size + self.around
        if size < delivered:
            raise Refusal(Fault.WRAP_SHORT, size, delivered)
        if not self.subtract and whole < self.add:
            raise Refusal(Fault.WRAP_SHORT, size, size + self.add - whole)
        value = whole + self.add if self.subtract else whole - self.add
        if value % self.scale:
            raise Refusal(Fault.WRAP_SCALE, value, self.scale)
        value //= self.scale
        if value << self.shift & ~fits:
            raise Refusal(Fault.WRAP_CAPACITY, value, fits >> self.shift)
        header = bytearray(max(self.header, self.strip))
        field = 0
        if delivered:
            header[self.strip:] = payload[:delivered]
            field = self.read(header, self.offset)
            if field & self.mask and field & self.mask != value << self.shift:
                raise Refusal(Fault.WRAP_FIELD, (field & self.mask) >> self.shift, value)
            if field & self.sign_bit:
                raise Refusal(Fault.WRAP_CAPACITY, field, self.sign_bit - 1)
        field = field & ~self.mask | value << self.shift
        header[self.offset:self.header] = field.to_bytes(self.field, self.order)  # type: ignore[arg-type]
        return Wrapped(bytes(header), delivered, self.end + bytes(self.padding(whole)))


class Varint(Kind):
    """Varint: a LEB128 length of what follows it, at an offset."""

    def prepare(self, spec: Spec) -> None:
        self.offset, self.most, canonical, strip_all, self.strip = spec.numbers
        self.canonical, self.strip_all = bool(canonical), bool(strip_all)

    def read(self, data: Data, at: int, end: int) -> tuple[int, int, Fault]:
        """Read a varint: its bytes, 0 where more are needed, or minus those that show the fault; what was
        read so far; the fault."""
        value = 0
        for i in range(end - at):  # the last of `most` bytes ends it, or is a fault
            byte = data[at + i]
            if i == 9 and byte > 1:
                return -i - 1, value, Fault.VARINT_LONG
            value |= (byte & 0x7F) << 7 * i
            if byte & 0x80:
                if i + 1 == self.most:
                    return -i - 1, value, Fault.VARINT_LONG
                continue
            if self.canonical and i and not byte:
                return -i - 1, value, Fault.VARINT_CANONICAL
            return i + 1, value, Fault.NONE
        return 0, value, Fault.NONE

    def scan(self, data: Data, begin: int, end: int, ended: bool, scan: Scan) -> int:
        size = end - begin
        if size <= self.offset:
            return scan.want(self.offset + 1 - size)
        count, value, fault = self.read(data, begin + self.offset, end)
        if count < 0:
            return scan.fail(fault, self.offset - count, limit=self.most)
        if not count:
            # One byte more at the least, and what the shortest continuation announces.
            if self.canonical:
                value += 1 << 7 * (size - self.offset)
            return scan.want(1 if value > self.limit else 1 + value)
        header = self.offset + count
        start = header if self.strip_all else self.strip
        if header - start + value > self.limit:
            return self.too_long(scan, min(TOP, header - start + value), header, size, header + value, start,
                                 header + value)
        if size - header < value:
            return scan.wait(size, header + value, start, header + value)
        return scan.found(header + value, start, header + value)

    def wrap(self, payload: bytes) -> Wrapped:
        self.check_size(payload)
        size = body = len(payload)
        strip = self.offset if self.strip_all else self.strip
        before = self.offset - strip
        header = bytearray(strip)
        replaced = 0
        if not self.strip_all:
            if size <= before:
                raise Refusal(Fault.WRAP_SHORT, size, before + 1)
            if payload[before]:
                own, value, _ = self.read(payload, before, size)
                if own <= 0 or value != size - before - own:
                    raise Refusal(Fault.WRAP_FIELD, value if own > 0 else 0, size - before - max(own, 1))
                return Wrapped(bytes(header))
            body = size - before - 1
            header += payload[:before]
            replaced = before + 1
        field = bytearray()
        rest = body
        while rest > 0x7F:
            field.append(rest & 0x7F | 0x80)
            rest >>= 7
        field.append(rest)
        if len(field) > self.most:
            raise Refusal(Fault.WRAP_CAPACITY, body, (1 << 7 * self.most) - 1)
        if not self.strip_all and before + len(field) + body > self.limit:
            raise Refusal(Fault.WRAP_TOO_LONG, before + len(field) + body, self.limit)
        return Wrapped(bytes(header + field), replaced)


_DIGITS = {byte: value for value, byte in enumerate(b"0123456789abcdef")} | {
    byte: value for value, byte in enumerate(b"ABCDEF", 10)}


class AsciiLength(Kind):
    """AsciiLength: a length in digits, of fixed width or ended by a separator."""

    def prepare(self, spec: Spec) -> None:
        self.width, self.base = spec.numbers
        self.separator, self.end = spec.texts
        self.digits = {byte: value for byte, value in _DIGITS.items() if value < self.base}

    def missing(self, digits: int, value: int, matched: int) -> int:
        """Return the least number of bytes missing behind `digits` digits and `matched` bytes of the
        separator."""
        more = self.width - digits if self.width else int(not digits)
        value *= self.base**more
        more += len(self.separator) - matched
        return more if value > self.limit else more + value + len(self.end)

    def scan(self, data: Data, begin: int, end: int, ended: bool, scan: Scan) -> int:
        size, width, value, digits = end - begin, self.width, 0, 0
        while digits < size and not (width and digits == width):
            byte = data[begin + digits]
            digit = self.digits.get(byte)
            if digit is None:
                if not width and digits and byte == self.separator[0]:
                    break
                return scan.fail(Fault.DIGIT, digits + 1, byte)
            if not width and digits == 1 and data[begin] == 48:
                return scan.fail(Fault.LEADING_ZERO, 2)
            if digits == MAX_DIGITS:
                return scan.fail(Fault.DIGITS, digits + 1, limit=MAX_DIGITS)
            value = min(TOP, value * self.base + digit)
            digits += 1
        matched = scan.match(Fault.SEPARATOR, self.separator, data, begin + digits, end, begin)
        if matched < 0:
            return FAULT
        if digits < width or matched < len(self.separator):
            return scan.want(self.missing(digits, value, matched))
        header = digits + len(self.separator)
        if value > self.limit:
            return self.too_long(scan, value, header, size, header + value + len(self.end), header, header + value)
        stop = header + value
        if size >= stop and scan.match(Fault.END, self.end, data, begin + stop, end, begin) < 0:
            return FAULT
        if size < stop + len(self.end):
            return scan.wait(size, stop + len(self.end), header, stop)
        return scan.found(stop + len(self.end), header, stop)

    def skip(self, data: Data, begin: int, end: int, ended: bool, scan: Scan) -> int:
        return scan.skip_known(data, begin, end, self.end)

    def wrap(self, payload: bytes) -> Wrapped:
        self.check_size(payload)
        most = self.width or MAX_DIGITS
        digits, rest = bytearray(), len(payload)
        while rest or not digits:
            digits.append(b"0123456789abcdef"[rest % self.base])
            rest //= self.base
        if len(digits) > most:
            raise Refusal(Fault.WRAP_CAPACITY, len(payload), self.base**most - 1)
        digits.reverse()
        return Wrapped(bytes(digits).rjust(self.width, b"0") + self.separator, 0, self.end)


class Tagged(Kind):
    """Tagged: a byte picks the framing that reads the frame."""

    def prepare(self, spec: Spec) -> None:
        self.offset, self.mask = spec.numbers
        (table,) = spec.texts
        self.table = [table[2 * tag] | table[2 * tag + 1] << 8 for tag in range(256)]
        self.children = [
            compile_framing(child, min(self.limit, child.max_length),
                            child.overlong if self.overlong == "error" else self.overlong)
            for child in spec.children]
        self.own = any(child.own for child in self.children)

    def scan(self, data: Data, begin: int, end: int, ended: bool, scan: Scan) -> int:
        least = self.offset + 1
        if end - begin < least:
            return scan.want(least - (end - begin))
        tag = data[begin + self.offset] & self.mask
        number = self.table[tag]
        if not number:
            return scan.fail(Fault.TAG, least, tag)
        status = self.children[number - 1].scan(data, begin, end, ended, scan)
        if status == FAULT and scan.seen < least:
            scan.seen = least
        if status == FRAME and scan.size < least:
            return scan.fail(Fault.TOO_SHORT, least, scan.size, least)
        if status == LONG:
            # Nor may an overlong one end, or be bad, in front of its tag.
            trial, kind = scan.copy(), scan.by
            assert kind is not None
            ending = kind.skip(data, begin, begin + least - 1, False, trial)
            if ending == FRAME:
                return scan.fail(Fault.TOO_SHORT, least, trial.size, least)
            if ending == FAULT:
                return scan.fail(Fault(trial.fault), least, trial.number, trial.limit)
        return status

    def wrap(self, payload: bytes) -> Wrapped:
        at = self.offset
        number = self.table[payload[at] & self.mask] if at < len(payload) else 0
        if not number:
            raise Refusal(Fault.WRAP_TAG)
        child = self.children[number - 1]
        wrapped = child.wrap(payload)
        # A framing that takes the tag off, puts a header in front or stuffs must still leave it in its place.
        body = payload[wrapped.replaced:] if wrapped.body is None else wrapped.body
        if isinstance(child, Stuffed):
            body = b""
        frame = wrapped.header + body[:at + 1]
        if at >= len(frame) or self.table[frame[at] & self.mask] != number:
            raise Refusal(Fault.WRAP_TAG)
        return wrapped


class HeaderBlock(Kind):
    """HeaderBlock: header lines up to a separator; one of them tells the length of the body behind it."""

    def prepare(self, spec: Spec) -> None:
        self.most, strip = spec.numbers
        self.strip = bool(strip)
        self.field, self.separator = spec.texts
        self.name = self.field.lower()

    def find_end(self, data: Data, begin: int, searched: int, end: int) -> int:
        """Return where the first separator ends that ends behind `searched` bytes, or -1."""
        size = len(self.separator)
        at = data.find(self.separator, begin + max(0, searched - size + 1), end)
        return at + size if at >= 0 else -1

    def missing(self, data: Data, begin: int, end: int) -> int:
        """Return the least number of bytes that would complete a separator."""
        part = min(len(self.separator) - 1, end - begin)
        while not data.endswith(self.separator[:part], begin, end):
            part -= 1
        return len(self.separator) - part

    def read_header(self, header: bytes) -> tuple[Fault, int]:
        """Read the lines of a header: the fault, or NONE and the length."""
        length = -1
        lines = header.split(b"\n")
        if not lines[-1]:
            lines.pop()
        for i, line in enumerate(lines):
            if line.endswith(b"\r"):
                line = line[:-1]
            name, colon, rest = line.partition(b":")
            if not name or not colon or line[:1] in (b" ", b"\t"):
                if i == 0 and not colon and line:
                    continue  # a first line of another kind: a request, a status
                return Fault.HEADER_LINE, 0
            if name.rstrip(b" \t").lower() != self.name:
                continue
            digits = rest.strip(b" \t")
            value = 0
            for byte in digits:
                if not 48 <= byte <= 57:
                    return Fault.HEADER_FIELD, 0
                value = min(TOP, value * 10 + byte - 48)
            if name[-1:] in (b" ", b"\t") or not 0 < len(digits) <= MAX_DIGITS or length not in (-1, value):
                return Fault.HEADER_FIELD, 0
            length = value
        return (Fault.HEADER_FIELD, 0) if length < 0 else (Fault.NONE, length)

    def scan(self, data: Data, begin: int, end: int, ended: bool, scan: Scan) -> int:
        size, bound = end - begin, self.most + len(self.separator)
        header = self.find_end(data, begin, scan.resume, begin + min(size, bound)) - begin
        if header < 0:
            if size >= bound:
                return scan.fail(Fault.HEADER_LONG, bound, limit=self.most)
            scan.resume = size
            return scan.want(self.missing(data, begin, end))
        scan.resume = header - 1
        fault, length = self.read_header(bytes(data[begin:begin + header - len(self.separator)]))
        if fault is not Fault.NONE:
            return scan.fail(fault, header)
        start = header if self.strip else 0
        if length + header - start > self.limit:
            return self.too_long(scan, min(TOP, length + header - start), header, size, header + length, start,
                                 header + length)
        if size - header < length:
            return scan.wait(size, header + length, start, header + length)
        return scan.found(header + length, start, header + length)

    def wrap(self, payload: bytes) -> Wrapped:
        self.check_size(payload)
        size = len(payload)
        if self.strip:
            digits, most = str(size).encode(), self.most - len(self.field) - 2
            if len(digits) > most:
                raise Refusal(Fault.WRAP_CAPACITY, size, 10**most - 1)
            return Wrapped(self.field + b": " + digits + self.separator)
        header = self.find_end(payload, 0, 0, min(size, self.most + len(self.separator)))
        if header < 0:
            raise Refusal(Fault.WRAP_SHORT, size, size + self.missing(payload, 0, size))
        fault, length = self.read_header(payload[:header - len(self.separator)])
        if fault is not Fault.NONE or length != size - header:
            raise Refusal(Fault.WRAP_FIELD, length, size - header)
        return Wrapped()


class Stuffed(Kind):
    """What Cobs and Slip have in common: a byte that ends a frame and is stuffed inside it."""

    end: int

    def most_stuffed(self) -> int:
        """Return the most bytes that stuffing makes of a payload at the limit."""
        raise NotImplementedError

    def bad_place(self, body: bytes) -> int:
        """Return where a body is not rightly stuffed, or -1."""
        raise NotImplementedError

    def need(self, last: int) -> int:
        """Return the least number of bytes missing behind a last byte."""
        return 1

    def find(self, data: Data, begin: int, end: int) -> int:
        """Return where the byte that ends a frame is, or `end`."""
        at = data.find(bytes((self.end,)), begin, end)
        return at if at >= 0 else end

    def leading(self, data: Data, begin: int, searched: int, end: int) -> int:
        """Return how many ends are in front of a frame, of which `searched` bytes were searched: behind them
        these hold no other, so that halving finds the last one."""
        low, high = begin, begin + searched
        while low < high:
            middle = (low + high) // 2
            if data[middle] == self.end:
                low = middle + 1
            else:
                high = middle
        while low < end and data[low] == self.end:
            low += 1
        return low - begin

    def scan(self, data: Data, begin: int, end: int, ended: bool, scan: Scan) -> int:
        size = end - begin
        start = self.leading(data, begin, scan.resume, end)
        if start == size:
            scan.resume = size
            return scan.want(0 if ended else 2)
        bound = start + self.most_stuffed() + 1
        window = min(size, bound)
        stop = self.find(data, begin + max(scan.resume, start), begin + window) - begin
        if stop >= window:
            if size >= bound:
                return self.too_long(scan, 0, bound, size, 0, start, 0)
            scan.resume = size
            return scan.want(self.need(data[end - 1]))
        body = bytes(data[begin + start:begin + stop])
        place = self.bad_place(body)
        if place >= 0:
            return scan.fail(Fault.STUFFING, stop + 1, body[place])
        if len(body) > self.limit and len(self.unstuff(body)) > self.limit:
            return self.too_long(scan, 0, stop + 1, size, stop + 1, start, stop)
        scan.found(stop + 1, start, stop)
        scan.by = self
        return FRAME

    def skip(self, data: Data, begin: int, end: int, ended: bool, scan: Scan) -> int:
        if scan.left:
            return scan.skip_known(data, begin, end, b"")
        at = self.find(data, begin + scan.resume, end)
        scan.resume = 0
        scan.size = min(at + 1, end) - begin
        scan.passed += scan.size
        scan.need = 1
        return FRAME if at < end else NEED


class Cobs(Stuffed):
    """Cobs: consistent overhead byte stuffing; each run of bytes has its length, and a zero behind it, in
    front."""

    end = 0

    def most_stuffed(self) -> int:
        return self.limit + self.limit // 254 + 1

    def bad_place(self, body: bytes) -> int:
        at = 0
        while at < len(body):
            if body[at] > len(body) - at:
                return at
            at += body[at]
        return -1

    def unstuff(self, body: bytes) -> bytes:
        parts: list[bytes] = []
        at = 0
        while at < len(body):
            code = body[at]
            parts.append(body[at + 1:at + code])
            at += code
            if code < 255 and at < len(body):
                parts.append(b"\0")
        return b"".join(parts)

    def wrap(self, payload: bytes) -> Wrapped:
        self.check_size(payload)
        parts: list[bytes] = []
        runs = payload.split(b"\0")
        for i, run in enumerate(runs):
            while len(run) > 254 or (len(run) == 254 and i + 1 < len(runs)):
                parts += b"\xff", run[:254]
                run = run[254:]
            parts += bytes((len(run) + 1,)), run
        return Wrapped(trailer=b"\0", body=b"".join(parts))


class Slip(Stuffed):
    """Slip: RFC 1055: END closes a frame, ESC stands before what END and ESC have become."""

    end = 0xC0

    def most_stuffed(self) -> int:
        return 2 * self.limit

    def need(self, last: int) -> int:
        return 2 if last == 0xDB else 1

    def bad_place(self, body: bytes) -> int:
        at = body.find(b"\xdb")
        while at >= 0:
            if body[at + 1:at + 2] not in (b"\xdc", b"\xdd"):
                return min(at + 1, len(body) - 1)
            at = body.find(b"\xdb", at + 2)
        return -1

    def unstuff(self, body: bytes) -> bytes:
        return body.replace(b"\xdb\xdc", b"\xc0").replace(b"\xdb\xdd", b"\xdb")

    def wrap(self, payload: bytes) -> Wrapped:
        self.check_size(payload)
        if not payload:
            raise Refusal(Fault.WRAP_SHORT, 0, 1)
        return Wrapped(trailer=b"\xc0", body=payload.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc"))


class Own(Kind):
    """A framing of the user's own: its measure and wrap."""

    own = True

    def scan(self, data: Data, begin: int, end: int, ended: bool, scan: Scan) -> int:
        size = end - begin
        if not size:
            return scan.want(1)
        answer = self.framing.measure(memoryview(data).toreadonly()[begin:end])
        if isinstance(answer, Need):
            count = answer.count
            if not isinstance(count, int) or not 0 < count <= sys.maxsize:
                raise errors.measure_error(self.framing, answer)
            scan.want(count)
            scan.quiet = size + count
            return NEED
        if not isinstance(answer, Frame):
            raise errors.measure_error(self.framing, answer)
        total, start, stop = answer
        if stop is None:
            stop = total
        if not all(isinstance(number, int) for number in (total, start, stop)):
            raise errors.measure_error(self.framing, answer)
        if not 0 < total <= sys.maxsize or not 0 <= start <= stop <= total:
            raise errors.measure_error(self.framing, answer)
        if stop - start > self.limit:
            return self.too_long(scan, stop - start, 1, size, total, start, stop)
        if total > size:
            return scan.wait(size, total, start, stop)
        return scan.found(total, start, stop)

    def wrap(self, payload: bytes) -> Wrapped:
        self.check_size(payload)
        return Wrapped(body=bytes(memoryview(self.framing.wrap(payload))))


class UntilClose(Kind):
    """UntilClose: the whole stream is one payload."""

    def scan(self, data: Data, begin: int, end: int, ended: bool, scan: Scan) -> int:
        size = end - begin
        if size > self.limit:
            return self.too_long(scan, 0, self.limit + 1, size, 0, 0, 0)
        return scan.found(size, 0, size) if ended else scan.want(1)

    def skip(self, data: Data, begin: int, end: int, ended: bool, scan: Scan) -> int:
        scan.size = end - begin
        scan.passed += scan.size
        scan.need = 1
        return FRAME if ended else NEED

    def wrap(self, payload: bytes) -> Wrapped:
        self.check_size(payload)
        return Wrapped(last=True)


KINDS: dict[str, type[Kind]] = {
    "fixed": Fixed,
    "delimiter": Delimiter,
    "crlf": Crlf,
    "length_prefix": LengthPrefix,
    "length_field": LengthField,
    "varint": Varint,
    "ascii_length": AsciiLength,
    "tagged": Tagged,
    "header_block": HeaderBlock,
    "cobs": Cobs,
    "slip": Slip,
    "own": Own,
    "until_close": UntilClose,
}


def compile_framing(framing: Framing, limit: int, overlong: str) -> Kind:
    """Compile a framing that may deliver at most `limit` bytes; a limit is one for its children too."""
    return KINDS[framing.spec().kind](framing, limit, overlong)


def kind_of(framing: Framing) -> Kind:
    """Return the compiled framing, kept with the framing object itself."""
    kind: Kind | None = framing.__dict__.get("_pure")
    if kind is None:
        kind = framing.__dict__["_pure"] = compile_framing(framing, framing.max_length, framing.overlong)
    return kind
