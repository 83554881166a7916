"""Every exception of sockframe, made here from a fault's code and numbers, for both wings.

`Fault` and `TEXTS` are the codes and the words of csrc/sockframe.h and csrc/kinds.c; a test compares
them. Numbers are in bytes.
"""

from __future__ import annotations

import errno
import os
from enum import IntEnum

#: The most bytes of a stream that an exception keeps.
CONTEXT = 100


class Fault(IntEnum):
    """What can be wrong: with a stream, then (WRAP_...) with a payload."""

    NONE = 0
    TOO_LONG = 1
    NEGATIVE = 2
    TOO_SHORT = 3
    DIGIT = 4
    LEADING_ZERO = 5
    DIGITS = 6
    SEPARATOR = 7
    END = 8
    VARINT_LONG = 9
    VARINT_CANONICAL = 10
    BARE = 11
    TAG = 12
    HEADER_LONG = 13
    HEADER_LINE = 14
    HEADER_FIELD = 15
    STUFFING = 16
    WRAP_TOO_LONG = 17
    WRAP_CAPACITY = 18
    WRAP_DELIMITER = 19
    WRAP_UNENDED = 20
    WRAP_SIZE = 21
    WRAP_SCALE = 22
    WRAP_FIELD = 23
    WRAP_SHORT = 24
    WRAP_TAG = 25
    WRAP_LAST = 26


#: The words of each fault, and what its two numbers say.
TEXTS: dict[Fault, tuple[str, str]] = {
    Fault.NONE: ("no fault", ""),
    Fault.TOO_LONG: ("frame is too long", ""),
    Fault.NEGATIVE: ("length is negative", "-{number}"),
    Fault.TOO_SHORT: ("frame is shorter than its header", "{number} bytes, at least {limit} are needed"),
    Fault.DIGIT: ("byte in the length is not a digit", "0x{number:02x}"),
    Fault.LEADING_ZERO: ("length has a leading zero", ""),
    Fault.DIGITS: ("length has too many digits", "at most {limit} are read"),
    Fault.SEPARATOR: ("byte behind the length is not the separator", "0x{number:02x}"),
    Fault.END: ("frame is not closed by its end", "0x{number:02x}"),
    Fault.VARINT_LONG: ("varint is too long", "at most {limit} bytes are read"),
    Fault.VARINT_CANONICAL: ("varint is not the shortest", ""),
    Fault.BARE: ("line has a bare CR or LF", "0x{number:02x}"),
    Fault.TAG: ("tag is not listed", "0x{number:02x}"),
    Fault.HEADER_LONG: ("header is too long", "at most {limit} bytes are read"),
    Fault.HEADER_LINE: ("header line has no name and colon", ""),
    Fault.HEADER_FIELD: ("header does not tell one length", ""),
    Fault.STUFFING: ("byte is not rightly stuffed", "0x{number:02x}"),
    Fault.WRAP_TOO_LONG: ("payload is too long", "{number} bytes, max_length is {limit}"),
    Fault.WRAP_CAPACITY: ("length does not fit its field", "{number}, at most {limit}"),
    Fault.WRAP_DELIMITER: ("payload holds a delimiter", "at byte {number}"),
    Fault.WRAP_UNENDED: ("payload does not end with its delimiter", "{number} bytes"),
    Fault.WRAP_SIZE: ("payload has the wrong length", "{number} bytes, the framing has {limit}"),
    Fault.WRAP_SCALE: ("frame is not a multiple of its unit", "{number} bytes to count in units of {limit}"),
    Fault.WRAP_FIELD: ("payload's own length is wrong", "{number}, the right one is {limit}"),
    Fault.WRAP_SHORT: ("payload is too short", "{number} bytes, at least {limit} are needed"),
    Fault.WRAP_TAG: ("payload does not begin with a listed tag", ""),
    Fault.WRAP_LAST: ("payload follows one that lasts until the stream ends", ""),
}

