"""What type checkers make of the engine: framings, codec, batches, sockets, selectors, errors. Checked, never run."""

import socket
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from typing_extensions import assert_type

import sockframe
from sockframe import (
    UNLIMITED,
    AsciiLength,
    BufferTooSmallError,
    Cobs,
    Decoder,
    Delimiter,
    Encoder,
    EndOfStream,
    FixedLength,
    Frame,
    FrameBatch,
    FramedSocket,
    FrameKey,
    FrameSelector,
    FrameTooLongError,
    Framing,
    FramingError,
    HeaderBlock,
    IncompleteFrameError,
    LengthField,
    LengthPrefix,
    Lines,
    MalformedFrameError,
    Need,
    Slip,
    Tagged,
    UntilClose,
    Varint,
    protocols,
)


def framings() -> list[Framing]:
    assert_type(LengthPrefix(2, "little", inclusive=True, max_length=UNLIMITED, overlong="skip"), LengthPrefix)
    assert_type(replace(LengthPrefix(4), max_length=100), LengthPrefix)
    assert_type(sockframe.framing("u32be"), Framing)
    assert_type(protocols.PROTOCOLS["mqtt"].framing, Framing)
    assert_type(protocols.PROTOCOLS["mqtt"].source, str)
    assert_type(LengthPrefix(4).max_length, int)
    assert_type(Delimiter(b"\0").delimiters, tuple[bytes, ...])
    return [
        AsciiLength(5), AsciiLength(separator=b":", end=b","), Cobs(), Delimiter(b"\0", bytearray(b"\n"), keep=True),
        FixedLength(16), HeaderBlock("Content-Length", strip=False), LengthField(2, offset=2, mask=0xFFF, add=None),
        Lines("crlf"), Slip(), Tagged({b"A": 8, 1: LengthField(2, offset=1)}, default=LengthPrefix()), UntilClose(),
        Varint(offset=1, max_bytes=4),
    ]


@dataclass(frozen=True, repr=False)
class Bangs(Framing):
    """A framing of one's own."""

    mark: bytes = b"!"

    def measure(self, view: memoryview) -> Frame | Need:
        at = bytes(view).find(self.mark)
        return Need() if at < 0 else Frame(at + 1, 0, at)

    def wrap(self, payload: bytes) -> bytes:
        return payload + self.mark


def codec(data: bytes, buffer: bytearray, view: memoryview) -> None:
    encoder = Encoder(Bangs(max_length=100))
    assert_type(encoder.framing, Framing)
    assert_type(encoder.encode(data), bytes)
    assert_type(encoder.encode(buffer), bytes)
    assert_type(encoder.encode_many([data, buffer, view]), bytes)
    assert_type(encoder.encode_into(view, buffer, 4), int)

    decoder = Decoder(Lines())
    assert_type(decoder.decode(data), list[bytes])
    decoder.feed(view)
    assert_type(decoder.next_frame(), bytes | None)
    assert_type(list(decoder), list[bytes])
    assert_type(next(decoder), bytes)
    room = decoder.get_buffer()
    assert_type(room, memoryview)
    decoder.buffer_updated(socket.socket().recv_into(room))
    assert_type(decoder.finish(), list[bytes])
    assert_type(decoder.take_buffered(), bytes)
    assert_type((decoder.need, decoder.buffered, decoder.skipped, decoder.position), tuple[int, int, int, int])
    decoder.framing = FixedLength(3)


def batches(decoder: Decoder) -> Sequence[memoryview]:
    batch = decoder.decode_batch(b"")
    assert_type(batch, FrameBatch)
    assert_type(decoder.next_batch(), FrameBatch)
    assert_type(batch[0], memoryview)
    assert_type(batch[1:], FrameBatch)
    assert_type(list(batch), list[memoryview])
    assert_type(batch.tolist(), list[bytes])
    assert_type(batch.join(), bytes)
    assert_type((batch.index(b"one"), batch.count(b"one"), len(batch)), tuple[int, int, int])
    assert_type((batch.buffer, batch.spans), tuple[memoryview, memoryview])
    for payload in batch:
        assert_type(payload, memoryview)
    match batch:
        case [first, *_]:
            assert_type(first, memoryview)
        case _:
            pass
    return batch


def sockets(context: ssl.SSLContext, buffer: bytearray, pieces: Iterable[memoryview]) -> None:
    with sockframe.connect(("::1", 7000), LengthPrefix(), timeout=5, tls=True, server_hostname="a") as conn:
        assert_type(conn, FramedSocket)
        assert_type(conn.recv(), bytes)
        assert_type(conn.recv(FixedLength(3), timeout=None), bytes)
        assert_type(conn.recv_into(buffer), int)
        assert_type(conn.recv_many(10, timeout=0.5), list[bytes])
        assert_type(conn.recv_batch(), FrameBatch)
        assert_type(list(conn), list[bytes])
        for frame in conn:
            assert_type(frame, bytes)
        conn.send(buffer)
        conn.send_many(pieces, timeout=1)
        conn.send_many(str(number).encode() for number in range(3))
        conn.flush()
        assert_type((conn.unsent, conn.pending(), conn.fileno()), tuple[int, int, int])
        assert_type(conn.gettimeout(), float | None)
        assert_type(conn.closed, bool)
        assert_type(conn.framing, Framing)
        assert_type(conn.start_tls(context, "carry"), int)
        conn.keepalive(60, 5, 3, user_timeout=10)
        conn.shutdown(socket.SHUT_WR)
        sock, leftover = conn.detach()
        assert_type(leftover, bytes)
        assert_type(FramedSocket(sock, Lines(), received=leftover), FramedSocket)


def selectors(conn: FramedSocket) -> None:
    with FrameSelector(progress=True) as selector:
        assert_type(selector.register(conn, data="one"), FrameKey)
        for key, frames in selector.select(timeout=1):
            assert_type(frames, list[bytes] | Exception)
            assert_type(key, FrameKey)
            if not isinstance(frames, Exception):
                assert_type(frames, list[bytes])
        assert_type(selector.get_map(), dict[int, FrameKey])
        selector.unregister(conn)


def errors(conn: FramedSocket) -> tuple[Any, ...]:
    try:
        conn.recv()
    except EndOfStream:
        return ()
    except IncompleteFrameError as error:
        return assert_type((error.partial, error.need, error.position), tuple[bytes, int | None, int | None])
    except FrameTooLongError as error:
        return assert_type((error.length, error.limit, error.header), tuple[int | None, int | None, bytes])
    except MalformedFrameError as error:
        return assert_type((error.position, error.header), tuple[int | None, bytes])
    except BufferTooSmallError as error:
        return (assert_type(error.need, int | None),)
    except FramingError as error:
        raise ConnectionError from error
    return assert_type((sockframe.wing, sockframe.why_not_core), tuple[str, str | None])
