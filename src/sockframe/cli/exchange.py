"""Payloads from an input to a connection and its replies to an output, at once and in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from socket import SHUT_WR

from .._wing import Decoder
from ..errors import EndOfStream, FramingError
from ..framings import Framing
from ..polling import POLLIN, POLLOUT, poll
from ..sockets import FramedSocket
from .streams import Input


class ExchangeError(Exception):
    """The exchange can't go on, or is not what was asked for."""


class Exchange:
    """Sends the payloads of an input and delivers the replies, both at once: neither side waits for the other.

    Held are at most the payloads of one read of the input, or one payload, and the replies of one `recv_many`.
    `replies` is how many are waited for; None is all until the peer ends the connection, to which `half_close`
    invites it once all is sent. `timeout` is in seconds in which the peer neither takes nor sends anything.
    """

    def __init__(self, conn: FramedSocket, source: Input, cut: Framing, deliver: Callable[[list[bytes]], None], *,
                 replies: int | None, half_close: bool, timeout: float | None,
                 advance: Callable[[int], None]) -> None:
        self._conn = conn
        self._source = source
        self._cutter = Decoder(cut)
        self._deliver = deliver
        self._replies = math.inf if replies is None else replies
        self._half_close = half_close
        self._ends = False                # the sending half is being closed
        self._timeout = timeout
        self._advance = advance
        self._payloads: list[bytes] = []  # read, but not yet taken by the connection
        self._read_all = False            # the input has ended, or can't be sent on
        self._bad_input: Exception | None = None
        self._refused: OSError | None = None  # why the peer takes no more
        self._more = True                 # there may be replies that no poll sees
        self._peer_ended = False
        self._sent = 0
        self._received = 0

    def run(self) -> None:
        """Exchange all. Raises `ExchangeError`, `FramingError`, `OSError`, `TimeoutError`."""
        self._conn.setblocking(False)
        while not self._is_done():
            incoming, outgoing, readable = self._wait()
            if incoming:
                self._receive()
            if outgoing:
                self._send()
            if readable:
                self._read()
        if self._bad_input is not None:
            raise self._bad_input
        if self._refused is not None:
            raise self._refused
        if self._received < self._replies < math.inf:
            raise ExchangeError(f"the peer ended the connection after {self._received} of {self._replies} replies")

    def _is_done(self) -> bool:
        """Say whether all is sent and all replies that were asked for have come."""
        if self._refused is not None:
            return self._peer_ended
        if self._sends or not self._read_all:
            return False
        if self._bad_input is not None or self._peer_ended or self._received >= self._replies:
            return True
        if self._half_close:
            self._half_close, self._ends = False, True
            self._end()
        return False

    @property
    def _sends(self) -> bool:
        """Whether something is to be sent."""
        return self._refused is None and bool(self._payloads or self._conn.unsent or self._ends)

    def _wait(self) -> tuple[bool, bool, bool]:
        """Wait until something can be done: receive, send, or read the input."""
        poller = poll()
        sends = self._sends
        reads = not sends and not self._read_all and self._refused is None
        events = POLLIN * (not self._peer_ended) | POLLOUT * sends
        if events:
            poller.register(self._conn.fileno(), events)
        if reads and self._source.waits:
            poller.register(self._source.fileno(), POLLIN)
        if self._more or (reads and not self._source.waits):
            left: float | None = 0
        elif reads and self._peer_ended:
            left = self._source.lag
        else:
            left = None if self._timeout is None or reads else math.ceil(self._timeout * 1000)
        found = dict(poller.poll(left))
        status = found.get(self._conn.fileno(), 0)
        if not found and left and not reads:
            raise TimeoutError(f"the peer neither took nor sent anything for {self._timeout:g} s")
        readable = reads and (not self._source.waits or self._source.fileno() in found)
        if reads and self._peer_ended and not readable:
            self._read_all = True  # nobody is there any more to whom what may come could be sent
            if self._cutter.buffered:
                self._bad_input = ExchangeError(f"the peer ended the connection, {self._cutter.buffered} bytes of the "
                                                "input were not yet sent")
        return (not self._peer_ended and bool(self._more or status & ~POLLOUT),
                sends and bool(status & ~POLLIN), readable)

    def _receive(self) -> None:
        """Receive replies and deliver them, those that were asked for."""
        self._more = False
        try:
            frames = self._conn.recv_many(timeout=0)
        except BlockingIOError:
            return
        except EndOfStream:
            self._peer_ended = True
            return
        self._more = True
        if self._replies < math.inf:
            frames = frames[:int(self._replies) - self._received]
        self._received += len(frames)
        self._deliver(frames)

    def _send(self) -> None:
        """Send what is here, as much as the peer takes."""
        try:
            self._conn.flush(timeout=0)
            if self._payloads:
                self._conn.send_many(self._payloads, timeout=0)
                self._sent += len(self._payloads)
                self._payloads = []
        except BlockingIOError:
            return
        except OSError as error:
            self._refused = error  # once all is received that it sent before
        except ValueError:
            self._send_singly()

    def _end(self) -> None:
        """Close the sending half; over TLS that takes a few bytes, for which there may be no room yet."""
        with suppress(BlockingIOError):
            self._conn.shutdown(SHUT_WR)
            self._ends = False

    def _send_singly(self) -> None:
        """Send the payloads in front of the one that can't be sent, with which the input ends."""
        while self._payloads:
            try:
                self._conn.send(self._payloads[0], timeout=0)
            except BlockingIOError:
                return
            except ValueError as error:
                self._payloads = []
                self._end_input(error)
                return
            except OSError as error:
                self._refused = error
                return
            self._sent += 1
            del self._payloads[0]

    def _read(self) -> None:
        """Read some of the input and cut it into payloads."""
        data = self._source.read()
        self._advance(len(data))
        try:
            if data:
                self._payloads = self._cutter.decode(data)
                return
            self._payloads = self._cutter.finish()
            self._read_all = True
            self._cutter.finish()
        except FramingError as error:
            self._end_input(error)

    def _end_input(self, error: Exception) -> None:
        """Note that the input can't be sent on, which is an error once what is in front of it is sent."""
        self._read_all = True
        place = self._sent + len(self._payloads) + 1
        self._bad_input = ExchangeError(f"{self._source.name}, frame {place}: {error}")
