"""StreamBuffer, the store under the streams of the drop-in: both wings against a plain bytearray, in step."""

import copy
import pickle
from contextlib import nullcontext, suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import put_into

SIZES = st.integers(0, 40) | st.sampled_from([1000, 32_768, 40_000, 65_536, 70_000, 200_000, 300_000])
SEPARATORS = st.sampled_from([b"a", b"b", b"ab", b"ba", b"aab", b"abcabc", bytes(70)])
STEPS = st.lists(st.one_of(
    st.tuples(st.just("feed"), SIZES, st.sampled_from([bytes, bytearray, memoryview])),
    st.tuples(st.just("receive"), SIZES), st.tuples(st.just("take"), SIZES), st.tuples(st.just("take_some"), SIZES),
    st.tuples(st.just("take_through"), SEPARATORS), st.tuples(st.just("expect"), SIZES),
    st.tuples(st.just("find"), st.lists(SEPARATORS, min_size=1, max_size=3)), st.tuples(st.just("guard"), SIZES),
    st.tuples(st.just("limit"), SIZES), st.tuples(st.just("target"), SIZES), st.just(("give_back",))), max_size=25)


def content(at: int, size: int) -> bytes:
    """Return `size` bytes of a stream that has the separators here and there, from a place on."""
    whole = b"abcabcaab" + bytes(90) + b"xxaxxbxx" + b"\xff" * 3001
    return (whole * ((at % len(whole) + size) // len(whole) + 1))[at % len(whole):at % len(whole) + size]


def come(store: Any, data: Any, fed: bool) -> None:
    """Feed bytes, or receive them."""
    if fed:
        store.feed(data)
    else:
        put_into(store, data)


class Model:
    """What a StreamBuffer should do, done in the plainest way."""

    def __init__(self) -> None:
        self.held = b""
        self.limit, self.guard = 1000, 0
        self.target: bytearray | None = None
        self.filled = 0

    def come(self, data: bytes) -> None:
        part = min(len(data), len(self.target) - self.filled) if self.target is not None else 0
        if self.target is not None:
            self.target[self.filled:self.filled + part] = data[:part]
        self.filled += part
        self.held += data[part:]

    def take_some(self, n: int) -> bytes:
        taken, self.held = self.held[:n], self.held[n:]
        return taken

    def take(self, n: int) -> "bytes | None":
        return self.take_some(n) if 0 < n <= len(self.held) - self.guard else None

    def take_through(self, separator: bytes) -> "bytes | None":
        start = self.held.find(separator)
        stop = start + len(separator)
        return self.take_some(stop) if 0 <= start <= self.limit and len(self.held) - stop >= self.guard else None

    def find(self, separators: "tuple[bytes, ...]") -> "tuple[int, int] | None":
        found = [(start + len(one), start) for one in separators if (start := self.held.find(one)) >= 0]
        stop = min(found)[0] if found else 0
        return max((start, end) for end, start in found if end == stop) if found else None

    def give_back(self) -> None:
        if self.target is not None:
            self.held = bytes(self.target[:self.filled]) + self.held
        self.target, self.filled = None, 0


@given(steps=STEPS)
def test_both_wings_do_what_a_bytearray_does(wings: Any, steps: "list[Any]") -> None:
    stores, model, at, expected = [wing.StreamBuffer(1000) for wing in wings], Model(), 0, 0
    targets: list[bytearray] = []
    for name, *arguments in steps:
        results = []
        if name in ("feed", "receive"):
            data = content(at, arguments[0])
            at += len(data)
            model.come(data)
            for store in stores:
                come(store, arguments[1](data) if name == "feed" else data, name == "feed")
        elif name == "find":
            separators = tuple(sorted(set(arguments[0]), key=len))
            wanted = model.find(separators)
            results = [store.find(separators) for store in stores]
        elif name in ("take", "take_some", "take_through"):
            wanted = getattr(model, name)(*arguments)
            results = [getattr(store, name)(*arguments) for store in stores]
        elif name == "target":
            model.give_back()
            model.target = bytearray(arguments[0])
            model.filled = min(len(model.held), arguments[0])
            model.target[:model.filled] = model.take_some(model.filled)
            targets = [bytearray(arguments[0]) for _ in stores]
            for store, target in zip(stores, targets, strict=True):
                store.receive_into(memoryview(target))
        elif name == "expect":
            expected = arguments[0]
            for store in stores:
                store.expect(expected)
        elif name == "give_back":
            model.give_back()
            for store in stores:
                store.give_back()
        else:
            for one in (model, *stores):
                setattr(one, name, arguments[0])
        assert results == [wanted] * len(results) if results else True
        for store in stores:
            assert store.held == len(model.held)
            assert store.missing == (len(model.target) - model.filled if model.target is not None else
                                     max(0, expected - len(model.held)) if store.missing else 0)
        if model.target is not None:
            assert targets == [model.target] * len(stores)
    for store in stores:
        store.give_back()
    model.give_back()
    assert [store.take_some(1 << 30) for store in stores] == [model.held] * len(stores)


def test_what_was_searched_is_not_searched_again(wing: Any) -> None:
    """H1, A14: a separator that is written into what was searched already is not seen."""
    for separators in ((b"\n",), (b"\r\n",), (b"\n", b"\r\n")):
        store = wing.StreamBuffer(1000)
        store.expect(1 << 20)
        lent = store.get_buffer(-1)
        lent[:3000] = b"x" * 3000
        store.buffer_updated(3000)
        assert store.find(separators) is None
        lent[:2000] = b"\r\n" * 1000
        assert store.find(separators) is None
        if len(separators) == 1:
            assert store.take_through(separators[0]) is None
        store.feed(b"\r\n")
        assert store.find(separators) == (3002 - len(separators[0]), 3002)
        assert store.find((b"x\r",)) == (2999, 3001)


def test_a_first_byte_that_comes_often(wing: Any) -> None:
    """H5."""
    for separator in (b"ab", b"aab", b"a" * 63 + b"b"):
        store = wing.StreamBuffer(100_000)
        store.feed(b"a" * 50_000)
        assert store.take_through(separator) is None
        store.feed(b"b")
        assert store.take_through(separator) == b"a" * 50_000 + b"b"


def test_what_is_taken_whole_is_not_copied(wing: Any) -> None:
    store = wing.StreamBuffer(1000)
    data = bytes(range(200))
    store.feed(data)
    assert store.take(200) is data


def test_a_view_that_somebody_keeps_changes_nothing_that_was_taken(wing: Any) -> None:
    store = wing.StreamBuffer(1000)
    for expected in (0, 200_000):
        store.expect(expected)
        views = []
        came = 0
        while came < 200_000:
            lent = store.get_buffer(-1)
            views.append(lent)
            lent[:] = b"x" * len(lent)
            store.buffer_updated(len(lent))
            came += len(lent)
        taken = store.take_some(came)
        for view in views:
            view[:] = b"y" * len(view)
        assert taken == b"x" * came
        views[0][:1] = b"z"
        store.feed(b"more")
        assert store.take(4) == b"more"


def test_memory_that_was_handed_out_is_lent_no_more(wing: Any) -> None:
    """Whoever has kept what the views were of has a view of it, or an error."""
    buffer = wing.StreamBuffer(1 << 20)
    buffer.expect(100_000)
    owners = []
    while buffer.held < 100_000:
        with buffer.get_buffer() as lent:
            owners.append(lent.obj)
            count = min(len(lent), 100_000 - buffer.held)
            lent[:count] = bytes(count)
        buffer.buffer_updated(count)
    taken = buffer.take(100_000)
    for owner in owners:
        with nullcontext() if wing.name == "pure" else suppress(BufferError):
            memoryview(owner).cast("B")
    assert taken == bytes(100_000)


def test_a_view_that_somebody_keeps_stops_no_growth(wing: Any) -> None:
    store = wing.StreamBuffer(1000)
    store.expect(1 << 20)
    lent = store.get_buffer(-1)
    lent[:] = b"x" * len(lent)
    store.buffer_updated(len(lent))
    store.feed(b"w" * 10)
    store.feed(b"y" * 100_000)
    store.feed(b"z" * 10)
    assert store.take_some(1 << 20) == bytes(lent) + b"w" * 10 + b"y" * 100_000 + b"z" * 10


@pytest.mark.parametrize("way", ["take", "take_some", "take_through", "find", "receive_into", "expect"])
@pytest.mark.parametrize("pieces", [[30_000] * 5, [70_000, 40_000], [120_000], [65_536, 34_464, 1],
                                    [99_999, 1, 30_000]])
@pytest.mark.parametrize("fed", [True, False], ids=["fed", "received"])
def test_what_was_expected_may_be_taken_otherwise(wing: Any, pieces: "list[int]", fed: bool, way: str) -> None:
    store, data, at = wing.StreamBuffer(1 << 20), content(0, 200_000), 0
    store.expect(100_000)
    for size in pieces:
        come(store, data[at:at + size], fed)
        at += size
    assert store.missing == 0 and store.held == at
    store.expect(0)
    if way == "find":
        assert store.find((b"ab",)) == (0, 2)
    elif way == "receive_into":
        target = bytearray(80_000)
        store.receive_into(memoryview(target))
        assert store.missing == 0 and target == data[:80_000]
        store.give_back()
    elif way == "expect":
        store.expect(1 << 20)
        assert store.missing == (1 << 20) - at
    else:
        taken = store.take_through(b"x") if way == "take_through" else getattr(store, way)(80_000)
        assert taken == data[:len(taken)] and len(taken) == (100 if way == "take_through" else 80_000)
        data, at = data[len(taken):], at - len(taken)
    store.feed(b"more")
    assert store.held == at + 4
    assert store.take_some(1 << 20) == data[:at] + b"more"


def test_more_than_was_lent_is_refused(wing: Any) -> None:
    store = wing.StreamBuffer(1000)
    for count in (1, -1, 1 << 70):
        with pytest.raises(ValueError, match=rf"^buffer_updated\({count}\): the .* has 0 bytes$"):
            store.buffer_updated(count)
    size = len(store.get_buffer())
    with pytest.raises(ValueError, match=f"lent has {size} bytes"):
        store.buffer_updated(size + 1)
    store.feed(b"some")  # what was lent is void
    with pytest.raises(ValueError, match="lent has 0 bytes"):
        store.buffer_updated(1)
    target = bytearray(9)
    store.receive_into(memoryview(target))
    assert len(store.get_buffer()) == 5
    with pytest.raises(ValueError, match="lent has 5 bytes"):
        store.buffer_updated(6)
    store.buffer_updated(5)
    store.release_target()
    assert bytes(target) == b"some" + bytes(5)
    assert len(store.get_buffer()) >= 65536


def test_bytes_for_a_target_and_behind_it(wing: Any) -> None:
    store = wing.StreamBuffer(1000)
    target = bytearray(8)
    store.receive_into(memoryview(target))
    store.feed(b"so")
    assert (store.missing, store.held) == (6, 0)
    store.get_buffer()
    store.buffer_updated(0)  # nothing came
    store.feed(b"me, and more")
    assert (store.missing, store.held, bytes(target)) == (0, 6, b"some, an")
    store.give_back()
    assert store.take(14) == b"some, and more"
    store.get_buffer()
    store.buffer_updated(0)
    assert store.held == 0 and store.take_some(1) == b""


def test_what_is_asked_wrongly(wing: Any) -> None:
    store = wing.StreamBuffer(1000)
    store.feed(b"some")
    for n in (0, -1, True, 4.0, "4", None, 1 << 70, 5):
        assert store.take(n) is None
    for separator in (b"", "e", None, bytearray(b"e")):
        assert store.take_through(separator) is None
    for wrong in ("some", None, 4):
        with pytest.raises(TypeError, match=r"^data must be a bytes-like object, not "):
            store.feed(wrong)
    with pytest.raises(TypeError, match=r"^buffer must be writable$"):
        store.receive_into(memoryview(b"some"))
    with pytest.raises(BufferError, match=r"^data must be C-contiguous$"):
        store.feed(memoryview(b"some")[::2])
    for broken in (copy.copy, pickle.dumps):
        with pytest.raises(TypeError):
            broken(store)
    with pytest.raises(TypeError):
        type("Sub", (wing.StreamBuffer,), {})
    assert store.take_some(-1) == b""
    assert store.take_some(True) == b"s"
    assert store.take_some(1 << 70) == b"ome"
