"""Ends and faults of a stream under TLS: the peer's word, a cut, a broken record, a half that is closed."""

from __future__ import annotations

import errno
import socket
import ssl
import time
from typing import Any

import pytest
from scripted import LIMIT, Scripted, Task, noise
from tls_pairs import Maker, client_is_reading, contexts, each_version, tls

from sockframe import Delimiter, EndOfStream, IncompleteFrameError, UntilClose, transport
from sockframe.tls import TLSSocket

__all__ = ["contexts", "tls"]  # fixtures


def end_raggedly(conn: Any) -> None:
    """End the stream below TLS, which does not say so."""
    sock = conn.sock if isinstance(conn.sock, ssl.SSLSocket) else conn.sock.sock
    socket.socket.shutdown(sock, socket.SHUT_WR)


@each_version
@pytest.mark.parametrize("how", ["close_notify", "ragged", "ragged, and told"])
def test_an_end_is_told_by_its_place(tls: Maker, how: str) -> None:
    """E8, N7: TLS ends with or without saying so (close_notify); what counts is whether a frame is cut."""
    for tail, error, need in ((b"", EndOfStream, 0), (b"\0\0", IncompleteFrameError, 2),
                              (b"\0\0\0\2x", IncompleteFrameError, 1)):
        one, two = tls()
        if isinstance(two.sock, ssl.SSLSocket):
            two.sock.suppress_ragged_eofs = how == "ragged"
        one.sock.send(b"\0\0\0\1x" + tail)
        if how != "close_notify":
            end_raggedly(one)
        elif isinstance(one.sock, ssl.SSLSocket):
            task = Task(one.sock.unwrap)
        else:
            one.close()
        assert two.recv() == b"x"
        for _ in range(3):
            with pytest.raises(error) as caught:
                two.recv()
            assert getattr(caught.value, "need", 0) == need
        if how == "close_notify" and isinstance(one.sock, ssl.SSLSocket):
            two.sock.unwrap().close()
            task.result().close()


@each_version
@pytest.mark.parametrize(("framing", "frame"), [
    (UntilClose(), b"pay nobod"), (UntilClose(max_length=3, overlong="truncate"), b"pay"),
    (Delimiter(b"\n", tail="deliver"), b"pay nobod")], ids=repr)
def test_a_frame_that_only_the_end_makes_needs_its_word(tls: Maker, framing: Any, frame: bytes) -> None:
    """E8, N7: who cuts the connection must not make a frame of what came so far."""
    for ragged in (False, True):
        one, two = tls(framing)
        if isinstance(two.sock, ssl.SSLSocket):
            two.sock.suppress_ragged_eofs = False
        one.sock.send(b"pay nobod")
        if ragged:
            end_raggedly(one)
            for _ in range(2):
                with pytest.raises(IncompleteFrameError) as caught:
                    two.recv()
                assert (caught.value.partial, caught.value.need) == (b"pay nobod", 1)
            continue
        if isinstance(one.sock, ssl.SSLSocket):
            task = Task(one.sock.unwrap)
        else:
            one.close()
        assert two.recv() == frame
        with pytest.raises(EndOfStream):
            two.recv()
        if isinstance(one.sock, ssl.SSLSocket):
            two.sock.unwrap().close()
            task.result().close()


def test_a_cut_is_one_by_whichever_error_openssl_tells_of_it(wing: Any) -> None:
    """E8, N7: before Python 3.10.11 and 3.11.3 it has no class of its own."""
    unnamed = ssl.SSLError(ssl.SSL_ERROR_SSL, "unexpected eof while reading")
    unnamed.reason = "UNEXPECTED_EOF_WHILE_READING"
    other = ssl.SSLError(ssl.SSL_ERROR_SSL, "bad record mac")
    other.reason = "BAD_RECORD_MAC"
    for error in (ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "EOF occurred in violation of protocol"), unnamed):
        conn = wing.FramedSocket(Scripted(b"pay nobod", events={9: [error]}), UntilClose())
        with pytest.raises(IncompleteFrameError) as caught:
            conn.recv()
        assert caught.value.partial == b"pay nobod"
    conn = wing.FramedSocket(Scripted(b"pay nobod", events={9: [other]}), UntilClose())
    with pytest.raises(ssl.SSLError, match="bad record"):
        conn.recv()