_OTHER_PROTOCOLS = (
    ((b"HTTP", b"GET ", b"POST", b"PUT ", b"HEAD", b"DELE", b"OPTI", b"PATC", b"CONN", b"PRI "), "HTTP"),
    ((b"\x16\x03", b"\x15\x03"), "TLS"),
)


class FramingError(Exception):
    """The base of every error that sockframe finds in a stream, a payload or a buffer."""


class MalformedFrameError(FramingError, ValueError):
    """The stream holds no frame of its framing where one should be; final for the stream.

    `position` is the stream offset of the bad frame's first byte; `header` the bytes of the frame
    that show the fault, at most 100.
    """

    def __init__(self, message: str = "", *, position: int | None = None, header: bytes = b"") -> None:
        super().__init__(message)
        self.position = position
        self.header = header


class FrameTooLongError(FramingError, ValueError):
    """A frame's payload, or a payload to send, is longer than allowed.

    `length` is the payload's announced length in bytes, None where the framing announces none;
    `limit` the most allowed; `position` the stream offset of the frame's first byte (None for a
    payload to send); `header` the bytes of the frame that show it, at most 100.
    """

    def __init__(self, message: str = "", *, length: int | None = None, limit: int | None = None,
                 position: int | None = None, header: bytes = b"") -> None:
        super().__init__(message)
        self.length = length
        self.limit = limit
        self.position = position
        self.header = header


class IncompleteFrameError(FramingError, EOFError):
    """The stream ended inside a frame.

    `partial` holds the frame's first bytes, at most 100; `need` is the least number of bytes that
    were still missing; `position` the stream offset of the frame's first byte.
    """

    def __init__(self, message: str = "", *, partial: bytes = b"", need: int | None = None,
                 position: int | None = None) -> None:
        super().__init__(message)
        self.partial = partial
        self.need = need
        self.position = position


class EndOfStream(FramingError, EOFError):
    """The stream ended on a frame boundary: there are no more frames."""


class BufferTooSmallError(FramingError, ValueError):
    """The caller's buffer is smaller than the `need` bytes that were to go into it; nothing was lost."""

    def __init__(self, message: str = "", *, need: int | None = None) -> None:
        super().__init__(message)
        self.need = need


def _looks_like(header: bytes) -> str:
    """Say what other protocol a header that can't be right reads as."""
    for starts, protocol in _OTHER_PROTOCOLS:
        if header.startswith(starts):
            return f"; the bytes read as {protocol}: {header[:8]!r}"
    return ""


def scan_error(code: int, number: int, limit: int, position: int, seen: int, header: bytes) -> FramingError:
    """Make the error of a fault in a stream; `seen` bytes of the frame at `position` show it."""
    fault = Fault(code)
    words, detail = TEXTS[fault]
    if fault is Fault.TOO_LONG:
        length = number or None
        size = f"{length} bytes" if length else f"more than {limit} bytes"
        return FrameTooLongError(
            f"{words}: {size} of payload, max_length is {limit} (frame at stream position {position})"
            + _looks_like(header), length=length, limit=limit, position=position, header=header)
    detail = f" ({detail.format(number=number, limit=limit)})" if detail else ""
    return MalformedFrameError(
        f"{words}{detail}: byte {seen - 1} of the frame at stream position {position}" + _looks_like(header),
        position=position, header=header)


def own_error(message: str, position: int, header: bytes) -> MalformedFrameError:
    """Make the error that a framing of the user's found in the frame at `position`, once more."""
    return MalformedFrameError(message, position=position, header=header[:CONTEXT])


def measure_error(framing: object, answer: object) -> RuntimeError:
    """Make the error of a framing of the user's that gives an impossible answer."""
    return RuntimeError(f"{type(framing).__name__}.measure() returned {answer!r}, which can't be")


