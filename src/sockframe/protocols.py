"""Framings of real protocols by name, each with the document that defines it.

`PROTOCOLS` is the table; `sockframe.framing("postgres")` looks its names up. Where a header says more
than a length (a type, a stream, a flag) it is delivered: the payload is the whole frame, and to send one
the length may be left zero, to be filled in. A length that says nothing else is taken off. `max_length` is
the protocol's own limit where it has one; another one is
`dataclasses.replace(framing("kafka"), max_length=...)`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from dataclasses import field as _field
from functools import partial
from struct import unpack_from
from typing import ClassVar, NamedTuple

from .errors import MalformedFrameError
from .framings import (
    DEFAULT_MAX_LENGTH,
    PROTOCOL_FRAMINGS,
    UNLIMITED,
    AsciiLength,
    Cobs,
    Delimiter,
    Frame,
    Framing,
    HeaderBlock,
    LengthField,
    LengthPrefix,
    Lines,
    Need,
    Slip,
    Tagged,
    Varint,
)


class Protocol(NamedTuple):
    """One row: the name, the framing, the document (and section) that defines it, and what is delivered."""

    name: str
    framing: Framing
    source: str
    note: str


# ---- framings that the descriptions can't say ----

def _missing(view: memoryview, at: int, text: bytes, words: str) -> int:
    """Check what is here of `text` at `at`; return how many bytes of it are missing."""
    here = bytes(view[at:at + len(text)])
    for i, byte in enumerate(here):
        if byte != text[i]:
            raise MalformedFrameError(words, header=bytes(view[:at + i + 1]))
    return len(text) - len(here)


def _number(view: memoryview, at: int, end: int, words: str) -> tuple[int, int]:
    """Read 1 to 10 decimal digits ended by the byte `end`: the number and the place behind that byte, or
    -1 where more bytes are needed."""
    number = 0
    for i in range(11):
        if at + i == len(view):
            return number, -1
        byte = view[at + i]
        if byte == end and i:
            return number, at + i + 1
        if not 48 <= byte <= 57 or i == 10:
            break
        number = number * 10 + byte - 48
    raise MalformedFrameError(words, header=bytes(view[:at + i + 1]))


@dataclass(frozen=True, repr=False)
class WholeFrame(Framing):
    """What the framings here have in common: a payload to send is the frame as it lies on the wire, but for
    its end, and is only checked."""

    end: ClassVar[bytes] = b""

    def wrap(self, payload: bytes) -> bytes:
        frame = payload + self.end
        try:
            found = self.measure(memoryview(frame)) if frame else Need()
        except MalformedFrameError as error:
            raise ValueError(f"payload is no frame: {error}") from None
        if not isinstance(found, Frame) or found.size != len(frame):
            raise ValueError(f"payload is not one whole frame of {type(self).__name__}: {len(payload)} bytes")
        return frame


@dataclass(frozen=True, repr=False)
class BulkString(WholeFrame):
    """A bulk string of Redis: a type byte, decimal digits (or -1: null), CRLF, so many bytes, CRLF.

    The type and the length are delivered, the last CRLF is not: `b"$5\\r\\nhello"`, `b"$-1"`.
    """

    end: ClassVar[bytes] = b"\r\n"

    def measure(self, view: memoryview) -> Frame | Need:
        words = "length of a bulk string is no number"
        if view[0] not in b"$!=":
            raise MalformedFrameError("no bulk string", header=bytes(view[:1]))
        if view[1:2].tobytes() == b"-":
            return Need() if _missing(view, 1, b"-1\r\n", words) else Frame(5, 0, 3)
        size, at = _number(view, 1, 13, words)
        if at < 0 or _missing(view, at, b"\n", words):
            return Need()
        stop = at + 1 + size
        _missing(view, stop, self.end, "bulk string does not end with CRLF")
        return Frame(stop + 2, 0, stop)


@dataclass(frozen=True, repr=False)
class CoapTcp(WholeFrame):
    """CoAP over TCP: a nibble of length in three tiers, a nibble of token length, both counted."""

    def measure(self, view: memoryview) -> Frame | Need:
        tier, token = view[0] >> 4, view[0] & 15
        if token > 8:
            raise MalformedFrameError("token is longer than 8 bytes", header=bytes(view[:1]))
        more, least = {13: (1, 13), 14: (2, 269), 15: (4, 65805)}.get(tier, (0, tier))
        if len(view) <= more:
            return Need(1 + more - len(view))
        return Frame(2 + more + token + least + int.from_bytes(view[1:1 + more], "big"))


@dataclass(frozen=True, repr=False)
class DBus(WholeFrame):
    """A D-Bus message: the first byte tells the byte order; header fields, padded to 8 bytes, and body have
    a length each."""

    def measure(self, view: memoryview) -> Frame | Need:
        order = {ord("l"): "<", ord("B"): ">"}.get(view[0])
        if order is None:
            raise MalformedFrameError("byte order is neither 'l' nor 'B'", header=bytes(view[:1]))
        if len(view) < 4:
            return Need(4 - len(view))
        if view[3] != 1:
            raise MalformedFrameError("protocol version is not 1", header=bytes(view[:4]))
        if len(view) < 16:
            return Need(16 - len(view))
        body, _, header = unpack_from(order + "III", view, 4)
        if header > 1 << 26:
            raise MalformedFrameError("header fields are longer than 64 MiB", header=bytes(view[:16]))
        return Frame(16 + header + -header % 8 + body)


@dataclass(frozen=True, repr=False)
class FastCgi(WholeFrame):
    """A FastCGI record: content and padding have a length each."""

    def measure(self, view: memoryview) -> Frame | Need:
        if view[0] != 1:
            raise MalformedFrameError("record's version is not 1", header=bytes(view[:1]))
        if len(view) < 8:
            return Need(8 - len(view))
        return Frame(8 + int.from_bytes(view[4:6], "big") + view[6])


@dataclass(frozen=True, repr=False)
class Fix(WholeFrame):
    """A FIX message: BeginString (8), BodyLength (9), the body, CheckSum (10), which is checked."""

    def measure(self, view: memoryview) -> Frame | Need:
        if _missing(view, 0, b"8=FIX", "message does not begin with 8=FIX"):
            return Need()
        at = bytes(view[:32]).find(b"\1")
        if at < 0:
            if len(view) >= 32:
                raise MalformedFrameError("BeginString (8) is too long", header=bytes(view[:32]))
            return Need()
        if _missing(view, at + 1, b"9=", "BodyLength (9) is not the second field"):
            return Need()
        length, body = _number(view, at + 3, 1, "BodyLength (9) is no number")
        if body < 0:
            return Need()
        end = body + length
        size = end + 7
        if len(view) >= size and bytes(view[end:size]) != b"10=%03d\1" % (sum(view[:end]) % 256):
            raise MalformedFrameError("message does not end with its CheckSum (10)", header=bytes(view[:body]))
        return Frame(size)


@dataclass(frozen=True, repr=False)
class MultiprocessingConnection(Framing):
    """Four signed bytes of length; where they are -1, eight unsigned ones follow.

    For payloads below 2 GiB that is `LengthPrefix(4)`, which is faster.
    """

    def measure(self, view: memoryview) -> Frame | Need:
        if len(view) < 4:
            return Need(4 - len(view))
        size = int.from_bytes(view[:4], "big", signed=True)
        if size >= 0:
            return Frame(4 + size, 4)
        if size != -1:
            raise MalformedFrameError("length is negative", header=bytes(view[:4]))
        if len(view) < 12:
            return Need(12 - len(view))
        size = int.from_bytes(view[4:12], "big")
        if size > UNLIMITED - 12:
            raise MalformedFrameError("length is larger than any object", header=bytes(view[:12]))
        return Frame(12 + size, 12)

    def wrap(self, payload: bytes) -> bytes:
        size = len(payload)
        header = size.to_bytes(4, "big") if size < 1 << 31 else b"\xff\xff\xff\xff" + size.to_bytes(8, "big")
        return header + payload


@dataclass(frozen=True, repr=False)
class PktLine(WholeFrame):
    """A pkt-line of Git: four hexadecimal digits that count themselves too, or 0000, 0001, 0002 alone."""

    def measure(self, view: memoryview) -> Frame | Need:
        digits = bytes(view[:4])
        for i, digit in enumerate(digits):
            if digit not in b"0123456789abcdefABCDEF":
                raise MalformedFrameError("length is not hexadecimal", header=digits[:i + 1])
        if len(digits) < 4:
            return Need()
        high, low = bytes.fromhex(digits.decode())
        size = high << 8 | low
        if size == 3:
            raise MalformedFrameError("length 0003 means nothing", header=digits)
        return Frame(max(4, size))


@dataclass(frozen=True, repr=False)
class ProxyV2(WholeFrame):
    """A header of the PROXY protocol, version 2: a signature of 12 bytes, version and command, a family, a length."""

    def measure(self, view: memoryview) -> Frame | Need:
        if _missing(view, 0, b"\r\n\r\n\0\r\nQUIT\n", "header does not begin with its signature"):
            return Need()
        if len(view) > 12 and view[12] not in (0x20, 0x21):
            raise MalformedFrameError("neither version 2 nor one of its commands", header=bytes(view[:13]))
        if len(view) < 16:
            return Need(1 if len(view) < 13 else 16 - len(view))
        return Frame(16 + int.from_bytes(view[14:16], "big"))


_BLANK_LINE = re.compile(rb"\n\r?\n")
_CONTENT_LENGTH = re.compile(rb"\ncontent-length:")


@dataclass(frozen=True, repr=False)
class Stomp(WholeFrame):
    """A STOMP frame: a command, headers, a blank line, a body ended by NUL.

    Headers have at most `max_header` bytes. A body has content-length bytes; without that header it holds
    no NUL, and at most `max_plain` bytes, since they are searched again with each piece that comes. The NUL
    is not delivered. A line end between frames (a heart-beat) is the payload `b"\\n"`.
    """

    max_header: int = _field(default=8192, kw_only=True)
    max_plain: int = _field(default=65536, kw_only=True)

    end: ClassVar[bytes] = b"\0"

    def measure(self, view: memoryview) -> Frame | Need:
        if view[0] == 10:
            return Frame(1)
        if view[0] == 13:
            return Need() if _missing(view, 0, b"\r\n", "CR without LF") else Frame(2, 1)
        head = bytes(view[:self.max_header])
        blank = _BLANK_LINE.search(head)
        nul = head.find(0, 0, blank.end() if blank else len(head))
        if nul >= 0:
            raise MalformedFrameError("header holds a NUL", header=head[:nul + 1])
        if blank is None:
            if len(head) == self.max_header:
                raise MalformedFrameError(f"header is longer than {self.max_header} bytes", header=head)
            return Need()
        body = blank.end()
        length = _CONTENT_LENGTH.search(head, 0, body)
        if length is not None:
            last = head.index(b"\n", length.end()) - 1
            end = 13 if head[last] == 13 else 10
            size, _ = _number(view, length.end(), end, "content-length is no number")
            _missing(view, body + size, self.end, "body is not ended by NUL")
            return Frame(body + size + 1, 0, body + size)
        plain = bytes(view[body:body + self.max_plain + 1])
        size = plain.find(0)
        if size < 0:
            if len(plain) > self.max_plain:
                raise MalformedFrameError(
                    f"body without content-length is longer than {self.max_plain} bytes", header=head[:body])
            return Need()
        return Frame(body + size + 1, 0, body + size)

    def wrap(self, payload: bytes) -> bytes:
        return payload if payload == b"\n" else super().wrap(payload)


# ---- the table ----

#: A framing inside another one, which holds the limit.
_part = partial(LengthField, max_length=UNLIMITED)


def _least(size: int, framing: Framing, max_length: int = DEFAULT_MAX_LENGTH) -> Tagged:
    """Return a framing whose frames have at least `size` bytes: the header that follows the length."""
    return Tagged({}, offset=size - 1, default=framing, max_length=max_length)


def _ber(tag: int) -> Tagged:
    """Return one BER element: a length below 128 in its own byte, or the number of the length's bytes."""
    long = {0x80 | size: _part(size, offset=2) for size in (1, 2, 3, 4)}
    tiers = Tagged(long, offset=1, max_length=UNLIMITED)
    return Tagged({tag: Tagged({0: _part(1, offset=1), 0x80: tiers}, offset=1, mask=0x80, max_length=UNLIMITED)})


