r"""Every named protocol on both wings: real frames, however the stream is cut, and back; faults; the table.

The frames are in tests/protocols/, in the notation for bytes of tests/vectorfiles.py. `#` begins a comment
line; a block begins with the protocol and its cases follow:

    protocol <name>               the protocol, as sockframe.framing() knows it
    whole <bytes> <bytes> ...     frames that are delivered as they lie on the wire
    frame <wire> <payload>        a frame, and what is delivered of it; the payload makes that frame
    reads <wire> <payload>        the same, but the payload makes a frame that is written otherwise
    fills <payload> <wire>        a payload whose length is left zero makes that frame
    bad <bytes>                   no frame
    long <bytes>                  the beginning of a frame that is too long
    refuse <payload>              a payload that can't be sent
"""

import copy
import dataclasses
import pickle
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from vectorfiles import all_bytes

import sockframe
from sockframe import framings, protocols
from sockframe.errors import FrameTooLongError, IncompleteFrameError, MalformedFrameError
from sockframe.framings import UNLIMITED, Framing
from sockframe.protocols import PROTOCOL_FRAMINGS, PROTOCOLS, Stomp

FOLDER = Path(__file__).parent / "protocols"


@dataclass
class Samples:
    """The cases of one protocol, each with its bytes and what becomes of them."""

    frames: "list[tuple[bytes, bytes]]" = field(default_factory=list)
    encodings: "list[tuple[bytes, bytes]]" = field(default_factory=list)
    faults: "list[tuple[bytes, type[Exception]]]" = field(default_factory=list)
    refused: "list[bytes]" = field(default_factory=list)

    @property
    def wire(self) -> bytes:
        """All frames, one after the other."""
        return b"".join(wire for wire, _ in self.frames)

    @property
    def payloads(self) -> "list[bytes]":
        """What they deliver."""
        return [payload for _, payload in self.frames]


def read_samples() -> "dict[str, Samples]":
    """Read all files; a line that can't be read is an AssertionError."""
    found: dict[str, Samples] = {}
    for path in sorted(FOLDER.glob("*.txt")):
        for number, line in enumerate(path.read_text("ascii").splitlines(), 1):
            word, _, rest = line.partition(" ")
            if not line or word == "#":
                continue
            place = f"{path.stem}:{number}: {line}"
            if word == "protocol":
                assert rest not in found, place
                samples = found[rest] = Samples()
                continue
            try:
                values = all_bytes(rest)
            except AssertionError as error:
                raise AssertionError(f"{place}: {error}") from error
            if word == "whole":
                samples.frames += [(value, value) for value in values]
                samples.encodings += [(value, value) for value in values]
            elif word in ("frame", "reads"):
                wire, payload = values
                samples.frames.append((wire, payload))
                samples.encodings += [(payload, wire)] if word == "frame" else []
            elif word == "fills":
                payload, wire = values
                samples.encodings.append((payload, wire))
            else:
                (value,) = values
                assert word in ("bad", "long", "refuse"), place
                if word == "refuse":
                    samples.refused.append(value)
                else:
                    samples.faults.append((value, MalformedFrameError if word == "bad" else FrameTooLongError))
    return found


SAMPLES = read_samples()
NAMES = sorted(SAMPLES)
FAULTS = [pytest.param(name, data, kind, id=f"{name}-{data[:12].hex()}")
          for name in NAMES for data, kind in SAMPLES[name].faults]
OWN = [value for value in vars(protocols).values()
       if isinstance(value, type) and issubclass(value, Framing) and value.__module__ == protocols.__name__]


def decode(wing: Any, name: str, pieces: "list[bytes]") -> "tuple[list[bytes], Exception | None]":
    """Decode the pieces and the end of the stream: the frames, and the error that came."""
    decoder = wing.Decoder(sockframe.framing(name))
    frames: list[bytes] = []
    try:
        for piece in pieces:
            frames += decoder.decode(piece)
        frames += decoder.finish()
        decoder.finish()
    except (MalformedFrameError, FrameTooLongError, IncompleteFrameError) as error:
        return frames, error
    return frames, None


