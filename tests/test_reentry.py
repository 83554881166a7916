"""Law 12: a call from inside another call of the same decoder is refused and harms nothing (group I of the cases)."""

import copy
import gc
import pickle
import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest
from generate import outcome

from sockframe.framings import Frame, Framing, LengthPrefix, Lines, Tagged

BUSY = ("raises", RuntimeError, "Decoder is already at work in this call", {})


class Hook:
    """Something that is done once, and what came of it."""

    def __init__(self) -> None:
        self.act: Callable[[], Any] = lambda: None
        self.results: list[Any] = []

    def arm(self, *calls: Callable[[], Any]) -> "Hook":
        """Do these calls when next asked to."""
        def act() -> None:
            self.act = lambda: None
            self.results += [outcome(call) for call in calls]
        self.act = act
        return self


class Acting(Framing):
    """Frames of two bytes; acts while it measures and wraps."""

    hook: Hook

    def measure(self, view: memoryview) -> Frame:
        self.hook.act()
        return self.answer()

    def answer(self) -> Frame:
        return Frame(2)

    def wrap(self, payload: bytes) -> bytes:
        self.hook.act()
        return b"<" + payload + b">"


class Answer(Frame):
    """An answer that acts when it is dropped, in the middle of the decoder's work."""

    hook: Hook

    def __del__(self) -> None:
        self.hook.act()


class Exporter:
    """A buffer that acts while it is exported, or when that ends (Python 3.12 and later)."""

    def __init__(self, data: bytes, hook: Hook, release: bool) -> None:
        self.data, self.hook, self.release = data, hook, release

    def __buffer__(self, flags: int) -> memoryview:
        if not self.release:
            self.hook.act()
        return memoryview(self.data)

    def __release_buffer__(self, view: memoryview) -> None:
        if self.release:
            self.hook.act()


class Loop:
    """Garbage in a cycle that acts when it is collected."""

    def __init__(self, hook: Hook) -> None:
        self.hook, self.me = hook, self

    def __del__(self) -> None:
        self.hook.act()


def by_measure(hook: Hook) -> "tuple[Framing, Any]":
    return type("Acting", (Acting,), {"hook": hook})(), b"aabb"


def by_measure_inside_tagged(hook: Hook) -> "tuple[Framing, Any]":
    return Tagged({}, default=by_measure(hook)[0]), b"aabb"


def by_dropped_answer(hook: Hook) -> "tuple[Framing, Any]":
    answer = type("Answer", (Answer,), {"hook": hook})
    return type("Acting", (Acting,), {"hook": Hook(), "answer": lambda self: answer(2)})(), b"aabb"


def by_collector(hook: Hook) -> "tuple[Framing, Any]":
    def answer(self: Any) -> Frame:
        Loop(hook)
        gc.collect()
        return Frame(2)
    return type("Acting", (Acting,), {"hook": Hook(), "answer": answer})(), b"aabb"


def by_signal(hook: Hook) -> "tuple[Framing, Any]":
    """The handler, which the test sets, acts."""
    return type("Acting", (Acting,), {"hook": Hook().arm(lambda: signal.raise_signal(signal.SIGUSR1))})(), b"aabb"


def by_export(hook: Hook) -> "tuple[Framing, Any]":
    return Lines(), Exporter(b"aa\nbb\n", hook, False)


def by_release(hook: Hook) -> "tuple[Framing, Any]":
    return Lines(), Exporter(b"aa\nbb\n", hook, True)


SOURCES = [by_measure, by_measure_inside_tagged, by_dropped_answer, by_collector, by_signal,
           *([by_export, by_release] if sys.version_info >= (3, 12) else [])]


def set_framing(decoder: Any) -> None:
    decoder.framing = LengthPrefix()


