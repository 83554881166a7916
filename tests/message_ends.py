"""The drop-in of multiprocessing's connections over each wing, for the tests of it."""

import importlib
import socket
import struct
from multiprocessing import connection as original
from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest

Original = original.Connection
LONG = b"\xff\xff\xff\xff"


@pytest.fixture
def ours(wing: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The drop-in, over one wing."""
    module = importlib.import_module("sockframe.drop_in.multiprocessing")
    base = importlib.import_module(f"sockframe._{wing.name}").MessageConnection
    kept = {name: value for name, value in vars(module.Connection).items() if name not in ("__dict__", "__weakref__")}
    made = type("Connection", (base, Original), kept)
    monkeypatch.setattr(module, "Connection", made)
    monkeypatch.setitem(ForkingPickler._extra_reducers, made, module._reduce)
    return module


def message(payload: bytes) -> bytes:
    """Return what is on the wire."""
    return struct.pack("!i", len(payload)) + payload


def reader(ours: Any, stream: "bytes | None" = None) -> Any:
    """Return the reading end of a socket pair, and the other one; with a `stream`, it is all that comes."""
    left, right = socket.socketpair()
    conn = ours.Connection(left.detach(), writable=False)
    if stream is None:
        return conn, right
    with right:
        right.sendall(stream)
    return conn
