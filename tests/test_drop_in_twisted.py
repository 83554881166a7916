"""Twisted's receivers by sockframe: Twisted's own tests pass, and nothing differs but what is promised to be better."""

import importlib
import os
import struct
import subprocess
import sys
from itertools import pairwise
from typing import Any

import pytest
from conftest import WINGS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peers.programs import lacking

#: Twisted's own tests, as they are installed, of which the names are replaced before they are imported.
OWN_TESTS = """
import sys, unittest
from twisted.protocols import basic
import sockframe
from sockframe.drop_in import twisted
assert sockframe.wing == sys.argv[1]
for name in twisted.__all__:
    setattr(basic, name, getattr(twisted, name))
from twisted.protocols.test import test_basic
bases = {test_basic.LineTester: "LineReceiver", test_basic.LineOnlyTester: "LineOnlyReceiver",
         test_basic.TestNetstring: "NetstringReceiver", test_basic.TestInt32: "Int32StringReceiver",
         test_basic.TestInt16: "Int16StringReceiver", test_basic.TestInt8: "Int8StringReceiver"}
for tester, name in bases.items():
    assert issubclass(tester, getattr(twisted, name))
    assert tester.dataReceived.__module__ == twisted.__name__
result = unittest.TextTestRunner().run(unittest.defaultTestLoader.loadTestsFromModule(test_basic))
assert result.wasSuccessful() and not result.skipped and result.testsRun > 80, result
"""

STRINGS = {"Int32StringReceiver": "!I", "Int16StringReceiver": "!H", "Int8StringReceiver": "!B"}
CLASSES = [*STRINGS, "NetstringReceiver", "LineReceiver", "LineOnlyReceiver"]


@pytest.fixture(autouse=True)
def _twisted() -> None:
    try:
        importlib.import_module("twisted.protocols.basic")
    except ImportError:
        lacking("Twisted", "pip install twisted")


@pytest.fixture
def ours(wing: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The drop-in, over the decoder of one wing."""
    module = importlib.import_module("sockframe.drop_in.twisted")
    monkeypatch.setattr(module, "Decoder", wing.Decoder)
    return module


def originals() -> Any:
    """Return Twisted's module."""
    return importlib.import_module("twisted.protocols.basic")


def connected(base: type, **attributes: Any) -> Any:
    """Return a receiver with a transport, which notes what it is given in `events`; `attributes` are of its class."""
    from twisted.internet.testing import StringTransport

    def note(name: str) -> Any:
        def method(self: Any, given: Any) -> Any:
            self.events.append((name, given))
            action = self.actions.get(len(self.events))
            return action(self) if action else None
        return method

    names = ("stringReceived", "lineReceived", "rawDataReceived")
    made = type("Noting", (base,), {**{name: note(name) for name in names}, **attributes})()
    made.events, made.actions = [], {}
    made.makeConnection(StringTransport())
    return made


def frame(name: str, string: bytes) -> bytes:
    """Return what a peer sends."""
    if name in STRINGS:
        return struct.pack(STRINGS[name], len(string)) + string
    return b"%d:%s," % (len(string), string) if name == "NetstringReceiver" else string + b"\r\n"


def strings(receiver: Any) -> "list[bytes]":
    """Return what a receiver was given."""
    return [given for _, given in receiver.events]


def cut(stream: bytes, places: "list[int]") -> "list[bytes]":
    """Return a stream in pieces."""
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:stop] for start, stop in pairwise(edges)]


