"""Framings of a user's own: how often they are asked, what they may answer, and what becomes of what they raise."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
from generate import Counted, Parted, outcome
from scripted import LIMIT

from sockframe.errors import FrameTooLongError, MalformedFrameError
from sockframe.framings import UNLIMITED, Cobs, Frame, Framing, Lines, Need, Slip, Tagged

WAYS = ("decode", "feed", "iterate", "update")


class Asked(Framing):
    """Asks the function `answer`, and keeps the views it was shown."""

    answer: Callable[[memoryview], Any] = staticmethod(lambda view: Frame(1))

    def measure(self, view: memoryview) -> Any:
        self.seen.append(view)
        return self.answer(view)

    def wrap(self, payload: bytes) -> Any:
        return self.answer(memoryview(payload))

    @property
    def seen(self) -> "list[memoryview]":
        """The views so far."""
        return self.__dict__.setdefault("_seen", [])


def asked(answer: Callable[[memoryview], Any], **options: Any) -> Asked:
    """Return a framing that answers so."""
    return type("Asked", (Asked,), {"answer": staticmethod(answer)})(**options)


def give(decoder: Any, way: str, data: bytes) -> "list[bytes]":
    """Give bytes to a decoder in one of the WAYS; return the frames."""
    if way == "decode":
        return decoder.decode(data)
    if way == "update":
        with decoder.get_buffer(len(data)) as room:
            room[:len(data)] = data
        decoder.buffer_updated(len(data))
    else:
        decoder.feed(data)
    if way == "iterate":
        return list(decoder)
    frames = []
    while (frame := decoder.next_frame()) is not None:
        frames.append(frame)
    return frames


def sized(view: memoryview) -> "Frame | Need":
    """A frame of as many bytes as its first byte says, behind that."""
    return Frame(1 + view[0], 1)


# ---- how often ----

@pytest.mark.parametrize("way", WAYS)
def test_one_call_a_frame(wing: Any, way: str) -> None:
    framing = asked(sized)
    decoder = wing.Decoder(framing)
    assert give(decoder, way, b"\1a\2bb\0\3ccc") == [b"a", b"bb", b"", b"ccc"]
    assert len(framing.seen) == 4
    assert bytes(framing.seen[1]) == b"\2bb\0\3ccc"[:len(framing.seen[1])]


@pytest.mark.parametrize("way", WAYS)
def test_a_frame_known_in_advance_is_asked_for_once_more(wing: Any, way: str) -> None:
    """Once to know it, and once when it is here, however many pieces it comes in."""
    for framing in (asked(sized), Tagged({200: asked(sized)})):
        own = framing if isinstance(framing, Asked) else framing.frames[0][1]
        decoder = wing.Decoder(framing)
        frames = [frame for byte in bytes([200]) + bytes(200) for frame in give(decoder, way, bytes([byte]))]
        assert frames == [bytes(200)]
        assert len(own.seen) == 2


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_need_is_waited_for(wing: Any, way: str, depth: int) -> None:
    own = asked(lambda view: Need(100 - len(view)) if len(view) < 100 else Frame(100, 0, 3))
    framing: Framing = own
    for _ in range(depth):
        framing = Tagged({b"x": framing})
    decoder = wing.Decoder(framing)
    for _ in range(99):
        assert give(decoder, way, b"x") == []
    assert len(own.seen) == 1
    assert decoder.need == 1
    assert give(decoder, way, b"x") == [b"xxx"]
    assert decoder.buffered == 0


def test_an_answer_of_need_alone(wing: Any) -> None:
    """Nothing is known but that one byte more is of use."""
    decoder = wing.Decoder(Parted())
    assert [decoder.decode(bytes([byte])) for byte in b"[ab][]"] == [[], [], [], [b"ab"], [], [b""]]
    assert decoder.need == 1
    assert decoder.finish() == []


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("overlong", ["error", "skip", "truncate"])
def test_frames_that_are_here_cost_one_call_each(wing: Any, limit: int, inside: bool, overlong: str) -> None:
    """Whoever takes them off what a connection holds, and also the overlong ones that are passed over."""
    own = asked(sized, max_length=4, overlong=overlong)
    payloads = [b"a", b"bb", b"12345678" if overlong != "error" else b"", b"ccc", b"", b"dddd"]
    expected = [payload[:4] for payload in payloads if overlong == "truncate" or len(payload) <= 4]
    frames = [bytes([len(payload)]) + payload for payload in payloads]
    left, right = wing.pair(Tagged({}, default=own) if inside else own)
    with left, right:
        left.sock.sendall(b"".join(frames))
        got: list[bytes] = []
        while len(got) < len(expected):
            got += right.recv_many(limit, timeout=LIMIT)
        assert got == expected
        assert len(own.seen) == len(frames)
        left.sock.sendall(b"".join(frames))
        assert [right.recv(timeout=LIMIT) for _ in expected] == expected
        assert len(own.seen) == 2 * len(frames)
        left.sock.sendall(b"".join(frames))
        with wing.FrameSelector() as selector:
            selector.register(right)
            ((_, got),) = selector.select(LIMIT)
        assert got == expected
        assert len(own.seen) == 3 * len(frames)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(("how", "overlong", "calls"), [
    ("recv", "error", 3), ("recv_many", "error", 3), ("__next__", "error", 3), ("recv", "skip", 2),
    ("recv_many", "skip", 2), ("recv_into", "skip", 2)])
def test_a_connection_asks_no_more_for_a_frame_in_pieces(wing: Any, how: str, overlong: str, calls: int,
                                                         inside: bool) -> None:
    """Once in its header, once behind it, and once when it is here, unless it is passed over."""
    own = asked(lambda view: Need(4 - len(view)) if len(view) < 4 else Frame(4 + view[3], 4), overlong=overlong,
                max_length=50 if overlong == "error" else 5)
    left, right = wing.pair(Tagged({}, default=own) if inside else own)
    with left, right:
        right.setblocking(False)
        got = []
        for byte in b"\0\0\0\x0a0123456789":
            left.sock.send(bytes([byte]))
            try:
                got.append(getattr(right, how)(*([bytearray(9)] if how == "recv_into" else [])))
            except BlockingIOError:
                continue
        assert got == ([] if overlong == "skip" else [[b"0123456789"] if how == "recv_many" else b"0123456789"])
        assert len(own.seen) == calls


# ---- what they see ----

@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kept", [bytes, bytearray, memoryview])
def test_a_view_that_is_kept_stays_as_it_was(wing: Any, way: str, kept: Any) -> None:
    """J1, J2: through growth, through what is delivered, and when the decoder is gone."""
    framing = asked(sized)
    decoder = wing.Decoder(framing)
    seen = []
    stream = b"\5hello\3abc\0" + b"\x09" + b"y" * 8
    data = bytearray(stream) if kept is not bytes else stream
    assert give(decoder, way, data if kept is not memoryview else memoryview(data)) == [b"hello", b"abc", b""]
    seen += [(view, bytes(view)) for view in framing.seen]
    if kept is not bytes:
        data[:] = bytes(len(data))  # what was given belongs to the caller again
        data.clear()
    for piece in (b"z", b"\x30" + b"-" * 48, b"\xff" + b"." * 255):
        give(decoder, way, piece)
        seen += [(view, bytes(view)) for view in framing.seen[len(seen):]]
    decoder.feed(b"\xff" + bytes(100_000))
    list(decoder)
    decoder.take_buffered()
    del decoder
    assert len(seen) >= 7
    assert all(bytes(view) == content for view, content in seen)
    assert all(view.readonly and view.format == "B" and view.ndim == 1 for view, _ in seen)


# ---- impossible answers ----

IMPOSSIBLE = [
    Frame(0), Frame(-1), Frame(-5, -5, -5), Frame(4, 5), Frame(4, -1), Frame(4, 0, 5), Frame(4, 3, 2), Frame(2**63),
    Frame(2**64 + 1), Frame(2**70, 0, 1), Frame(1.0), Frame("1"), Frame(None), Frame(3, None), Frame(3, 1.0),
    Frame(3, 0, "2"), Need(0), Need(-1), Need(2**63), Need(2**64 + 1), Need(1.5), Need(None), Need("1"), None, 0, 3,
    (3, 0, 3), b"frame", [3], Frame, Need, ...,
]


@pytest.mark.parametrize("answer", IMPOSSIBLE, ids=lambda answer: repr(answer)[:30])
@pytest.mark.parametrize("inside", [False, True])
def test_an_impossible_answer_is_named_and_changes_nothing(wing: Any, answer: Any, inside: bool) -> None:
    """I5: no endless loop and no read beyond what is here; once the framing is right, all is there."""
    good = False
    own = asked(lambda view: sized(view) if good else answer)
    decoder = wing.Decoder(Tagged({}, default=own) if inside else own)
    text = f"Asked.measure() returned {answer!r}, which can't be"
    decoder.feed(b"\1a\2b")
    calls = (decoder.next_frame, decoder.__next__, decoder.finish, lambda: decoder.decode(b"more"),
             lambda: decoder.need)
    for call in calls * 2:
        assert outcome(call) == ("raises", RuntimeError, text, {})
    assert (decoder.buffered, decoder.position) == (4, 0)
    good = True
    assert decoder.decode(b"b\0") == [b"a", b"bb", b""]


@pytest.mark.parametrize(("answer", "need"), [(Need(sys.maxsize), sys.maxsize), (Frame(sys.maxsize), sys.maxsize - 1)])
@pytest.mark.parametrize("inside", [False, True])
def test_the_largest_possible_answer(wing: Any, answer: Any, need: int, inside: bool) -> None:
    """It is waited for, and nothing is set aside."""
    own = asked(lambda view: answer, max_length=UNLIMITED)
    decoder = wing.Decoder(Tagged({}, default=own, max_length=UNLIMITED) if inside else own)
    decoder.feed(b"a")
    assert decoder.next_frame() is None
    assert (decoder.need, decoder.buffered) == (need, 1)
    assert decoder.decode(b"b") == []
    assert len(own.seen) <= 3


# ---- what they raise ----

@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("inside", [False, True])
def test_a_malformed_frame_is_final(wing: Any, way: str, inside: bool) -> None:
    """Its position and bounded bytes are filled in, frames in front of it come first, and the measure is not
    asked again."""
    def answer(view: memoryview) -> Frame:
        if view[0] == ord("9"):
            raise MalformedFrameError("nine", position=123, header=b"9" * 300)
        return Frame(2)
    own = asked(answer)
    decoder = wing.Decoder(Tagged({}, default=own) if inside else own)
    assert give(decoder, way if way == "decode" else "iterate", b"aabb") == [b"aa", b"bb"]
    if way == "decode":
        assert decoder.decode(b"cc9more") == [b"cc"]
    else:
        decoder.feed(b"cc9more")
        assert decoder.next_frame() == b"cc"
    calls = len(own.seen)
    expected = ("raises", MalformedFrameError, "nine", {"position": 6, "header": b"9" * 100})
    for call in (decoder.next_frame, lambda: decoder.decode(b"x"), lambda: decoder.feed(b"x"), decoder.finish,
                 decoder.take_buffered, decoder.get_buffer):
        assert outcome(call) == expected
    assert (decoder.position, decoder.buffered, decoder.need) == (6, 0, 0)
    assert len(own.seen) <= calls + (way != "decode")


def test_a_malformed_frame_that_another_framing_reads(wing: Any) -> None:
    """What the first one raised while the need was asked for is not the fault of the other."""
    def answer(view: memoryview) -> Frame:
        raise MalformedFrameError("mine")
    decoder = wing.Decoder(asked(answer))
    decoder.feed(b"\nab")
    assert decoder.need == 0
    decoder.framing = Lines("crlf")
    found = outcome(decoder.next_frame)
    assert found[:2] == ("raises", MalformedFrameError)
    assert (found[2], found[3]) == outcome(wing.Decoder(Lines("crlf")).decode, b"\nab")[2:]


@pytest.mark.parametrize("first", [Need(5), Frame(7)], ids=repr)
def test_what_the_end_of_the_stream_shows_to_be_malformed(wing: Any, first: Any) -> None:
    """The bytes that were asked for never come; those that are here are looked at once more, and are bad."""
    def answer(view: memoryview) -> Any:
        if len(view) > 1:
            raise MalformedFrameError("more", header=bytes(view))
        return first
    own = asked(answer)
    decoder = wing.Decoder(own)
    assert decoder.decode(b"1") == decoder.decode(b"2") == []
    assert (len(own.seen), decoder.buffered) == (1, 2)
    expected = ("raises", MalformedFrameError, "more", {"position": 0, "header": b"12"})
    assert outcome(decoder.finish) == outcome(decoder.finish) == outcome(decoder.next_frame) == expected
    assert (len(own.seen), decoder.buffered, decoder.position) == (2, 0, 0)


@pytest.mark.parametrize("error", [ValueError("mine"), KeyError(1), KeyboardInterrupt(), StopIteration()])
@pytest.mark.parametrize("inside", [False, True])
def test_any_other_error_changes_nothing(wing: Any, error: BaseException, inside: bool) -> None:
    """I4, law 4: the same call later goes on as if it had not been made."""
    bad = True

    def answer(view: memoryview) -> "Frame | Need":
        if bad and view[0] == ord("9"):
            raise error
        return Need(1) if len(view) < 2 else Frame(2, 1)
    own = asked(answer)
    decoder = wing.Decoder(Tagged({}, default=own) if inside else own)
    assert decoder.decode(b".1.") == [b"1"]

    def state() -> Any:
        return decoder.buffered, decoder.position, decoder.skipped
    before = state()
    for call in (lambda: decoder.decode(b"2.39"), lambda: decoder.decode(b"2.39")):
        with pytest.raises(type(error)) as caught:
            call()
        assert caught.value is error
        assert state() == before == (1, 2, 0)
    decoder.feed(b"2.39")
    assert [decoder.next_frame(), decoder.next_frame()] == [b"2", b"3"]
    for call in (decoder.next_frame, decoder.finish, lambda: decoder.decode(b"4")):
        with pytest.raises(type(error)):
            call()
        assert state() == (1, 6, 0)
    bad = False
    assert decoder.decode(b"4.5") == [b"4", b"5"]
    assert decoder.finish() == []


def test_a_generator_that_stops_inside_measure_does_not_end_an_iteration(wing: Any) -> None:
    def answer(view: memoryview) -> Frame:
        raise EOFError
    decoder = wing.Decoder(asked(answer))
    decoder.feed(b"x")
    with pytest.raises(EOFError):
        list(decoder)
    assert decoder.buffered == 1


# ---- overlong ----

@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(("overlong", "expected", "skipped"), [
    ("skip", [b"ab", b"c"], 2), ("truncate", [b"ab", b"12", b"c", b"45"], 0)])
def test_overlong_frames_are_passed_over_unasked(wing: Any, inside: bool, overlong: str, expected: Any,
                                                 skipped: int) -> None:
    own = asked(sized, max_length=2, overlong=overlong)
    decoder = wing.Decoder(Tagged({}, default=own) if inside else own)
    stream = b"\2ab\xc8" + b"12" * 100 + b"\1c\x03456"
    frames = [frame for byte in stream for frame in decoder.decode(bytes([byte]))]
    assert (frames, decoder.skipped, decoder.buffered, decoder.position) == (expected, skipped, 0, len(stream))
    assert len(own.seen) < 20
    one_piece = wing.Decoder(own)
    assert one_piece.decode(stream) == expected
    assert one_piece.skipped == skipped


@pytest.mark.parametrize(("overlong", "expected"), [("skip", [b"x", b"yy"]), ("truncate", [b"ab", b"x", b"fg", b"yy"])])
def test_frames_among_overlong_ones_come_one_at_a_time(wing: Any, overlong: str, expected: "list[bytes]") -> None:
    decoder = wing.Decoder(asked(sized, max_length=2, overlong=overlong))
    decoder.feed(b"\5abcde\1x\3fgh\2yy\4")
    assert [decoder.next_frame() for _ in expected] == expected
    assert decoder.next_frame() is None


# ---- wrap ----

@pytest.mark.parametrize("read", [lambda decoder: decoder.next_frame(), lambda decoder: decoder.decode(b""),
                                  lambda decoder: decoder.finish()], ids=["next_frame", "decode", "finish"])
def test_an_error_behind_a_skipped_frame_changes_nothing(wing: Any, read: Any) -> None:
    """What was passed over in the same call is there again."""
    good = False

    def answer(view: memoryview) -> Frame:
        if view[0] == 1 and not good:
            raise KeyError("mine")
        return Frame(1 + view[0], 1)
    decoder = wing.Decoder(asked(answer, max_length=2, overlong="skip"))
    decoder.feed(b"\3abc\1d")
    for _ in range(2):
        assert outcome(read, decoder) == ("raises", KeyError, "'mine'", {})
        assert (decoder.buffered, decoder.position, decoder.skipped) == (6, 0, 0)
    good = True
    assert decoder.decode(b"") == [b"d"]
    assert (decoder.buffered, decoder.position, decoder.skipped) == (0, 6, 1)


@pytest.mark.parametrize("held", [1, 3, 5])
def test_an_error_behind_a_frame_that_was_begun_changes_nothing(wing: Any, held: int) -> None:
    """What was held is, and of what came with the error nothing is, however much of each there is."""
    good = False

    def answer(view: memoryview) -> Frame:
        if view[0] == 1 and not good:
            raise KeyError("mine")
        return Frame(1 + view[0], 1)
    decoder = wing.Decoder(asked(answer))
    stream = b"\5abcde\1f\0"
    assert decoder.decode(stream[:held]) == []
    for _ in range(2):
        assert outcome(decoder.decode, stream[held:]) == ("raises", KeyError, "'mine'", {})
        assert (decoder.buffered, decoder.position) == (held, 0)
    good = True
    assert decoder.decode(stream[held:]) == [b"abcde", b"f", b""]


def test_inside_tagged_both_ways(wing: Any) -> None:
    framing = Tagged({1: Counted(), b"[": Parted()})
    encoder, decoder = wing.Encoder(framing), wing.Decoder(framing)
    with pytest.raises(ValueError, match=r"^payload does not begin with a listed tag$"):
        encoder.encode(b"neither")
    # The tag is taken from the payload, and must be there in the frame.
    assert encoder.encode(b"\1xy") == b"\1\3\1xy"
    assert encoder.encode(b"[xy") == b"[[xy]"
    assert decoder.decode(b"\1\3\1xy[[xy][]") == [b"\1xy", b"[xy", b""]
    for frame in (b"", b"no tag of its own", b"?\1"):
        losing = wing.Encoder(Tagged({1: asked(lambda view, frame=frame: frame)}))
        with pytest.raises(ValueError, match=r"^payload does not begin with a listed tag$"):
            losing.encode(b"\1xy")


def test_among_framings_that_stuff(wing: Any) -> None:
    framing = Tagged({1: Counted(), 3: Cobs(), b"s": Slip()})
    stream = b"\1\2xy" + b"\3ab\2c\0" + b"s\xdb\xdc\xc0" + b"\1\0" + b"s\xc0"
    frames = [b"xy", b"ab\0c", b"s\xc0", b"", b"s"]
    for size in range(1, len(stream) + 1):
        decoder = wing.Decoder(framing)
        pieces = [stream[at:at + size] for at in range(0, len(stream), size)]
        assert [frame for piece in pieces for frame in decoder.decode(piece)] == frames
        decoder = wing.Decoder(framing)
        for piece in pieces:
            decoder.feed(piece)
        assert decoder.next_frame() == frames[0]
        assert decoder.finish() == frames[1:]


def ways_to_encode(encoder: Any, target: bytearray) -> "tuple[Callable[[], Any], ...]":
    """Return calls that encode a payload."""
    return (lambda: encoder.encode(b"x"), lambda: encoder.encode_many([b"x"]),
            lambda: encoder.encode_into(b"x", target))


def test_what_wrap_returns(wing: Any) -> None:
    for frame in (b"framed", bytearray(b"framed"), memoryview(b"framed"), memoryview(b"f.r.a.m.e.d.")[::2]):
        encoder = wing.Encoder(asked(lambda view, frame=frame: frame))
        assert encoder.encode(b"x") == b"framed"
        assert encoder.encode_many([b"x", b"y"]) == b"framedframed"
        target = bytearray(8)
        assert encoder.encode_into(b"x", target, 1) == 6
        assert target == b"\0framed\0"
    for value in (None, "framed", 6, [1], object()):
        for call in ways_to_encode(wing.Encoder(asked(lambda view, value=value: value)), bytearray(9)):
            with pytest.raises(TypeError, match=f"a bytes-like object is required, not '{type(value).__name__}'"):
                call()


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("error", [
    ValueError("too odd"), KeyError("k"), MalformedFrameError("bad", position=4), FrameTooLongError("long", length=9)])
def test_what_wrap_raises(wing: Any, error: Exception, inside: bool) -> None:
    """It is left alone; but of several payloads a ValueError names the place of the bad one."""
    def answer(view: memoryview) -> bytes:
        if view[0] == ord("x"):
            raise error
        return b"f"
    own = asked(answer)
    framing = Tagged({b"x": own}, default=own) if inside else own
    encoder, target = wing.Encoder(framing), bytearray(9)
    left, right = wing.pair(framing)
    with left, right:
        for call in (lambda: encoder.encode(b"x"), lambda: encoder.encode_into(b"x", target),
                     lambda: left.send(b"x")):
            with pytest.raises(type(error)) as caught:
                call()
            assert caught.value is error
        for call in (lambda: encoder.encode_many([b"x"] if inside else [b"a", b"x"]),
                     lambda: left.send_many([b"x"] if inside else [b"a", b"x"]),
                     lambda: left.send_many(iter([b"x"] if inside else [b"a", b"x"]))):
            with pytest.raises(type(error)) as caught:
                call()
            if type(error) is ValueError:
                assert str(caught.value) == f"payload {0 if inside else 1}: too odd"
                assert caught.value.__cause__ is error
            else:
                assert caught.value is error
    assert target == bytes(9)


def test_wrap_is_asked_once_and_not_for_what_is_too_long(wing: Any) -> None:
    calls: list[bytes] = []
    encoder = wing.Encoder(asked(lambda view: calls.append(bytes(view)) or b"f", max_length=2))
    assert encoder.encode_many([b"1", b"", bytearray(b"22")]) == b"fff"
    assert calls == [b"1", b"", b"22"]
    with pytest.raises(ValueError, match=r"^payload is too long \(3 bytes, max_length is 2\)$"):
        encoder.encode(b"333")
    assert len(calls) == 3