@each_version
def test_a_broken_record_is_final_and_never_an_end(tls: Maker) -> None:
    """N7: what OpenSSL says afterwards is that the stream has ended, which it has not."""
    for how in ("recv", "recv_many"):
        one, two = tls()
        one.send(b"whole")
        raw = socket.socket.send if isinstance(one.sock, ssl.SSLSocket) else type(one.sock.sock).send
        raw(getattr(one.sock, "sock", one.sock), b"\x17\3\3\0\x20" + bytes(32))
        if how == "recv" and isinstance(two.sock, TLSSocket):
            deadline = transport.deadline_after(LIMIT)
            while two.sock._failed is None:  # until there is what a receive that is interrupted leaves behind
                two.sock._hear(two.sock._fed, deadline, "recv_event")
                two.sock._do(two.sock._decrypt)
            with pytest.raises(ssl.SSLError):
                two.send(b"x")
        assert two.recv() == b"whole"
        for _ in range(3):
            with pytest.raises(ssl.SSLError, match=r"(?i)bad.record|record.layer.failure"):  # OpenSSL 3.6
                getattr(two, how)()
        with pytest.raises(OSError):
            two.send(b"x")
        with pytest.raises((ssl.SSLError, ConnectionError)):  # the alert
            one.recv()


@pytest.mark.parametrize("tls", ["start_tls", "start_tls, TLS 1.2"], indirect=True)
def test_one_half_can_be_closed(tls: Maker) -> None:
    """E9, N7: also while what the peer has sent is not received yet."""
    one, two = tls()
    two.send(b"in flight")
    one.send(b"last")
    one.shutdown(socket.SHUT_WR)
    with pytest.raises(BrokenPipeError):
        one.send(b"too late")
    assert list(two) == [b"last"]
    payloads = [noise(size) for size in (3, 50_000, 300_000)]
    task = Task(lambda: [two.send_many(payloads), two.shutdown(socket.SHUT_WR)])
    assert list(one) == [b"in flight", *payloads]
    task.result()


@pytest.mark.parametrize("tls", ["start_tls", "start_tls, TLS 1.2"], indirect=True)
def test_a_half_that_another_thread_closes_loses_nothing_that_arrives(tls: Maker) -> None:
    """N7: closing reads what is there, too, and the one who receives gets it."""
    payloads = [noise(size, size) for size in (3, 20_000, 1, 70_000)] * 5
    for _ in range(15):
        one, two = tls()
        reader = Task(list, one)
        writer = Task(lambda two=two: [two.send_many(payloads), two.shutdown(socket.SHUT_WR)])
        one.shutdown(socket.SHUT_WR)
        assert reader.result() == payloads
        writer.result()
        with pytest.raises(EndOfStream):
            two.recv()


@pytest.mark.parametrize("tls", ["ssl"], indirect=True)
def test_an_ssl_socket_is_not_shut_down_into_the_clear(tls: Maker) -> None:
    """N5, N7: its own shutdown() gives up TLS; what is sent after it, and received, is in the clear."""
    one, two = tls()
    with pytest.raises(OSError, match=r"SSLSocket can't shut down for writing alone and keep TLS") as caught:
        one.shutdown(socket.SHUT_WR)
    assert caught.value.errno == errno.EOPNOTSUPP
    one.send(b"still here")
    assert two.recv() == b"still here"
    one.shutdown(socket.SHUT_RD)
    one.send(b"under TLS")
    assert two.recv() == b"under TLS"
    one.shutdown(socket.SHUT_RDWR)
    with pytest.raises(EndOfStream):
        two.recv()


@each_version
def test_close_wakes_a_call_that_waits(tls: Maker) -> None:
    _, two = tls()
    two.settimeout(None)
    sock = two.sock
    task = Task(two.recv)
    while not client_is_reading(two):
        time.sleep(0.001)
    two.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        task.result()
    assert sock.fileno() == -1
