"""Batches as Arrow arrays: what is in their capsules, and what pyarrow, polars and nanoarrow make of them.

The libraries are loaded by scripts in processes of their own: they start threads, and a process with threads may not
fork.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scripted import LIMIT, Task, noise

from sockframe import UNLIMITED, FixedLength, LengthPrefix
from sockframe._pure import arrow
from sockframe._pure.arrow import ArrowArray, ArrowSchema

PAYLOADS = [b"one", b"", b"exactly 12 b", b"thirteen byte", noise(5000), b"x"] * 30


def batch_of(wing: Any, payloads: list[bytes]) -> Any:
    framing = LengthPrefix(2)
    return wing.Decoder(framing).decode_batch(wing.Encoder(framing).encode_many(payloads))


def pointer_in(capsule: Any, name: bytes) -> int:
    """Return the address that a capsule of that name holds."""
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return int(get(capsule, name))


def array_in(capsule: Any) -> Any:
    return ArrowArray.from_address(pointer_in(capsule, b"arrow_array"))


def release(made: Any) -> None:
    """Release an array or a schema, as the one who took it does."""
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(made.release)(ctypes.addressof(made))
    assert made.release is None


def buffers_of(array: Any) -> tuple[list[Any], int, list[int], list[int]]:
    """Return the views of an array, which are (size, 12 bytes), whether it has nulls, and its buffers and sizes."""
    addresses = (ctypes.c_void_p * array.n_buffers).from_address(array.buffers)
    count = array.n_buffers - 3
    sizes = (ctypes.c_int64 * count).from_address(addresses[-1]) if count else []
    views = ctypes.string_at(addresses[1], 16 * array.length)
    return list(struct.iter_unpack("i12s", views)), addresses[0], addresses[2:-1], list(sizes)


def payloads_in(array: Any) -> list[bytes]:
    """Read an array by hand."""
    views, _, buffers, sizes = buffers_of(array)
    out = []
    for size, rest in views:
        if size <= 12:
            assert rest[size:] == bytes(12 - size)
            out.append(rest[:size])
            continue
        start, number, offset = struct.unpack("4sii", rest)
        assert 0 <= offset <= offset + size <= sizes[number]
        out.append(ctypes.string_at(buffers[number] + offset, size))
        assert out[-1].startswith(start)
    return out


@pytest.fixture
def kept(wing: Any) -> Any:
    """Say how many exports the pure wing keeps alive beyond those there were; in the core their owner is a batch."""
    def count() -> int:
        return len(arrow._arrays) + len(arrow._capsules)

    before = count()
    return lambda: count() - before


def owners(wing: Any, batch: Any, kept: Any) -> int:
    """Return how many arrays and capsules a batch is held by."""
    return sys.getrefcount(batch) if wing.name == "core" else kept()


# ---- what is in the capsules ----

@pytest.mark.parametrize("payloads", [PAYLOADS, [], [b""], [b"x"]], ids=len)
def test_the_capsules(wing: Any, payloads: list[bytes]) -> None:
    batch = batch_of(wing, payloads)
    schema_capsule, array_capsule = batch.__arrow_c_array__()
    schema = ArrowSchema.from_address(pointer_in(schema_capsule, b"arrow_schema"))
    array = array_in(array_capsule)
    assert (schema.format, schema.name, schema.metadata, schema.flags, schema.n_children) == (b"vz", b"", None, 2, 0)
    assert (schema.children, schema.dictionary, bool(schema.release)) == (None, None, True)
    assert (array.length, array.null_count, array.offset, array.n_children) == (len(payloads), 0, 0, 0)
    assert (array.children, array.dictionary, bool(array.release)) == (None, None, True)
    assert buffers_of(array)[1] is None
    assert payloads_in(array) == payloads
    part = batch[::2]
    assert payloads_in(array_in(part.__arrow_c_array__(None)[1])) == payloads[::2]
    assert payloads_in(array_in(part.__arrow_c_array__(requested_schema=schema_capsule)[1])) == payloads[::2]


def test_capsules_that_nobody_took_let_go(wing: Any, kept: Any) -> None:
    batch = batch_of(wing, PAYLOADS)
    before = owners(wing, batch, kept)
    capsules = [batch.__arrow_c_array__() for _ in range(3)]
    assert owners(wing, batch, kept) > before
    del capsules
    assert owners(wing, batch, kept) == before


def test_an_array_that_was_taken_outlives_batch_decoder_and_capsule(wing: Any) -> None:
    """Law 11."""
    decoder = wing.Decoder(LengthPrefix(2))
    decoder.feed(wing.Encoder(LengthPrefix(2)).encode_many(PAYLOADS))
    capsules = decoder.next_batch().__arrow_c_array__()
    array = array_in(capsules[1])
    taken = ArrowArray.from_buffer_copy(array)
    array.release = None
    del array, capsules, decoder
    gc.collect()
    noise(50_000, 7)
    assert payloads_in(taken) == PAYLOADS
    release(taken)


def test_any_thread_may_release_it(wing: Any, kept: Any) -> None:
    batch = batch_of(wing, PAYLOADS)
    before = owners(wing, batch, kept)
    capsules = batch.__arrow_c_array__()
    array = array_in(capsules[1])
    taken = ArrowArray.from_buffer_copy(array)
    array.release = None
    del capsules
    assert owners(wing, batch, kept) == before + 1
    Task(release, taken).result()
    assert owners(wing, batch, kept) == before


def test_one_that_was_released_is_not_released_again(wing: Any, kept: Any) -> None:
    batch = batch_of(wing, PAYLOADS)
    before = owners(wing, batch, kept)
    schema_capsule, array_capsule = batch.__arrow_c_array__()
    release(ArrowSchema.from_address(pointer_in(schema_capsule, b"arrow_schema")))
    release(array_in(array_capsule))
    del schema_capsule, array_capsule
    assert owners(wing, batch, kept) == before


# ---- more than 31 bits can count ----

def zeros(size: int) -> bytes:
    """Return bytes that take no memory while they are not written to."""
    try:
        return bytes(size)
    except MemoryError:
        pytest.skip(f"needs {size >> 30} GiB of addresses")


def test_a_large_buffer_is_several(wing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each view's place fits 31 bits; a payload ends in the buffer that it begins in. (Smaller in the pure wing.)"""
    if wing.name == "core":
        window, size = 1 << 31, (1 << 30) + 5
    else:
        window, size = 1 << 10, (1 << 9) + 5
        monkeypatch.setattr(arrow, "WINDOW", window)
    data = zeros(5 * size)
    batch = wing.Decoder(FixedLength(size, max_length=UNLIMITED)).decode_batch(data)
    capsule = batch.__arrow_c_array__()[1]
    views, _, buffers, sizes = buffers_of(array_in(capsule))
    places = [(start, *divmod(start, window)) for start in range(0, 5 * size, size)]
    assert [(one, *struct.unpack("4sii", rest)) for one, rest in views] == [
        (size, bytes(4), number, offset) for _, number, offset in places]
    assert [address - buffers[0] for address in buffers] == [0, window, 2 * window]
    assert sizes == [2 * window, 2 * window, 5 * size - 2 * window][:len(sizes)] or sizes == [
        min(5 * size - start, 2 * window) for start in range(0, 5 * size, window)]


