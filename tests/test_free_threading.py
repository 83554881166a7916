"""Threads that share every kind of object, also where they run at once: nothing is lost, doubled, mixed or corrupted.

On a Python with the GIL these run too, with threads that are switched as often as can be; without it there are more
rounds.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from at_once import ROUNDS, THREADS, all_at_once, ending, switch_often, until_taken, watching
from conftest import FREE
from scripted import Bracketed, noise

import sockframe
from sockframe import (
    AsciiLength,
    Cobs,
    Delimiter,
    FixedLength,
    FramingError,
    HeaderBlock,
    LengthField,
    LengthPrefix,
    Lines,
    Slip,
    Tagged,
    Varint,
)

__all__ = ["switch_often"]  # fixtures

ROOT = Path(__file__).parent.parent


# ---- the build ----

def test_importing_leaves_the_gil_as_it_is() -> None:
    """Every extension says that it needs none; where Python has none, importing all that there is turns none on."""
    rooms = sorted((ROOT / "src" / "sockframe" / "_core").glob("*.pyx"))
    assert len(rooms) >= 7
    for room in rooms:
        header = room.read_text().split('"""')[0]
        assert "freethreading_compatible=True" in header, room.name
    program = ("import importlib, pkgutil, sys, sockframe\n"
               "for module in pkgutil.walk_packages(sockframe.__path__, 'sockframe.'):\n"
               "    if not module.name.endswith(('__main__', 'twisted')):\n"
               "        importlib.import_module(module.name)\n"
               "print(sockframe.wing, getattr(sys, '_is_gil_enabled', lambda: True)())\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON_GIL"}
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], env=environment, capture_output=True,
                          text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [sockframe.wing, str(not FREE)]


# ---- without I/O ----

def framings() -> list[Any]:
    return [LengthPrefix(), Lines(), Lines("crlf"), Delimiter(b"--"), Cobs(), Slip(), Varint(), Bracketed(),
            AsciiLength(separator=b":", end=b",")]


@pytest.mark.parametrize("framing", framings(), ids=repr)
@pytest.mark.parametrize("how", ["decode", "decode_batch"])
def test_a_decoder_gives_each_frame_once(wing: Any, framing: Any, how: str) -> None:
    """Each call is done as a whole, or refused and then harms nothing."""
    encoder = wing.Encoder(framing)
    for _ in range(ROUNDS):
        decoder = wing.Decoder(framing)
        payloads = [[b"%d %d" % (thread, number) * (1 + number % 9) for number in range(60)]
                    for thread in range(THREADS)]
        done = threading.Event()

        def decode(mine: list[bytes], decoder: Any = decoder) -> list[bytes]:
            found = []
            for at in range(0, len(mine), 6):
                frames = until_taken(getattr(decoder, how), encoder.encode_many(mine[at:at + 6]))
                found += frames if how == "decode" else frames.tolist()
            return found

        def look(decoder: Any = decoder) -> None:
            assert decoder.buffered >= 0
            assert decoder.skipped == 0
            assert decoder.position >= 0
            assert decoder.framing is framing
            until_taken(lambda: decoder.need)

        *found, _ = all_at_once(*ending(done, *(lambda mine=mine: decode(mine) for mine in payloads)),
                                watching(done, look))
        assert sorted(chain(*found)) == sorted(chain(*payloads))
        assert decoder.buffered == 0
        assert decoder.position == len(encoder.encode_many([*chain(*payloads)]))


def test_a_decoder_is_fed_by_some_and_asked_by_others(wing: Any) -> None:
    framing = LengthPrefix(overlong="skip", max_length=300)
    encoder = wing.Encoder(LengthPrefix())
    for _ in range(ROUNDS):
        decoder = wing.Decoder(framing)
        payloads = [[b"%d %d" % (thread, number) * 20 for number in range(50)] for thread in range(2)]
        done = threading.Event()

        def feed(mine: list[bytes], decoder: Any = decoder) -> None:
            for payload in mine:
                until_taken(decoder.feed, encoder.encode_many([payload, bytes(301)]))

        def take(decoder: Any = decoder, done: Any = done) -> list[bytes]:
            found: list[bytes] = []
            while True:
                last = done.is_set()
                frame = until_taken(decoder.next_frame)
                if frame is not None:
                    found.append(frame)
                elif last:
                    return found
                found += until_taken(decoder.next_batch).tolist()

        *_, one, other = all_at_once(*ending(done, *(lambda mine=mine: feed(mine) for mine in payloads)), take, take)
        assert sorted(one + other) == sorted(chain(*payloads))
        assert decoder.skipped == 100


def test_a_decoder_is_switched_while_it_is_at_work(wing: Any) -> None:
    """Whichever of its framings is in force, they are the same on the wire."""
    same = [LengthPrefix(), LengthPrefix(4), LengthPrefix(max_length=5000)]
    encoder = wing.Encoder(same[0])
    for _ in range(ROUNDS):
        decoder = wing.Decoder(same[0])
        payloads = [noise(size, size) for size in (0, 5, 70, 900)] * 20
        done = threading.Event()

        def decode(decoder: Any = decoder, payloads: list[bytes] = payloads) -> list[bytes]:
            return [*chain(*(until_taken(decoder.decode, encoder.encode(payload)) for payload in payloads))]

        def switch(decoder: Any = decoder) -> None:
            for framing in same:
                until_taken(setattr, decoder, "framing", framing)
                assert decoder.framing in same

        one, other, _ = all_at_once(*ending(done, decode, decode), watching(done, switch))
        assert sorted(one + other) == sorted(payloads * 2)


