"""Message framing for stream sockets: fast and right."""

from __future__ import annotations

from . import protocols
from ._wing import Decoder, Encoder, FrameBatch, why_not_core, wing
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
    Cobs,
    Delimiter,
    FixedLength,
    Frame,
    Framing,
    HeaderBlock,
    LengthField,
    LengthPrefix,
    Lines,
    Need,
    Slip,
    Tagged,
    UntilClose,
    Varint,
    framing,
)
from .selectors import FrameSelector
from .sockets import FramedSocket, connect
from .transport import FrameKey

__all__ = [
    "UNLIMITED",
    "AsciiLength",
    "BufferTooSmallError",
    "Cobs",
    "Decoder",
    "Delimiter",
    "Encoder",
    "EndOfStream",
    "FixedLength",
    "Frame",
    "FrameBatch",
    "FrameKey",
    "FrameSelector",
    "FrameTooLongError",
    "FramedSocket",
    "Framing",
    "FramingError",
    "HeaderBlock",
    "IncompleteFrameError",
    "LengthField",
    "LengthPrefix",
    "Lines",
    "MalformedFrameError",
    "Need",
    "Slip",
    "Tagged",
    "UntilClose",
    "Varint",
    "connect",
    "framing",
    "protocols",
    "why_not_core",
    "wing",
]