@pytest.mark.parametrize("source", SOURCES)
def test_every_call_of_a_busy_decoder_is_refused(wing: Any, source: Any) -> None:
    """I6, I10, I11."""
    hook = Hook()
    framing, data = source(hook)
    decoder = wing.Decoder(framing)
    hook.arm(lambda: decoder.decode(b"x"), lambda: decoder.feed(b"x"), decoder.next_frame, lambda: next(decoder),
             decoder.get_buffer, lambda: decoder.buffer_updated(0), decoder.finish, decoder.take_buffered,
             lambda: decoder.decode_batch(b"x"), decoder.next_batch, lambda: decoder.need,
             lambda: set_framing(decoder), lambda: (decoder.skipped, decoder.framing))
    before = signal.signal(signal.SIGUSR1, lambda *_: hook.act())
    try:
        frames = decoder.decode(data)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert hook.results == [BUSY] * 12 + [("gives", tuple, (0, framing))]
    assert [frame[:2] for frame in frames] == [b"aa", b"bb"]
    assert (decoder.buffered, decoder.framing is framing) == (0, True)
    assert decoder.finish() == []


@pytest.mark.parametrize("call", [
    lambda decoder: decoder.next_frame(), lambda decoder: next(decoder), lambda decoder: decoder.finish()[0],
    lambda decoder: decoder.decode(b"bb")[0], lambda decoder: decoder.decode_batch(b"bb")[0],
    lambda decoder: decoder.next_batch()[0], lambda decoder: b"aa"[:decoder.need + 2]])
def test_every_call_makes_a_decoder_busy(wing: Any, call: Any) -> None:
    hook = Hook()
    decoder = wing.Decoder(by_measure(hook)[0])
    decoder.feed(b"aa")
    hook.arm(lambda: decoder.feed(b"x"))
    assert call(decoder) == b"aa"
    assert hook.results == [BUSY]
    assert outcome(decoder.feed, b"")[0] == "gives" or decoder.finish() == []


def test_a_framing_that_is_dropped_by_the_setter(wing: Any) -> None:
    """The old framing goes while the decoder is at work; its `__del__` finds it busy or done."""
    hook = Hook()
    framing = type("Acting", (Acting,), {"hook": Hook(), "__del__": lambda self: hook.act()})()
    decoder = wing.Decoder(framing)
    decoder.feed(b"aa\n")
    del framing
    hook.arm(lambda: decoder.feed(b"x"))
    decoder.framing = Lines()
    gc.collect()
    assert hook.results[0] in (BUSY, ("gives", type(None), None))
    assert decoder.next_frame() == b"aa"
    assert decoder.take_buffered() == (b"" if hook.results[0] == BUSY else b"x")


def test_arguments_are_converted_before_anything_is_done(wing: Any) -> None:
    """I3: `__index__` may use the decoder, or the buffer; what it did counts."""
    decoder, target = wing.Decoder(LengthPrefix(1)), bytearray(2)

    class Feeding:
        def __index__(self) -> int:
            decoder.feed(b"\3ab")
            target.extend(bytes(8))
            return 4
    room = decoder.get_buffer(Feeding())
    room[:] = b"c\1d\0"
    assert (len(room), decoder.buffered) == (4, 3)
    decoder.buffer_updated(4)
    assert list(decoder) == [b"abc", b"d", b""]
    target.clear()
    assert wing.Encoder(LengthPrefix(1)).encode_into(b"x", target, Feeding()) == 2
    assert target == bytes(4) + b"\1x" + bytes(2)
    room = decoder.get_buffer(9)
    with pytest.raises(ValueError, match=r"^buffer_updated\(4\): the buffer that get_buffer\(\) lent has 0 bytes$"):
        decoder.buffer_updated(Feeding())  # feed() ended the loan
    assert list(decoder) == [b"ab\3"]


def test_an_encoder_has_nothing_to_be_disturbed(wing: Any) -> None:
    hook = Hook()
    encoder = wing.Encoder(by_measure(hook)[0])
    for call, expected in ((lambda: encoder.encode(b"a"), b"<a>"),
                           (lambda: encoder.encode_many([b"a", b"b"]), b"<a><b>"),
                           (lambda: encoder.encode_many(encoder.encode(x) for x in (b"1", b"2")), b"<<1>><<2>>")):
        hook.arm(lambda: encoder.encode_many([b"c"]))
        assert call() == expected
    assert hook.results == [("gives", bytes, b"<c>")] * 3