@pytest.mark.parametrize("name", WINGS)
def test_twisteds_own_tests_pass(name: str) -> None:
    environment = {**os.environ, "SOCKFRAME_CORE": "1" if name == "core" else "0"}
    done = subprocess.run([sys.executable, "-c", OWN_TESTS, name], env=environment, capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", CLASSES)
def test_it_is_the_original_by_another_import(ours: Any, name: str) -> None:
    original, replaced = getattr(originals(), name), getattr(ours, name)
    assert issubclass(replaced, original)
    made = connected(replaced)
    (made.sendLine if "Line" in name else made.sendString)(b"some")
    assert made.transport.value() == frame(name, b"some")
    assert made.MAX_LENGTH == original.MAX_LENGTH


def test_what_else_twisted_has_is_here_too(ours: Any) -> None:
    for name in ours.__all__:
        assert hasattr(originals(), name)
    assert ours.FileSender is originals().FileSender


# ---- the same as the original ----

@pytest.mark.parametrize("name", CLASSES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_cut_gives_what_the_original_gives(ours: Any, name: str, data: Any) -> None:
    """Strings, long ones, and what is none; MAX_LENGTH set and receiving paused from inside the handler."""
    items = data.draw(st.lists(st.binary(max_size=12).filter(lambda item: b"\r" not in item and b"\n" not in item)
                               | st.just(b"x" * 30), max_size=8))
    stream = b"".join(frame(name, item) for item in items)
    stream += data.draw(st.sampled_from([b"", b"\0", b"4", b"12:a", b"0:a"]))
    pieces = cut(stream, data.draw(st.lists(st.integers(0, 500), max_size=6)))
    limits = data.draw(st.dictionaries(st.integers(1, 8), st.integers(1, 40), max_size=2))
    pauses = data.draw(st.sets(st.integers(1, 8), max_size=3)) if hasattr(getattr(ours, name), "pauseProducing") else ()
    pair = []
    for module in (originals(), ours):
        made = connected(getattr(module, name), MAX_LENGTH=20)
        states: list[bytes] = []
        for place, limit in limits.items():
            made.actions[place] = lambda self, limit=limit: setattr(self, "MAX_LENGTH", limit)
        for place in pauses:
            made.actions[place] = lambda self: self.pauseProducing()
        for piece in pieces:
            made.dataReceived(piece)
            while getattr(made, "paused", False):
                made.resumeProducing()
            if made.transport.disconnecting:
                break  # no more is received, and what is held then is nobody's
            if name in STRINGS:
                states.append(made.recvd)
            elif "Line" in name:
                states.append(made._buffer)
        pair.append((made.events, made.transport.disconnecting, states))
    assert pair[0] == pair[1]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_lines_and_raw_bytes_come_as_the_original_gives_them(ours: Any, data: Any) -> None:
    parts = st.sampled_from([b"a\r\n", b"\r\n", b"raw\r\n", b"some", b"x|", b"\r"])
    stream = b"".join(data.draw(st.lists(parts, max_size=12)))
    pieces = cut(stream, data.draw(st.lists(st.integers(0, 500), max_size=4)))
    verbs = st.sampled_from(["raw", "line", "delimiter", "pause", "clear", "why"])
    actions = data.draw(st.dictionaries(st.integers(1, 10), verbs, max_size=5))

    def act(self: Any, action: str) -> Any:
        mode, given = self.events[-1]
        if action == "raw":
            self.setRawMode()
        elif action == "line" and mode == "rawDataReceived":
            self.setLineMode(given[1:])
        elif action == "delimiter":
            self.delimiter = b"|" if self.delimiter == b"\r\n" else b"\r\n"
        elif action == "pause":
            self.pauseProducing()
        elif action == "clear":
            self.events.append(("cleared", self.clearLineBuffer()))
        return "why" if action == "why" else None

    pair = []
    for module in (originals(), ours):
        made = connected(module.LineReceiver)
        for place, action in actions.items():
            made.actions[place] = lambda self, action=action: act(self, action)
        states = []
        for piece in pieces:
            states.append(made.dataReceived(piece))
            while made.paused:
                states.append(made.resumeProducing())
            states.append((made._buffer, made.line_mode))
        pair.append((made.events, states))
    assert pair[0] == pair[1]


# ---- from inside a handler ----

@pytest.mark.parametrize("name", CLASSES)
def test_bytes_received_inside_a_handler_come_in_their_turn(ours: Any, name: str) -> None:
    made = connected(getattr(ours, name))
    made.actions[1] = lambda self: self.dataReceived(frame(name, b"three") + frame(name, b"four"))
    made.dataReceived(frame(name, b"one") + frame(name, b"two"))
    assert strings(made) == [b"one", b"two", b"three", b"four"]


@pytest.mark.parametrize("name", [*STRINGS, "LineReceiver"])
def test_paused_and_resumed_inside_a_handler(ours: Any, name: str) -> None:
    """The original of the strings delivers the first one for ever."""
    def pause_and_resume(self: Any) -> None:
        self.pauseProducing()
        self.resumeProducing()

    made = connected(getattr(ours, name))
    made.actions = dict.fromkeys((1, 2), pause_and_resume)
    made.dataReceived(frame(name, b"one") + frame(name, b"two") + frame(name, b"three"))
    assert strings(made) == [b"one", b"two", b"three"]


@pytest.mark.parametrize("name", CLASSES)
def test_a_handler_that_raises_costs_no_string(ours: Any, name: str) -> None:
    """I4. The original of the strings delivers those before it once more; that of the lines drops those behind it."""
    def fail(self: Any) -> None:
        raise LookupError("mine")

    made = connected(getattr(ours, name))
    made.actions[2] = fail
    with pytest.raises(LookupError, match="mine"):
        made.dataReceived(b"".join(frame(name, item) for item in (b"one", b"two", b"three")) + frame(name, b"four")[:3])
    assert strings(made) == [b"one", b"two"]
    made.dataReceived(frame(name, b"four")[3:])
    assert strings(made) == [b"one", b"two", b"three", b"four"]


@pytest.mark.parametrize("name", [*STRINGS, "LineReceiver"])
def test_what_comes_while_paused_waits(ours: Any, name: str) -> None:
    made = connected(getattr(ours, name))
    made.actions[1] = lambda self: self.pauseProducing()
    made.dataReceived(frame(name, b"one") + frame(name, b"two"))
    made.dataReceived(frame(name, b"three")[:2])
    made.dataReceived(frame(name, b"three")[2:])
    assert strings(made) == [b"one"] and made.transport.producerState == "paused"
    made.resumeProducing()
    assert strings(made) == [b"one", b"two", b"three"] and made.transport.producerState == "producing"


# ---- strings ----

@pytest.mark.parametrize("name", STRINGS)
def test_a_long_string_stays_the_next_one(ours: Any, name: str) -> None:
    """B1: the length is judged before its bytes are here; with another limit it comes."""
    exceeded: list[int] = []
    made = connected(getattr(ours, name), MAX_LENGTH=10,
                     lengthLimitExceeded=lambda self, length: exceeded.append(length))
    made.dataReceived(frame(name, b"short") + frame(name, b"x" * 11)[:-11])
    assert (strings(made), exceeded) == ([b"short"], [11])
    made.dataReceived(b"x" * 11 + frame(name, b"next"))
    assert (exceeded, made.recvd) == ([11, 11], frame(name, b"x" * 11) + frame(name, b"next"))
    made.MAX_LENGTH = 11
    made.dataReceived(b"")
    assert strings(made) == [b"short", b"x" * 11, b"next"]


def test_a_length_of_four_gigabytes_reserves_nothing(ours: Any) -> None:
    """G1, B1."""
    made = connected(ours.Int32StringReceiver)
    made.dataReceived(b"\xff\xff\xff\xff")
    assert made.transport.disconnecting and made.recvd == b"\xff\xff\xff\xff"


@pytest.mark.parametrize("name", STRINGS)
def test_recvd_can_be_read_and_set_at_any_time(ours: Any, name: str) -> None:
    made = connected(getattr(ours, name))
    assert made.recvd == b""
    made.recvd = frame(name, b"put")[:2]
    made.dataReceived(frame(name, b"put")[2:])
    assert strings(made) == [b"put"]
    seen: list[bytes] = []
    made.actions[2] = lambda self: seen.append(self.recvd)
    made.actions[3] = lambda self: setattr(self, "recvd", frame(name, b"other") + b"\1")
    made.dataReceived(frame(name, b"one") + frame(name, b"two") + frame(name, b"three") + b"\0")
    assert seen == [frame(name, b"two") + frame(name, b"three") + b"\0"]
    assert strings(made) == [b"put", b"one", b"two", b"other"] and made.recvd == b"\1"


@pytest.mark.parametrize("form", ["<H", ">Q", "=I", "!i", "<b", "H", "@L"])
def test_a_length_of_ones_own(ours: Any, form: str) -> None:
    stream = struct.pack(form, 2) + b"ab"
    made = connected(ours.IntNStringReceiver, structFormat=form, prefixLength=struct.calcsize(form))
    for byte in stream * 2:
        made.dataReceived(bytes([byte]))
    assert strings(made) == [b"ab", b"ab"]
    made.sendString(b"ab")
    assert made.transport.value() == stream


def test_another_length_from_the_next_bytes_on(ours: Any) -> None:
    made = connected(ours.Int8StringReceiver)
    made.actions[1] = lambda self: (setattr(self, "structFormat", "!H"), setattr(self, "prefixLength", 2))
    made.dataReceived(b"\1a\1b\1")
    made.dataReceived(b"\0" + b"c" * 256)
    assert strings(made) == [b"a", b"b", b"c" * 256]


def test_a_length_below_zero_and_one_that_is_none(ours: Any) -> None:
    """B3. With -4 the original delivers b"" for ever."""
    from sockframe import MalformedFrameError

    made = connected(ours.IntNStringReceiver, structFormat="!i", prefixLength=4)
    with pytest.raises(MalformedFrameError):
        made.dataReceived(b"\0\0\0\1a\xff\xff\xff\xfc")
    assert strings(made) == [b"a"]
    for form in ("!3s", "!HH", "!f", ""):
        with pytest.raises(ValueError, match="must be that of one integer"):
            connected(ours.IntNStringReceiver, structFormat=form, prefixLength=4).dataReceived(b"")


@pytest.mark.parametrize("bad", [b"05:hello,", b"+5:", b" 5:", b"5_0:", b":", b"a", b"5 :", b"2:abc,", b"12\n", b"0:a",
                                 b"51:", b"51", b"9" * 30])
def test_what_is_no_netstring_ends_the_stream(ours: Any, bad: bytes) -> None:
    """D1, D2, D3, D4, D5, D7, G7: what is good comes first; of the bad one, and behind it, nothing is kept."""
    for pieces in ([b"2:ok," + bad], [b"2:ok,", bad], [bytes([byte]) for byte in b"2:ok," + bad]):
        made = connected(ours.NetstringReceiver, MAX_LENGTH=50)
        for piece in pieces:
            made.dataReceived(piece)
        assert (strings(made), made.brokenPeer, made.transport.disconnecting) == ([b"ok"], 1, True)
        made.dataReceived(b"5:after,")
        assert strings(made) == [b"ok"] and made._sf_decoder.buffered == 0
        made.makeConnection(made.transport)
        made.dataReceived(b"3:new,")
        assert strings(made) == [b"ok", b"new"] and not made.brokenPeer


@pytest.mark.parametrize("limit", [0, 1, 8, 9, 10, 11, 99, 100, 101])
def test_the_limit_of_a_netstring_is_exact(ours: Any, limit: int) -> None:
    """R1. Where 0 is the limit, the original can't take its logarithm."""
    for size in range(max(0, limit - 2), limit + 3):
        for stream in (frame("NetstringReceiver", b"x" * size), b"%d:" % size):
            for pieces in ([stream], [stream[at:at + 1] for at in range(len(stream))]):
                made = connected(ours.NetstringReceiver, MAX_LENGTH=limit)
                for piece in pieces:
                    made.dataReceived(piece)
                assert bool(made.brokenPeer) == (size > limit)


# ---- lines ----

def test_lines_behind_a_long_one_are_not_lost(ours: Any) -> None:
    """Where `lineLengthExceeded` keeps the connection; the original drops those of the same piece."""
    long: list[bytes] = []
    made = connected(ours.LineOnlyReceiver, MAX_LENGTH=4, lineLengthExceeded=lambda self, line: long.append(line))
    made.dataReceived(b"one\r\nmuch too long\r\ntwo\r\nagain")
    made.dataReceived(b" too ")
    made.dataReceived(b"long\r\nthree\r\r\n")
    assert strings(made) == [b"one", b"two"]
    assert long == [b"much too long", b"again", b"again too long", b"three\r"]


def test_a_line_that_loses_the_connection_is_the_last_one(ours: Any) -> None:
    for name in ("LineReceiver", "LineOnlyReceiver"):
        made = connected(getattr(ours, name))
        made.actions[1] = lambda self: self.transport.loseConnection()
        made.dataReceived(b"one\r\ntwo\r\n")
        assert strings(made) == [b"one"]


def test_what_is_given_back_of_a_long_line_is_taken_up(ours: Any) -> None:
    """The original waits for more bytes."""
    made = connected(ours.LineReceiver, MAX_LENGTH=4, lineLengthExceeded=lambda self, line: self.setLineMode(line[5:]))
    made.dataReceived(b"12345one\r\ntwo\r\n12345678910")
    assert strings(made) == [b"one", b"two"] and made._buffer == b"0"


def test_another_delimiter_between_lines(ours: Any) -> None:
    for name in ("LineReceiver", "LineOnlyReceiver"):
        made = connected(getattr(ours, name))
        made.dataReceived(b"one\r\ntwo|thr")
        made.delimiter = b"|"
        made.dataReceived(b"ee|")
        assert strings(made) == [b"one", b"two", b"three"]
    with pytest.raises(ValueError, match="64"):
        connected(ours.LineReceiver, delimiter=b"-" * 65).dataReceived(b"")


# ---- linear ----

class Counting:
    """A decoder that counts the bytes that go in and come back, and the frames that come out."""

    moved = made = 0

    def __init__(self, decoder: Any) -> None:
        self.decoder = decoder

    def __getattr__(self, name: str) -> Any:
        return getattr(self.decoder, name)

    def decode(self, data: bytes) -> "list[bytes]":
        Counting.moved += len(data)
        frames: list[bytes] = self.decoder.decode(data)
        Counting.made += len(frames)
        return frames

    def feed(self, data: bytes) -> None:
        Counting.moved += len(data)
        self.decoder.feed(data)

    def next_frame(self) -> Any:
        Counting.made += 1
        return self.decoder.next_frame()

    def take_buffered(self) -> bytes:
        held: bytes = self.decoder.take_buffered()
        Counting.moved += len(held)
        return held


@pytest.fixture
def counting(ours: Any, wing: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The class of the decoders that the drop-in makes."""
    monkeypatch.setattr(Counting, "moved", 0)
    monkeypatch.setattr(Counting, "made", 0)
    monkeypatch.setattr(ours, "Decoder", lambda framing: Counting(wing.Decoder(framing)))
    return Counting


@pytest.mark.parametrize("name", [name for name in CLASSES if name != "Int8StringReceiver"])
def test_each_byte_is_fed_once_however_small_the_pieces(ours: Any, counting: Any, name: str) -> None:
    """H1, H2: a long string in pieces, and many short ones, some of them while paused."""
    made = connected(getattr(ours, name), MAX_LENGTH=1 << 16)
    made.actions[1] = lambda self: getattr(self, "pauseProducing", list)()
    stream = frame(name, b"x" * 60_000) + frame(name, b"y") * 1000
    for at in range(0, len(stream), 50):
        made.dataReceived(stream[at:at + 50])
    if getattr(made, "paused", False):
        made.resumeProducing()
    assert len(made.events) == 1001 and (counting.moved, counting.made) == (len(stream), 1001)


def test_switching_modes_splits_no_line_twice(ours: Any, counting: Any) -> None:
    """H3: the first switch shows that what follows may be no lines; from then on each is found when it is due."""
    made = connected(ours.LineReceiver)
    count = 500
    made.actions = {place: (lambda self: self.setRawMode()) if place % 2 else
                    (lambda self: self.setLineMode(self.events[-1][1][1:])) for place in range(1, 2 * count + 1)}
    made.dataReceived(b"line\r\nr" * count)
    assert len(made.events) == 2 * count
    assert counting.made <= 3 * count
