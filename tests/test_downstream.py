"""An extension that cimports the decoder: tests/downstream is built by pip where sockframe is installed, with no header
or source of its core at hand, and takes frames as pointers."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from generate import FRAMING_AND_STREAM, outcome
from hypothesis import given, settings
from hypothesis import strategies as st
from vectorfiles import FOLDER, read_vectors

import sockframe
from sockframe.errors import FrameTooLongError, IncompleteFrameError, MalformedFrameError
from sockframe.framings import Cobs, FixedLength, Frame, Framing, LengthPrefix, Lines, Need, Slip

SOURCE = Path(__file__).parent / "downstream"
PACKAGE = Path(sockframe.__file__).parent
MISSING = [name for name in ("Cython", "setuptools", "pip") if importlib.util.find_spec(name) is None]
MISSING += [] if shutil.which(os.environ.get("CC", "cc").split()[0]) else ["a C compiler"]
pytestmark = [
    pytest.mark.skipif(os.environ.get("SOCKFRAME_CORE") == "0", reason="SOCKFRAME_CORE is 0"),
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}"),
]


@pytest.fixture(scope="module")
def downstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The extension, built in a folder of its own as `pip install` does, and imported."""
    folder = tmp_path_factory.mktemp("downstream")
    shutil.copytree(SOURCE, folder / "source")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SOCKFRAME_")}
    environment["PYTHONPATH"] = str(PACKAGE.parent)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-build-isolation", "--no-deps", "--no-index",
         "--disable-pip-version-check", "--root-user-action", "ignore", "--target", "site", "./source"],
        cwd=folder, env=environment, text=True, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout
    sys.path.insert(0, str(folder / "site"))
    try:
        yield importlib.import_module("downstream")
    finally:
        sys.path.remove(str(folder / "site"))


@pytest.fixture(scope="module")
def core() -> Any:
    """The core, whichever wing is in use."""
    return importlib.import_module("sockframe._core")


class Marked(Framing):
    """A framing of the user's own: it ends at a mark."""

    def measure(self, view: memoryview) -> Frame | Need:
        at = bytes(view).find(b"!")
        return Need() if at < 0 else Frame(at + 1, 0, at)

    def wrap(self, payload: bytes) -> bytes:
        return payload + b"!"


def taken(downstream: Any, decoder: Any, most: int = 16) -> list[bytes]:
    """Return all payloads that can be taken, with calls for so many each."""
    out: list[bytes] = []
    while some := downstream.Taken(decoder, most).read():
        assert len(some) <= most
        out += some
    return out


def test_the_extension_is_one_and_sees_no_header(downstream: Any) -> None:
    assert Path(downstream.__file__).suffix in (".so", ".pyd")
    assert not list(PACKAGE.rglob("*.h"))


def state(decoder: Any) -> list[int]:
    """Return what a decoder tells of itself."""
    return [getattr(decoder, name) for name in ("position", "buffered", "need", "skipped")]


def compare(downstream: Any, core: Any, framing: Framing, chunks: list[bytes], most: int) -> None:
    """Check that what can be taken of a stream is what next_frame() gives, error for error."""
    decoder, expected = core.Decoder(framing), core.Decoder(framing)
    for chunk in chunks:
        assert outcome(downstream.feed, decoder, chunk, len(chunk)) == outcome(expected.feed, chunk)
        while True:
            how, *found = outcome(downstream.read_taken, decoder, most)
            if how == "raises":
                assert found == list(outcome(expected.next_frame)[1:])
                break
            payloads = found[1]
            assert payloads == [expected.next_frame() for _ in payloads]
            if not payloads:
                assert expected.next_frame() is None
                break
        assert state(decoder) == state(expected)
    assert outcome(decoder.finish) == outcome(expected.finish)


@given(data=st.data(), pair=FRAMING_AND_STREAM, most=st.sampled_from([1, 2, 16]))
@settings(max_examples=300)
def test_what_is_taken_is_what_next_frame_gives(downstream: Any, core: Any, data: st.DataObject, pair: Any,
                                                most: int) -> None:
    framing, stream = pair
    places = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=6)))
    compare(downstream, core, framing, [stream[a:b] for a, b in itertools.pairwise([0, *places, len(stream)])], most)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_the_vectors_are_taken(downstream: Any, core: Any, path: Path) -> None:
    for block in read_vectors(path).blocks:
        for stream in block.streams:
            for size in (len(stream.data) or 1, 1 if len(stream.data) < 2000 else 997):
                chunks = [stream.data[at:at + size] for at in range(0, len(stream.data), size)]
                compare(downstream, core, block.framing, chunks, 16)


