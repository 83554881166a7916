"""Message framing for stream sockets: fast and right."""

from __future__ import annotations

from ._wing import Decoder, Encoder, why_not_core, wing
from .errors import (
    BufferTooSmallError,
    EndOfStream,
    FrameTooLongError,
    FramingError,
    IncompleteFrameError,
    MalformedFrameError,
)
from .framings import (
    UNLIMITED,
    AsciiLength,
    Delimiter,
    FixedLength,
    Framing,
    LengthField,
    LengthPrefix,
    Lines,
    Tagged,
    UntilClose,
    Varint,
    framing,
)
from .sockets import FramedSocket, connect

__all__ = [
    "UNLIMITED",
    "AsciiLength",
    "BufferTooSmallError",
    "Decoder",
    "Delimiter",
    "Encoder",
    "EndOfStream",
    "FixedLength",
    "FrameTooLongError",
    "FramedSocket",
    "Framing",
    "FramingError",
    "IncompleteFrameError",
    "LengthField",
    "LengthPrefix",
    "Lines",
    "MalformedFrameError",
    "Tagged",
    "UntilClose",
    "Varint",
    "connect",
    "framing",
    "why_not_core",
    "wing",
]
