"""What `async for` awaits behaves as a coroutine does, whether the frame is here or has to be awaited."""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aio_ends import LOOPS, Runner, passes

from sockframe import LengthPrefix, MalformedFrameError, Varint


class Source:
    """Frames of a decoder, for which one may have to wait."""

    def __init__(self, wing: Any, data: bytes = b"", framing: Any = None) -> None:
        self.decoder = wing.Decoder(framing or LengthPrefix(1))
        self.decoder.feed(data)
        self.waited = 0
        self.wait: Callable[[], Awaitable[Any]] = self.pause
        self.frames = wing.AsyncFrames(self.wait_next)
        self.frames.ready = self.decoder

    async def wait_next(self) -> bytes:
        """Wait as often as it takes, and end where None comes."""
        while (frame := self.decoder.next_frame()) is None:
            self.waited += 1
            data = await self.wait()
            if data is None:
                raise StopAsyncIteration
            self.decoder.feed(data)
        return bytes(frame)

    async def pause(self) -> bytes:
        await asyncio.sleep(0)
        return b"\1x\1y"


def drive(awaitable: Any, values: list[Any]) -> tuple[list[Any], Any]:
    """Await without a loop: return what it asked for, and what it came to."""
    asked = []
    try:
        for value in [None, *values]:
            asked.append(awaitable.send(value))  # noqa: PERF401 (a generator would hide its StopIteration)
    except StopIteration as stop:
        return asked, stop.value
    return asked, None


class Asking:
    """Asks whoever drives the coroutine."""

    def __await__(self) -> Any:
        return (yield "more?")


async def ask() -> Any:
    return await Asking()


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Runner:
    return Runner(request.param)


def test_frames_that_are_here_and_others(wing: Any, run: Runner) -> None:
    async def main() -> None:
        source = Source(wing, b"\1a\1b\0")
        found = []
        async for frame in source.frames:
            found.append(frame)
            if len(found) == 6:
                break
        assert found == [b"a", b"b", b"", b"x", b"y", b"x"]
        assert source.waited == 2
        assert source.frames.__aiter__() is source.frames

    run(main)


def test_the_end(wing: Any, run: Runner) -> None:
    async def main() -> None:
        source = Source(wing, b"\1a")

        async def none() -> None:
            await asyncio.sleep(0)

        source.wait = none
        assert [frame async for frame in source.frames] == [b"a"]
        with pytest.raises(StopAsyncIteration):
            await source.frames.__anext__()

    run(main)


def test_what_is_not_awaited_takes_nothing(wing: Any) -> None:
    source = Source(wing, b"\1a\1b")
    following = source.frames.__anext__()
    following.close()
    following.close()
    assert drive(source.frames.__anext__(), []) == ([], b"a")
    with pytest.raises(RuntimeError, match="cannot reuse already awaited"):
        following.send(None)
    assert source.decoder.next_frame() == b"b"


def test_it_is_awaited_once(wing: Any) -> None:
    source = Source(wing, b"\1a\1b")
    following = source.frames.__anext__()
    assert drive(following, []) == ([], b"a")
    with pytest.raises(RuntimeError, match="cannot reuse already awaited"):
        following.send(None)
    source = Source(wing)
    source.wait = ask
    following = source.frames.__anext__()
    assert drive(following, [b"\1z"]) == (["more?"], b"z")
    for again in (lambda: following.send(None), lambda: following.throw(KeyError)):
        with pytest.raises(RuntimeError, match="cannot reuse already awaited"):
            again()


def test_the_same_by_its_iterator(wing: Any) -> None:
    """`__await__` and `next`, by which some drive what they await."""
    source = Source(wing, b"\1a")
    source.wait = ask
    with pytest.raises(StopIteration) as stop:
        next(source.frames.__anext__().__await__())
    assert stop.value.value == b"a"
    waiting = source.frames.__anext__().__await__()
    assert next(waiting) == "more?"
    with pytest.raises(StopIteration) as stop:
        waiting.send(b"\1b")
    assert stop.value.value == b"b"


def test_what_is_thrown_in(wing: Any) -> None:
    """It ends what waits; a frame that is here stays, since it had not been taken."""
    source = Source(wing, b"\1a")
    following = source.frames.__anext__()
    with pytest.raises(KeyError, match="now"):
        following.throw(KeyError("now"))
    assert drive(source.frames.__anext__(), []) == ([], b"a")

    async def patient() -> Any:
        try:
            return await Asking()
        except KeyError:
            return b"\1k"

    source.wait = ask
    following = source.frames.__anext__()
    following.send(None)
    with pytest.raises(KeyError):
        following.throw(KeyError())
    with pytest.raises(RuntimeError, match="cannot reuse already awaited"):
        following.send(None)
    source.wait = patient
    following = source.frames.__anext__()
    following.send(None)
    with pytest.raises(StopIteration) as stop:
        following.throw(KeyError())
    assert stop.value.value == b"k"


@pytest.mark.skipif(sys.implementation.name == "pypy", reason="PyPy ends no coroutine that is forgotten")
def test_closing_ends_what_waits(wing: Any) -> None:
    closed = []

    async def cleaning() -> Any:
        try:
            return await Asking()
        finally:
            closed.append(True)

    for end in (lambda following: following.close(), lambda following: None):
        source = Source(wing)
        source.wait = cleaning
        following = source.frames.__anext__()
        following.send(None)
        end(following)
        del following
        gc.collect()
        assert closed.pop()


def test_a_fault_comes_where_it_is_awaited(wing: Any) -> None:
    source = Source(wing, b"\1a" + b"\xff" * 5, Varint())
    assert drive(source.frames.__anext__(), []) == ([], b"a")
    for _ in range(2):
        following = source.frames.__anext__()
        with pytest.raises(MalformedFrameError):
            following.send(None)
        with pytest.raises(RuntimeError, match="cannot reuse already awaited"):
            following.send(None)


def test_loops_take_it_for_a_coroutine(wing: Any, run: Runner) -> None:
    async def main() -> None:
        source = Source(wing, b"\1a\1b\1c")
        assert asyncio.iscoroutine(following := source.frames.__anext__())
        assert inspect.isawaitable(following)
        assert await asyncio.wait_for(following, 10) == b"a"
        assert await asyncio.create_task(source.frames.__anext__()) == b"b"
        assert await asyncio.gather(source.frames.__anext__(), source.frames.__anext__()) == [b"c", b"x"]
        assert await asyncio.shield(source.frames.__anext__()) == b"y"
        task = asyncio.get_running_loop().create_task(source.frames.__anext__())
        assert "__anext__" in repr(task) or "NextFrame" in repr(task)
        assert await task == b"x"

    run(main)


def test_a_task_that_is_cancelled_before_it_begins_takes_nothing(wing: Any) -> None:
    """Q1."""
    async def main() -> None:
        source = Source(wing, b"\1a")
        task = asyncio.ensure_future(source.frames.__anext__())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        source.wait = asyncio.Event().wait
        assert await source.frames.__anext__() == b"a"
        task = asyncio.ensure_future(source.frames.__anext__())
        await passes(3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_what_was_awaited_holds_nothing(wing: Any) -> None:
    source = Source(wing, b"\1a")
    known = weakref.ref(source)
    done = source.frames.__anext__()
    assert drive(done, []) == ([], b"a")
    del source
    gc.collect()
    assert known() is None
