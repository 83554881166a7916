"""Mosquitto: MQTT 3.1.1 by a length of one to four bytes behind a byte of type."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from programs import dial, find, folder, running
from scripted import noise

from sockframe import EndOfStream, FrameTooLongError, framing

PACKETS = framing("mqtt")

#: Around each step of the length's size: what is left of the packet when topic and identifier are off.
STEPS = [length + more for length in (127, 16383, 2097151) for more in (0, 1)]


@pytest.fixture(scope="session")
def mosquitto() -> Iterator[int]:
    """The port of a broker."""
    program = find("mosquitto", "mosquitto")
    with folder() as where, running(lambda port: [program, "-p", str(port)], where) as port:
        yield port


def text(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value


def packet(kind: int, body: bytes = b"") -> bytes:
    """Return a packet to send, its length left to the framing."""
    return bytes([kind, 0]) + body


def body(frame: bytes) -> bytes:
    """Return what follows the length of a packet that came."""
    at = 1
    while frame[at] & 0x80:
        at += 1
    assert sum((digit & 0x7F) << 7 * place for place, digit in enumerate(frame[1:at + 1])) == len(frame) - at - 1
    return frame[at + 1:]


@contextmanager
def logged_in(wing: Any, port: int) -> Iterator[Any]:
    """Give a connection that the broker has accepted."""
    with dial(wing, port, PACKETS) as conn:
        conn.send(packet(0x10, text(b"MQTT") + b"\x04\x02" + bytes(2) + text(b"")))
        assert conn.recv() == b"\x20\x02\x00\x00"
        yield conn


def subscribe(conn: Any, topic: bytes, qos: int) -> None:
    conn.send(packet(0x82, b"\0\x07" + text(topic) + bytes([qos])))
    assert conn.recv() == b"\x90\x03\0\x07" + bytes([qos])


@pytest.mark.parametrize("size", [0, 1, 300_000, *(length - 9 for length in STEPS)])
def test_publish_and_receive(wing: Any, mosquitto: int, size: int) -> None:
    sent = text(b"a topic") + noise(size)
    with logged_in(wing, mosquitto) as publisher, logged_in(wing, mosquitto) as subscriber:
        subscribe(subscriber, b"a topic", 0)
        publisher.send(packet(0x30, text(b"another topic")))
        publisher.send(packet(0x30, sent))
        frame = subscriber.recv()
        assert (frame[0], body(frame)) == (0x30, sent)


@pytest.mark.parametrize("size", [0, 300_000])
def test_publish_with_acknowledgement(wing: Any, mosquitto: int, size: int) -> None:
    with logged_in(wing, mosquitto) as conn:
        subscribe(conn, b"sure/#", 1)
        payload = noise(size)
        for identifier in (b"\0\x01", b"\xff\xff"):
            conn.send(packet(0x32, text(b"sure/thing") + identifier + payload))
            frames = sorted((conn.recv(), conn.recv()))  # the broker's order is its own
            (published,) = (frame for frame in frames if frame[0] == 0x32)
            (acknowledged,) = (frame for frame in frames if frame[0] == 0x40)
            assert acknowledged == b"\x40\x02" + identifier
            topic, number, content = body(published)[:12], body(published)[12:14], body(published)[14:]
            assert (topic, content) == (text(b"sure/thing"), payload)
            conn.send(packet(0x40, number))


def test_many_at_once(wing: Any, mosquitto: int) -> None:
    sent = [b"\0\1t" + noise(number % 300, number) for number in range(2000)]
    with logged_in(wing, mosquitto) as conn:
        subscribe(conn, b"t", 0)
        received: list[bytes] = []
        for start in range(0, len(sent), 500):
            conn.send_many([packet(0x30, one) for one in sent[start:start + 500]])
            while len(received) < start + 500:
                received += map(body, conn.recv_many())
        assert received == sent
        conn.send(packet(0xC0))
        assert conn.recv() == b"\xd0\0"


def test_a_packet_that_is_too_long_is_passed_over(wing: Any, mosquitto: int) -> None:
    with logged_in(wing, mosquitto) as conn:
        subscribe(conn, b"t", 0)
        conn.send_many([packet(0x30, text(b"t") + noise(size)) for size in (10, 300_000, 20)])
        conn.framing = replace(PACKETS, max_length=1000, overlong="skip")
        assert [body(conn.recv())[3:] for _ in range(2)] == [noise(10), noise(20)]
    with logged_in(wing, mosquitto) as conn:
        subscribe(conn, b"t", 0)
        conn.send(packet(0x30, text(b"t") + noise(300_000)))
        conn.framing = replace(PACKETS, max_length=1000)
        with pytest.raises(FrameTooLongError) as caught:
            conn.recv()
        assert (caught.value.length, caught.value.limit) == (300_007, 1000)


def test_disconnect(wing: Any, mosquitto: int) -> None:
    with logged_in(wing, mosquitto) as conn:
        conn.send(packet(0xE0))
        with pytest.raises(EndOfStream):
            conn.recv()
