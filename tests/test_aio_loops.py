"""Loops, threads and servers: what goes wrong around a stream, and costs it alone."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import warnings
import weakref
from typing import Any

import pytest
from aio_ends import FRAMING, LOOPS, OVER, Ends, Runner, contexts, ends, in_thread, new_loop, passes, run, until
from scripted import Bracketed, Task, noise, over_tcp

from sockframe import (
    Delimiter,
    EndOfStream,
    Frame,
    Framing,
    FramingError,
    IncompleteFrameError,
    LengthPrefix,
    Lines,
    MalformedFrameError,
    UntilClose,
    aio,
)

__all__ = ["contexts", "ends", "run"]  # fixtures


def test_another_loop_or_thread_is_refused(run: Runner, ends: Ends) -> None:
    """Q9: and the task that waits is unharmed."""
    async def main() -> None:
        async with ends.raw() as (stream, peer):
            waiting = asyncio.ensure_future(stream.recv())
            await passes(2)

            async def iterate() -> None:
                async for _ in stream:
                    pass

            calls = [stream.recv, stream.recv_many, stream.recv_batch, iterate, lambda: stream.send(b"x"),
                     lambda: stream.send_many([b"x"]), lambda: stream.send_many(iter([b"x"])), stream.drain,
                     stream.wait_closed, stream.detach, lambda: stream.start_tls(ends.contexts[0])]

            def elsewhere(call: Any) -> None:
                loop = new_loop("asyncio")
                try:
                    with pytest.raises(RuntimeError, match="FramedStream belongs to another event loop"):
                        loop.run_until_complete(call())
                finally:
                    loop.close()

            for call in calls:
                await in_thread(elsewhere, call)
            for plain in (stream.close, stream.write_eof):
                with pytest.raises(RuntimeError, match=r"another event loop|no running event loop"):
                    await in_thread(plain)
            peer.sendall(b"\0\0\0\3one")
            assert await waiting == b"one"
            peer.setblocking(False)
            with pytest.raises(BlockingIOError):
                peer.recv(1)

    run(main)


@pytest.mark.parametrize("kind", ["asyncio", "asyncio, debug", "uvloop"])
def test_a_loop_that_is_closed_while_a_task_waits(ends: Ends, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Q10: asyncio tells of its task and its transport; nothing else is told, and all is freed."""
    loop = new_loop(kind)
    told: list[Any] = []
    loop.set_exception_handler(lambda _, context: told.append(context["message"]))

    async def main() -> tuple[Any, Any, Any]:
        left, right = over_tcp()
        stream = await aio.attach(ends.wing.FramedSocket(left, FRAMING))
        tasks = [loop.create_task(stream.recv()), loop.create_task(stream.wait_closed())]
        await passes(3)
        right.sendall(b"\0\0\0\5hal")
        await until(lambda: stream.pending() == 7)
        return stream, tasks, right

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stream, tasks, peer = loop.run_until_complete(main())
        reference = weakref.ref(stream)
        loop.close()
        stream.close()
        stream.close()
        assert "closed" in repr(stream)
        peer.close()
        del stream, tasks
        gc.collect()
        gc.collect()
        assert reference() is None
    assert all("unclosed" in str(warning.message) for warning in caught), [str(each.message) for each in caught]
    assert set(told) <= {"Task was destroyed but it is pending!"}
    assert caplog.records == []


def test_an_exception_of_an_own_framing_changes_nothing(run: Runner, ends: Ends) -> None:
    """I4."""
    class Moody(Bracketed):
        def measure(self, view: memoryview) -> Any:
            if moods:
                raise moods.pop()
            return super().measure(view)

    moods: list[Exception] = []

    async def main() -> None:
        async with ends.raw(Moody()) as (stream, peer):
            peer.sendall(Bracketed().wrap(b"one") + Bracketed().wrap(b"two"))
            await until(lambda: stream.pending() == 20)
            for call in (stream.recv, stream.recv_many, stream.recv_batch, stream.__anext__):
                moods.append(KeyError("mood"))
                with pytest.raises(KeyError, match="mood"):
                    await call()
            assert await stream.recv_many() == [b"one", b"two"]

    run(main)