def test_a_target_can_not_be_resized_while_it_is_written(wing: Any) -> None:
    """J3, law 11: its memory is held by an export."""
    hook, target = Hook(), bytearray(10)
    encoder = wing.Encoder(by_measure(hook)[0])
    hook.arm(target.clear, lambda: target.extend(b"more"))
    assert encoder.encode_into(b"a", target) == 3
    assert [result[1] for result in hook.results] == [BufferError] * 2
    assert target == b"<a>" + bytes(7)


# ---- connections ----

CONNECTION_BUSY = ("raises", RuntimeError, "FramedSocket is already at work in this call", {})

#: The calls of each direction, and those of neither, which are never refused.
RECEIVING: "list[Callable[[Any], Any]]" = [
    lambda conn: conn.recv(timeout=0), lambda conn: conn.recv(Lines(), timeout=0),
    lambda conn: conn.recv_into(bytearray(9), timeout=0), lambda conn: conn.recv_many(timeout=0),
    lambda conn: next(conn), lambda conn: conn.recv_batch(timeout=0), lambda conn: conn.detach()]
SENDING: "list[Callable[[Any], Any]]" = [
    lambda conn: conn.send(b"x", timeout=0), lambda conn: conn.send_many([b"x"], timeout=0),
    lambda conn: conn.send_many(iter([b"x"]), timeout=0), lambda conn: conn.flush(timeout=0),
    lambda conn: conn.shutdown(1), lambda conn: conn.detach()]
NEITHER: "list[Callable[[Any], Any]]" = [
    lambda conn: conn.pending() >= 0, lambda conn: conn.unsent == 0, lambda conn: not conn.closed,
    lambda conn: conn.gettimeout() is None, lambda conn: conn.fileno() >= 0]


@pytest.mark.parametrize(("call", "expected"), [
    (RECEIVING[0], b"aa"), (RECEIVING[2], 2), (RECEIVING[3], [b"aa", b"bb"]), (RECEIVING[4], b"aa"),
    (lambda conn: conn.recv_batch().tolist(), [b"aa", b"bb"])])
def test_every_receive_makes_a_connection_busy(wing: Any, call: Any, expected: Any) -> None:
    """Every other one is refused, from a framing's measure; what is sent meanwhile goes its way."""
    hook = Hook()
    left, right = wing.pair(by_measure(hook)[0])
    with left, right:
        left.sock.sendall(b"aabb")
        hook.arm(*(lambda one=one: one(right) for one in (*RECEIVING, *NEITHER)), lambda: right.sock.sendall(b"sent"))
        assert call(right) == expected
        assert hook.results[:len(RECEIVING)] == [CONNECTION_BUSY] * len(RECEIVING)
        assert hook.results[len(RECEIVING):-1] == [("gives", bool, True)] * len(NEITHER)
        assert left.sock.recv(4) == b"sent"
        if not isinstance(expected, list):
            assert right.recv() == b"bb"


def acting_payloads(hook: Hook) -> Any:
    hook.act()
    yield b"x"


@pytest.mark.parametrize(("call", "wraps"), [
    *((lambda conn, hook, call=call: call(conn), True) for call in SENDING[:3]),
    (lambda conn, hook: conn.send_many(acting_payloads(hook)), False),
    *([(lambda conn, hook: conn.send(Exporter(b"x", hook, False)), False),
       (lambda conn, hook: conn.send_many([Exporter(b"x", hook, False)]), False)]
      if sys.version_info >= (3, 12) else [])])
def test_every_send_makes_a_connection_busy(wing: Any, call: Any, wraps: bool) -> None:
    """Every other one is refused, from a framing's wrap, from a payload's `__buffer__` and from an iterator."""
    hook = Hook()
    left, right = wing.pair(by_measure(hook)[0] if wraps else LengthPrefix(1))
    frame = b"<x>" if wraps else b"\1x"
    with left, right:
        hook.arm(*(lambda one=one: one(left) for one in (*SENDING, *NEITHER)))
        call(left, hook)
        assert hook.results[:len(SENDING)] == [CONNECTION_BUSY] * len(SENDING)
        assert hook.results[len(SENDING):] == [("gives", bool, True)] * len(NEITHER)
        left.close()
        assert right.sock.recv(99) == frame


