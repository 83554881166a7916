"""DNS over TCP (RFC 7766): two bytes of length, many questions over one connection; dnsmasq answers."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pytest
from programs import HOST, dial, find, folder, running

from sockframe import framing

MESSAGES = framing("dns")
A, TXT = 1, 16
TEXT = ["t" * 255] * 7


@pytest.fixture(scope="session")
def dnsmasq() -> Iterator[int]:
    """The port of a server that knows a few names."""
    program = find("dnsmasq", "dnsmasq-base")
    options = ["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--bind-interfaces",
               f"--listen-address={HOST}", "--pid-file=", "--user=", "--log-facility=-", "--local=/test/",
               f"--txt-record=text.test,{','.join(TEXT)}",
               *(f"--host-record=h{number}.test,192.0.2.{number}" for number in range(100)),
               *(f"--host-record=many.test,198.51.{number // 250}.{number % 250}" for number in range(1000))]
    with folder() as where, running(lambda port: [program, f"--port={port}", *options], where) as port:
        yield port


def question(number: int, name: str, kind: int = A) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!6H", number, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, kind, 1)


def answer(message: bytes) -> tuple[int, int, list[bytes]]:
    """Return number, code and the answers' data of a message."""
    number, flags, questions, answers = struct.unpack_from("!4H", message)
    assert flags & 0x8000 and questions == 1
    at = message.index(b"\0", 12) + 5
    found = []
    for _ in range(answers):
        assert message[at] & 0xC0 == 0xC0, "the name is a pointer to the question's"
        (size,) = struct.unpack_from("!H", message, at + 10)
        found.append(message[at + 12:at + 12 + size])
        at += 12 + size
    return number, flags & 15, found


def test_pipelined_questions(wing: Any, dnsmasq: int) -> None:
    with dial(wing, dnsmasq, MESSAGES) as conn:
        conn.send_many([question(1000 + number, f"h{number}.test") for number in range(90)])
        answers = sorted(answer(conn.recv()) for _ in range(90))
        assert answers == [(1000 + number, 0, [bytes([192, 0, 2, number])]) for number in range(90)]


def test_answers_of_every_size(wing: Any, dnsmasq: int) -> None:
    with dial(wing, dnsmasq, MESSAGES) as conn:
        conn.send_many([question(1, "many.test"), question(2, "none.test"), question(3, "text.test", TXT),
                        question(4, "h4.test")])
        answers = {number: (code, found) for number, code, found in (answer(conn.recv()) for _ in range(4))}
        many = {bytes([198, 51, number // 250, number % 250]) for number in range(1000)}
        assert answers[1][0] == 0 and len(answers[1][1]) == 1000 and set(answers[1][1]) == many
        assert answers[2] == (3, [])
        assert answers[3] == (0, [b"".join(bytes([len(text)]) + text.encode() for text in TEXT)])
        assert answers[4] == (0, [bytes([192, 0, 2, 4])])


def test_one_question_at_a_time(wing: Any, dnsmasq: int) -> None:
    with dial(wing, dnsmasq, MESSAGES) as conn:
        for number in range(50):
            conn.send(question(number, "h7.test"))
            assert answer(conn.recv()) == (number, 0, [bytes([192, 0, 2, 7])])