def test_frames_in_front_of_an_exception_are_kept(run: Runner, ends: Ends) -> None:
    class Third(Framing):
        def measure(self, view: memoryview) -> Any:
            if bytes(view[:1]) == b"!" and moods:
                raise moods.pop()
            return Frame(1)

        def wrap(self, payload: bytes) -> bytes:
            return payload

    moods: list[Exception] = [KeyError("mood")]

    async def main() -> None:
        async with ends.raw(Third()) as (stream, peer):
            peer.sendall(b"ab!c")
            await until(lambda: stream.pending() == 4)
            with pytest.raises(KeyError):
                await stream.recv_many(100)
            assert stream.pending() == 4
            assert await stream.recv() == b"a"
            assert await stream.recv_many() == [b"b"]
            assert await stream.recv_many() == [b"!", b"c"]

    run(main)


@pytest.mark.parametrize("over", OVER)
def test_a_handler_that_raises_costs_its_connection_alone(run: Runner, ends: Ends, over: str) -> None:
    async def handler(stream: Any) -> None:
        async for payload in stream:
            await stream.send(payload)
            if payload == b"bad":
                raise LookupError("it is bad")

    async def main() -> None:
        async with ends.serving(handler, over=over) as server:
            one, other = [await ends.connected(server, over=over) for _ in range(2)]
            await one.send(b"bad")
            await other.send(b"good")
            assert [frame async for frame in one] == [b"bad"]
            assert await other.recv() == b"good"
            await until(lambda: server.connections == 1)
            for stream in (one, other):
                stream.close()
                await stream.wait_closed()

    run(main)
    (told,) = run.told
    assert isinstance(told["exception"], LookupError)
    assert told["message"].startswith("the handler of a connection has failed")
    run.told.clear()


def test_the_end_is_no_failure_of_a_handler_and_a_fault_is(run: Runner, ends: Ends) -> None:
    async def handler(stream: Any) -> None:
        while True:
            await stream.send(await stream.recv())

    async def main() -> None:
        async with ends.serving(handler, Lines("crlf")) as server:
            async with await ends.connected(server, Lines("crlf")) as stream:
                await stream.send(b"x")
                assert await stream.recv() == b"x"
            await until(lambda: server.connections == 0)
            assert run.told == []
            async with await ends.connected(server, Lines("lf")) as stream:
                await stream.send(b"bare")
                with pytest.raises(EndOfStream):
                    await stream.recv()

    run(main)
    assert [type(told["exception"]) for told in run.told] == [MalformedFrameError]
    run.told.clear()


def test_a_server_ends_gracefully(run: Runner, ends: Ends) -> None:
    """Every frame that has arrived is answered, then the handlers see the end."""
    ended = []

    async def handler(stream: Any) -> None:
        async for payload in stream:
            await stream.send(payload.upper())
        ended.append(stream)

    async def main() -> None:
        async with ends.serving(handler) as server:
            assert server.is_serving()
            assert server.get_loop() is asyncio.get_running_loop()
            assert server.sockets[0].getsockname() == server.address
            serving = asyncio.ensure_future(server.serve_forever())
            clients = [await ends.connected(server) for _ in range(3)]
            for client in clients:
                await client.send(b"first")
                assert await client.recv() == b"FIRST"
                await client.send_many([b"a", b"b"])
            await until(lambda: server.connections == 3)
            await asyncio.sleep(0.01)
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
            assert server.connections == 0
            assert not server.is_serving()
            for client in clients:
                assert [frame async for frame in client] == [b"A", b"B"]
                client.close()
                await client.wait_closed()
            assert len(ended) == 3

    run(main)


def test_handlers_can_be_cut_off(run: Runner, ends: Ends) -> None:
    """A handler that is cancelled has its connection cut off, which is not told as a failure."""
    cancelled = []

    async def handler(stream: Any) -> None:
        try:
            await stream.send(noise(4_000_000))
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(stream)
            raise

    async def main() -> None:
        async with ends.serving(handler) as server:
            client = await ends.connected(server)
            await until(lambda: server.connections == 1)
            await asyncio.sleep(0.01)
            server.close()
            server.close_clients()
            server.abort_clients()
            await server.wait_closed()
            assert len(cancelled) == 1
            client.transport.abort()
            client.close()
            await client.wait_closed()

    run(main)


