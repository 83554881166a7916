"""TLS that begins in the midst of a stream: start_tls() (N8 of the cases)."""

from __future__ import annotations

import socket
import ssl
import time
from typing import Any

import pytest
from scripted import LIMIT, Task, noise, over_tcp
from tls_pairs import ByHand, client_is_reading, contexts, plain_pair, upgrade

from sockframe import EndOfStream, FramingError, IncompleteFrameError, LengthPrefix, Lines
from sockframe.tls import TLSSocket

__all__ = ["contexts"]  # fixtures


@pytest.mark.parametrize("kind", ["plain", "own"])
def test_tls_begins_in_the_midst_of_a_stream(wing: Any, contexts: Any, kind: str) -> None:
    """N5, N8: nothing but TLS is read and sent from then on, whatever serves the socket."""
    client, server = plain_pair(wing, Lines(), kind)
    with client, server:
        client.send(b"STARTTLS")
        assert server.recv() == b"STARTTLS"
        server.send(b"go ahead")
        assert client.recv() == b"go ahead"
        upgrade(client, server, contexts)
        assert client.gettimeout() == LIMIT
        assert isinstance(client.sock, TLSSocket)
        assert client.sock.ssl_object.getpeercert()["subjectAltName"]
        assert client.fileno() == client.sock.sock.fileno()
        assert client.getpeername() == server.getsockname()
        payloads = [noise(size) for size in (5, 40_000, 200_000)]
        task = Task(client.send_many, payloads)
        assert [server.recv() for _ in payloads] == payloads
        task.result()
        server.framing = LengthPrefix()
        client.framing = LengthPrefix()
        server.send(b"\n")
        assert client.recv() == b"\n"
        for conn in (client, server):
            with pytest.raises(ValueError, match="under TLS already"):
                conn.start_tls(contexts[0], server_hostname="localhost")
        sock, rest = client.detach()
        assert rest == b""
        with wing.FramedSocket(sock, LengthPrefix()) as again:
            server.send(b"go on")
            assert again.recv() == b"go on"


def test_bytes_from_before_tls_are_refused_or_discarded(wing: Any, contexts: Any) -> None:
    """N8: what was put in front of the handshake is never taken for what came under TLS."""
    client, server = plain_pair(wing, Lines())
    with client, server:
        server.sock.sendall(b"go ahead\nDELETE everything\nand")
        assert client.recv() == b"go ahead"
        with pytest.raises(FramingError, match=r"^21 bytes of the peer's are here already, from before TLS"):
            client.start_tls(contexts[0], server_hostname="localhost")
        assert client.pending() == 21
        server.sock.sendall(b" more\n")
        assert [client.recv(), client.recv()] == [b"DELETE everything", b"and more"]
        server.sock.sendall(b"x\ny\nz")
        assert client.recv() == b"x"
        task = Task(server.start_tls, contexts[1], server_side=True)
        assert client.start_tls(contexts[0], "discard", server_hostname="localhost") == 3
        assert task.result() == 0
        server.send(b"under TLS")
        assert client.recv() == b"under TLS"
        server.close()
        with pytest.raises(EndOfStream) as caught:
            client.recv()
        place = len(b"go ahead\nDELETE everything\nand more\nx\ny\nzunder TLS\n")
        assert str(caught.value) == f"stream ended at position {place}"


def test_an_overlong_frame_that_is_passed_over_is_no_place_to_begin(wing: Any, contexts: Any) -> None:
    """N8: no byte of it is held, and yet it is not at its end."""
    client, server = plain_pair(wing, LengthPrefix(max_length=5, overlong="skip"))
    with client, server:
        server.sock.sendall(b"\0\0\0\x09six")
        with pytest.raises(TimeoutError):
            client.recv(timeout=0.05)
        with pytest.raises(FramingError, match=r"^\d bytes of the peer's"):
            client.start_tls(contexts[0], server_hostname="localhost")


def test_the_beginning_of_tls_is_carried_into_it(wing: Any, contexts: Any) -> None:
    """N8: a client that does not wait for an answer: its hello has come together with its last frame."""
    left, right = over_tcp()
    with left, wing.FramedSocket(right, LengthPrefix()) as server:
        left.settimeout(LIMIT)
        server.settimeout(LIMIT)
        hand = ByHand(left, contexts[0])
        with pytest.raises(ssl.SSLWantReadError):
            hand.tls.do_handshake()
        hello = hand.output.read()
        left.sendall(b"\0\0\0\x08STARTTLS" + hello)
        assert server.recv() == b"STARTTLS"
        assert server.pending() == len(hello) > 200
        task = Task(server.start_tls, contexts[1], "carry", server_side=True)
        hand.do(hand.tls.do_handshake)
        assert task.result() == len(hello)
        hand.do(hand.tls.write, b"\0\0\0\5hello\0")
        assert server.recv() == b"hello"
        server.send(b"back")
        assert hand.do(hand.tls.read, 100) == b"\0\0\0\4back"
        left.close()
        with pytest.raises(IncompleteFrameError) as caught:
            server.recv()
        assert caught.value.position == 12 + 9, "bytes that TLS took are no part of the frames' stream"


