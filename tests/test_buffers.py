"""Group J: every kind of buffer as payload, data and target; what is none, and what can't be read or written."""

import array
import ctypes
import mmap
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from generate import Counted, outcome

from sockframe import errors
from sockframe.framings import AsciiLength, Cobs, Delimiter, LengthField, LengthPrefix, Lines, Slip, Tagged, Varint


class PyBuffer(ctypes.Structure):
    """Py_buffer, to make a view that memoryview itself can't: in Fortran order."""

    _fields_ = (("buf", ctypes.c_void_p), ("obj", ctypes.c_void_p), ("len", ctypes.c_ssize_t),
                ("itemsize", ctypes.c_ssize_t), ("readonly", ctypes.c_int), ("ndim", ctypes.c_int),
                ("format", ctypes.c_char_p), ("shape", ctypes.POINTER(ctypes.c_ssize_t)),
                ("strides", ctypes.POINTER(ctypes.c_ssize_t)), ("suboffsets", ctypes.POINTER(ctypes.c_ssize_t)),
                ("internal", ctypes.c_void_p))


MEMORY = ctypes.create_string_buffer(b"abcdef", 6)
SHAPE = (ctypes.c_ssize_t * 2)(2, 3)
STRIDES = (ctypes.c_ssize_t * 2)(1, 2)
FORTRAN = PyBuffer(ctypes.addressof(MEMORY), None, 6, 1, 0, 2, b"B", SHAPE, STRIDES, None, None)


def fortran() -> memoryview:
    """Return a writable view of 2 x 3 bytes in Fortran order."""
    make = ctypes.pythonapi.PyMemoryView_FromBuffer
    make.argtypes, make.restype = (ctypes.POINTER(PyBuffer),), ctypes.py_object
    view = make(ctypes.byref(FORTRAN))
    assert view.f_contiguous and not view.c_contiguous
    return view


class Refusing:
    """An object of a user's own that gives no buffer now (Python 3.12 and later)."""

    def __buffer__(self, flags: int) -> memoryview:
        raise TypeError("no buffer now")


class Pair(ctypes.Structure):
    _fields_ = (("one", ctypes.c_uint8), ("two", ctypes.c_uint8))


#: Writable buffers of some bytes, each with as many bytes in it.
BUFFERS: "dict[str, Callable[[], Any]]" = {
    "bytearray": lambda: bytearray(b"abcdef"),
    "memoryview": lambda: memoryview(bytearray(b"abcdef")),
    "part of a view": lambda: memoryview(bytearray(b"xabcdefx"))[1:-1],
    "array of doubles": lambda: array.array("d", [1.5]),
    "array of shorts": lambda: array.array("H", b"abcdef"),
    "ctypes array": lambda: (ctypes.c_int16 * 3)(1, 2, 3),
    "2-D ctypes array": lambda: ((ctypes.c_uint8 * 3) * 2)(),
    "big-endian ctypes array": lambda: (ctypes.c_uint16.__ctype_be__ * 3)(1, 2, 3),
    "structure": lambda: Pair(97, 98),
    "0-d": lambda: ctypes.c_uint32(0x61626364),
    "2-D": lambda: memoryview(bytearray(b"abcdef")).cast("B", [2, 3]),
    "3-D of shorts": lambda: memoryview(bytearray(b"abcdefgh")).cast("H", [2, 1, 2]),
    "no bytes": lambda: bytearray(),
    "no bytes in 2-D": lambda: ((ctypes.c_uint8 * 0) * 3)(),
    "no bytes of every second": lambda: memoryview(bytearray(6))[::2][:0],
    "map": lambda: mmap.mmap(-1, 6),
}