def test_handlers_may_be_any_callable_that_gives_an_awaitable(run: Runner, ends: Ends) -> None:
    class Handler:
        async def __call__(self, stream: Any) -> None:
            await stream.send(b"hello")

    async def main() -> None:
        async with ends.serving(Handler()) as server, await ends.connected(server) as client:
            assert [frame async for frame in client] == [b"hello"]

    run(main)


def test_a_connect_that_is_cancelled_or_fails_leaves_nothing(run: Runner, ends: Ends) -> None:
    async def main() -> None:
        async with ends.serving(lambda stream: stream.recv(), over="tls") as server:
            for delay in range(8):
                task = asyncio.ensure_future(ends.connected(server, over="tls"))
                await passes(delay)
                task.cancel()
                await asyncio.wait([task])
                if not task.cancelled() and task.exception() is None:
                    task.result().close()
            with pytest.raises(OSError):
                await aio.connect(server.address, FRAMING, tls=ends.contexts[0], server_hostname="elsewhere")
            gc.collect()

    run(main)
    for told in run.told:
        assert isinstance(told.get("exception"), (OSError, type(None))), told
    run.told.clear()


@pytest.mark.parametrize("carry", [0, 5, 100_000])
def test_tls_begins_in_the_midst_of_a_stream(run: Runner, ends: Ends, carry: int) -> None:
    """N8: on both sides; the beginning of the peer's TLS may be here already, and be carried into it."""
    async def main() -> None:
        async with ends.pair(Lines()) as (client, server):
            await client.send(b"STARTTLS")
            assert await server.recv() == b"STARTTLS"
            await server.send(b"go ahead")
            assert await client.recv() == b"go ahead"
            beginning = asyncio.ensure_future(client.start_tls(ends.contexts[0], server_hostname="localhost"))
            if carry:
                await until(lambda: server.pending() > 0)
                with pytest.raises(FramingError, match="bytes of the peer's are here already"):
                    await server.start_tls(ends.contexts[1], server_side=True)
                held = server.pending()
                assert await server.start_tls(ends.contexts[1], "carry", server_side=True) == held
            else:
                assert await server.start_tls(ends.contexts[1], server_side=True) == 0
            assert await beginning == 0
            for stream in (client, server):
                assert stream.get_extra_info("ssl_object").version().startswith("TLS")
                with pytest.raises(ValueError, match="under TLS already"):
                    await stream.start_tls(ends.contexts[0], server_hostname="localhost")
                with pytest.raises(OSError, match="under TLS"):
                    stream.write_eof()
                with pytest.raises(ValueError, match="under TLS can't change hands"):
                    await stream.detach()
            sending = asyncio.ensure_future(client.send_many([b"x" * carry, b"secret"]))
            assert [await server.recv(), await server.recv()] == [b"x" * carry, b"secret"]
            await sending
            await server.send(b"answer")
            assert await client.recv() == b"answer"

    run(main)


def test_an_overlong_frame_that_is_passed_over_is_no_place_to_begin(run: Runner, ends: Ends) -> None:
    """N8: no byte of it is held, and yet it is not at its end."""
    async def main() -> None:
        async with ends.raw(LengthPrefix(max_length=5, overlong="skip")) as (stream, peer):
            receiving = asyncio.ensure_future(stream.recv())
            peer.sendall(b"\0\0\0\x09six")
            await passes(5)
            receiving.cancel()
            await asyncio.wait([receiving])
            assert stream.pending() == 0
            with pytest.raises(FramingError, match="0 bytes of the peer's are here already"):
                await stream.start_tls(ends.contexts[0], server_hostname="localhost")
            peer.sendall(b"abcdef\0\0\0\2go")
            assert await stream.recv() == b"go"

    run(main)