# ---- signals ----

@pytest.mark.parametrize(("framing", "data"), [
    (LengthPrefix(1), bytes(1 << 24)), (LengthPrefix(1, max_length=0, overlong="skip"), b"\1x" * (1 << 24)),
    (Lines("lf", max_length=2, overlong="skip"), b"abc\n" * (1 << 22))], ids=["frames", "skipped", "lines"])
@pytest.mark.parametrize("way", ["decode", "decode_batch"])
def test_a_signal_interrupts_a_flood_of_frames(wing: Any, framing: Framing, data: bytes, way: str) -> None:
    """F2, law 4: its handler runs among the frames, finds the decoder busy, and where it raises, nothing was taken."""
    decoder = wing.Decoder(framing)
    seen: list[Any] = []

    def handler(*_: Any) -> None:
        seen.append(outcome(decoder.feed, b""))
        raise KeyboardInterrupt
    before = signal.signal(signal.SIGALRM, handler)
    try:
        for _ in range(100):  # until it came in the middle
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.005)
                getattr(decoder, way)(data)
            except KeyboardInterrupt:
                assert (decoder.position, decoder.buffered, decoder.skipped) == (0, 0, 0)
            if BUSY in seen:
                break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert BUSY in seen
    assert decoder.decode(b"\0\0" if isinstance(framing, LengthPrefix) else b"ab\ncd\n") in ([b"", b""], [b"ab", b"cd"])


# ---- objects that are made once, and belong to one stream ----

def test_made_once(wing: Any, wings: "list[Any]") -> None:
    """I7: also from inside a call."""
    for name in ("Decoder", "Encoder"):
        text = f"{name} is already at work in this call"
        made = getattr(wing, name)(Lines())
        for args in ((LengthPrefix(),), (Lines(),)):
            assert outcome(made.__init__, *args) == ("raises", RuntimeError, text, {})
        assert made.framing == Lines()
    hook = Hook()
    decoder = wing.Decoder(by_measure(hook)[0])
    hook.arm(lambda: decoder.__init__(Lines()))
    assert decoder.decode(b"aab") == [b"aa"]
    assert hook.results == [BUSY]


def test_half_made_objects_crash_nothing(wing: Any) -> None:
    for kind in (wing.Decoder, wing.Encoder):
        for args in ((), (None,), (Lines(),)):
            how, _, value, *_ = outcome(kind.__new__, kind, *args)
            if how == "gives":
                for name in dir(kind):
                    if not name.startswith("__"):
                        outcome(getattr, value, name)
                for call in ("decode", "decode_batch", "next_batch", "feed", "encode", "get_buffer", "finish",
                             "next_frame", "take_buffered"):
                    outcome(lambda value=value, call=call: getattr(value, call)(b"x"))
                    outcome(lambda value=value, call=call: getattr(value, call)())
                outcome(value.__init__, Lines())
        with pytest.raises(TypeError):
            kind()
        with pytest.raises(TypeError):
            kind(Lines(), Lines())


def test_one_stream_can_not_be_doubled(wing: Any) -> None:
    """I12."""
    for name in ("Decoder", "Encoder"):
        made = getattr(wing, name)(Lines())
        text = f"{name} can't be pickled or copied: it belongs to one stream"
        for call in (copy.copy, copy.deepcopy, *(lambda value, protocol=protocol: pickle.dumps(value, protocol)
                                                 for protocol in range(pickle.HIGHEST_PROTOCOL + 1))):
            assert outcome(call, made) == ("raises", TypeError, text, {})
        with pytest.raises(AttributeError):
            made.new = 1
        with pytest.raises(TypeError, match="is not an acceptable base type"):
            type("Sub", (getattr(wing, name),), {})
