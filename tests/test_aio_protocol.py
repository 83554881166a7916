"""FrameProtocol: frames as callbacks."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Any

import pytest
from aio_ends import Ends, Runner, contexts, ends, in_thread, passes, run, to_end, until
from scripted import Bracketed, noise, over_tcp, reset

from sockframe import Delimiter, IncompleteFrameError, LengthPrefix, Lines, MalformedFrameError, UntilClose
from sockframe.aio import FrameProtocol

__all__ = ["contexts", "ends", "run"]  # fixtures


class Noting(FrameProtocol):
    """Notes what it is called with."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.notes: list[Any] = []

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.notes.append("made")

    def frames_received(self, frames: list[bytes]) -> None:
        self.notes += frames

    def end_received(self) -> None:
        self.notes.append("end")
        super().end_received()

    def fault_received(self, error: Exception) -> None:
        self.notes.append(type(error))
        super().fault_received(error)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.notes.append("lost" if exc is None else type(exc))


async def over(protocol: Any) -> tuple[Any, socket.socket]:
    """Connect a protocol with a socket."""
    left, right = over_tcp()
    await asyncio.get_running_loop().create_connection(lambda: protocol, sock=left)
    return protocol, right


@pytest.mark.parametrize(("framing", "wire", "notes"), [
    (Lines(), b"one\r\n\ntwo\n", [b"one", b"", b"two", "end"]),
    (Lines(), b"one\ntw", [b"one", IncompleteFrameError]),
    (Lines("crlf"), b"one\r\ntwo\nthree\r\n", [b"one", MalformedFrameError]),
    (Delimiter(b"\n", tail="deliver"), b"one\ntw", [b"one", b"tw", "end"]),
    (UntilClose(), b"all", [b"all", "end"]),
    (Bracketed(), Bracketed().wrap(b"own"), [b"own", "end"]),
], ids=["lines", "cut off", "bad", "tail", "all", "own"])
def test_what_is_called_and_in_which_order(run: Runner, ends: Ends, framing: Any, wire: bytes,
                                           notes: list[Any]) -> None:
    async def main() -> None:
        for pieces in ([wire], [wire[at:at + 1] for at in range(len(wire))]):
            protocol, peer = await over(Noting(framing))
            with peer:
                with suppress(OSError):  # a fault closes it
                    for piece in pieces:
                        peer.sendall(piece)
                        await passes(3)
                    peer.shutdown(socket.SHUT_WR)
                await until(lambda: protocol.lost)  # noqa: B023
                await passes(2)
                assert protocol.notes == ["made", *notes, "lost"]
                with suppress(ConnectionError):
                    assert await to_end(peer) == b""

    run(main)


@pytest.mark.parametrize("tls", [False, True])
def test_an_echo_server(run: Runner, ends: Ends, tls: bool) -> None:
    class Echo(FrameProtocol):
        def frames_received(self, frames: list[bytes]) -> None:
            self.send_many(frames)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Echo(LengthPrefix()), "127.0.0.1", 0,
                                          ssl=ends.contexts[1] if tls else None)
        payloads = [noise(size) for size in (0, 1, 100, 70_000, 300_000)]
        received = []
        done = asyncio.Event()

        class Client(FrameProtocol):
            def frames_received(self, frames: list[bytes]) -> None:
                received.extend(frames)
                if len(received) == 2 * len(payloads):
                    done.set()

        _, client = await loop.create_connection(
            lambda: Client(LengthPrefix()), *server.sockets[0].getsockname(), ssl=ends.contexts[0] if tls else None,
            server_hostname="localhost" if tls else None)
        for payload in payloads:
            client.send(payload)
        client.send_many(iter(payloads))
        await done.wait()
        assert received == payloads * 2
        client.close()
        client.close()
        with pytest.raises(ConnectionError):
            client.send(b"x")
        with pytest.raises(ConnectionError):
            client.send_many([b"x"])
        await until(lambda: client.lost)
        server.close()
        await passes(20)
        await asyncio.sleep(0.02)

    run(main)