def test_a_payload_that_arrow_can_not_count_is_refused(wing: Any, monkeypatch: pytest.MonkeyPatch, kept: Any) -> None:
    largest = (1 << 31) - 1
    if wing.name == "pure":
        largest = 100
        monkeypatch.setattr(arrow, "LARGEST", largest)
    for size in (largest, largest + 1):
        batch = wing.Decoder(FixedLength(size, max_length=UNLIMITED)).decode_batch(zeros(size))
        if size == largest:
            assert batch.__arrow_c_array__()
            continue
        before = owners(wing, batch, kept)
        for _ in range(2):
            with pytest.raises(ValueError, match=f"^a payload of {size} bytes is too long for Arrow's binary_view"):
                batch.__arrow_c_array__()
        assert owners(wing, batch, kept) == before
        assert batch[:0].__arrow_c_array__()


# ---- what others make of them ----

#: What every script below begins with: batches of each kind, with their payloads.
START = """
import gc, socket, sys
sys.path.insert(0, sys.argv[1])
from sockframe import Decoder, Encoder, FramedSocket, LengthPrefix, Cobs
from test_batch_arrow import PAYLOADS as payloads

stream = Encoder(LengthPrefix()).encode_many(payloads)

def batches():
    yield Decoder(LengthPrefix()).decode_batch(stream), payloads
    decoder = Decoder(LengthPrefix())
    decoder.feed(stream)
    yield decoder.next_batch(), payloads
    decoder.feed(stream[:50])
    near, far = (FramedSocket(sock, LengthPrefix()) for sock in socket.socketpair())
    with near, far:
        near.send_many(payloads[:50])
        batch = far.recv_batch(timeout=20)
        yield batch, payloads[:len(batch)]
    yield Decoder(Cobs()).decode_batch(Encoder(Cobs()).encode_many(payloads)), payloads
    yield batch[3:20:3], payloads[3:20:3]
    yield batch[:0], []
"""

