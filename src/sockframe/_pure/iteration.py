"""AsyncFrames: `async for` over frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from typing_extensions import Self

    from .codec import Decoder


class AsyncFrames:
    """What `async for` takes the frames of a stream from: `AsyncFrames(wait)`.

    The Decoder `ready`, where there is one, is asked for the next frame at once. `wait()` returns a coroutine that
    waits for it, and raises `StopAsyncIteration` at the end of the stream.
    """

    __slots__ = ("_wait", "ready")

    def __init__(self, wait: Callable[[], Coroutine[Any, Any, bytes]]) -> None:
        self.ready: Decoder | None = None
        self._wait = wait

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self.ready is not None and (frame := self.ready.next_frame()) is not None:
            return frame
        return await self._wait()
