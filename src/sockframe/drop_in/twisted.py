"""Twisted's receivers of strings and lines, `twisted.protocols.basic`, over sockframe's Decoder.

Change the import and nothing else. Each class derives from its original, so sending, modes, pausing and what
`isinstance` says are the original's; receiving is done here. Time is linear in the bytes, where the originals copy all
that is held for each chunk or line. A call from inside a handler (`dataReceived`, `resumeProducing`) is taken up when
the handler returns; what a handler that raised had not been given comes with the next call.

Lengths are in bytes. `MAX_LENGTH`, `delimiter` and `structFormat` may be set at any time, as in the originals. What
`twisted.protocols.basic` has besides is here, too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from copy import copy
from operator import length_hint
from struct import calcsize, pack
from typing import TYPE_CHECKING, Any

from twisted.protocols import basic
from twisted.protocols.basic import (
    FileSender,
    IncompleteNetstring,
    NetstringParseError,
    StatefulStringProtocol,
    StringTooLongError,
)

from .._wing import Decoder
from ..errors import MalformedFrameError
from ..framings import UNLIMITED, AsciiLength, Delimiter, Framing, LengthField, LengthPrefix

__all__ = ["FileSender", "IncompleteNetstring", "Int8StringReceiver", "Int16StringReceiver", "Int32StringReceiver",
           "IntNStringReceiver", "LineOnlyReceiver", "LineReceiver", "NetstringParseError", "NetstringReceiver",
           "StatefulStringProtocol", "StringTooLongError"]

# Which lengths are too long is asked of MAX_LENGTH when a string is due, so the decoders themselves set no limit.
_NETSTRING = AsciiLength(separator=b":", end=b",", max_length=UNLIMITED)

_NOTHING: Iterator[bytes] = iter(())


def _prefix(form: str) -> Framing:
    """Return the framing of a length that `struct` packs."""
    order, letter = form[:-1], form[-1:]
    if order not in ("", "@", "=", "<", ">", "!") or letter not in tuple("bBhHiIlLqQnN"):
        raise ValueError(f"structFormat must be that of one integer, not {form!r}")
    byteorder = "little" if order == "<" or (order not in (">", "!") and sys.byteorder == "little") else "big"
    size = calcsize(form)
    if letter.isupper():
        return LengthPrefix(size, byteorder, max_length=UNLIMITED)
    return LengthField(size, byteorder=byteorder, signed=True, strip=size, max_length=UNLIMITED)


class _Held:
    """What is held of a stream: whole frames that wait to be delivered, and behind them the decoder's bytes.

    The names begin with sf, so that they are none of a user's subclass. That may have an __init__ of its own, which
    calls no other: so all begins with the first bytes.
    """

    _sf_decoder: Decoder | None = None
    _sf_waiting: Iterator[bytes] = _NOTHING

    def _sf_rest(self) -> bytes:
        """Return all bytes held."""
        raise NotImplementedError

    def _sf_read_by(self, framing: Framing) -> Decoder:
        """Read what is held, and all that follows, by this framing; return the decoder."""
        rest = self._sf_rest()
        self._sf_drop()
        if self._sf_decoder is None:
            self._sf_decoder = Decoder(framing)
        else:
            self._sf_decoder.framing = framing
        self._sf_decoder.feed(rest)
        return self._sf_decoder

    def _sf_drop(self) -> None:
        """Hold nothing; a loop over what is waiting ends."""
        for _ in self._sf_waiting:
            pass
        self._sf_waiting = _NOTHING
        if self._sf_decoder is not None:
            self._sf_decoder.take_buffered()

    def _sf_undecoded(self) -> bytes:
        """Return the bytes that the decoder holds."""
        decoder = self._sf_decoder
        if decoder is None or not decoder.buffered:
            return b""
        held = decoder.take_buffered()
        decoder.feed(held)
        return held


class IntNStringReceiver(_Held, basic.IntNStringReceiver):
    """Receives strings behind a length that `structFormat` packs: override `stringReceived(string)`.

    A length above `MAX_LENGTH` calls `lengthLimitExceeded(length)`, as soon as the length is here; the string stays the
    next one. `recvd`, the bytes that are not yet delivered, can be read and set at any time. A negative length, where
    `structFormat` has a sign, is a `MalformedFrameError`; one that is no integer's a `ValueError`.
    """

    structFormat: str
    prefixLength: int
    _sf_busy = False
    _sf_format = ""  # what the decoder reads by

    if TYPE_CHECKING:
        def stringReceived(self, string: bytes) -> object: ...
        def lengthLimitExceeded(self, length: int) -> object: ...

    def dataReceived(self, data: bytes) -> None:
        """Take bytes and deliver the strings that are whole."""
        decoder = self._sf_decoder
        if decoder is None or self._sf_format != self.structFormat:
            decoder = self._sf_read_by(_prefix(self.structFormat))
            self._sf_format = self.structFormat
        if self._sf_busy or self.paused:
            decoder.feed(data)
            return
        self._sf_busy = True
        try:
            waiting = self._sf_waiting
            if waiting is _NOTHING:
                waiting = self._sf_waiting = iter(decoder.decode(data))
            else:
                decoder.feed(data)
            while True:
                for string in waiting:
                    if len(string) > self.MAX_LENGTH:
                        self._sf_waiting = iter([string, *waiting])
                        self.lengthLimitExceeded(len(string))
                        return
                    self.stringReceived(string)
                    if self.paused:
                        return
                held = decoder.buffered
                if not held and self._sf_format.isupper():
                    break
                need = decoder.need
                if need:
                    length = held + need - self.prefixLength
                    if held >= self.prefixLength and length > self.MAX_LENGTH:
                        self.lengthLimitExceeded(length)
                    break
                # A handler has called dataReceived, or set recvd; or the next length is below zero.
                waiting = self._sf_waiting = iter(decoder.decode(b""))
            self._sf_waiting = _NOTHING
        finally:
            self._sf_busy = False

    def _sf_rest(self) -> bytes:
        parts = [part for string in copy(self._sf_waiting) for part in (pack(self._sf_format, len(string)), string)]
        return b"".join([*parts, self._sf_undecoded()])

    @property
    def recvd(self) -> bytes:
        """The bytes received that are not yet delivered as strings."""
        return self._sf_rest()

    @recvd.setter
    def recvd(self, data: bytes) -> None:
        self._sf_drop()
        if self._sf_decoder is None:
            self.dataReceived(b"")
        assert self._sf_decoder is not None
        self._sf_decoder.feed(data)


class Int32StringReceiver(IntNStringReceiver, basic.Int32StringReceiver):
    """Receives strings behind a length of 4 bytes, big-endian."""


class Int16StringReceiver(IntNStringReceiver, basic.Int16StringReceiver):
    """Receives strings behind a length of 2 bytes, big-endian."""


class Int8StringReceiver(IntNStringReceiver, basic.Int8StringReceiver):
    """Receives strings behind a length of 1 byte."""


class NetstringReceiver(_Held, basic.NetstringReceiver):
    """Receives netstrings: override `stringReceived(string)`.

    What is no netstring, and a length above `MAX_LENGTH`, also one of which some digits only are here, sets
    `brokenPeer` and loses the connection; nothing that follows is stored. A call of `dataReceived` from inside the
    handler delivers what is whole by then, as the original's. The private methods that are inherited see nothing of
    what is received.
    """

    if TYPE_CHECKING:
        def stringReceived(self, string: bytes) -> object: ...
        def _handleParseError(self) -> None: ...

    def makeConnection(self, transport: Any) -> None:
        """Begin a stream."""
        super().makeConnection(transport)  # type: ignore[no-untyped-call]
        self._sf_begin()

    def _sf_begin(self) -> Decoder:
        """Hold nothing; a loop over what is waiting ends."""
        for _ in self._sf_waiting:
            pass
        self._sf_waiting = _NOTHING
        self._sf_decoder = Decoder(_NETSTRING)
        return self._sf_decoder

    def dataReceived(self, data: bytes) -> None:
        """Take bytes and deliver the strings that are whole."""
        if self.brokenPeer:
            self._handleParseError()
            return
        decoder = self._sf_decoder or self._sf_begin()
        try:
            if self._sf_waiting is _NOTHING:
                self._sf_waiting = iter(decoder.decode(data))
            else:
                decoder.feed(data)
            while True:
                for string in self._sf_waiting:
                    if len(string) > self.MAX_LENGTH:
                        raise NetstringParseError
                    self.stringReceived(string)
                decoder = self._sf_decoder or decoder
                held = decoder.buffered
                need = decoder.need
                # So many bytes has the longest netstring; while digits are still to come, `need` knows the least.
                if held + need > self.MAX_LENGTH + len(str(self.MAX_LENGTH)) + 2:
                    raise NetstringParseError
                if need:
                    break
                self._sf_waiting = iter(decoder.decode(b""))
            self._sf_waiting = _NOTHING
        except (NetstringParseError, MalformedFrameError):
            self._sf_begin()
            self._handleParseError()


class _Lines(_Held):
    """What receivers of lines have in common."""

    delimiter: bytes
    _sf_delimiter = b""  # what the decoder reads by
    _busyReceiving = False

    if TYPE_CHECKING:
        def lineReceived(self, line: bytes) -> Any: ...
        def lineLengthExceeded(self, line: bytes) -> Any: ...
        def rawDataReceived(self, data: bytes) -> Any: ...
        def clearLineBuffer(self) -> bytes: ...

    def _sf_read_lines(self) -> Decoder:
        """Read what is held, and all that follows, by the delimiter that is set now."""
        delimiter = self.delimiter
        decoder = self._sf_read_by(Delimiter(delimiter, max_length=UNLIMITED))
        self._sf_delimiter = delimiter
        return decoder

    def _sf_rest(self) -> bytes:
        return self._sf_delimiter.join([*copy(self._sf_waiting), self._sf_undecoded()])

    @property
    def _buffer(self) -> bytes:
        return self._sf_rest()

    @_buffer.setter
    def _buffer(self, data: bytes) -> None:
        self._sf_drop()
        if data:
            (self._sf_decoder or self._sf_read_lines()).feed(data)


class LineOnlyReceiver(_Lines, basic.LineOnlyReceiver):
    """Receives lines: override `lineReceived(line)`.

    A line longer than `MAX_LENGTH` calls `lineLengthExceeded(line)`: with what is here of it as soon as that is too
    long, and once more when it has ended. Unless that loses the connection, the next lines follow. `delimiter` has at
    most 64 bytes.
    """

    _sf_exceeding = False  # the line that is not yet whole was found too long

    def dataReceived(self, data: bytes) -> Any:
        """Take bytes and deliver the lines that are whole; return what is not None of `lineLengthExceeded`."""
        decoder = self._sf_decoder
        if decoder is None or self._sf_delimiter != self.delimiter:
            decoder = self._sf_read_lines()
        if self._busyReceiving:
            decoder.feed(data)
            return None
        self._busyReceiving = True
        transport: Any = self.transport
        try:
            if self._sf_waiting is _NOTHING:
                self._sf_waiting = iter(decoder.decode(data))
            else:
                decoder.feed(data)
            while True:
                for line in self._sf_waiting:
                    if transport.disconnecting:
                        self._sf_drop()
                        return None
                    self._sf_exceeding = False
                    if len(line) <= self.MAX_LENGTH:
                        self.lineReceived(line)
                    else:
                        why = self.lineLengthExceeded(line)
                        if why is not None:
                            return why
                held = decoder.buffered
                if not held or transport.disconnecting:
                    break
                if not decoder.need:
                    self._sf_waiting = iter(decoder.decode(b""))
                    continue
                if held > self.MAX_LENGTH and not self._sf_exceeding:
                    self._sf_exceeding = True
                    self._sf_waiting = _NOTHING
                    return self.lineLengthExceeded(self._sf_undecoded())
                break
            self._sf_waiting = _NOTHING
            return None
        finally:
            self._busyReceiving = False


class LineReceiver(_Lines, basic.LineReceiver):
    """Receives lines and, in raw mode, bytes: override `lineReceived(line)` and `rawDataReceived(data)`.

    A line longer than `MAX_LENGTH` calls `lineLengthExceeded(data)` with all that is here, which is then no longer
    held; what that gives back, by `setLineMode(extra)`, is taken up at once, unless the connection was lost.
    `delimiter` has at most 64 bytes.
    """

    _sf_switches = False  # lines are taken one at a time, as what follows one may be no lines

    def dataReceived(self, data: bytes) -> Any:
        """Take bytes and deliver the lines that are whole, or all bytes in raw mode.

        Returns what `lineReceived`, `rawDataReceived` or `lineLengthExceeded` returned, where that is true; then no
        more is delivered until the next call.
        """
        decoder = self._sf_decoder or self._sf_read_lines()
        if self._busyReceiving or self.paused:
            decoder.feed(data)
            return None
        self._busyReceiving = True
        try:
            if self._sf_switches or self._sf_waiting is not _NOTHING:
                decoder.feed(data)
                data = b""
            while not self.paused:
                if not self.line_mode:
                    self._sf_look_out()
                    data, raw = b"", self.clearLineBuffer() + data
                    if not raw:
                        return None
                    why = self.rawDataReceived(raw)
                    if why:
                        return why
                    continue
                delimiter = self._sf_delimiter
                if delimiter != self.delimiter:
                    self._sf_look_out()
                    self._sf_read_lines()
                    delimiter = self._sf_delimiter
                lines = self._sf_waiting
                if self._sf_switches:
                    decoder.feed(data)
                    lines = iter(decoder.next_frame, None)
                elif lines is _NOTHING:
                    lines = self._sf_waiting = iter(decoder.decode(data))
                data = b""
                for line in lines:
                    if len(line) > self.MAX_LENGTH:
                        why = self.lineLengthExceeded(line + delimiter + self.clearLineBuffer())
                    else:
                        why = self.lineReceived(line)
                    if why or (self.transport and self.transport.disconnecting):
                        return why
                    if self.paused or not self.line_mode or self.delimiter != delimiter:
                        break
                else:
                    self._sf_waiting = _NOTHING
                    held = decoder.buffered
                    if not held:
                        return None
                    if decoder.need:
                        if held < self.MAX_LENGTH + len(delimiter):
                            return None
                        why = self.lineLengthExceeded(self.clearLineBuffer())
                        if why or (self.transport and self.transport.disconnecting):
                            return why
            return None
        finally:
            self._busyReceiving = False

    def _sf_look_out(self) -> None:
        """What follows a line was no line: if lines were split in vain, take them one at a time from now on."""
        if self._sf_waiting is not _NOTHING:
            self._sf_switches = self._sf_switches or length_hint(self._sf_waiting) > 0
