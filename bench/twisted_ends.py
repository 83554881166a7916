"""Twisted's receivers and senders of strings and lines. Raises `ImportError` where there is no Twisted."""

from __future__ import annotations

import importlib
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import Factory

from .streams import Work

ORIGINAL = "twisted.protocols.basic"
DROP_IN = "sockframe.drop_in.twisted"


class _Ends:
    """Lets who runs the reactor know of the end."""

    frames: Any
    ended = False

    def connectionLost(self, reason: Any) -> None:
        self.ended = True


class Strings(_Ends):
    """Keeps each payload in `frames`."""

    def stringReceived(self, string: bytes) -> None:
        self.frames.append(string)


class Lines(_Ends):
    """Keeps each line in `frames`."""

    delimiter = b"\r\n"

    def lineReceived(self, line: bytes) -> None:
        self.frames.append(line)


def receiver(work: Work, module: str = ORIGINAL) -> Any:
    """Return a protocol of a module's that appends each payload to its `frames`."""
    bases = (Lines, "LineReceiver") if work.crlf else (Strings, "Int32StringReceiver")
    made: Any = type("Receiver", (bases[0], getattr(importlib.import_module(module), bases[1])), {})()
    made.MAX_LENGTH = max(work.size, made.MAX_LENGTH)
    made.frames = []
    return made


class Sender:
    """Sends payloads as the transport asks for more: a pull producer, 64 KiB at a time."""

    def __init__(self, protocol: Any, send: Callable[[bytes], None], payloads: list[bytes], times: int) -> None:
        self.protocol, self.send = protocol, send
        self.payloads = payloads
        self.each = 65536 // len(payloads[0]) or 1
        self.at, self.left = 0, times

    def resumeProducing(self) -> None:
        for payload in self.payloads[self.at:self.at + self.each]:
            self.send(payload)
        self.at += self.each
        if self.at >= len(self.payloads):
            self.at = 0
            self.left -= 1
            if not self.left:
                self.protocol.transport.unregisterProducer()
                self.protocol.transport.loseConnection()

    def stopProducing(self) -> None:
        pass


def sender(work: Work, payloads: list[bytes], times: int) -> Any:
    """Return a protocol that sends payloads once it is connected, and closes."""
    made: Any = receiver(work)
    producer = Sender(made, made.sendLine if work.crlf else made.sendString, payloads, times)
    made.connectionMade = lambda: made.transport.registerProducer(producer, False)
    return made


class Reactor:
    """The reactor, turn by turn as its own main loop does: it can be run only once, but there are many runs."""

    running = False

    @classmethod
    def adopt(cls, sock: socket.socket, protocol: Any) -> None:
        """Give it a connected socket's other descriptor."""
        turn: Any = reactor
        if not cls.running:
            turn.startRunning(installSignalHandlers=False)
            cls.running = True
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = lambda address: protocol  # type: ignore[method-assign]
        sock.setblocking(False)
        turn.adoptStreamConnection(sock.fileno(), socket.AF_INET, factory)

    @classmethod
    def run(cls, sock: socket.socket, protocol: Any) -> None:
        """Run until the connection of a protocol has ended."""
        cls.adopt(sock, protocol)
        turn: Any = reactor
        while not protocol.ended:
            turn.iterate(1)
