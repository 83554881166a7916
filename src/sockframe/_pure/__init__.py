"""The Python wing: the same rooms, classes and methods as `sockframe._core`, slower."""

from .codec import Decoder, Encoder
from .connection import Connection

__all__ = ["Connection", "Decoder", "Encoder"]
