"""FrameBatch: many frames, without an object for each."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import accumulate
from operator import index
from typing import TYPE_CHECKING, Any, NoReturn, final, overload

from .. import errors

if TYPE_CHECKING:
    from typing_extensions import Self


def new_batch() -> FrameBatch:
    """Return a batch that is to be filled."""
    return FrameBatch.__new__(FrameBatch)


@final
class FrameBatch:
    """The payloads of many frames, without an object for each: a sequence of read-only memoryviews.

    They are made when asked for; a slice is a batch of some of them, in the same memory. A batch comes from
    `decode_batch()`, `next_batch()` or `recv_batch()` and never changes, whatever becomes of the decoder; threads
    may share it. It keeps its whole `buffer`, so for a few payloads out of many take bytes() of them. An
    Arrow library takes it as it is, without a copy: `pyarrow.array(batch)`, `polars.Series(batch)`.
    """

    __slots__ = ("_frames", "_joined")

    _frames: list[bytes]     # here it has an object for each after all: nothing is cheaper in Python
    _joined: bytes | None    # all of them, once asked for

    def __new__(cls, *args: Any, **keywords: Any) -> Self:
        self = super().__new__(cls)
        self._frames = []
        self._joined = None
        return self

    def __init__(self) -> None:
        raise errors.no_batch_error()

    @property
    def spans(self) -> memoryview:
        """Where each payload begins and ends in `buffer`: a read-only memoryview of int64, n x 2."""
        stops = array("q", accumulate(map(len, self._frames)))
        if not stops:  # a cast can't make a shape of 0 x 2, but there may be none of its rows
            return memoryview(bytes(16)).cast("q", (1, 2))[:0]
        both = stops * 2
        both[1::2] = stops
        both[::2] = array("q", (0, *stops[:-1]))
        return memoryview(both.tobytes()).cast("q", (len(stops), 2))

    @property
    def buffer(self) -> memoryview:
        """The bytes that the payloads lie in, as a read-only memoryview; what else is there may be anything."""
        return memoryview(self.join())

    def __len__(self) -> int:
        return len(self._frames)

    @overload
    def __getitem__(self, key: int) -> memoryview: ...
    @overload
    def __getitem__(self, key: slice) -> FrameBatch: ...
    def __getitem__(self, key: int | slice) -> memoryview | FrameBatch:
        if isinstance(key, slice):
            part = new_batch()
            part._frames = self._frames[key]
            return part
        at = index(key)
        count = len(self._frames)
        if not -count <= at < count:
            raise IndexError("FrameBatch index out of range")
        return memoryview(self._frames[at])

    def __iter__(self) -> Iterator[memoryview]:
        return map(memoryview, self._frames)

    def index(self, value: object, start: int = 0, stop: int | None = None) -> int:
        """Return the place of the first payload that equals `value`; `ValueError` where there is none."""
        for i in range(*slice(start, stop).indices(len(self))):
            if self[i] == value:
                return i
        raise errors.no_payload_error()

    def count(self, value: object) -> int:
        """Return how many payloads equal `value`."""
        return sum(payload == value for payload in self)

    def tolist(self) -> list[bytes]:
        """Return the payloads as a list of bytes."""
        return self._frames[:]

    def join(self) -> bytes:
        """Return the payloads one behind the other, as bytes."""
        joined = self._joined
        if joined is None:
            joined = self._joined = b"".join(self._frames)
        return joined

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        """Return the payloads as an Arrow array of type binary_view, over this same memory.

        It is a pair of PyCapsules, as the Arrow PyCapsule interface has it; no Arrow library is needed.
        `requested_schema` is not heeded, as that interface allows. A payload of 2 GiB or more is a `ValueError`.
        """
        from .arrow import array_capsule, schema_capsule  # it needs ctypes

        array = array_capsule(self._frames, self.join())
        return schema_capsule(), array

    def __repr__(self) -> str:
        return f"<FrameBatch of {len(self)} frames>"

    def __reduce__(self) -> NoReturn:
        raise errors.no_pickle_error(self)

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError("type 'FrameBatch' is not an acceptable base type")