def cuts(data: bytes, most: int = 1 << 20) -> "Iterator[list[bytes]]":
    """Cut some data in two at every place (of long data at `most`, about), into single bytes, and at random places."""
    chance = random.Random(len(data))
    for at in range(0, len(data) + 1, max(1, len(data) // most)):
        yield [data[:at], data[at:]]
    yield [data[i:i + 1] for i in range(len(data))]
    for _ in range(20):
        places = sorted(chance.choices(range(len(data) + 1), k=6))
        yield [data[one:other] for one, other in zip([0, *places], [*places, len(data)], strict=True)]


# ---- frames ----

@pytest.mark.parametrize("name", NAMES)
def test_frames_are_decoded_at_every_cut(wing: Any, name: str) -> None:
    samples = SAMPLES[name]
    for pieces in cuts(samples.wire):
        assert decode(wing, name, pieces) == (samples.payloads, None)


@pytest.mark.parametrize("name", NAMES)
def test_payloads_are_encoded(wing: Any, name: str) -> None:
    samples = SAMPLES[name]
    encoder = wing.Encoder(sockframe.framing(name))
    for payload, wire in samples.encodings:
        assert encoder.encode(payload) == wire
    frames, error = decode(wing, name, [encoder.encode_many(samples.payloads)])
    assert (frames, error) == (samples.payloads, None)


@pytest.mark.parametrize("name", NAMES)
def test_a_frame_that_is_cut_off_is_incomplete(wing: Any, name: str) -> None:
    for wire, _ in SAMPLES[name].frames:
        for size in range(1, len(wire)):
            frames, error = decode(wing, name, [wire[:size]])
            assert frames == []
            if error is None:  # what is there is nothing yet: the ends in front of a stuffed packet
                assert name in ("cobs", "slip")
                continue
            assert isinstance(error, IncompleteFrameError)
            assert error.need is not None and 1 <= error.need <= len(wire) - size


@pytest.mark.parametrize(("name", "data", "kind"), FAULTS)
def test_faults_come_behind_the_frames_and_at_every_cut(wing: Any, name: str, data: bytes, kind: type) -> None:
    samples = SAMPLES[name]
    frames, error = decode(wing, name, [samples.wire + data])
    assert frames == samples.payloads
    assert type(error) is kind
    assert error.position == len(samples.wire)  # type: ignore[attr-defined]
    assert error.header and data.startswith(error.header)  # type: ignore[attr-defined]
    expected = decode(wing, name, [data])
    assert expected[0] == []
    for pieces in cuts(data, 300):
        frames, error = decode(wing, name, pieces)
        assert frames == []
        assert (type(error), str(error), vars(error)) == (kind, str(expected[1]), vars(expected[1]))


@pytest.mark.parametrize(("name", "data", "kind"), FAULTS)
def test_a_fault_shows_with_the_same_byte_however_cut(wing: Any, name: str, data: bytes, kind: type) -> None:
    """Nor is it left for the end of the stream to show."""
    def shows(pieces: "list[bytes]") -> "int | None":
        decoder, fed = wing.Decoder(sockframe.framing(name)), 0
        try:
            for piece in pieces:
                fed += len(piece)
                decoder.decode(piece)
        except kind:
            return fed
        return None
    place = shows([data[i:i + 1] for i in range(len(data))])
    assert place is not None
    assert shows([data[:place]]) == place
    assert shows([data[:place - 1]]) is None
    for at in range(1, place, max(1, place // 100)):
        assert shows([data[:at], data[at:place - 1], data[place - 1:]]) == len(data)


@pytest.mark.parametrize("name", NAMES)
def test_both_wings_find_the_same_faults(wings: "list[Any]", name: str) -> None:
    samples = SAMPLES[name]
    for data in [data for data, _ in samples.faults] + [wire[:-1] for wire, _ in samples.frames]:
        found = [decode(wing, name, [data]) for wing in wings]
        assert len({(str(frames), str(error), str(vars(error or Exception()))) for frames, error in found}) == 1


@pytest.mark.parametrize("name", [name for name in NAMES if SAMPLES[name].refused])
def test_what_is_no_payload_is_refused(wing: Any, name: str) -> None:
    encoder = wing.Encoder(sockframe.framing(name))
    for payload in SAMPLES[name].refused:
        with pytest.raises(ValueError) as caught:
            encoder.encode(payload)
        assert not isinstance(caught.value, MalformedFrameError)


@pytest.mark.parametrize("name", NAMES)
def test_the_limit_is_that_of_the_protocol_and_can_be_another(wing: Any, name: str) -> None:
    longest = max(map(len, SAMPLES[name].payloads))
    exact, wider = (dataclasses.replace(sockframe.framing(name), max_length=size) for size in (longest, UNLIMITED))
    assert wing.Decoder(exact).decode(SAMPLES[name].wire) == SAMPLES[name].payloads
    assert wing.Decoder(wider).decode(SAMPLES[name].wire) == SAMPLES[name].payloads


@pytest.mark.parametrize("name", NAMES)
def test_damaged_streams_read_the_same_on_both_wings_and_at_every_cut(wings: "list[Any]", name: str) -> None:
    chance = random.Random(name)
    wire = SAMPLES[name].wire[:400]
    for _ in range(30):
        data = bytearray(wire)
        for _ in range(chance.choice((1, 1, 2, 8))):
            at = chance.randrange(len(data))
            data[at:at + chance.choice((0, 1, 1, 1, 2))] = chance.choice((b"", b"\0", b"\xff", b"\n", b"9", b"\x80"))
            data = data or bytearray(b"x")
        half = chance.randrange(len(data) + 1)
        whole = bytes(data)
        ways = [whole], [whole[:half], whole[half:]], [whole[i:i + 1] for i in range(len(whole))]
        found = [decode(wing, name, pieces) for pieces in ways for wing in wings]
        seen = [(frames, type(error), str(error), vars(error or Exception())) for frames, error in found]
        assert all(one == seen[0] for one in seen), (whole, half, seen)


# ---- the framings of this module's own ----

@pytest.mark.parametrize("own", OWN, ids=lambda own: own.__name__)
def test_an_own_framing_is_documented_and_a_value(own: Any) -> None:
    assert own.__doc__ and own.__doc__ != Framing.__doc__
    if own is protocols.WholeFrame:
        return
    framing = own(max_length=100)
    assert eval(repr(framing), vars(protocols)) == framing == pickle.loads(pickle.dumps(framing))
    assert framing != own() and hash(framing) == hash(own(max_length=100))
    with pytest.raises(dataclasses.FrozenInstanceError):
        framing.max_length = 5
    with pytest.raises(dataclasses.FrozenInstanceError):
        framing.other = 5


def test_a_bulk_string_begins_with_its_type(wing: Any) -> None:
    assert wing.Decoder(protocols.BulkString()).decode(b"$2\r\nab\r\n") == [b"$2\r\nab"]
    with pytest.raises(MalformedFrameError, match="no bulk string"):
        wing.Decoder(protocols.BulkString()).decode(b"*2\r\n")


def test_a_stomp_header_has_a_limit(wing: Any) -> None:
    header = b"SEND\n" + b"a:" + b"x" * 20 + b"\n\n"
    assert wing.Decoder(Stomp(max_header=len(header))).decode(header + b"\0") == [header]
    for pieces in cuts(header + b"\0"):
        decoder = wing.Decoder(Stomp(max_header=len(header) - 1))
        with pytest.raises(MalformedFrameError, match=f"^header is longer than {len(header) - 1} bytes"):
            for piece in pieces:
                decoder.decode(piece)


def test_a_stomp_body_without_content_length_has_a_limit(wing: Any) -> None:
    frame = b"SEND\n\n" + b"x" * 10
    assert wing.Decoder(Stomp(max_plain=10)).decode(frame + b"\0") == [frame]
    assert wing.Encoder(Stomp(max_plain=10)).encode(frame) == frame + b"\0"
    for pieces in cuts(frame + b"\0"):
        decoder = wing.Decoder(Stomp(max_plain=9))
        with pytest.raises(MalformedFrameError, match="body without content-length is longer than 9 bytes"):
            for piece in pieces:
                decoder.decode(piece)
    with pytest.raises(ValueError):
        wing.Encoder(Stomp(max_plain=9)).encode(frame)
    counted = b"SEND\ncontent-length:10\n\n" + b"x" * 10
    assert wing.Decoder(Stomp(max_plain=9)).decode(counted + b"\0") == [counted]


def test_a_large_payload_of_multiprocessing_has_both_lengths() -> None:
    class Huge(bytes):
        """Bytes that say they are 2 GiB."""

        def __len__(self) -> int:
            return 1 << 31

        def __radd__(self, other: bytes) -> bytes:
            return other

    framing = protocols.MultiprocessingConnection(max_length=UNLIMITED)
    header = framing.wrap(Huge())
    assert header == b"\xff\xff\xff\xff\0\0\0\0\x80\0\0\0"
    assert framing.measure(memoryview(header)) == (12 + (1 << 31), 12, None)


def test_a_skipped_frame_leaves_the_next(wing: Any) -> None:
    for name in ("fastcgi", "websocket", "postgres", "dbus", "git-pkt-line"):
        samples = SAMPLES[name]
        longest = max(samples.payloads, key=len)
        framing = dataclasses.replace(sockframe.framing(name), max_length=len(longest) - 1, overlong="skip")
        for pieces in cuts(samples.wire):
            decoder = wing.Decoder(framing)
            frames = [frame for piece in pieces for frame in decoder.decode(piece)]
            assert frames == [payload for payload in samples.payloads if len(payload) < len(longest)]
            assert decoder.skipped == len(samples.payloads) - len(frames)


# ---- the table ----

def test_every_protocol_has_samples_and_every_sample_a_protocol() -> None:
    assert list(SAMPLES) and set(SAMPLES) == set(PROTOCOLS)
    assert [name for name in NAMES if not SAMPLES[name].frames] == []


def test_the_table_is_sorted_and_long() -> None:
    assert len(PROTOCOLS) >= 45
    assert list(PROTOCOLS) == sorted(PROTOCOLS)
    source = Path(protocols.__file__).read_text()
    assert source.count('    Protocol("') == len(PROTOCOLS), "a name is in the table twice"


@pytest.mark.parametrize("row", PROTOCOLS.values(), ids=lambda row: row.name)
def test_a_row_tells_all(row: protocols.Protocol) -> None:
    assert sockframe.framing(row.name) == row.framing
    assert row.name == row.name.lower() and row.name.isascii() and " " not in row.name and ":" not in row.name
    assert row.source.strip() and "\n" not in row.source
    assert row.note.endswith(".") and "\n" not in row.note
    assert eval(repr(row.framing), vars(protocols)) == row.framing
    assert pickle.loads(pickle.dumps(row.framing)) == row.framing == copy.deepcopy(row.framing)
    assert row.framing.overlong == "error"
    assert 0 < row.framing.max_length < UNLIMITED


def test_a_name_means_one_framing() -> None:
    assert set(PROTOCOL_FRAMINGS) == set(PROTOCOLS)
    for name in set(framings._NAMED) & set(PROTOCOLS):
        assert framings._NAMED[name] == PROTOCOLS[name].framing


def test_an_unknown_name_is_refused() -> None:
    for name in ("", "Postgres", "postgres ", "postgres:1", "gopher"):
        with pytest.raises(ValueError, match="and those of sockframe"):
            sockframe.framing(name)