def _x11(order: str) -> Tagged:
    """Return what an X server sends: 32 bytes; a reply and a generic event tell how much more."""
    longer = _part(4, offset=4, byteorder=order, scale=4, add=32)
    return Tagged({1: longer, 35: longer, 163: longer}, default=32)


def _websocket(key: int) -> Tagged:
    """Return the three lengths of a frame whose masking key has that many bytes."""
    tiers = {126: _part(2, offset=2, add=4 + key), 127: _part(8, offset=2, add=10 + key, signed=True)}
    return Tagged(tiers, offset=1, mask=0x7F, default=_part(1, offset=1, mask=0x7F, add=2 + key), max_length=UNLIMITED)


def _zabbix(size: int) -> LengthField:
    """Return a packet with two lengths of that size: of the data, and of the data uncompressed."""
    return _part(size, offset=5, byteorder="little", add=5 + 2 * size)


_RESP_LINE = Lines("crlf", max_length=65536)
_RESP_BULK = BulkString(max_length=UNLIMITED)
_CASSANDRA = _part(4, offset=5)

#: Every protocol, by name.
PROTOCOLS: dict[str, Protocol] = {row.name: row for row in (
    Protocol("9p", LengthPrefix(4, "little", inclusive=True),
             "Plan 9 Programmer's Manual, intro(5)", "Type, tag and body, without the length."),
    Protocol("adb", LengthField(4, offset=12, byteorder="little", add=24, max_length=24 + 2**20),
             "Android Debug Bridge, protocol.txt, message header", "Six words of header and the data."),
    Protocol("ajp13", Tagged({0x12: _part(2, offset=2), 0x41: _part(2, offset=2)}, max_length=8192),
             "Apache Tomcat Connectors, AJP13 protocol reference, packet headers",
             "The whole packet; 0x1234 comes from the web server, AB from the container."),
    Protocol("amqp-0-9-1", Tagged({**dict.fromkeys((1, 2, 3, 8), _part(4, offset=3, add=8, end=b"\xce")), 0x41: 8}),
             "AMQP 0-9-1 specification, sections 4.2.2 and 4.2.3",
             "Type, channel, size and payload without the frame end; a protocol header is a frame of 8 bytes."),
    Protocol("amqp-1.0", Tagged({0x41: 8}, default=_least(8, _part(4, add=0), UNLIMITED)),
             "OASIS AMQP 1.0 part 2, sections 2.2 and 2.3.1",
             "The whole frame; a protocol header is a frame of 8 bytes."),
    Protocol("beanstalk", Lines("crlf"), "beanstalkd, doc/protocol.txt",
             "Command and response lines; a job's data is FixedLength(bytes + 2) behind its line."),
    Protocol("bgp", _least(19, _part(2, offset=16, add=0), 4096),
             "RFC 4271 section 4.1", "Marker, length, type and body; RFC 8654 raises the limit to 65535."),
    Protocol("bitcoin", LengthField(4, offset=16, byteorder="little", add=24, max_length=24 + 2**25),
             "Bitcoin developer reference, P2P network, message headers", "The header of 24 bytes and the payload."),
    Protocol("bittorrent", LengthPrefix(4), "BEP 3, peer protocol",
             "Type and body, without the length; empty: keep-alive. It begins after the handshake."),
    Protocol("bittorrent-handshake", Tagged({19: 68}), "BEP 3, peer protocol",
             "The first 68 bytes of each peer; then set the framing to bittorrent."),
    Protocol("bmp", Tagged({3: _least(6, _part(4, offset=1, add=0), UNLIMITED)}),
             "RFC 7854 section 4.1", "The common header of 6 bytes and the message."),
    Protocol("bolt", LengthPrefix(2, max_length=65535), "Neo4j Bolt protocol, message transfer encoding",
             "One chunk; an empty one ends a message. It begins after the handshake."),
    Protocol("cassandra", Tagged(dict.fromkeys((3, 4, 5), _CASSANDRA), mask=0x7F, max_length=9 + 2**28),
             "CQL binary protocol v4, section 2 (v3 and v4; in v5 up to STARTUP)",
             "The header of 9 bytes and the body."),
    Protocol("cassandra-v5", LengthField(3, byteorder="little", mask=0x1FFFF, add=10),
             "CQL binary protocol v5, section 2.1 (uncompressed)",
             "Header with its CRC-24, payload, CRC-32: nothing is checked or taken off."),
    Protocol("clamd-instream", LengthPrefix(4), "clamd(8), INSTREAM", "One chunk of the file; an empty one ends it."),
    Protocol("coap-tcp", CoapTcp(), "RFC 8323 section 3.2", "The whole message."),
    Protocol("cobs", Cobs(), "Cheshire and Baker, Consistent Overhead Byte Stuffing, IEEE/ACM ToN 7(2), 1999",
             "The packet, unstuffed."),
    Protocol("dap", HeaderBlock(), "Debug Adapter Protocol, base protocol", "The JSON, without its header."),
    Protocol("dbus", DBus(max_length=2**27), "D-Bus specification, message protocol, message format",
             "The whole message. It begins after the lines of authentication."),
    Protocol("diameter", Tagged({1: _least(20, _part(3, offset=1, add=0), UNLIMITED)}),
             "RFC 6733 section 3", "The header of 20 bytes and the AVPs."),
    Protocol("dicom", Tagged(dict.fromkeys(range(1, 8), _part(4, offset=2))),
             "DICOM PS3.8 section 9.3", "The whole PDU, of types 1 to 7."),
    Protocol("dns", LengthPrefix(2, max_length=65535), "RFC 1035 section 4.2.2, RFC 7766 section 8",
             "The message, without the length."),
    Protocol("docker-stream", Tagged(dict.fromkeys(range(4), _part(4, offset=4))),
             "Docker Engine API, ContainerAttach, stream format; Moby, package stdcopy",
             "Eight bytes of header, whose first is 0 to 3 (stdin, stdout, stderr, Docker's errors), and the data."),
    Protocol("erlang-packet-1", LengthPrefix(1, max_length=255), "Erlang/OTP, inet:setopts/2, {packet, 1}",
             "The packet, without the length."),
    Protocol("erlang-packet-2", LengthPrefix(2, max_length=65535), "Erlang/OTP, inet:setopts/2, {packet, 2}",
             "The packet, without the length."),
    Protocol("erlang-packet-4", LengthPrefix(4), "Erlang/OTP, inet:setopts/2, {packet, 4}",
             "The packet, without the length; the distribution protocol's is empty for a tick."),
    Protocol("ethernet-ip", LengthField(2, offset=2, byteorder="little", add=24, max_length=65535),
             "ODVA, The CIP Networks Library volume 2, section 2-3.1", "The header of 24 bytes and the data."),
    Protocol("fastcgi", FastCgi(), "FastCGI specification 1.0, section 3.3",
             "The whole record, its padding included."),
    Protocol("fix", Fix(), "FIX 4.2 specification, message format; FIX TagValue encoding",
             "The whole message, its CheckSum included and checked."),
    Protocol("gearman", LengthField(4, offset=8), "Gearman, PROTOCOL, binary packet",
             "Magic, type, size and data."),
    Protocol("gelf-tcp", Delimiter(b"\0"), "Graylog documentation, GELF via TCP", "The JSON, without the NUL."),
    Protocol("git-pkt-line", PktLine(max_length=65520), "gitprotocol-common(5), pkt-line format",
             "The line with its four digits, which tell 0000 (flush) from 0004 (empty)."),
    Protocol("graphite-pickle", LengthPrefix(4, max_length=2**20), "Graphite documentation, the pickle protocol",
             "The pickle, without the length; don't unpickle what strangers sent."),
    Protocol("grpc", Tagged(dict.fromkeys((0, 1), _part(4, offset=1))),
             "gRPC over HTTP/2, Length-Prefixed-Message", "Compressed flag, length and message."),
    Protocol("http-chunk", AsciiLength(base=16, separator=b"\r\n", end=b"\r\n"), "RFC 9112 section 7.1",
             "The chunk's data; an empty one ends the body. No chunk extensions, trailer fields or leading zeros."),
    Protocol("http2", LengthField(3, add=9, max_length=9 + 2**14), "RFC 9113 section 4.1",
             "The header of 9 bytes and the payload. The client's preface, FixedLength(24), comes before."),
    Protocol("iec104", Tagged({0x68: _least(6, _part(1, offset=1), UNLIMITED)}, max_length=255),
             "IEC 60870-5-104 section 5", "The whole APDU."),
    Protocol("imap", Lines("crlf"), "RFC 9051 section 2.2",
             "A line; one that ends in {n} goes on behind FixedLength(n)."),
    Protocol("ipfix", _least(16, _part(2, offset=2, add=0), 65535), "RFC 7011 sections 3.1 and 10.4",
             "The whole message."),
    Protocol("irc", Delimiter(b"\r\n", b"\n", max_length=8191 + 510), "RFC 1459 section 2.3, IRCv3 message tags",
             "The line without its end, which may be LF alone; CRLF is sent."),
    Protocol("iso8583", LengthPrefix(2, max_length=65535), "jPOS Programmer's Guide, NACChannel",
             "TPDU and message, without the length. ISO 8583 itself defines no framing: ask the other side."),
    Protocol("json-seq", Tagged({0x1E: Delimiter(b"\n", max_length=UNLIMITED)}), "RFC 7464 section 2.2",
             "RS and the text, without the LF; texts of one line only."),
    Protocol("kafka", LengthPrefix(4, max_length=100 * 2**20), "Apache Kafka protocol guide, the messages",
             "Request or response, without the size; the limit is the broker's socket.request.max.bytes."),
    Protocol("kerberos", LengthPrefix(4), "RFC 4120 section 7.2.2", "The message, without the length."),
    Protocol("ldap", _ber(0x30), "RFC 4511 section 5.1 (BER, definite lengths only)",
             "The whole LDAPMessage, its tag and length included."),
    Protocol("ldp", LengthField(2, offset=2, max_length=4 + 4096), "RFC 5036 section 3.1",
             "The whole PDU, version and length included."),
    Protocol("logging-socket", LengthPrefix(4), "Python library, logging.handlers.SocketHandler.makePickle()",
             "The pickle, without the length; don't unpickle what strangers sent."),
    Protocol("lsp", HeaderBlock(), "Language Server Protocol 3.17, base protocol", "The JSON, without its header."),
    Protocol("memcached-binary", Tagged(dict.fromkeys((0x80, 0x81), _part(4, offset=8, add=24))),
             "memcached, binary protocol, packet structure", "The header of 24 bytes and the body."),
    Protocol("milter", LengthPrefix(4), "Sendmail, milter protocol, packet format",
             "Command and data, without the length."),
    Protocol("minecraft", Varint(max_bytes=3, canonical=False, max_length=2**21 - 1),
             "Minecraft Java Edition protocol, packet format",
             "The packet, without the length, which proxies write in three bytes also where one would do."),
    Protocol("mllp", Tagged({0x0B: Delimiter(b"\x1c\r", max_length=UNLIMITED)}),
             "HL7 transport specification: MLLP, release 1",
             "The start byte 0x0B and the content, without 0x1C 0x0D."),
    Protocol("modbus-tcp", _least(8, _part(2, offset=4), 260),
             "MODBUS messaging on TCP/IP implementation guide V1.0b, section 3.1.3",
             "The MBAP header of 7 bytes and the PDU."),
    Protocol("mongodb", _least(16, _part(4, byteorder="little", add=0, signed=True), 48_000_000),
             "MongoDB wire protocol, standard message header", "The header of 16 bytes and the body."),
    Protocol("mqtt", Varint(offset=1, max_bytes=4, strip=0, max_length=2**28 + 4),
             "MQTT 5.0 sections 2.1 and 1.5.5, MQTT 3.1.1 section 2.2",
             "The whole packet; to send one its length may be one zero byte, to be filled in."),
    Protocol("multiprocessing", MultiprocessingConnection(), "Python library, multiprocessing/connection.py",
             "The pickle or bytes, without the length; don't unpickle what strangers sent."),
    Protocol("mysql", LengthField(3, byteorder="little", add=4, max_length=2**24 + 3),
             "MySQL client/server protocol, packets",
             "Length, sequence number and payload; one of 16777215 bytes goes on in the next packet."),
    Protocol("mysqlx", LengthPrefix(4, "little"), "MySQL X protocol, message structure",
             "Type and message, without the length."),
    Protocol("nbd-request", Tagged({1: _part(4, offset=24, add=28)}, offset=7, default=28, max_length=28 + 2**25),
             "NBD protocol (doc/proto.md), request message",
             "A client's header of 28 bytes and, for a write, its data. It begins after the handshake."),
    Protocol("ndjson", Lines(), "NDJSON specification 1.0.0", "The JSON text, without the line's end."),
    Protocol("netbios-session", Tagged(dict.fromkeys((0, 0x81, 0x82, 0x83, 0x84, 0x85), _part(4, mask=0x1FFFF))),
             "RFC 1002 section 4.3.1", "The header of 4 bytes and the packet; its length has 17 bits."),
    Protocol("netconf", Delimiter(b"]]>]]>"), "RFC 6242 section 4.3", "The XML, without the end of message."),
    Protocol("netstring", AsciiLength(separator=b":", end=b","), "D. J. Bernstein, Netstrings, 1997", "The string."),
    Protocol("nntp", Lines("crlf"), "RFC 3977 section 3.1", "A line; in a block the dots are still stuffed."),
    Protocol("nsq", LengthPrefix(4), "NSQ TCP protocol specification, data format",
             "What nsqd sends: frame type and data, without the size."),
    Protocol("onc-rpc", LengthField(4, mask=0x7FFFFFFF), "RFC 5531 section 11 (record marking: NFS, NDMP)",
             "A fragment with its header of 4 bytes, whose top bit says that the record ends."),
    Protocol("opc-ua", _least(8, _part(4, offset=4, byteorder="little", add=0)),
             "OPC UA part 6, section 7.1.2.2", "The message, its header of 8 bytes included."),
    Protocol("openflow", _least(8, _part(2, offset=2, add=0), 65535),
             "OpenFlow switch specification 1.3, the OpenFlow header", "The header of 8 bytes and the body."),
    Protocol("pcep", LengthField(2, offset=2, add=0, max_length=65535), "RFC 5440 section 6.1",
             "The common header of 4 bytes and the objects."),
    Protocol("pop3", Lines("crlf"), "RFC 1939 section 3", "A line; in a message the dots are still stuffed."),
    Protocol("postfix-policy", Delimiter(b"\n\n"), "Postfix SMTPD_POLICY_README, protocol description",
             "The lines name=value, without the empty line that ends a request or reply."),
    Protocol("postgres", LengthField(4, offset=1, add=1),
             "PostgreSQL documentation, frontend/backend protocol, message formats", "Type, length and body."),
    Protocol("postgres-startup", LengthPrefix(4, inclusive=True, max_length=10000),
             "PostgreSQL documentation, frontend/backend protocol, StartupMessage",
             "A client's first message, without the length: StartupMessage, SSLRequest, CancelRequest."),
    Protocol("protobuf-delimited", Varint(), "Protocol Buffers documentation, writeDelimitedTo()",
             "The message, without the length."),
    Protocol("proxy-v1", Lines("crlf", max_length=105), "HAProxy, The PROXY protocol, section 2.1",
             "The line. What follows belongs to another protocol."),
    Protocol("proxy-v2", ProxyV2(), "HAProxy, The PROXY protocol, section 2.2",
             "The header with its signature. What follows belongs to another protocol."),
    Protocol("radius-tcp", _least(20, _part(2, offset=2, add=0), 4096), "RFC 2865 section 3, RFC 6613 section 2.1",
             "The whole packet."),
    Protocol("redis", Tagged({**dict.fromkeys(b"+-:*_#,(%~>|", _RESP_LINE), **dict.fromkeys(b"$!=", _RESP_BULK)},
                             max_length=2**29 + 32),
             "Redis serialization protocol specification (RESP2 and RESP3)",
             "One element with its type and length, without the last CRLF; an array's elements follow as frames."),
    Protocol("redis-inline", Delimiter(b"\r\n", b"\n", max_length=65536),
             "Redis serialization protocol specification, inline commands",
             "The command without the line's end, which may be LF alone; CRLF is sent."),
    Protocol("rpki-rtr", LengthField(4, offset=4, add=0), "RFC 8210 section 5", "The whole PDU."),
    Protocol("rtp-tcp", LengthPrefix(2, max_length=65535), "RFC 4571 section 2",
             "The RTP or RTCP packet, without the length."),
    Protocol("scgi-headers", AsciiLength(separator=b":", end=b","), "SCGI specification, request format",
             "The headers; CONTENT_LENGTH bytes of body, FixedLength(n), follow."),
    Protocol("sip", HeaderBlock(strip=False), "RFC 3261 sections 7.5 and 18.3",
             "The whole message; Content-Length spelt out, no folded lines, no keep-alives."),
    Protocol("slip", Slip(), "RFC 1055", "The packet, unescaped."),
    Protocol("smb", LengthPrefix(4, max_length=2**24 - 1), "MS-SMB2 section 2.1 (direct TCP)",
             "The SMB message, without the zero byte and the length."),
    Protocol("smpp", _least(16, _part(4, add=0)), "SMPP 3.4 section 3.2", "The whole PDU."),
    Protocol("smtp", Lines("crlf", max_length=12286), "RFC 5321 section 2.3.8, RFC 4954 section 4",
             "A command, reply or text line; in a message the dots are still stuffed."),
    Protocol("socks5-greeting", Tagged({5: _part(1, offset=1)}), "RFC 1928 section 3",
             "A client's version and methods; the answer is FixedLength(2)."),
    Protocol("socks5-request", Tagged({1: 10, 3: _part(1, offset=4, add=7), 4: 22}, offset=3, max_length=262),
             "RFC 1928 sections 4 and 6", "A whole request or reply; the address type tells how long it is."),
    Protocol("source-rcon", LengthPrefix(4, "little", max_length=4096), "Valve, Source RCON protocol, packet structure",
             "Id, type, body and two NULs, without the size."),
    Protocol("ssh", LengthPrefix(4, max_length=35000 - 4), "RFC 4253 section 6 (before encryption)",
             "Padding length, payload and padding. It begins after the identification line."),
    Protocol("ssh-agent", LengthPrefix(4), "SSH agent protocol (draft-ietf-sshm-ssh-agent)",
             "Type and contents, without the length."),
    Protocol("stomp", Stomp(), "STOMP 1.2, frames", "The frame without its NUL; a line end between frames is \"\\n\"."),
    Protocol("syslog", AsciiLength(separator=b" "), "RFC 6587 section 3.4.1, RFC 5425 section 4.3",
             "The message, which may have many lines, without the octet count."),
    Protocol("tds", _least(8, _part(2, offset=2, add=0), 32767), "MS-TDS section 2.2.3.1",
             "The header of 8 bytes and the data."),
    Protocol("thrift-framed", LengthPrefix(4, max_length=16_384_000),
             "Apache Thrift, framed transport (TConfiguration)", "The message, without the length."),
    Protocol("tls", Tagged(dict.fromkeys(range(20, 25), _part(2, offset=3)), max_length=5 + 2**14 + 2048),
             "RFC 8446 section 5.1, RFC 5246 section 6.2", "The header of 5 bytes and the fragment."),
    Protocol("tor", Tagged({0: 514, 0x80: _part(2, offset=5)}, offset=4, mask=0x80),
             "Tor protocol specification, cells (link protocol 4 and later)",
             "The whole cell. The VERSIONS cells, LengthField(2, offset=3), come before."),
    Protocol("tpkt", Tagged({3: _least(7, _part(2, offset=2, add=0), UNLIMITED)}, max_length=65535),
             "RFC 1006 section 6 (X.224, H.323, RDP, S7)", "The header of 4 bytes and the TPDU."),
    Protocol("turn", Tagged({0: _part(2, offset=2, add=20), 0x40: _part(2, offset=2, align=4)}, mask=0xC0),
             "RFC 8489 sections 5 and 6.2.2, RFC 8656 section 12.5",
             "A whole STUN message, or channel data with its header of 4 bytes, without padding."),
    Protocol("varlink", Delimiter(b"\0"), "Varlink, method call", "The JSON, without the NUL."),
    Protocol("websocket", Tagged({0: _websocket(0), 0x80: _websocket(4)}, offset=1, mask=0x80),
             "RFC 6455 section 5.2",
             "The whole frame, still masked where a client sent it; lengths need not be the shortest."),
    Protocol("x11-be", _x11("big"), "X Window System protocol, chapter 1 and appendix B",
             "A reply, error or event to a client that said 'B'. It begins after the connection setup."),
    Protocol("x11-le", _x11("little"), "X Window System protocol, chapter 1 and appendix B",
             "A reply, error or event to a client that said 'l'. It begins after the connection setup."),
    Protocol("zabbix", Tagged({**dict.fromkeys((1, 3), _zabbix(4)), **dict.fromkeys((5, 7), _zabbix(8))}, offset=4,
                              max_length=21 + 2**30),
             "Zabbix documentation, header and data length", "The header of 13 or 21 bytes and the data."),
    Protocol("zmtp", Tagged({**dict.fromkeys((0, 1, 4), _part(1, offset=1)),
                             **dict.fromkeys((2, 3, 6), _part(8, offset=1, signed=True)), 0xFF: 64}),
             "ZeroMQ RFC 23 (ZMTP 3.0) and 37 (ZMTP 3.1)",
             "Flags, size and body; the greeting is a frame of 64 bytes."),
)}

PROTOCOL_FRAMINGS.update((row.name, row.framing) for row in PROTOCOLS.values())