def test_bytes_from_before_tls_are_refused_or_discarded(run: Runner, ends: Ends) -> None:
    """N8: what someone between put in is not taken for what came under TLS."""
    async def main() -> None:
        async with ends.raw(Lines(), over_tcp) as (stream, peer):
            peer.sendall(b"go ahead\nput in by someone\n")
            assert await stream.recv() == b"go ahead"
            await passes(2)
            for wrong, kind in (({"leftover": "keep"}, ValueError), ({"context": 3}, TypeError),
                                ({"server_hostname": None}, ValueError), ({}, FramingError)):
                with pytest.raises(kind):
                    await stream.start_tls(**{"context": ends.contexts[0], "server_hostname": "localhost", **wrong})
            assert stream.pending() == 18
            other = ends.wing.FramedSocket(peer.dup(), Lines())
            task = Task(other.start_tls, ends.contexts[1], server_side=True, timeout=10)
            assert await stream.start_tls(ends.contexts[0], "discard", server_hostname="localhost") == 18
            await in_thread(task.result)
            await in_thread(other.send, b"true")
            assert await stream.recv() == b"true"
            other.close()

    run(main)


def test_a_handshake_that_fails_closes(run: Runner, ends: Ends) -> None:
    async def main() -> None:
        for last in (b"no TLS at all, but something longer\n", b""):
            async with ends.raw(Lines(), over_tcp) as (stream, peer):
                beginning = asyncio.ensure_future(stream.start_tls(ends.contexts[0], server_hostname="localhost"))
                assert await in_thread(peer.recv, 1) == b"\x16"
                peer.sendall(last)
                peer.close()
                with pytest.raises(OSError):
                    await beginning
                with pytest.raises(OSError):
                    await stream.recv()
                await stream.wait_closed()

    run(main)


@pytest.mark.parametrize("clean", [True, False])
def test_an_end_of_tls_is_told_by_its_place(run: Runner, ends: Ends, clean: bool) -> None:
    """E8, N7: between frames it is clean; a frame that the end alone makes needs TLS's own word."""
    async def main() -> None:
        for framing, payload, rest, outcome in (
                (LengthPrefix(), b"one", b"", EndOfStream),
                (LengthPrefix(), b"one", b"\0\0", IncompleteFrameError),
                (Delimiter(b"\n", tail="deliver"), b"one", b"tail", b"tail" if clean else IncompleteFrameError),
                (UntilClose(), None, b"all", b"all" if clean else IncompleteFrameError)):
            async with ends.pair(framing, over="tls") as (client, server):
                if payload is not None:
                    await server.send(payload)
                server.transport.write(rest)
                if clean:
                    server.close()
                else:
                    await asyncio.sleep(0.01)
                    server.transport.abort()
                if payload is not None:
                    assert await client.recv() == payload
                for _ in range(2):
                    if isinstance(outcome, bytes):
                        assert await client.recv() == outcome
                        outcome = EndOfStream
                    with pytest.raises(outcome):
                        await client.recv()
                with pytest.raises(ConnectionError):
                    await client.send(b"x")
                server.close()

    run(main)


def test_much_that_came_before_the_end_of_tls_is_received(run: Runner, ends: Ends) -> None:
    """What is in asyncio's buffers when the peer has gone, while reading was paused."""
    async def main() -> None:
        payloads = [noise(9000, number) for number in range(60)]
        async with ends.pair(over="tls", read_limit=10_000) as (client, server):
            sending = asyncio.ensure_future(server.send_many(payloads))
            await until(lambda: client.pending() > 10_000)
            await sending
            server.close()
            await asyncio.sleep(0.02)
            assert [frame async for frame in client] == payloads

    run(main)


def test_every_kind_of_loop_is_tested(run: Runner, ends: Ends) -> None:
    """Q11: asyncio's and uvloop's, in debug mode and with eager tasks; every test here runs on each."""
    eager = sys.version_info >= (3, 12)
    assert ["asyncio", "asyncio, debug", "uvloop", *(["asyncio, eager"] if eager else [])] == LOOPS

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert type(loop).__module__.startswith(run.kind.partition(",")[0])
        assert loop.get_debug() == run.kind.endswith("debug")
        task = asyncio.ensure_future(asyncio.sleep(0, 3))
        assert (loop.get_task_factory() is not None) == run.kind.endswith("eager")
        assert await task == 3

    run(main)


def test_threads_are_none(run: Runner, ends: Ends) -> None:
    """No thread is made for a stream."""
    before = threading.active_count()

    async def main() -> None:
        async with ends.pair(over="unix") as (client, server):
            await client.send(b"x")
            assert await server.recv() == b"x"
            assert threading.active_count() == before

    run(main)