def test_many_are_counted_without_the_gil(downstream: Any, core: Any) -> None:
    framing, chance = LengthPrefix(2), random.Random(1)
    payloads = [chance.randbytes(chance.choice([0, 3, 300])) for _ in range(3000)]
    stream = core.Encoder(framing).encode_many(payloads)
    for size in (1, 100, len(stream)):
        chunks = [stream[at:at + size] for at in range(0, len(stream), size)]
        assert downstream.add_up(framing, chunks) == (3000, sum(map(sum, payloads)))


@pytest.mark.parametrize("payloads", [[b"one", b"", b"three" * 1000], []], ids=len)
def test_a_batch_is_read_by_its_buffers(downstream: Any, core: Any, payloads: list[bytes]) -> None:
    batch = core.Decoder(LengthPrefix(2)).decode_batch(core.Encoder(LengthPrefix(2)).encode_many(payloads))
    assert downstream.add_up_batch(batch) == sum(map(sum, payloads))


# ---- they stay as they are ----

@pytest.mark.parametrize("framing", [LengthPrefix(2), Lines(), Cobs(), Marked(),
                                     LengthPrefix(2, max_length=4, overlong="truncate")], ids=repr)
def test_payloads_stay_whatever_becomes_of_the_decoder(downstream: Any, core: Any, framing: Framing) -> None:
    stream = core.Encoder(LengthPrefix(2) if framing.overlong != "error" else framing).encode_many(
        [b"first", b"", b"third"] + [b"x" * 1000] * 100)
    for count in (len(stream), 20):
        decoder = core.Decoder(framing)
        decoder.feed(stream[:count])
        held = downstream.Taken(decoder, 3 if count == len(stream) else 2)
        wanted = [payload[:framing.max_length] for payload in (b"first", b"", b"third")][:len(held.read())]
        assert held.read() == wanted and len(wanted) >= 2
        decoder.feed(stream[count:])
        assert held.read() == wanted
        for _ in range(20):
            decoder.feed(stream)
        assert held.read() == wanted
        decoder.next_frame()
        decoder.next_batch()
        decoder.get_buffer(100_000)[:] = b"\xff" * len(decoder.get_buffer(100_000))
        assert held.read() == wanted
        decoder.framing = FixedLength(50)
        decoder.decode(b"z" * 1_000_000)
        decoder.take_buffered()
        decoder.finish()
        others = [bytearray(b"\xee" * 30_000) for _ in range(100)]
        assert held.read() == wanted
        assert downstream.Taken(decoder).read() == []
        del others


@pytest.mark.parametrize("more", [1, 10, 40, 4000])
def test_no_frame_is_moved_over_payloads_that_are_in_use(downstream: Any, core: Any, more: int) -> None:
    """The few bytes behind those payloads would be brought to the front, to make room for more."""
    payloads = [b"%02d" % number * 50 for number in range(20)]
    decoder = core.Decoder(LengthPrefix(2))
    decoder.feed(core.Encoder(LengthPrefix(2)).encode_many(payloads))
    held = downstream.Taken(decoder, 16)
    decoder.feed(core.Encoder(LengthPrefix(2)).encode(b"x" * more))
    assert held.read() == payloads[:16]
    assert taken(downstream, decoder) == [*payloads[16:], b"x" * more]


def test_no_more_memory_is_held_than_the_last_payloads_lie_in(downstream: Any, core: Any) -> None:
    tracemalloc = pytest.importorskip("tracemalloc")
    decoder = core.Decoder(LengthPrefix(4))
    chunk = core.Encoder(LengthPrefix(4)).encode(bytes(1_000_000))
    tracemalloc.start()
    try:
        for _ in range(20):
            downstream.feed(decoder, chunk, len(chunk))
            assert downstream.Taken(decoder, 1).read() == [bytes(1_000_000)]
        assert tracemalloc.get_traced_memory()[0] < 3_000_000
        assert downstream.Taken(decoder).read() == []
        assert tracemalloc.get_traced_memory()[0] < 200_000
    finally:
        tracemalloc.stop()


