"""What type checkers must find: each line is wrong, and says which error each of them has for it. Where one of them
finds none, or another, that comment is the error."""

# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false

import asyncio

import sockframe
from sockframe import Decoder, Encoder, FixedLength, FramedSocket, LengthPrefix, Lines, aio, server


def framings() -> None:
    LengthPrefix("4")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    LengthPrefix(4, "big", True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    FixedLength()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Lines(limit=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Lines().ending = "lf"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    sockframe.framing(4)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def codec() -> None:
    Encoder("lines")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Encoder(Lines()).encode("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Encoder(Lines()).encode_many(["text"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    decoder = Decoder(Lines())
    decoder.decode("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    decoder.position = 3  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    len(decoder.next_frame())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    batch = decoder.next_batch()
    batch[0].upper()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    batch[0] = b""  # type: ignore[index]  # pyright: ignore[reportIndexIssue]


class More(Decoder):  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    """A class of the core that is final, on either wing."""


def sockets(conn: FramedSocket) -> None:
    conn.send("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    conn.send_many([1])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    conn.recv(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    conn.recv(None, 5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    text: str = conn.recv()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(text)
    sockframe.connect(("::1", 7000))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def streams(stream: aio.FramedStream) -> None:
    (await stream.recv()).encode()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    await stream.send("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    stream.recv()  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    for frame in stream:  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        print(frame)


def text(payload: bytes) -> str:
    return payload.decode()


async def servers() -> None:
    server.serve(text, ("::1", 7000), Lines())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await aio.serve(text, ("::1", 7000), Lines())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    asyncio.run(aio.connect(("::1", 7000)))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
