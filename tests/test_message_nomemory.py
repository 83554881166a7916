"""Where there is no memory, a message of multiprocessing's is not lost, or the connection is closed: in the core alone,
for the reason that test_nomemory.py gives."""

from __future__ import annotations

import importlib
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import BufferTooShort
from multiprocessing.connection import Connection as Original
from typing import Any

import pytest
from scripted import noise
from test_nomemory import HERE, sweep

from sockframe import Encoder, LengthPrefix
from sockframe._pure import Decoder

pytestmark = pytest.mark.usefixtures("alone", "no_collector")

#: A small message, none, one that is received in pieces, and one that its header alone tells apart.
MESSAGES = [b"one", b"", noise(150_000), noise(16_385)]
WIRE = Encoder(LengthPrefix()).encode_many(MESSAGES)

RECEIVE: dict[str, Callable[[Any, bytearray], Any]] = {
    "bytes": lambda conn, target: conn.recv_bytes(),
    "into": lambda conn, target: conn.recv_bytes_into(target),
    "too small": lambda conn, target: conn.recv_bytes_into(bytearray(2)),
}


def connection(handle: int) -> Any:
    """Return a connection of the core."""
    module = importlib.import_module("sockframe.drop_in.multiprocessing")
    base = importlib.import_module("sockframe._core").MessageConnection
    kept = {name: value for name, value in vars(module.Connection).items() if name not in ("__dict__", "__weakref__")}
    return type("Connection", (base, Original), kept)(handle)


if HERE:
    @pytest.mark.parametrize("begun", [0, 2, 70_000], ids=["whole", "cut header", "cut"])
    @pytest.mark.parametrize("how", RECEIVE)
    @pytest.mark.parametrize("number", range(len(MESSAGES)))
    def test_no_message_that_arrives_is_lost(how: str, number: int, begun: int) -> None:
        """G6: also one of which a part had been received before."""
        message = MESSAGES[number]
        wire = Encoder(LengthPrefix()).encode(message)
        target = bytearray(200_000)

        def make() -> Any:
            ours, peer = socket.socketpair()
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            conn = connection(ours.detach())
            os.set_blocking(conn.fileno(), False)
            if 0 < begun < len(wire):
                peer.sendall(wire[:begun])
                with pytest.raises(BlockingIOError):
                    RECEIVE[how](conn, target)
                peer.sendall(wire[begun:])
            else:
                peer.sendall(wire)
            peer.sendall(WIRE)
            peer.close()
            return conn

        def call(conn: Any) -> Any:
            try:
                return RECEIVE[how](conn, target)
            except BufferTooShort as error:
                return error.args[0]

        def check(conn: Any, result: Any) -> None:
            if isinstance(result, int):
                result = bytes(target[:result])
            if conn.closed:
                assert isinstance(result, MemoryError)
                return
            with conn:
                got = [] if isinstance(result, MemoryError) else [result]
                with suppress(EOFError):
                    while True:
                        got.append(conn.recv_bytes())
                # The interpreter loses the exception that has the message where there is no memory for its traceback.
                assert got == [message, *MESSAGES] or (
                    how == "too small" and isinstance(result, MemoryError) and got == MESSAGES)

        sweep(make, call, check)

    @pytest.mark.parametrize("kind", [bytes, bytearray])
    @pytest.mark.parametrize("number", range(len(MESSAGES)))
    def test_only_whole_messages_are_sent(number: int, kind: Any) -> None:
        """G6: a call that fails has sent all of its message or nothing, and the next one goes on."""
        peers: list[socket.socket] = []
        message = kind(MESSAGES[number])

        def make() -> Any:
            ours, peer = socket.socketpair()
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            peers.append(peer)
            return connection(ours.detach())

        def check(conn: Any, result: Any) -> None:
            with peers.pop() as peer:
                with conn:
                    conn.send_bytes(b"the last")
                data = b"".join(iter(lambda: peer.recv(1 << 20), b""))
            messages = Decoder(LengthPrefix()).decode(data)
            assert messages in ([MESSAGES[number], b"the last"], [b"the last"])
            assert isinstance(result, MemoryError) or len(messages) == 2

        sweep(make, lambda conn: conn.send_bytes(message), check)