def test_memory_that_was_lent_is_given_back_in_any_thread(wing: Any) -> None:
    """Views are dropped while the decoder goes on in what they are of, or elsewhere."""
    encoder = wing.Encoder(Lines())
    payloads = [b"%d" % number * 30 for number in range(100)]
    stream = encoder.encode_many(payloads)
    for _ in range(ROUNDS):
        decoder = wing.Decoder(Lines())
        batches: list[Any] = []
        done = threading.Event()

        def decode(decoder: Any = decoder, batches: list[Any] = batches) -> None:
            for at in range(0, len(stream) * 3, 1000):
                data = (stream * 3)[at:at + 1000]
                lent = decoder.get_buffer(len(data))
                lent[:len(data)] = data
                decoder.buffer_updated(len(data))
                del lent
                batches.append(decoder.next_batch())

        def drop(batches: list[Any] = batches, done: Any = done) -> list[bytes]:
            found: list[bytes] = []
            while True:
                last = done.is_set()
                try:
                    batch = batches.pop()
                except IndexError:
                    if last:
                        return found
                    continue
                views = list(batch)
                batch = None
                found += map(bytes, views)
                if views:
                    assert memoryview(views[0].obj).nbytes >= 0

        *_, one, other = all_at_once(*ending(done, decode), drop, drop)
        assert sorted(one + other) == sorted(payloads * 3)


def test_an_encoder_is_for_all(wing: Any) -> None:
    payloads = [b"%d " % size * size for size in (1, 20, 300, 5000)]
    for framing in framings():
        encoder = wing.Encoder(framing)
        expected = [encoder.encode(payload) for payload in payloads]

        def encode(encoder: Any = encoder, expected: list[bytes] = expected) -> None:
            buffer = bytearray(50_000)
            for _ in range(5 * ROUNDS):
                assert [encoder.encode(payload) for payload in payloads] == expected
                assert encoder.encode_many(payloads) == b"".join(expected)
                for payload, frame in zip(payloads, expected, strict=True):
                    assert encoder.encode_into(payload, buffer) == len(frame)
                    assert buffer[:len(frame)] == frame

        all_at_once(*[encode] * THREADS)


def test_a_framing_is_compiled_by_the_first_of_many(wing: Any) -> None:
    for number in range(20 * ROUNDS):
        framing = Delimiter(b"--", b"%d" % number)
        made = all_at_once(*[lambda framing=framing: wing.Encoder(framing).encode(b"ab")] * THREADS)
        assert made == [b"ab--"] * THREADS


def test_a_batch_is_for_all(wing: Any) -> None:
    payloads = [b"%d" % number * (number % 40) for number in range(300)]
    batch = wing.Decoder(LengthPrefix()).decode_batch(wing.Encoder(LengthPrefix()).encode_many(payloads))

    def read() -> None:
        for _ in range(2 * ROUNDS):
            assert batch.tolist() == payloads
            assert batch.join() == b"".join(payloads)
            assert [bytes(view) for view in batch] == payloads
            assert bytes(batch[-1]) == payloads[-1]
            assert batch[10:400:3].tolist() == payloads[10:400:3]
            assert [bytes(batch.buffer[start:stop]) for start, stop in batch.spans.tolist()] == payloads
            assert len(batch.__arrow_c_array__()) == 2

    all_at_once(*[read] * THREADS)


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_list_that_changes_while_it_is_encoded(wing: Any, kind: type) -> None:
    """It is taken as it was at one moment, or in part of one change: no payload is one that was never there."""
    encoder = wing.Encoder(LengthPrefix())
    payloads: list[bytes] = []
    done = threading.Event()

    def change() -> None:
        for number in range(50):
            payloads.extend(b"%d" % number * 50 for _ in range(20))
            payloads[::2] = [b"%d" % number * 50 for _ in payloads[::2]]
            payloads.reverse()
        payloads.clear()

    def encode() -> None:
        frames = wing.Decoder(LengthPrefix()).decode(encoder.encode_many(payloads if kind is list else tuple(payloads)))
        assert all(frame == frame[:len(frame) // 50] * 50 for frame in frames)

    for _ in range(ROUNDS):
        done.clear()
        all_at_once(*ending(done, change), watching(done, encode), watching(done, encode))


MOVING = [*framings(), LengthField(2, offset=1), HeaderBlock(strip=False), HeaderBlock(), FixedLength(600),
          Tagged({1: LengthPrefix(1)}, default=Cobs(), max_length=1000)]


@pytest.mark.parametrize("framing", MOVING, ids=repr)
def test_bytes_that_change_while_they_are_read(wing: Any, framing: Any) -> None:
    """They make other frames, or faults, and harm nothing else."""
    encoder = wing.Encoder(framing)
    pieces = [b"\x01", b"\0", b"\xc0", b"\xdb\xdc", b"\xff", b"\r\n", b": 5\r\n\r\n", b"7:", b"a" * 260]
    payload = bytearray(b"b" * 600)
    stream = bytearray(b"\x03abc\0" * 200)
    done = threading.Event()

    def change() -> None:
        chance = random.Random(7)
        for _ in range(300 * ROUNDS):
            for target in (payload, stream):
                piece = chance.choice(pieces)
                at = chance.randrange(len(target) - len(piece))
                target[at:at + len(piece)] = piece

    def encode() -> None:
        for call in (lambda: encoder.encode(payload), lambda: encoder.encode_many([payload] * 3),
                     lambda: encoder.encode_into(payload, bytearray(2000))):
            with suppress(ValueError):
                call()

    def decode() -> None:
        for how in ("decode", "decode_batch"):
            decoder = wing.Decoder(framing)
            with suppress(FramingError):
                assert sum(map(len, getattr(decoder, how)(stream))) <= 2 * len(stream)
                decoder.finish()

    all_at_once(*ending(done, change), watching(done, encode), watching(done, decode))