@pytest.mark.parametrize("what", ["frames_received", "end_received", "fault_received", "measure"])
def test_an_exception_in_a_callback_costs_its_connection_alone(run: Runner, ends: Ends, what: str) -> None:
    """Q12: it is told, nothing more is called but connection_lost, and nothing is delivered twice."""
    class Broken(Bracketed):
        def measure(self, view: memoryview) -> Any:
            if what == "measure" and b"bad" in bytes(view):
                raise KeyError("broken")
            return super().measure(view)

    class Breaking(Noting):
        def frames_received(self, frames: list[bytes]) -> None:
            super().frames_received(frames)
            if what == "frames_received" and b"bad" in frames:
                raise KeyError("broken")

        def end_received(self) -> None:
            super().end_received()
            raise KeyError("broken")

        def fault_received(self, error: Exception) -> None:
            super().fault_received(error)
            raise KeyError("broken")

    wire = Bracketed().wrap(b"good"), Bracketed().wrap(b"bad") + Bracketed().wrap(b"more")

    async def main() -> None:
        protocol, peer = await over(Breaking(Broken()))
        with peer:
            peer.sendall(wire[0])
            await until(lambda: protocol.notes[1:])
            if what in ("frames_received", "measure"):
                peer.sendall(wire[1])
            elif what == "fault_received":
                peer.sendall(b"no bracket")
            else:
                peer.shutdown(socket.SHUT_WR)
            await until(lambda: protocol.lost)
            await passes(3)
        frames = {"frames_received": [b"bad", b"more"], "measure": []}
        middle = frames.get(what, ["end"] if what == "end_received" else [MalformedFrameError])
        assert protocol.notes == ["made", b"good", *middle, "lost"]

    run(main)
    assert [repr(told["exception"]) for told in run.told] == ["KeyError('broken')"]
    assert "the connection is closed" in run.told[0]["message"]
    run.told.clear()


def test_frames_wait_while_reading_is_paused(run: Runner, ends: Ends) -> None:
    class Pausing(Noting):
        def frames_received(self, frames: list[bytes]) -> None:
            super().frames_received(frames)
            self.pause_reading()

    async def main() -> None:
        protocol, peer = await over(Pausing(Lines()))
        with peer:
            peer.sendall(b"one\ntwo\n")
            await until(lambda: protocol.notes[1:])
            peer.sendall(b"three\n")
            peer.shutdown(socket.SHUT_WR)
            await asyncio.sleep(0.01)
            assert protocol.notes == ["made", b"one", b"two"]
            protocol.resume_reading()
            await until(lambda: protocol.notes[3:])
            protocol.resume_reading()
            await until(lambda: protocol.lost)
            await passes(2)
            assert protocol.notes == ["made", b"one", b"two", b"three", "end", "lost"]

    run(main)


def test_a_connection_that_is_reset_has_no_end(run: Runner, ends: Ends) -> None:
    async def main() -> None:
        protocol, peer = await over(Noting(Lines()))
        peer.sendall(b"one\ntwo\nthr")
        await until(lambda: protocol.notes[1:])
        reset(peer)
        await until(lambda: protocol.lost)
        assert protocol.notes == ["made", b"one", b"two", ConnectionResetError]
        with pytest.raises(ConnectionError):
            protocol.send(b"x")
        protocol.close()

    run(main)


def test_it_tells_when_the_peer_does_not_read(run: Runner, ends: Ends) -> None:
    class Told(Noting):
        def pause_writing(self) -> None:
            super().pause_writing()
            self.notes.append("pause")

        def resume_writing(self) -> None:
            super().resume_writing()
            self.notes.append("resume")

    async def main() -> None:
        protocol, peer = await over(Told(LengthPrefix(), write_limit=1000))
        with peer:
            while "pause" not in protocol.notes:
                protocol.send(noise(100_000))
                await passes(1)
            protocol.close()
            received = await to_end(peer)
            assert len(received) % 100_004 == 0
            await until(lambda: protocol.lost)
            assert protocol.notes.count("pause") >= 1

    run(main)


def test_the_framing_changes(run: Runner, ends: Ends) -> None:
    class Switching(Noting):
        def frames_received(self, frames: list[bytes]) -> None:
            super().frames_received(frames)
            if frames[-1] == b"switch":
                self.framing = LengthPrefix(1)
                self.send(b"ok")

    async def main() -> None:
        protocol, peer = await over(Switching(Lines()))
        with peer:
            assert protocol.framing == Lines()
            peer.sendall(b"switch\n")
            assert await in_thread(peer.recv, 100) == b"\2ok"
            peer.sendall(b"\3one")
            await until(lambda: protocol.notes[2:])
            assert protocol.notes == ["made", b"switch", b"one"]
            protocol.close()
            await until(lambda: protocol.lost)

    run(main)


def test_the_room_that_a_transport_is_lent(run: Runner, ends: Ends) -> None:
    """Q13, J15: a writable memoryview, never empty: for any hint, behind a fault, and once it is closed."""
    async def main() -> None:
        for tls in (None, object()):
            protocol = Noting(Lines("crlf"))
            for state in ("open", "fault", "closed"):
                if state == "fault":
                    protocol.decoder.feed(b"bare\n")
                    with pytest.raises(MalformedFrameError):
                        protocol.decoder.next_frame()
                protocol.deaf |= state == "closed"
                protocol.tls = tls
                protocol.parting = True
                for hint in (-1, 0, 1, 65_536, 65_537, 300_000):
                    room = protocol.get_buffer(hint)
                    assert type(room) is memoryview and not room.readonly and len(room) >= 65_536
                    # asyncio loses what TLS can't put there at once, where the peer's stream has ended.
                    assert tls is None or state != "open" or len(room) >= hint
        await passes(1)

    run(main)