def wrap_error(code: int, number: int, limit: int, index: int | None = None) -> ValueError:
    """Make the error of a payload that can't be sent; `index` is its place among several."""
    fault = Fault(code)
    words, detail = TEXTS[fault]
    message = words + (f" ({detail.format(number=number, limit=limit)})" if detail else "")
    if index is not None:
        message = f"payload {index}: {message}"
    if fault in (Fault.WRAP_TOO_LONG, Fault.WRAP_CAPACITY):
        return FrameTooLongError(message, length=number, limit=limit)
    return ValueError(message)


def own_wrap_error(error: ValueError, index: int) -> ValueError:
    """Make the error of a payload that a framing of the user's refused, with its place among several."""
    return ValueError(f"payload {index}: {error}")


def incomplete_error(partial: bytes, held: int, need: int, position: int) -> IncompleteFrameError:
    """Make the error of a stream that ended `held` bytes into the frame at `position`."""
    return IncompleteFrameError(
        f"stream ended {held} bytes into a frame, at least {need} more were needed "
        f"(frame at stream position {position})", partial=partial, need=need, position=position)


def end_of_stream(position: int) -> EndOfStream:
    """Make the error that says: no more frames."""
    return EndOfStream(f"stream ended at position {position}")


def too_small_error(need: int, size: int) -> BufferTooSmallError:
    """Make the error of a buffer of `size` bytes where `need` are needed."""
    return BufferTooSmallError(f"buffer has {size} bytes, {need} are needed", need=need)


def offset_error(offset: int, size: int) -> ValueError:
    """Make the error of a place outside a buffer."""
    return ValueError(f"offset must be from 0 to {size}, not {offset}")


def limit_error(limit: int) -> ValueError:
    """Make the error of a number of frames that is none."""
    return ValueError(f"limit must be 1 or more, not {limit}")


def not_bytes_error(what: str, value: object) -> TypeError:
    """Make the error of an argument that is no bytes-like object."""
    return TypeError(f"{what} must be a bytes-like object, not {type(value).__name__}")


def not_contiguous_error(what: str) -> BufferError:
    """Make the error of a buffer with gaps, or in Fortran order."""
    return BufferError(f"{what} must be C-contiguous")


def read_only_error(what: str) -> TypeError:
    """Make the error of a buffer that can't be written to."""
    return TypeError(f"{what} must be writable")


def not_framing_error(value: object) -> TypeError:
    """Make the error of an argument that is no framing."""
    return TypeError(f"framing must be a Framing, not {type(value).__name__}")


def reentry_error(what: str) -> RuntimeError:
    """Make the error of a call that came from inside another call of the same object."""
    return RuntimeError(f"{what} is already at work in this call")


def ended_error() -> ValueError:
    """Make the error of bytes that come after the end."""
    return ValueError("the stream has ended: finish() was called")


def not_lent_error(count: int, lent: int) -> ValueError:
    """Make the error of more bytes said to be written than there was room for."""
    return ValueError(f"buffer_updated({count}): the buffer that get_buffer() lent has {lent} bytes")


def no_copy_error(value: object) -> TypeError:
    """Make the error of pickling or copying what belongs to one stream."""
    return TypeError(f"{type(value).__name__} can't be pickled or copied: it belongs to one stream")


def not_decoder_error(value: object) -> TypeError:
    """Make the error of something that is not the core's Decoder, where an extension needs one."""
    return TypeError(f"a Decoder of sockframe._core is needed, not {type(value).__module__}.{type(value).__name__}")


def bad_bytes_error(size: int) -> ValueError:
    """Make the error of bytes that an extension gives by a pointer and a size, where these can't be."""
    return ValueError(f"there can be no {size} bytes at this address")


def no_room_error(most: int) -> ValueError:
    """Make the error of an extension that has room for no payload."""
    return ValueError(f"there must be room for 1 or more payloads, not {most}")


