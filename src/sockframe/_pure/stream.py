"""StreamBuffer: the bytes of a stream, between what brings them and what asks for so many, or up to a separator."""

from __future__ import annotations

import sys
from operator import index
from typing import TYPE_CHECKING, NoReturn, final

from .. import errors
from .codec import SLACK, hold

if TYPE_CHECKING:
    from typing_extensions import Buffer

LARGE = 16384  # bytes that are rather kept as they came than copied


@final
class StreamBuffer:
    """Holds the bytes of a stream until they are taken: `StreamBuffer(limit)`.

    take_through() takes no more than `limit` bytes before a separator. take() and take_through() give None rather than
    leave fewer than `guard` bytes: then there is something else to see to. Not to be shared by threads without a lock.
    """

    __slots__ = ("_before", "_begin", "_data", "_end", "_expected", "_filled", "_front", "_lent", "_scratch",
                 "_searched", "_searched_for", "_target", "guard", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.guard = 0
        self._data: bytes | bytearray = b""  # bytes as they were fed; or a bytearray, with room behind _end
        self._begin = self._end = 0
        self._front: list[bytes | bytearray | memoryview] = []  # of bytes expected: large pieces before _data
        self._before = 0  # bytes in them
        self._scratch: bytearray | None = None
        self._lent = self._expected = 0
        self._searched_for: bytes | tuple[bytes, ...] = b""
        self._searched = 0  # _searched_for does not begin before here
        self._target: memoryview | None = None
        self._filled = 0

    @property
    def held(self) -> int:
        """The number of bytes held."""
        return self._before + self._end - self._begin

    @property
    def missing(self) -> int:
        """The least number of bytes that have not come of those expected, or of those that a target has room for."""
        if self._target is not None:
            return len(self._target) - self._filled
        return max(0, self._expected - self.held)

    def feed(self, data: Buffer) -> None:
        """Take bytes that came."""
        new = hold(data, "data")
        self._scratch = None
        self._lent = 0  # what get_buffer() lent is void
        target = self._target
        room = len(target) - self._filled if target is not None else 0
        size = min(room, len(new))
        if len(new) > room:
            self._append(new[room:])
        if target is not None and size:
            target[self._filled:self._filled + size] = new[:size]
            self._filled += size

    def get_buffer(self, sizehint: int = -1) -> memoryview:
        """Return a writable memoryview for the next bytes that come; call buffer_updated() after.

        It is a target's own memory, while it has room; else it has 64 KiB or more, but no more than 64 KiB beyond what
        is held. The pair is that of `asyncio.BufferedProtocol`.
        """
        target, held = self._target, self.held
        self._scratch = None
        self._lent = 0
        if target is not None and self._filled < len(target):
            self._lent = len(target) - self._filled
            return target[self._filled:]
        missing = self._expected - held
        if missing < SLACK and not (self._front and missing > 0):
            self._scratch = bytearray(SLACK)
            self._lent = SLACK
            return memoryview(self._scratch)
        if type(self._data) is bytes or len(self._data) == self._end:
            room = bytearray(min(max(SLACK, held), missing))
            self._push()
            self._data = room
        self._lent = len(self._data) - self._end
        return memoryview(self._data)[self._end:]

    def buffer_updated(self, nbytes: int) -> None:
        """Take the first `nbytes` bytes that were written into the buffer of get_buffer()."""
        count = index(nbytes)
        if not 0 <= count <= self._lent:
            raise errors.not_lent_error(count, self._lent)
        if self._target is not None and self._filled < len(self._target):
            self._filled += count
        elif self._scratch is None:
            self._end += count
        elif count:
            with memoryview(self._scratch) as lent, lent[:count] as came:
                new = bytes(came)
            self._append(new)
        self._scratch = None
        self._lent = 0
        if self._begin == self._end:
            self._data = b""
            self._begin = self._end = self._searched = 0

    def take(self, n: int) -> bytes | None:
        """Return the next `n` bytes, or None: where they are not all here, and where `n` is no positive int."""
        if type(n) is not int:
            return None
        begin, end = self._begin, self._end - self.guard
        stop = begin + n
        if not begin < stop < end or type(self._data) is not bytes or self._front:
            return self._cut(n) if begin < stop <= end + self._before else None
        self._begin = stop
        return self._data[begin:stop]

    def take_through(self, separator: bytes) -> bytes | None:
        """Return what comes before the next separator, and the separator; or None, also where that is too much."""
        if type(separator) is not bytes or not separator:
            return None
        if self._front:
            self._join()
        begin, data = self._begin, self._data
        if self._searched > begin:
            start = self._look_for(separator)
        else:
            start = data.find(separator, begin, self._end)
            if start < 0:
                self._note(separator, start)
        if start < 0 or start - begin > self.limit:
            return None
        stop = start + len(separator)
        if stop >= self._end - self.guard or type(data) is not bytes:
            return self._cut(stop - begin) if stop <= self._end - self.guard else None
        self._begin = stop
        return data[begin:stop]

    def take_some(self, n: int) -> bytes:
        """Return the next `n` bytes, or as many as there are."""
        return self._cut(max(0, min(index(n), self.held)))

    def find(self, separators: tuple[bytes, ...]) -> tuple[int, int] | None:
        """Return where the separator that ends first begins and ends, from the first byte held; or None.

        `separators` is a tuple of bytes, none empty, the shortest first: that one counts where several end there.
        """
        if self._front:
            self._join()
        if len(separators) == 1:
            start = self._look_for(separators[0])
            return None if start < 0 else (start - self._begin, start - self._begin + len(separators[0]))
        searched = max(self._begin, self._searched) if self._searched_for == separators else self._begin
        found: tuple[int, int] | None = None
        for separator in separators:
            start = self._data.find(separator, searched, self._end)
            if start >= 0 and (found is None or start + len(separator) < found[1]):
                found = start, start + len(separator)
        if found is None:
            searched = max(searched, self._end + 1 - len(separators[-1]))
        self._searched_for, self._searched = separators, searched
        if found is None:
            return None
        return found[0] - self._begin, found[1] - self._begin

    def expect(self, n: int) -> None:
        """Have `n` bytes come into one piece of memory, to be taken at once; 0: however they come."""
        expected = min(index(n), sys.maxsize)
        if expected and self._front:
            self._join()
        self._expected = expected

    def receive_into(self, view: memoryview) -> None:
        """Have a view of flat and writable bytes filled: at once with what is held, then with what comes."""
        self.give_back()
        if view.readonly:
            raise errors.read_only_error("buffer")
        if self._front:
            self._join()
        size = min(len(view), self._end - self._begin)
        if size:
            view[:size] = memoryview(self._data)[self._begin:self._begin + size]
            self._skip(size)
        self._lent = 0
        self._target, self._filled = view, size

    def release_target(self) -> None:
        """Be done with a target: its bytes are taken."""
        self._target = None
        self._filled = self._lent = 0

    def give_back(self) -> None:
        """Be done with a target, and hold the bytes that went into it before all others."""
        if self._target is not None and self._filled:
            with memoryview(self._data) as data, data[self._begin:self._end] as rest:
                joined = b"".join((self._target[:self._filled], rest))
            self._end = len(joined)
            self._data = joined
            self._begin = self._searched = 0
        self._target = self._scratch = None
        self._filled = self._lent = 0

    def __reduce__(self) -> NoReturn:
        raise errors.no_copy_error(self)

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError("type 'StreamBuffer' is not an acceptable base type")

    # ---- what the methods are made of ----

    def _append(self, new: bytes) -> None:
        """Hold some bytes more."""
        data, begin, end, size = self._data, self._begin, self._end, len(new)
        held = end - begin
        if held and size >= LARGE and self.held < self._expected:
            self._push()
            held = 0
        if not held:
            self._data, self._begin, self._end, self._searched = new, 0, size, 0
        elif type(data) is bytes and held <= size:
            self._move(data[begin:] + new, held + size)
        else:
            if type(data) is bytes or begin or end < len(data):
                with memoryview(data) as view, view[begin:end] as rest:
                    data = bytearray(rest)
                self._move(data, held)
            try:
                data += new
            except BufferError:  # somebody still has a view of it
                self._move(bytearray().join((data, new)), held)
            self._end += size

    def _push(self) -> None:
        """Have what is in _data before it."""
        held = self._end - self._begin
        if held:
            piece = memoryview(self._data)[self._begin:self._end]
            self._front.append(piece)
            self._data, self._begin, self._end, self._searched = b"", 0, 0, 0
            self._before += held

    def _join(self) -> None:
        """Have all that is held in _data."""
        with memoryview(self._data) as view, view[self._begin:self._end] as tail:
            joined = b"".join((*self._front, tail))
        self._end = len(joined)
        self._data, self._begin, self._searched = joined, 0, 0
        self._front, self._before = [], 0

    def _move(self, data: bytes | bytearray, end: int) -> None:
        """The bytes held are now at the beginning of `data`."""
        searched = max(0, self._searched - self._begin)
        self._data, self._searched, self._begin, self._end = data, searched, 0, end

    def _look_for(self, separator: bytes) -> int:
        """Return where a separator begins in `data`, or -1; search nothing twice."""
        searched = max(self._begin, self._searched) if self._searched_for == separator else self._begin
        start = self._data.find(separator, searched, self._end)
        self._note(separator, start)
        return start

    def _note(self, separator: bytes, start: int) -> None:
        """Remember where a separator was found, or that it was not."""
        searched = start if start >= 0 else max(self._begin, self._end + 1 - len(separator))
        self._searched_for, self._searched = separator, searched

    def _cut(self, size: int) -> bytes:
        """Take so many bytes, which are here."""
        if self._front:
            behind = size - self._before
            if behind >= 0:
                with memoryview(self._data) as view, view[self._begin:self._begin + behind] as tail:
                    taken = b"".join((*self._front, tail))
                self._skip(behind)
                self._front, self._before = [], 0
                return taken
            self._join()
        begin, data = self._begin, self._data
        if type(data) is bytes:
            taken = data[begin:begin + size]
        else:
            with memoryview(data) as view, view[begin:begin + size] as part:
                taken = bytes(part)
        self._skip(size)
        return taken

    def _skip(self, size: int) -> None:
        """Forget so many bytes, and give back memory that the others don't need."""
        begin = self._begin + size
        held = self._end - begin
        if not held:
            self._data, self._scratch = b"", None
            self._begin = self._end = self._lent = self._searched = 0
        elif len(self._data) > 2 * held + SLACK and not self._lent:
            searched = max(0, self._searched - begin)
            self._data, self._begin, self._end, self._searched = bytes(self._data[begin:self._end]), 0, held, searched
        else:
            self._begin = begin