def test_what_can_not_be_upgraded_stays_as_it_is(wing: Any, contexts: Any) -> None:
    client, server = plain_pair(wing)
    with client, server:
        for bad, error, text in (
                (lambda: client.start_tls(None), TypeError, "an ssl.SSLContext is needed, not NoneType"),
                (lambda: client.start_tls(contexts[0], "keep"), ValueError, 'leftover must be "error", "carry" or'),
                (lambda: client.start_tls(contexts[0]), ValueError, "server_hostname"),
                (lambda: client.start_tls(contexts[0], server_hostname="localhost", timeout=-1), ValueError,
                 "timeout")):
            with pytest.raises(error, match=text):
                bad()
        server.send(b"x")
        assert client.recv() == b"x"
        server.sock.shutdown(socket.SHUT_WR)
        with pytest.raises(EndOfStream):
            client.recv()
        with pytest.raises(EndOfStream):
            client.start_tls(contexts[0], server_hostname="localhost")
    with pytest.raises(OSError, match="Bad file descriptor"):
        client.start_tls(contexts[0], server_hostname="localhost")


def test_a_handshake_that_fails_closes_the_connection(wing: Any, contexts: Any) -> None:
    """The server's name is wrong, its time is up, it ends, or speaks no TLS."""
    client, server = plain_pair(wing)
    with client, server:
        task = Task(server.start_tls, contexts[1], server_side=True)
        with pytest.raises(ssl.SSLCertVerificationError):
            client.start_tls(contexts[0], server_hostname="elsewhere")
        assert client.closed
        with pytest.raises(OSError) as caught:  # the alert, or that the client has gone
            task.result()
            server.recv()
        assert isinstance(caught.value, (ssl.SSLError, ConnectionError))
        with pytest.raises(OSError, match="Bad file descriptor"):
            client.recv()
    client, server = plain_pair(wing)
    with client, server:
        begun = time.monotonic_ns()
        with pytest.raises(TimeoutError, match=r"^timed out$"):
            client.start_tls(contexts[0], server_hostname="localhost", timeout=0.03)
        assert time.monotonic_ns() - begun >= 0.03e9
        assert client.closed
        with pytest.raises(ssl.SSLError, match=r"(?i)\beof\b"):  # it has the client's hello, and then the end
            server.start_tls(contexts[1], server_side=True)
        assert server.closed
    client, server = plain_pair(wing)
    with client, server:
        server.send(noise(100))
        with pytest.raises(ssl.SSLError, match=r"(?i)wrong.version"):
            client.start_tls(contexts[0], server_hostname="localhost")
        assert client.closed


def test_close_wakes_a_handshake(wing: Any, contexts: Any) -> None:
    client, server = plain_pair(wing)
    with client, server:
        task = Task(client.start_tls, contexts[0], server_hostname="localhost", timeout=None)
        assert server.sock.recv(1, socket.MSG_PEEK)  # the hello is there
        client.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            task.result()


def test_an_upgrade_waits_for_its_turn(wing: Any, contexts: Any) -> None:
    client, server = plain_pair(wing)
    with client, server:
        task = Task(client.recv)
        while not client_is_reading(client):
            time.sleep(0.001)
        with pytest.raises(TimeoutError):
            client.start_tls(contexts[0], server_hostname="localhost", timeout=0.02)
        assert not client.closed
        server.send(b"x")
        assert task.result() == b"x"
        upgrade(client, server, contexts)


def test_an_upgrade_from_inside_a_call_is_refused(wing: Any, contexts: Any) -> None:
    client, server = plain_pair(wing)
    with client, server:
        def payloads() -> Any:
            yield b"one"
            with pytest.raises(RuntimeError, match="already at work"):
                client.start_tls(contexts[0], server_hostname="localhost")
            yield b"two"

        client.send_many(payloads())
        assert [server.recv(), server.recv()] == [b"one", b"two"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_selector_serves_what_is_upgraded_while_registered(wing: Any, contexts: Any, when: str) -> None:
    """N2, N8: from then on its bytes may be where no poll sees them."""
    client, server = plain_pair(wing)
    with client, server, wing.FrameSelector() as selector:
        client.setblocking(False)
        if when == "before":
            selector.register(client)
        upgrade(client, server, contexts)
        if when == "after":
            selector.register(client)
        payloads = [noise(3000, number) for number in range(30)]
        server.sock.send(wing.Encoder(LengthPrefix()).encode_many(payloads[:10]))
        task = Task(server.send_many, payloads[10:])
        frames: list[bytes] = []
        end = time.monotonic() + LIMIT
        while len(frames) < 30:
            assert time.monotonic() < end, len(frames)
            for _, got in selector.select(LIMIT):
                assert isinstance(got, list), got
                frames += got
        assert frames == payloads
        task.result()
        assert selector.select(0) == []
        server.close()
        ((_, error),) = selector.select(LIMIT)
        assert isinstance(error, EndOfStream)
        assert len(selector) == 0
