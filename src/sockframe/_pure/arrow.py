"""A batch as Arrow's array in its PyCapsules, which only C can make: by ctypes.

The structures are those of the Arrow C data interface, the capsules those of the Arrow PyCapsule interface:
https://arrow.apache.org/docs/format/CDataInterface.html and there CDataInterface/PyCapsuleInterface.html.
"""

from __future__ import annotations

from ctypes import (
    CFUNCTYPE,
    POINTER,
    PYFUNCTYPE,
    Structure,
    addressof,
    c_char_p,
    c_int,
    c_int64,
    c_void_p,
    cast,
    py_object,
    pythonapi,
)
from itertools import accumulate, count
from struct import pack
from typing import Any

from .. import errors

#: Bytes of a buffer that 31 bits can count.
WINDOW = 1 << 31
#: The largest payload, and the largest that lies in an Arrow view itself.
LARGEST, INLINE = WINDOW - 1, 12
NULLABLE = 2


class ArrowSchema(Structure):
    _fields_ = (("format", c_char_p), ("name", c_char_p), ("metadata", c_char_p), ("flags", c_int64),
                ("n_children", c_int64), ("children", c_void_p), ("dictionary", c_void_p), ("release", c_void_p),
                ("private_data", c_void_p))


class ArrowArray(Structure):
    _fields_ = (("length", c_int64), ("null_count", c_int64), ("offset", c_int64), ("n_buffers", c_int64),
                ("n_children", c_int64), ("buffers", c_void_p), ("children", c_void_p), ("dictionary", c_void_p),
                ("release", c_void_p), ("private_data", c_void_p))


#: The constants that are pointed to: they must last.
FORMAT, NAME, SCHEMA, ARRAY = b"vz", b"", b"arrow_schema", b"arrow_array"

#: What arrays have of batches, by number, and what capsules hold, by their address.
_arrays: dict[int, Any] = {}
_capsules: dict[int, Any] = {}
_numbers = count(1)

_new_capsule = PYFUNCTYPE(py_object, c_void_p, c_char_p, c_void_p)(("PyCapsule_New", pythonapi))
_set_destructor = PYFUNCTYPE(c_int, py_object, c_void_p)(("PyCapsule_SetDestructor", pythonapi))


# C calls these, perhaps while an exception is on its way. They are of bytecode that heeds none: of a call of a
# function in C it would be taken for that function's. (Behind them ctypes says that it was there, and drops it.)

def release_schema(schema: Any) -> None:
    """Let go of what a schema has: nothing."""
    schema.contents.release = None


def release_array(array: Any) -> None:
    """Let go of what an array has of a batch."""
    del _arrays[array.contents.private_data]
    array.contents.release = None


def drop_schema(capsule: int) -> None:
    """Free what a capsule holds."""
    del _capsules[capsule]


def drop_array(capsule: int) -> None:
    """Free what a capsule holds, and what that has, where nobody took it."""
    array = _capsules[capsule]
    del _capsules[capsule]
    if array.release:
        del _arrays[array.private_data]


# Of functions, C has these: they must last, too.
_release_schema = CFUNCTYPE(None, POINTER(ArrowSchema))(release_schema)
_release_array = CFUNCTYPE(None, POINTER(ArrowArray))(release_array)
_drop_schema = PYFUNCTYPE(None, c_void_p)(drop_schema)
_drop_array = PYFUNCTYPE(None, c_void_p)(drop_array)


def new_capsule(held: Structure, name: bytes, drop: Any) -> object:
    """Return a capsule of a structure."""
    capsule = _new_capsule(addressof(held), name, None)
    _capsules[id(capsule)] = held
    try:
        _set_destructor(capsule, cast(drop, c_void_p))
    except BaseException:
        del _capsules[id(capsule)]
        raise
    return capsule


def schema_capsule() -> object:
    """Return the schema of a batch."""
    schema = ArrowSchema(format=FORMAT, name=NAME, flags=NULLABLE, release=cast(_release_schema, c_void_p))
    return new_capsule(schema, SCHEMA, _drop_schema)


def array_capsule(frames: list[bytes], joined: bytes) -> object:
    """Return the array of a batch: its bytes are a buffer, or several where they are too many for 31 bits."""
    views = b"".join([view_of(frame, stop) for frame, stop in
                      zip(frames, accumulate(map(len, frames)), strict=True)])
    starts = range(0, len(joined), WINDOW)
    # One that begins in a window ends in it, or in the next one.
    sizes = (c_int64 * len(starts))(*(min(len(joined) - start, 2 * WINDOW) for start in starts))
    buffers = (c_void_p * (3 + len(starts)))(
        None, address_of(views), *(address_of(joined) + start for start in starts), addressof(sizes))
    number = next(_numbers)
    array = ArrowArray(length=len(frames), n_buffers=len(buffers), buffers=addressof(buffers), private_data=number,
                       release=cast(_release_array, c_void_p))
    _arrays[number] = joined, views, sizes, buffers
    try:
        return new_capsule(array, ARRAY, _drop_array)
    except BaseException:
        del _arrays[number]
        raise


def view_of(frame: bytes, stop: int) -> bytes:
    """Return one payload's view: the payload itself where it is short, or its start and its place."""
    size = len(frame)
    if size <= INLINE:
        return pack("i12s", size, frame)
    if size > LARGEST:
        raise errors.arrow_size_error(size)
    return pack("i4sii", size, frame[:4], *divmod(stop - size, WINDOW))


def address_of(data: bytes) -> int:
    """Return where the bytes are."""
    return cast(c_char_p(data), c_void_p).value or 0