def no_batch_error() -> TypeError:
    """Make the error of a batch that was to be made by hand."""
    return TypeError("a FrameBatch comes from decode_batch(), next_batch() or recv_batch()")


def no_payload_error() -> ValueError:
    """Make the error of a value that is none of a batch's payloads."""
    return ValueError("no payload of the batch equals the value")


def no_pickle_error(value: object) -> TypeError:
    """Make the error of pickling or copying a batch."""
    return TypeError(f"{type(value).__name__} can't be pickled or copied: take its tolist()")


def arrow_size_error(size: int) -> ValueError:
    """Make the error of a payload that Arrow's views can't tell the size of."""
    return ValueError(f"a payload of {size} bytes is too long for Arrow's binary_view: it takes at most 2147483647")


def closed_error() -> OSError:
    """Make the error of a call on a closed connection."""
    return OSError(errno.EBADF, os.strerror(errno.EBADF))


def message_end_error(begun: bool) -> EOFError | OSError:
    """Make the error of a stream of multiprocessing's that has ended, in the midst of a message or before one."""
    return OSError("got end of file during message") if begun else EOFError()


def too_short_error(message: bytes) -> Exception:
    """Make the error of multiprocessing that has the message for which a buffer was too short."""
    from multiprocessing import BufferTooShort

    return BufferTooShort(message)


def forked_error() -> OSError:
    """Make the error of a call in a forked process, where a thread that stayed behind was at work."""
    return OSError(errno.EDEADLK, "another thread was at work with the connection when the process forked")


def leftover_error(count: int) -> FramingError:
    """Make the error of bytes that came in the clear before TLS was begun, and may be anyone's."""
    return FramingError(f"{count} bytes of the peer's are here already, from before TLS: say with leftover= "
                        "whether they are to be carried into it or discarded")


def midway_error(position: int) -> FramingError:
    """Make the error of a stream that is to be given away inside a frame, whose rest would be read as other frames."""
    return FramingError(f"the overlong frame at position {position} is being passed over, and its rest is still to "
                        "come: receive until it is past")


def tls_twice_error() -> ValueError:
    """Make the error of TLS begun within TLS."""
    return ValueError("the connection is under TLS already")


def no_half_close_error(sock: object) -> OSError:
    """Make the error of a half-close that the socket can't do without loss."""
    return OSError(errno.EOPNOTSUPP, f"{type(sock).__name__} can't shut down for writing alone and keep TLS: close it, "
                   "or begin TLS by start_tls() or connect(tls=)")


def timeout_error() -> TimeoutError:
    """Make the error of a deadline that passed."""
    return TimeoutError("timed out")


def blocking_error(what: str) -> BlockingIOError:
    """Make the error of a call that would have to wait on a non-blocking socket."""
    return BlockingIOError(errno.EAGAIN, what)


def os_error(number: int) -> OSError:
    """Make the error of a system call; the kernel's own ETIMEDOUT is a dead peer, not a deadline."""
    if number == errno.ETIMEDOUT:
        return ConnectionError(number, os.strerror(number))
    return OSError(number, os.strerror(number))


def wrong_loop_error(value: object) -> RuntimeError:
    """Make the error of a call from another event loop or thread than the one that a stream belongs to."""
    return RuntimeError(f"{type(value).__name__} belongs to another event loop, or to another thread")


def concurrent_error(value: object) -> RuntimeError:
    """Make the error of a task that receives while another one waits for a frame."""
    return RuntimeError(f"{type(value).__name__}: another task waits for a frame already")


def no_write_eof_error() -> OSError:
    """Make the error of a half-close that an event loop's TLS can't do."""
    return OSError(errno.EOPNOTSUPP, "under TLS, the transports of an event loop can't end their own half alone")


def no_handover_error() -> ValueError:
    """Make the error of a connection under TLS that is to change hands."""
    return ValueError("a connection under TLS can't change hands: its keys stay where they are")
