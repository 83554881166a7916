"""Message framing on asyncio: on asyncio's own event loops and uvloop's, over TCP, Unix sockets and TLS."""

from __future__ import annotations

from .opening import attach, connect, serve
from .protocol import FrameProtocol
from .server import Server
from .stream import FramedStream

__all__ = ["FrameProtocol", "FramedStream", "Server", "attach", "connect", "serve"]
