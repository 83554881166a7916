"""Ways to break a law that no other test would notice."""

from __future__ import annotations

import socket
import sys
from typing import Any

import pytest
from scripted import LIMIT

from sockframe.framings import UNLIMITED, Delimiter, Framing, LengthPrefix, Lines, Slip


@pytest.mark.parametrize(("framing", "end"), [
    (Lines(max_length=UNLIMITED), b"\n"), (Lines("lf"), b"\n"), (Lines("crlf"), b"\r\n"), (Delimiter(b"--x"), b"--x"),
    (Delimiter(b"ab", b"cb"), b"ab"), (Delimiter(b"ab", b"cd", b"e"), b"cd"), (Slip(), b"\xc0")], ids=repr)
def test_what_was_searched_is_not_searched_again(wing: Any, framing: Framing, end: bytes) -> None:
    """Law 9: an end that is put among bytes that were searched is not seen."""
    decoder = wing.Decoder(framing)
    view = decoder.get_buffer(1000)
    view[:] = b"." * 1000
    decoder.buffer_updated(1000)
    assert decoder.next_frame() is None
    held = view if wing.name == "core" else decoder._store  # the core lends a part of its store
    held[300:300 + len(end)] = end
    decoder.feed(b"!")
    assert decoder.next_frame() is None
    decoder.feed(end)
    assert decoder.next_frame() == b"." * 300 + end + b"." * (700 - len(end)) + b"!"


class Interrupted(Exception):
    """What a signal handler raises."""


class Interrupt:
    """Raises, once, at the place of that number in the package where a signal may be handled: with `profile`, the start
    of a function and the return from a built-in one; with `trace`, each line of those that hold what was received."""

    def __init__(self, way: str, number: int) -> None:
        self.get, self.set = getattr(sys, f"get{way}"), getattr(sys, f"set{way}")
        self.events = ("line",) if way == "trace" else ("call", "c_return")
        self.left = number
        self.place = ""

    def __enter__(self) -> Interrupt:
        self.before = self.get()
        self.set(self.look)
        return self

    def __exit__(self, *_: object) -> None:
        self.set(self.before)

    def look(self, frame: Any, event: str, _: Any) -> Any:
        name = frame.f_code.co_name
        if not frame.f_globals["__name__"].startswith("sockframe.") or name == "_leave":  # there, all is in its place
            return None
        if event in self.events and not self.place and ("line" not in self.events or name in ("_absorb", "_append")):
            if not self.left:
                self.place = f"{event} {frame.f_lineno} in {name}"
                raise Interrupted
            self.left -= 1
        return self.look


@pytest.mark.parametrize("way", ["profile", "trace"])
@pytest.mark.parametrize("how", ["recv", "recv_into", "recv_many"])
def test_an_exception_at_any_place_in_a_receive_loses_nothing(wing: Any, how: str, way: str) -> None:
    """Law 4: also between the system call and the store."""
    stream = b"\0\0\0\3one\0\0\0\3two\0\0\0\5three"
    number = 0
    while True:
        left, right = socket.socketpair()
        with left, wing.FramedSocket(right, LengthPrefix()) as conn:
            call = getattr(conn, how)
            arguments = (bytearray(5),) if how == "recv_into" else ()
            left.sendall(stream[:5])
            with pytest.raises(BlockingIOError):
                conn.recv(timeout=0)
            left.sendall(stream[5:6])
            with pytest.raises((Interrupted, BlockingIOError)), Interrupt(way, number) as interrupt:
                call(*arguments, timeout=0)
            left.sendall(stream[6:])
            left.shutdown(socket.SHUT_WR)
            assert [conn.recv(timeout=LIMIT) for _ in range(3)] == [b"one", b"two", b"three"], interrupt.place
            with pytest.raises(EOFError):
                conn.recv(timeout=LIMIT)
        if not interrupt.place:
            return
        number += 1