#: What can't be read, and why.
UNREADABLE: "dict[str, tuple[Callable[[], Any], type[Exception], str]]" = {
    "every second": (lambda: memoryview(bytearray(8))[::2], BufferError, "must be C-contiguous"),
    "backwards": (lambda: memoryview(bytearray(8))[::-1], BufferError, "must be C-contiguous"),
    "Fortran order": (fortran, BufferError, "must be C-contiguous"),
    "str": (lambda: "text", TypeError, "must be a bytes-like object, not str"),
    "int": (lambda: 5, TypeError, "must be a bytes-like object, not int"),
    "list": (lambda: [97, 98], TypeError, "must be a bytes-like object, not list"),
    "None": (lambda: None, TypeError, "must be a bytes-like object, not NoneType"),
    "type": (lambda: bytes, TypeError, "must be a bytes-like object, not type"),
    "released": (lambda: released(), ValueError, "operation forbidden on released memoryview object"),
    "closed map": (lambda: closed_map(), ValueError, "mmap closed or invalid"),
    **({"refusing": (Refusing, TypeError, "no buffer now")} if sys.version_info >= (3, 12) else {}),
}


def released() -> memoryview:
    view = memoryview(b"abc")
    view.release()
    return view


def closed_map() -> mmap.mmap:
    area = mmap.mmap(-1, 16)
    area.close()
    return area


