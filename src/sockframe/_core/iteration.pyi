"""The types of iteration.pyx."""

from collections.abc import Callable, Coroutine
from typing import Any, final

from typing_extensions import Self

from .codec import Decoder

@final
class AsyncFrames:
    ready: Decoder | None
    def __init__(self, wait: Callable[[], Coroutine[Any, Any, bytes]]) -> None: ...
    def __aiter__(self) -> Self: ...
    def __anext__(self) -> Coroutine[Any, Any, bytes]: ...
