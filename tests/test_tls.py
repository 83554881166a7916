"""Frames over TLS: through the socket's own methods, on a certificate that the test makes."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import trustme
from scripted import LIMIT, Task, noise, over_tcp

from sockframe import EndOfStream, IncompleteFrameError, LengthPrefix, transport

Pair = tuple[ssl.SSLSocket, ssl.SSLSocket]


@pytest.fixture(scope="session")
def tls() -> Callable[[], Pair]:
    """Return what makes two connected TLS sockets."""
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)

    def connected() -> Pair:
        left, right = over_tcp()
        task = Task(server.wrap_socket, right, server_side=True)
        one = client.wrap_socket(left, server_hostname="localhost")
        other = task.result()
        for sock in (one, other):
            sock.settimeout(LIMIT)
        return one, other

    return connected


def test_frames_of_all_sizes_pass(wing: Any, tls: Callable[[], Pair]) -> None:
    left, right = tls()
    assert not transport.is_plain(left)
    payloads = [noise(size) for size in (0, 1, 100, 2049, 16_384, 16_385, 70_000, 1_000_000)]
    with wing.FramedSocket(left, LengthPrefix()) as one, wing.FramedSocket(right, LengthPrefix()) as two:
        for how in ("list", "iterator"):
            task = Task(one.send_many, payloads if how == "list" else iter(payloads))
            assert [two.recv() for _ in payloads] == payloads
            task.result()
        task = Task(lambda: [two.send(item) for item in payloads])
        buffer, received = bytearray(1_000_000), []
        for _ in payloads:
            size = one.recv_into(buffer)
            received.append(bytes(buffer[:size]))
        assert received == payloads
        task.result()


def test_deadlines_keep_what_is_here(wing: Any, tls: Callable[[], Pair]) -> None:
    left, right = tls()
    with wing.FramedSocket(left, LengthPrefix()) as one, wing.FramedSocket(right, LengthPrefix()) as two:
        for timeout, error in ((0, BlockingIOError), (0.01, TimeoutError)):
            with pytest.raises(error):
                two.recv(timeout=timeout)
        left.sendall(b"\0\0")
        with pytest.raises(TimeoutError):
            two.recv(timeout=0.01)
        left.sendall(b"\0\3one")
        assert two.recv() == b"one"
        assert one.gettimeout() == two.gettimeout() == LIMIT


@pytest.mark.parametrize("timeout", [0, 0.02])
@pytest.mark.parametrize("how", ["send", "list"])
def test_a_full_socket_finishes_the_frame_it_has_begun(wing: Any, tls: Callable[[], Pair], timeout: float,
                                                       how: str) -> None:
    left, right = tls()
    with wing.FramedSocket(left, LengthPrefix()) as one, wing.FramedSocket(right, LengthPrefix()) as two:
        sent: list[bytes] = []
        kept = 0
        for number in range(1000):
            payload = noise((100, 30_000, 3)[number % 3], number)
            with suppress(TimeoutError, BlockingIOError):
                one.flush(timeout=timeout)
                sent.append(payload)
                try:
                    one.send(payload, timeout=timeout) if how == "send" else one.send_many([payload], timeout=timeout)
                except BlockingIOError:
                    sent.pop()
                except TimeoutError:
                    if not one.unsent:
                        sent.pop()
            kept += one.unsent > 0
            if kept == 9:
                break
        assert kept == 9
        task = Task(one.send, b"another")
        assert [two.recv() for _ in sent] == sent
        assert two.recv() == b"another"
        task.result()
        assert one.unsent == 0


def test_an_end_is_told_by_its_place(wing: Any, tls: Callable[[], Pair]) -> None:
    """E8."""
    for tail, error in ((b"", EndOfStream), (b"\0\0", IncompleteFrameError)):
        left, right = tls()
        with wing.FramedSocket(right, LengthPrefix()) as conn:
            left.sendall(b"\0\0\0\1x" + tail)
            task = Task(left.unwrap)
            assert conn.recv() == b"x"
            with pytest.raises(error):
                conn.recv()
            right.unwrap().close()
            task.result().close()
        left.close()


def test_close_wakes_a_call_that_waits(wing: Any, tls: Callable[[], Pair]) -> None:
    left, right = tls()
    with left:
        conn = wing.FramedSocket(right, LengthPrefix())
        conn.settimeout(None)
        task = Task(conn.recv)
        time.sleep(0.1)
        conn.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            task.result(5)
        assert right.fileno() == -1
