"""Servers over TLS in every mode: on a certificate that the test makes."""

from __future__ import annotations

import socket
import ssl
import time
from typing import Any

import pytest
import trustme
from scripted import LIMIT, noise
from serving import FRAMING, Running
from test_server import echo, ends, mode, serve

from sockframe import FramedSocket

__all__ = ["mode", "serve"]  # fixtures

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


@pytest.fixture(scope="module")
def contexts() -> Contexts:
    """The server's context, and the clients'."""
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    return server, client


def secure(server: Running, contexts: Contexts) -> FramedSocket:
    """Return a client that has shaken hands, and for which an end without TLS's own word is a failure."""
    sock = socket.create_connection(server.address, LIMIT)
    try:
        return FramedSocket(contexts[1].wrap_socket(sock, server_hostname="localhost", suppress_ragged_eofs=False),
                            FRAMING)
    except BaseException:
        sock.close()
        raise


def test_frames_of_all_sizes_are_answered_over_tls(serve: Any, contexts: Contexts) -> None:
    payloads = [noise(size) for size in (0, 1, 16_384, 16_385, 300_000, 1_000_000, 3)]
    with serve(echo, tls=contexts[0]) as server:
        conns = [secure(server, contexts) for _ in range(5)]
        for conn in conns:
            for payload in payloads:  # in turn: OpenSSL's connections are not for two threads at once
                conn.send(payload)
                assert conn.recv() == payload
        for conn in conns:
            conn.send_many([b"%d" % number for number in range(2000)])
            assert [conn.recv() for _ in range(2000)] == [b"%d" % number for number in range(2000)]
            conn.close()


def test_a_client_that_shakes_no_hands_keeps_nobody_waiting(serve: Any, contexts: Contexts) -> None:
    with serve(echo, tls=contexts[0], frame_timeout=0.5) as server:
        begun = time.monotonic()
        silent = [socket.create_connection(server.address, LIMIT) for _ in range(3)]
        with secure(server, contexts) as conn:
            conn.send(b"meanwhile")
            assert conn.recv() == b"meanwhile"
            for sock in silent:
                with sock:
                    assert sock.recv(1) == b""
            assert time.monotonic() - begun >= 0.5
            assert "Traceback" not in server.log.read_text()


def test_a_client_that_does_not_speak_tls_is_sent_away(serve: Any, contexts: Contexts) -> None:
    with serve(echo, tls=contexts[0]) as server:
        with socket.create_connection(server.address, LIMIT) as plain:
            plain.sendall(b"\0\0\0\5hello" * 10)
            assert b"hello" not in plain.recv(100)
        log = server.says("WARNING", "SSLError")
        assert "Traceback" not in log
        with secure(server, contexts) as conn:
            conn.send(b"hello")
            assert conn.recv() == b"hello"


def test_the_end_is_told_in_tls(serve: Any, contexts: Contexts) -> None:
    """A client for which an end without close_notify is an error finds none: at a fault and at a stop."""
    with (serve(echo, tls=contexts[0], grace=10 * LIMIT) as server, secure(server, contexts) as faulty,
          secure(server, contexts) as idle, socket.create_connection(server.address, LIMIT) as silent):
        for conn in (faulty, idle):
            conn.send(b"x")
            assert conn.recv() == b"x"
        faulty.sock.sendall(b"\xff\xff\xff\xff")
        assert list(faulty) == []
        idle.send_many([b"a", b"b"])
        assert [idle.recv(), idle.recv()] == [b"a", b"b"]
        server.stop()
        assert list(idle) == []
        assert silent.recv(1) == b""
        server.wait()


def test_a_slow_reader_over_tls_hurts_nobody(serve: Any, contexts: Contexts) -> None:
    with serve(echo, tls=contexts[0]) as server, secure(server, contexts) as greedy:
        taken = 0
        payload = noise(50_000)
        while True:
            try:
                greedy.send(payload, timeout=1)
                taken += 1
            except TimeoutError:
                break
            assert taken < 2000, "the server takes all that comes"
        with secure(server, contexts) as conn:
            conn.send(b"meanwhile")
            assert conn.recv() == b"meanwhile"
        # Not flushed, which only another thread could do meanwhile.
        whole = taken - 1 if greedy.unsent else taken
        assert [greedy.recv() == payload for _ in range(whole // 2)] == [True] * (whole // 2)


def test_limits_hold_over_tls(serve: Any, contexts: Contexts) -> None:
    with serve(echo, tls=contexts[0], frame_timeout=0.4, idle_timeout=0.6) as server:
        with secure(server, contexts) as slow, secure(server, contexts) as idle:
            for conn in (slow, idle):
                conn.send(b"x")
                assert conn.recv() == b"x"
            slow.sock.sendall(b"\0\0")
            assert ends(slow)
            assert ends(idle)
        server.says("a frame was not whole 0.4 s after", "no frame has come for 0.6 s")
