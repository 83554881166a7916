"""Redis: lines, and bulk strings of a known length between them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pages
import pytest
from programs import HOST, dial, find, folder, running
from scripted import noise

from sockframe import EndOfStream, FixedLength, Lines, framing

LINES = Lines("crlf")


@pytest.fixture(scope="session")
def redis() -> Iterator[int]:
    """The port of a server that keeps nothing."""
    program = find("redis-server", "redis-server")
    settings = ["--bind", HOST, "--save", "", "--appendonly", "no", "--dir", "."]
    with folder() as where, running(lambda port: [program, "--port", str(port), *settings], where) as port:
        yield port


def command(conn: Any, *words: bytes) -> None:
    """Send a command as an array of bulk strings, each of which may hold anything."""
    conn.send(b"*%d" % len(words))
    for word in words:
        conn.send(b"$%d" % len(word))
        conn.framing = FixedLength(len(word) + 2)
        conn.send(word + b"\r\n")
        conn.framing = LINES


def reply(conn: Any) -> Any:
    """Return one reply: a number, bytes, None, a list, or for an error its text."""
    line = conn.recv()
    kind, rest = line[:1], line[1:]
    if kind == b":":
        return int(rest)
    if kind == b"*":
        return [reply(conn) for _ in range(int(rest))]
    if kind == b"$":
        if rest == b"-1":
            return None
        bulk = conn.recv(FixedLength(int(rest) + 2))
        assert bulk[-2:] == b"\r\n"
        return bulk[:-2]
    assert kind in (b"+", b"-"), line
    return rest if kind == b"+" else rest.decode()


@pytest.mark.parametrize("value", [b"", b"v", b"one\r\ntwo\r\n", b"\r\n$3\r\nabc\r\n", b"\r", b"\n", bytes(range(256)),
                                   noise(300_000), b"\r\n" * 100_000], ids=lambda value: f"{len(value)} bytes")
def test_bulk_strings(wing: Any, redis: int, value: bytes) -> None:
    with dial(wing, redis, LINES) as conn:
        command(conn, b"SET", b"key", value)
        assert reply(conn) == b"OK"
        command(conn, b"GET", b"key")
        assert reply(conn) == value
        command(conn, b"STRLEN", b"key")
        assert reply(conn) == len(value)


def test_pipelined_inline_commands(wing: Any, redis: int) -> None:
    with dial(wing, redis, LINES) as conn:
        conn.send(b"DEL counter")
        reply(conn)
        conn.send_many([b"INCR counter"] * 10_000)
        replies: list[bytes] = []
        while len(replies) < 10_000:
            replies += conn.recv_many()
        assert replies == [b":%d" % number for number in range(1, 10_001)]


def test_pipelined_replies_of_every_kind(wing: Any, redis: int) -> None:
    with dial(wing, redis, LINES) as conn:
        command(conn, b"DEL", b"list")
        reply(conn)
        expected: list[Any] = []
        for number in range(200):
            for words, answer in [
                ((b"PING",), b"PONG"),
                ((b"DEL", b"list", b"nothing"), 1 if number else 0),
                ((b"RPUSH", b"list", b"", b"a\r\nb", noise(5000, number)), 3),
                ((b"LRANGE", b"list", b"0", b"-1"), [b"", b"a\r\nb", noise(5000, number)]),
                ((b"GET", b"nothing"), None),
                ((b"LRANGE", b"nothing", b"0", b"-1"), []),
                ((b"ECHO", b"\r\n"), b"\r\n"),
                ((b"INCR", b"list"), "WRONGTYPE Operation against a key holding the wrong kind of value"),
            ]:
                command(conn, *words)
                expected.append(answer)
        assert [reply(conn) for _ in expected] == expected


def test_elements_as_frames(wing: Any, redis: int) -> None:
    with dial(wing, redis, framing("redis")) as conn:
        for value in (b"", b"a\r\nb", noise(300_000)):
            bulk = b"$%d\r\n" % len(value) + value
            conn.send_many([b"*3", b"$3\r\nSET", b"$5\r\nframe", bulk, b"*2", b"$3\r\nGET", b"$5\r\nframe"])
            assert [conn.recv(), conn.recv()] == [b"+OK", bulk]
        conn.send_many([b"*3", b"$4\r\nMGET", b"$5\r\nframe", b"$7\r\nnothing"])
        assert [conn.recv() for _ in range(3)] == [b"*2", bulk, b"$-1"]
        with pytest.raises(ValueError):
            conn.send(b"$3\r\nfour")


def test_a_line_that_holds_its_ending_is_never_sent(wing: Any, redis: int) -> None:
    with dial(wing, redis, LINES) as conn:
        for line in (b"SET key a\r\nFLUSHALL", b"PING\n", b"PING\r", b"\r\n"):
            with pytest.raises(ValueError):
                conn.send(line)
            with pytest.raises(ValueError):
                conn.send_many([b"PING", line])
        conn.send(b"PING")
        assert conn.recv() == b"+PONG"


def test_quit(wing: Any, redis: int) -> None:
    with dial(wing, redis, LINES) as conn:
        conn.send_many([b"PING", b"QUIT"])
        assert list(conn) == [b"+PONG", b"+OK"]
        with pytest.raises(EndOfStream):
            conn.recv()


def test_the_recipe_of_the_documentation(wing: Any, redis: int, tmp_path: Path) -> None:
    assert pages.run(wing, tmp_path, "redis_client.py", redis).splitlines() == pages.promised("redis_client.py")
