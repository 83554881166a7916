"""Options that a user has set on the socket, descriptors that are no socket, halves that are closed."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import pytest
from scripted import KINDS, LIMIT, Task, noise, over_tcp

from sockframe import EndOfStream, LengthPrefix


def exchange(left: Any, right: Any) -> None:
    """Let frames of several sizes pass both ways."""
    payloads = [noise(size) for size in (0, 1, 3000, 70_000, 300_000)]
    for one, other in ((left, right), (right, left)):
        task = Task(one.send_many, payloads, timeout=LIMIT)
        assert [other.recv(timeout=LIMIT) for _ in payloads] == payloads
        task.result()


@pytest.mark.parametrize("least", [7, 5000])
@pytest.mark.parametrize("kind", ["tcp", "own"])
def test_a_low_water_mark_delays_and_loses_nothing(wing: Any, kind: str, least: int) -> None:
    """S14: SO_RCVLOWAT (socket(7)) lets the kernel wait until so many bytes are here."""
    left, right = (wing.FramedSocket(sock, LengthPrefix()) for sock in (over_tcp() if kind == "tcp" else KINDS[kind]()))
    with left, right:
        right.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, least)
        payload = noise(4 * least)
        task = Task(right.recv, timeout=LIMIT)
        left.send(payload, timeout=LIMIT)
        assert task.result() == payload
        right.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        exchange(left, right)


@pytest.mark.skipif(not hasattr(socket, "TCP_CORK"), reason="needs TCP_CORK, which Linux has")
@pytest.mark.parametrize("nodelay", [False, True])
def test_a_corked_connection_sends_whole_frames(wing: Any, nodelay: bool) -> None:
    """S14: TCP_CORK and TCP_NODELAY (tcp(7)) change when bytes leave, and nothing else."""
    left, right = (wing.FramedSocket(sock, LengthPrefix()) for sock in over_tcp())
    with left, right:
        for conn in (left, right):
            conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, nodelay)
            conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        exchange(left, right)


def test_bytes_that_were_peeked_at_are_still_received(wing: Any) -> None:
    """S14, K15: MSG_PEEK takes nothing; a receive from the raw socket does, and is the user's own."""
    left, right = wing.pair(LengthPrefix())
    with left, right:
        left.send(b"a frame")
        assert right.sock.recv(4, socket.MSG_PEEK) == b"\0\0\0\7"
        assert right.recv(timeout=LIMIT) == b"a frame"
        left.sock.sendall(b"raw")
        assert right.sock.recv(3) == b"raw"
        exchange(left, right)


def test_a_descriptor_that_is_no_socket_is_refused(wing: Any) -> None:
    """S11: a pipe has no stream both ways; ENOTSOCK, before anything is sent."""
    reader, writer = os.pipe()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.dup2(writer, sock.fileno())  # what Python took for a socket is none
        with pytest.raises(OSError) as caught:
            wing.FramedSocket(sock, LengthPrefix())
        assert caught.value.errno == errno.ENOTSOCK
        near, far = socket.socketpair()
        with near, far, wing.FramedSocket(near, LengthPrefix()) as conn:
            os.dup2(writer, near.fileno())
            for call in (lambda: conn.send(b"x"), conn.recv, lambda: conn.send_many([b"x"])):
                with pytest.raises(OSError) as caught:
                    call()
                assert caught.value.errno == errno.ENOTSOCK
        os.set_blocking(reader, False)
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
    finally:
        sock.close()
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("kind", KINDS)
def test_both_halves_are_closed_one_by_one(wing: Any, kind: str) -> None:
    """P2, E9: the one that has ended its stream still receives, until the other one ends its own."""
    left, right = (wing.FramedSocket(sock, LengthPrefix()) for sock in KINDS[kind]())
    with left, right:
        left.send(b"last of the left")
        left.shutdown(socket.SHUT_WR)
        assert right.recv(timeout=LIMIT) == b"last of the left"
        with pytest.raises(EndOfStream):
            right.recv(timeout=LIMIT)
        for number in range(3):
            right.send(b"%d" % number)
            assert left.recv(timeout=LIMIT) == b"%d" % number
        with pytest.raises(BrokenPipeError):
            left.send(b"too late")
        right.shutdown(socket.SHUT_WR)
        with pytest.raises(EndOfStream):
            left.recv(timeout=LIMIT)


def test_what_was_sent_need_not_have_arrived(wing: Any) -> None:
    """P6: the first send to a peer that is gone succeeds, a later one does not."""
    left, right = over_tcp()
    with wing.FramedSocket(left, LengthPrefix()) as conn:
        right.close()
        conn.send(b"into the void", timeout=LIMIT)
        with pytest.raises(ConnectionError):
            for _ in range(1000):
                conn.send(b"more", timeout=LIMIT)
                with pytest.raises((EndOfStream, ConnectionError)):
                    conn.recv(timeout=LIMIT)
