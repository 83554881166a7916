"""keepalive: the kernel finds out that a peer is gone."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from sockframe import Lines


@pytest.fixture
def conn(wing: Any) -> Any:
    """A connection over TCP."""
    with (socket.create_server(("127.0.0.1", 0)) as listener,
          socket.create_connection(listener.getsockname()) as sock, listener.accept()[0],
          wing.FramedSocket(sock, Lines()) as one):
        yield one


def option(conn: Any, name: str) -> int:
    """Return a TCP option of the connection's socket."""
    return int(conn.sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)))


def test_the_kernel_is_told(conn: Any) -> None:
    conn.keepalive(60, 5, 3, user_timeout=20.5)
    assert conn.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert [option(conn, name) for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")] == [60, 5, 3]
    assert option(conn, "TCP_USER_TIMEOUT") == 20500


def test_without_a_user_timeout_the_kernels_own_stays(conn: Any) -> None:
    before = option(conn, "TCP_USER_TIMEOUT")
    conn.keepalive(1, 1, 1)
    assert option(conn, "TCP_USER_TIMEOUT") == before


@pytest.mark.parametrize(("arguments", "error", "text"), [
    ((0, 5, 3), ValueError, "idle must be from 1 to 32767, not 0"),
    ((60, 32768, 3), ValueError, "interval must be from 1 to 32767, not 32768"),
    ((60, 5, 128), ValueError, "count must be from 1 to 127, not 128"),
    ((60.0, 5, 3), TypeError, "idle must be an int, not float"),
    ((60, True, 3), TypeError, "interval must be an int, not bool"),
    ((60, 5, 3, 0), ValueError, "user_timeout must be None, or seconds above 0, not 0"),
    ((60, 5, 3, float("nan")), ValueError, "user_timeout must be None, or seconds above 0, not nan"),
])
def test_bad_numbers_change_nothing(conn: Any, arguments: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        conn.keepalive(*arguments)
    assert conn.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0


def test_a_closed_connection_refuses(conn: Any) -> None:
    conn.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        conn.keepalive(60, 5, 3)


def test_a_socket_that_is_not_tcp_says_so(wing: Any) -> None:
    one, other = wing.pair(Lines())
    with one, other, pytest.raises(OSError, match="not supported"):
        one.keepalive(60, 5, 3)