def test_a_payload_can_be_fed_to_the_decoder_that_gave_it(downstream: Any, core: Any) -> None:
    inner = core.Encoder(LengthPrefix(2)).encode_many([b"inner", b"x" * 5000])
    decoder = core.Decoder(LengthPrefix(2))
    decoder.feed(core.Encoder(LengthPrefix(2)).encode(inner))
    downstream.Taken(decoder, 1).feed_back(0)
    assert taken(downstream, decoder) == [b"inner", b"x" * 5000]


# ---- faults and misuse ----

@pytest.mark.parametrize(("framing", "stream", "error"), [
    (Lines("crlf"), b"one\r\ntwo\r\nbad\nthree\r\n", MalformedFrameError),
    (LengthPrefix(2, max_length=5), b"\0\3one\0\3two\0\6longer", FrameTooLongError),
    (Slip(), b"one\xc0two\xc0\xdbbad\xc0", MalformedFrameError),
], ids=repr)
def test_a_fault_comes_behind_the_frames_before_it_and_is_final(
        downstream: Any, core: Any, framing: Framing, stream: bytes, error: type[Exception]) -> None:
    expected, decoder = core.Decoder(framing), core.Decoder(framing)
    expected.decode(stream)
    downstream.feed(decoder, stream, len(stream))
    held = downstream.Taken(decoder)
    assert held.read() == [b"one", b"two"]
    for _ in range(2):
        assert outcome(downstream.Taken, decoder) == outcome(expected.next_frame)
        with pytest.raises(error):
            downstream.feed(decoder, b"more", 4)


def test_behind_the_end_nothing_is_taken(downstream: Any, core: Any) -> None:
    decoder = core.Decoder(LengthPrefix(2))
    downstream.feed(decoder, b"\0\3on", 4)
    with pytest.raises(IncompleteFrameError):
        decoder.finish()
    with pytest.raises(IncompleteFrameError):
        downstream.Taken(decoder)


def test_what_is_no_decoder_of_the_core_is_refused(downstream: Any, core: Any) -> None:
    pure = importlib.import_module("sockframe._pure")
    for value in (pure.Decoder(Lines()), object(), core.Encoder(Lines())):
        with pytest.raises(TypeError):
            downstream.feed(value, b"one", 3)
        with pytest.raises(TypeError):
            downstream.Taken(value)
    with pytest.raises(TypeError, match=r"^a Decoder of sockframe\._core is needed, not builtins\.NoneType$"):
        downstream.Taken(None)


def test_sizes_that_can_not_be_are_refused(downstream: Any, core: Any) -> None:
    decoder = core.Decoder(Lines())
    for data, size in ((b"one", -1), (b"", 3)):
        with pytest.raises(ValueError, match=rf"^there can be no {size} bytes at this address$"):
            downstream.feed(decoder, data, size)
    for most in (0, -1, 17):
        with pytest.raises(ValueError, match=rf"^there must be room for 1 or more payloads, not {most}$"):
            downstream.Taken(decoder, most)
    downstream.feed(decoder, b"", 0)
    assert downstream.Taken(decoder).read() == []


def test_a_call_from_inside_another_is_refused(downstream: Any, core: Any) -> None:
    class Inside(Marked):
        def measure(self, view: memoryview) -> Frame | Need:
            found.append(outcome(downstream.Taken, decoder)[:2])
            found.append(outcome(downstream.feed, decoder, b"!", 1)[:2])
            return super().measure(view)

    found: list[Any] = []
    decoder = core.Decoder(Inside())
    decoder.feed(b"one!two!")
    assert taken(downstream, decoder) == [b"one", b"two"]
    assert set(found) == {("raises", RuntimeError)}


def test_threads_that_share_a_decoder_break_nothing(downstream: Any, core: Any) -> None:
    """What each takes is of the stream, or is refused; the payloads themselves are for one thread."""
    decoder = core.Decoder(LengthPrefix(1))
    wrong: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(2000):
                with suppress(RuntimeError):
                    downstream.feed(decoder, b"\3one\3two", 8)
                    downstream.Taken(decoder, 2)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert set(taken(downstream, decoder)) <= {b"one", b"two"}
