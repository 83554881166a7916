"""What a handler answers, how it is sent, and how connections end: the same in all three modes."""

from __future__ import annotations

import logging
import math
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from operator import length_hint
from time import monotonic
from typing import Any

from .. import errors
from .._wing import Encoder
from ..errors import EndOfStream, FramingError
from ..framings import Framing

LOG = logging.getLogger("sockframe.server")

GATHER = 65536   # bytes of replies that are sent together,
EACH = 32        # of which each counts so many more
FEW = 64         # frames between two looks at the clock, at most
TURN = 0.01      # seconds after which replies are sent, and after which the select loop goes on to the next client
HANDSHAKE = 30.0  # seconds for a TLS handshake, where there is no frame_timeout


@dataclass(frozen=True)
class Limits:
    """The seconds that a connection may take, checked; None is no limit."""

    idle: float | None
    frame: float | None
    send: float | None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name}_timeout must be None, or seconds above 0, not {value}")

    @property
    def handshake(self) -> float:
        """The seconds that a TLS handshake may take."""
        return HANDSHAKE if self.frame is None else self.frame


class Replies:
    """The replies of a handler to a connection's frames, taken a bounded number at a time."""

    __slots__ = ("_few", "_frames", "_handler", "_some", "done", "fault")

    def __init__(self, handler: Callable[[bytes], Any]) -> None:
        self._handler = handler
        self._frames: Iterator[bytes] = iter(())  # that are still to be answered
        self._some: Iterator[Any] | None = None   # the replies to the last one, of which there may be more
        self._few = 1                             # frames that the handler gets before the clock is looked at
        self.done = True                          # there are no more for the time being
        self.fault: Exception | None = None       # what the handler raised; there will be no more

    def add(self, frames: list[bytes]) -> None:
        """Answer these frames too."""
        if frames and self.fault is None:
            self._frames = iter(frames if self.done else [*self._frames, *frames])
            self.done = False

    def resume(self, frames: list[bytes], given: int, reply: Any, error: Exception | None) -> None:
        """Go on behind the first of these frames, which the handler was given; the last one's reply is left, or what it
        raised."""
        if error is not None:
            self.fail(error)
            return
        self.add(frames[given:])
        try:
            if reply is not None:
                self.put_back(several(reply))
        except Exception as failed:
            self.fail(failed)

    def put_back(self, replies: Iterator[bytes]) -> None:
        """Take these replies first."""
        self._some = replies if self._some is None else chain(replies, self._some)
        self.done = False

    def take(self) -> list[bytes]:
        """Return the next replies: about 64 KiB, or what comes in 10 ms; an empty list says nothing about more."""
        handler = self._handler
        replies: list[bytes] = []
        append = replies.append
        size = 0
        begun = monotonic()
        end = begun + TURN
        try:
            while True:
                if self._some is not None:
                    for item in self._some:
                        append(item if type(item) is bytes else copied(item))
                        size += len(replies[-1]) + EACH
                        if size >= GATHER or monotonic() >= end:
                            return replies
                    self._some = None
                # The clock is not asked for each frame: for the more of them at once, the faster the handler is.
                for payload in islice(self._frames, self._few):
                    reply = handler(payload)
                    if type(reply) is bytes:
                        append(reply)
                        size += len(reply)
                        if size >= GATHER:
                            return replies
                    elif reply is not None:
                        self._some = several(reply)
                        break
                if self._some is None and not length_hint(self._frames):
                    self._frames = iter(())  # or it would hold the list
                    self.done = True
                    return replies
                now = monotonic()
                if now >= end:
                    return replies
                size += EACH * self._few
                self._few = min(2 * self._few, FEW) if now - begun < TURN / 8 else 1
                begun = now
        except Exception as error:
            self.fail(error)
            return replies

    def fail(self, error: Exception) -> None:
        """Give no more replies: the handler raised, or returned what is no reply."""
        self.fault = error
        self.done = True
        self._frames, self._some = iter(()), None

    def send(self, conn: Any, replies: list[bytes], timeout: float | None) -> None:
        """Send replies that were taken; where one can't be sent, those before it, and that is the handler's fault.

        With a timeout of 0, what the socket does not take is left unsent, or put back.
        """
        try:
            if replies:
                conn.send_many(replies, timeout=timeout)
        except BlockingIOError:
            rest = iter(replies)
            with suppress(BlockingIOError):
                conn.send_many(rest, timeout=0)  # the first of an iterator are taken, though nothing can be sent
            self.put_back(rest)
        except (TypeError, ValueError, BufferError) as error:  # of a list, before anything was sent
            self.fail(error)
            good = replies[:encodable(conn.framing, replies)]
            if len(good) < len(replies):
                self.send(conn, good, timeout)


def several(reply: Any) -> Iterator[Any]:
    """Return the replies that a handler returned, where it was neither None nor bytes."""
    try:
        return iter((copied(reply),))
    except TypeError:
        if isinstance(reply, Iterable) and not isinstance(reply, str):
            return iter(reply)
    raise TypeError(f"the handler returned {type(reply).__name__}, and not None, a bytes-like object or an iterable "
                    "of them")


def copied(reply: Any) -> bytes:
    """Return a reply as bytes that nobody changes any more."""
    try:
        with memoryview(reply) as view:
            return view.tobytes()
    except TypeError:
        raise errors.not_bytes_error("reply", reply) from None


def encodable(framing: Framing, replies: list[bytes]) -> int:
    """Return the number of replies up to the first that can't be sent."""
    encoder = Encoder(framing)
    good = 0
    with suppress(Exception):
        for reply in replies:
            encoder.encode(reply)
            good += 1
    return good


def describe(address: Any) -> str:
    """Return an address as the log has it."""
    if isinstance(address, tuple):
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return repr(address) if address else "a client"


def tell(peer: str, error: Exception, *, of_handler: bool = False) -> None:
    """Log how a connection ended."""
    if of_handler:
        LOG.error("%s: the handler failed; the connection is closed", peer, exc_info=error)
    elif isinstance(error, EndOfStream):
        LOG.debug("%s: %s", peer, error)
    else:
        kind = "" if isinstance(error, FramingError) else f"{type(error).__name__}: "
        level = logging.INFO if isinstance(error, (ConnectionError, TimeoutError)) else logging.WARNING
        LOG.log(level, "%s: closed: %s%s", peer, kind, error)


def part(sock: Any) -> None:
    """Say that no more will be sent, and take what is here: the kernel resets a connection that is closed with
    bytes unread, and replies on their way are lost with it."""
    with suppress(OSError, ValueError):
        sock.settimeout(0)
        if hasattr(sock, "unwrap"):  # TLS: its own word for the end, which the peer need not answer
            with suppress(OSError, ValueError):
                sock.unwrap()
        sock.shutdown(socket.SHUT_WR)
        for _ in range(16):
            if not sock.recv(65536):
                break