PYARROW = """
import pyarrow

kept = []
for batch, expected in batches():
    address = pyarrow.py_buffer(batch.buffer).address
    array = pyarrow.array(batch)
    array.validate(full=True)
    assert array.type == pyarrow.binary_view(), array.type
    assert array.null_count == 0
    if any(len(payload) > 12 for payload in expected):
        assert array.buffers()[2].address == address, "a copy"
    kept.append((array, expected))
    table = pyarrow.table({"payload": array})
    assert table["payload"].cast(pyarrow.binary()).to_pylist() == expected
del batch, array, table
gc.collect()
for array, expected in kept:
    assert array.to_pylist() == expected
"""

POLARS = """
import polars

kept = []
for batch, expected in batches():
    series = polars.Series(batch)
    assert series.dtype == polars.Binary
    kept.append((series, expected))
    frame = polars.DataFrame({"payload": polars.Series("payload", batch)})
    assert frame.select(polars.col("payload").bin.size()).sum().item() == sum(map(len, expected))
del batch, series, frame
gc.collect()
for series, expected in kept:
    assert series.to_list() == expected
    assert polars.concat([series, series]).sort().to_list() == sorted(expected * 2)
"""

NANOARROW = """
import nanoarrow

kept = []
for batch, expected in batches():
    array = nanoarrow.c_array(batch)
    assert array.schema.format == "vz"
    kept.append((array, expected))
del batch
gc.collect()
for array, expected in kept:
    view = array.view()
    assert (view.length, view.null_count, view.storage_type) == (len(expected), 0, "binary_view")
    places = bytes(view.buffer(1))
    assert [int.from_bytes(places[at:at + 4], sys.byteorder) for at in range(0, 16 * len(expected), 16)] == [
        *map(len, expected)]
    for payload in expected if view.n_buffers > 3 else ():
        assert len(payload) <= 12 or payload in bytes(view.buffer(2))
"""


@pytest.mark.parametrize(("library", "script"), [("pyarrow", PYARROW), ("polars", POLARS),
                                                 ("nanoarrow", NANOARROW)], ids=["pyarrow", "polars", "nanoarrow"])
def test_libraries_take_a_batch_without_a_copy(wing: Any, library: str, script: str) -> None:
    if importlib.util.find_spec(library) is None:
        assert library == "nanoarrow" and sys.version_info >= (3, 15), \
            f"{library} belongs to the tests' dependencies here"
        pytest.skip("needs nanoarrow, which the tests' dependencies have up to Python 3.14")
    done = subprocess.run([sys.executable, "-W", "error", "-c", START + script, str(Path(__file__).parent)],
                          text=True, timeout=LIMIT * 6, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env={**os.environ, "SOCKFRAME_CORE": "1" if wing.name == "core" else "0"})
    assert done.returncode == 0, done.stdout
    assert done.stdout == ""