@pytest.fixture(params=BUFFERS)
def buffer(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A buffer of each kind."""
    yield (made := BUFFERS[request.param]())
    if isinstance(made, mmap.mmap):
        made.close()


def test_any_contiguous_buffer_is_flat_bytes(wing: Any, buffer: Any) -> None:
    """J9: payload and data; also where a user's own framing looks at it."""
    flat = memoryview(buffer).tobytes()
    assert len(flat) < 10
    encoder, decoder = wing.Encoder(LengthPrefix(1)), wing.Decoder(Delimiter(b"---"))
    assert encoder.encode(buffer) == bytes([len(flat)]) + flat
    assert encoder.encode_many([buffer, b"x"]) == bytes([len(flat)]) + flat + b"\1x"
    target = bytearray(12)
    assert encoder.encode_into(buffer, target, 1) == len(flat) + 1
    assert target[:len(flat) + 2] == b"\0" + bytes([len(flat)]) + flat
    assert decoder.decode(buffer) == []
    decoder.feed(buffer)
    assert decoder.decode(b"---") == [flat + flat]
    own, twin = wing.Decoder(Counted()), wing.Decoder(Counted())
    assert outcome(own.decode, buffer) == outcome(twin.decode, flat)


def test_any_writable_buffer_is_a_target(wing: Any, buffer: Any) -> None:
    """J10, J11: too small is told with what is needed and nothing is written; the rest is left alone."""
    flat = memoryview(buffer).tobytes()
    encoder = wing.Encoder(LengthPrefix(1))
    for offset in range(len(flat) + 1):
        room = len(flat) - offset
        if not room:
            with pytest.raises(errors.BufferTooSmallError, match=r"^buffer has 0 bytes, 1 are needed$") as caught:
                encoder.encode_into(b"", buffer, offset)
            assert caught.value.need == 1
            continue
        with pytest.raises(errors.BufferTooSmallError, match=f"^buffer has {room} bytes, {room + 1} are needed$"):
            encoder.encode_into(b"-" * room, buffer, offset)
        assert memoryview(buffer).tobytes() == flat
        assert encoder.encode_into(b"=" * (room - 1), buffer, offset) == room
        assert memoryview(buffer).tobytes() == flat[:offset] + bytes([room - 1]) + b"=" * (room - 1)
        memoryview(buffer).cast("B")[:] = flat


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_can_not_be_read_changes_nothing(wing: Any, name: str) -> None:
    """J8, J12, J13: refused with the same words by every call that takes bytes."""
    make, kind, text = UNREADABLE[name]
    encoder, target = wing.Encoder(LengthPrefix()), bytearray(b"untouched" * 3)
    decoder = wing.Decoder(LengthPrefix(1))
    decoder.feed(b"\3a")
    for call, what in ((encoder.encode, "payload"), (lambda value: encoder.encode_many([b"good", value]), "payload"),
                       (lambda value: encoder.encode_into(value, target), "payload"), (decoder.decode, "data"),
                       (decoder.feed, "data"), (lambda value: encoder.encode_into(b"x", value), "buffer"),
                       (wing.Decoder(Counted()).decode, "data")):
        words = f"{what} {text}" if text.startswith("must") else text
        assert outcome(call, make()) == ("raises", kind, words, {})
    assert target == b"untouched" * 3
    assert decoder.decode(b"bc") == [b"abc"]
    assert outcome(encoder.encode_many, 5) == ("raises", TypeError, "'int' object is not iterable", {})


def test_a_target_that_can_not_be_written(wing: Any) -> None:
    """J6."""
    encoder = wing.Encoder(LengthPrefix())
    with mmap.mmap(-1, 16, access=mmap.ACCESS_READ) as area:
        for target in (b"0123456789", memoryview(b"0123456789"), memoryview(bytearray(10)).toreadonly(), area):
            before = bytes(target)
            assert outcome(encoder.encode_into, b"x", target) == ("raises", TypeError, "buffer must be writable", {})
            assert bytes(target) == before


def test_places_outside_a_target(wing: Any) -> None:
    """B8."""
    encoder, target = wing.Encoder(LengthPrefix(1)), bytearray(b"aaaa")
    for offset in (-1, 5, -2**63, 2**63, 2**64, 10**30):
        assert outcome(encoder.encode_into, b"", target, offset) == (
            "raises", ValueError, f"offset must be from 0 to 4, not {offset}", {})
    for value in (None, 1.0, "1", b"1"):
        with pytest.raises(TypeError, match=f"^'{type(value).__name__}' object cannot be interpreted as an integer$"):
            encoder.encode_into(b"", target, value)
    assert target == b"aaaa"
    assert encoder.encode_into(b"x", target, True) == 2
    assert target == b"a\1xa"
    # A bad payload is found before a target that is too small.
    assert outcome(encoder.encode_into, bytes(256), target)[1] is errors.FrameTooLongError


@pytest.mark.parametrize("framing", [
    LengthPrefix(2), LengthField(1, strip=0), LengthField(2, offset=1, strip=3, end=b"!", align=4), Varint(),
    AsciiLength(separator=b":", end=b","), Lines(), Cobs(), Slip(), Counted(), Tagged({b"a": Lines(), 0: Varint(
        offset=1, strip=0)})], ids=repr)
def test_a_payload_may_lie_in_its_own_target(wing: Any, framing: Any) -> None:
    """J14: the frame is what it would be elsewhere."""
    encoder = wing.Encoder(framing)
    payload = b"\0\0bcdef" if isinstance(framing, (LengthField, Tagged)) else b"abcdef"
    frame = encoder.encode(payload)
    for place in range(12):
        for offset in range(12):
            target = bytearray(b"-" * 12 + bytes(20))
            target[place:place + len(payload)] = payload
            expected = bytearray(target)
            expected[offset:offset + len(frame)] = frame
            view = memoryview(target)[place:place + len(payload)]
            assert encoder.encode_into(view, target, offset) == len(frame)
            assert target == expected


def test_a_decoder_given_its_own_memory(wing: Any) -> None:
    """J14: what was lent, or taken out, comes back as data."""
    decoder = wing.Decoder(LengthPrefix(1))
    room = decoder.get_buffer(8)
    room[:] = b"\2ab\2cd\3e"
    assert decoder.decode(room) == [b"ab", b"cd"]
    room[:2] = b"fg"
    room = decoder.get_buffer(8)
    room[:2] = b"fg"
    decoder.feed(room[:2])
    assert decoder.next_frame() == b"efg"


def test_a_source_belongs_to_the_caller_again(wing: Any) -> None:
    """J5: no export is left behind, whatever the call did."""
    encoder, decoder = wing.Encoder(LengthPrefix(1, max_length=3)), wing.Decoder(LengthPrefix(1, max_length=3))
    for data in (b"\2ab", b"\1", b"", b"\x09"):
        for call in (encoder.encode, lambda value: encoder.encode_many([value, value]), decoder.feed, decoder.decode,
                     lambda value: encoder.encode_into(value, value),
                     lambda value: encoder.encode_into(b"xxxx", value)):
            source = bytearray(data)
            outcome(call, source)
            source.extend(b"-" * 100)
            source.clear()
