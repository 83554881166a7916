"""Invariant: both wings in step give the same values, the same exceptions (type, text, attributes) and the
same state (need, buffered, position, skipped), for any framing, any calls in any order and any bytes.

And, where the framing keeps its own rule (its answer depends on the bytes alone): frames, the fault and
the state are the same however the stream was cut and whichever calls brought it in, also where the framing is set anew
after a number of frames; what encode() gives decodes to just that payload, or (where a length in the payload was
filled in) to one that encodes to the same frame. All else is a fault, of the wings or of this file.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from sockframe.framings import Framing, LengthField, Tagged, Varint

from .inputs import KEPT, Input, take_framing


def outcome(call: "Callable[[], Any]") -> Any:
    """What a call gives, or raises."""
    try:
        return call()
    except Exception as error:
        return type(error).__name__, str(error), error.__dict__


def state(decoder: Any) -> Any:
    """All that can be seen of a decoder, but what it needs."""
    return decoder.buffered, decoder.position, decoder.skipped


def same(what: str, framings: "list[Framing]", script: Any, one: Any, other: Any) -> None:
    """Raise where two differ."""
    if one != other:
        raise AssertionError(f"{what}: {framings}\n  {script}\n  {one}\n  {other}")


# ---- calls in any order ----

def disguise(data: bytes, form: int) -> Any:
    """The bytes as an argument of another kind."""
    if form == 5 and not len(data) % 2:
        return memoryview(data).cast("H")
    return (data, bytearray(data), memoryview(data), memoryview(b"." + data)[1:], memoryview(data)[::2], data,
            data.decode("latin-1"), None)[form]


def put(decoder: Any, hint: int, data: bytes) -> Any:
    """Bring bytes in through the buffer that is lent."""
    room = decoder.get_buffer(hint)
    size = min(len(room), len(data))
    room[:size] = data[:size]
    return len(room), decoder.buffer_updated(size)


def payloads_of(batch: Any) -> "list[bytes]":
    """What is in a batch, by each of its ways."""
    payloads, buffer = batch.tolist(), bytes(batch.buffer)
    for number, (start, stop) in enumerate(batch.spans.tolist()):
        assert buffer[start:stop] == payloads[number] == batch[number]
    assert len(batch) == len(payloads) and batch.join() == b"".join(payloads)
    return payloads


def lend_and(decoder: Any, call: "Callable[[Any], Any]") -> Any:
    """Ask for a buffer, and do something else than to use it."""
    room = decoder.get_buffer(7)
    room[:] = b"\n1ab\0\1\2"
    return len(room), outcome(lambda: call(decoder)), outcome(lambda: decoder.buffer_updated(3))


def encode_into(wing: Any, framing: Framing, payload: Any, room: int, offset: int) -> Any:
    """Encode into a buffer of some size at some place."""
    buffer = bytearray(room)
    return outcome(lambda: wing.Encoder(framing).encode_into(payload, buffer, offset)), buffer


def frame_of(wing: Any, framing: Framing, payload: bytes) -> bytes:
    """The frame of a payload, or the payload itself where it has none."""
    try:
        return bytes(wing.Encoder(framing).encode(payload))
    except (ValueError, TypeError, KeyError):
        return payload


def take_step(source: Input, framings: "list[Framing]") -> Any:
    """One call, with its arguments: its name, and what does it."""
    number, size = source.take(), source.take()
    form, number = number >> 5, number & 31
    framing = framings[-1]
    if number in (0, 1, 2, 3):
        data = disguise(source.piece(size), form)
        return (f"{('decode', 'feed')[number & 1]}({data!r})",
                lambda _, decoder: (decoder.feed if number & 1 else decoder.decode)(data))
    if number in (4, 5):
        return "next_frame()", lambda _, decoder: decoder.next_frame()
    if number == 6:
        return "list()", lambda _, decoder: list(decoder)
    if number in (7, 8):
        payload = source.piece(size)
        cut = form * len(payload) // 4
        return f"frame of {payload!r} cut at {cut}", lambda wing, decoder: [
            outcome(partial(decoder.decode, part))
            for frame in (frame_of(wing, framing, payload),) for part in (frame[:cut], frame[cut:])]
    if number in (9, 10):
        data = source.piece(size)
        hint = (-1, 0, len(data), len(data) + 3, 3, 70000, 2**70, 1)[form]
        return f"get_buffer({hint}), {data!r}", lambda _, decoder: put(decoder, hint, data)
    if number == 11:
        return "finish()", lambda _, decoder: decoder.finish()
    if number == 12:
        return "take_buffered()", lambda _, decoder: decoder.take_buffered()
    if number in (13, 14):
        framings.append(take_framing(source))
        return f"framing = {framings[-1]!r}", lambda _, decoder: setattr(decoder, "framing", framings[-1])
    if number == 15:
        call = (lambda decoder: decoder.buffer_updated(-1), lambda decoder: decoder.buffer_updated(8),
                lambda decoder: decoder.decode(b"ab1"), lambda decoder: decoder.next_frame(),
                lambda decoder: len(decoder.get_buffer(2)), lambda decoder: decoder.feed(b"1\n"),
                lambda decoder: decoder.finish(), lambda decoder: decoder.take_buffered())[form]
        return f"get_buffer(7), {form}, buffer_updated(3)", lambda _, decoder: lend_and(decoder, call)
    if number == 16:
        wrong = (None, "lines", 3, Framing)[form & 3]
        return f"framing = {wrong!r}", lambda _, decoder: setattr(decoder, "framing", wrong)
    if number in (17, 18):
        payload = disguise(source.piece(size), form)
        return f"encode({payload!r})", lambda wing, _: wing.Encoder(framing).encode(payload)
    if number == 19:
        payloads = [source.piece(size % 32), source.piece(form), disguise(source.piece(size // 32), form)]
        return f"encode_many({payloads!r})", lambda wing, _: wing.Encoder(framing).encode_many(payloads)
    if number == 20:
        payload, offset, room = source.piece(size % 64), source.take() - 4, source.take()
        return (f"encode_into({payload!r}, bytearray({room}), {offset})",
                lambda wing, _: encode_into(wing, framing, payload, room, offset))
    if number == 21:
        data = source.piece(size) * 200
        return f"decode({data!r})", lambda _, decoder: decoder.decode(data)
    if number in (22, 23):
        data = disguise(source.piece(size), form)
        return f"decode_batch({data!r})", lambda _, decoder: payloads_of(decoder.decode_batch(data))
    if number == 24:
        return "next_batch()", lambda _, decoder: payloads_of(decoder.next_batch())
    return "need", lambda _, decoder: decoder.need


def check_calls(source: Input, wings: "list[Any]") -> None:
    """Make the same calls on every wing, and compare after each."""
    framings = [take_framing(source)]
    decoders = [wing.Decoder(framings[0]) for wing in wings]
    script = []
    for _ in range(40):
        if not source.left:
            break
        name, step = take_step(source, framings)
        script.append(name)
        gives = [(outcome(partial(step, wing, decoder)), state(decoder))
                 for wing, decoder in zip(wings, decoders, strict=True)]
        for other in gives[1:]:
            same("the wings differ", framings, script, gives[0], other)


# ---- the same stream, cut and brought in otherwise ----

class Reader:
    """Reads one stream: `turns` are the framings, each but the last for a number of frames."""

    def __init__(self, wing: Any, turns: "list[tuple[Framing, int]]") -> None:
        self.turns = turns[1:]
        self.left = turns[0][1]
        self.decoder = wing.Decoder(turns[0][0])
        self.frames: list[bytes] = []
        self.fault: Any = None

    def run(self, call: "Callable[[], list[bytes]]") -> None:
        """Keep the frames that a call gives, or the fault."""
        gives = outcome(call)
        if isinstance(gives, list):
            assert self.fault is None or not gives, "frames behind a fault"
            self.frames += gives
        else:
            assert self.fault is None or self.fault == gives, f"a fault is final: {self.fault}, {gives}"
            self.fault = gives

    def each(self) -> "list[bytes]":
        """Take frames one by one; set the framing anew when its number is reached."""
        while (frame := self.decoder.next_frame()) is not None:
            self.frames.append(frame)
            self.left -= 1
            if not self.left and self.turns:
                framing, self.left = self.turns.pop(0)
                self.decoder.framing = framing
        return []

    def decode(self, data: bytes) -> None:
        """By decode(), which may find all."""
        self.run(lambda: self.decoder.decode(data))

    def batch(self, data: bytes) -> None:
        """By decode_batch(), likewise."""
        self.run(lambda: payloads_of(self.decoder.decode_batch(data)))

    def feed_batch(self, data: bytes) -> None:
        """By feed() and next_batch()."""
        def bring() -> "list[bytes]":
            self.decoder.feed(data)
            return payloads_of(self.decoder.next_batch())
        self.run(bring)

    def feed(self, data: bytes) -> None:
        """By feed(), and one by one."""
        if self.fault is None:
            self.decoder.feed(data)
        self.run(self.each)

    def update(self, data: bytes) -> None:
        """Through the buffer that is lent, and one by one."""
        if self.fault is None and data:
            while data:
                room = self.decoder.get_buffer(len(data))
                size = min(len(room), len(data))
                room[:size] = data[:size]
                self.decoder.buffer_updated(size)
                data = data[size:]
        self.run(self.each)

    def seen(self) -> Any:
        """All that was given, and the state."""
        need = self.decoder.need
        assert need == self.decoder.need
        return self.frames[:], self.fault, state(self.decoder), need

    def read(self, bring: "Callable[[bytes], None]", chunks: "list[bytes]") -> Any:
        """Read the chunks and the end; return what is seen before it, and after."""
        for chunk in chunks:
            bring(chunk)
        if self.fault is None:
            ahead = bring in (self.decode, self.batch, self.feed_batch)
            self.run(lambda: self.decoder.decode(b"") if ahead else self.each())
        before = self.seen()
        for _ in range(2):
            self.run(self.decoder.finish)
        return before, self.seen()


def check_cuts(source: Input, wings: "list[Any]") -> None:
    """Read one stream whole and cut, by every way in, on every wing."""
    turns = [(take_framing(source), 0)]
    for _ in range(source.take() % 4 if source.flag() else 0):
        turns[-1] = (turns[-1][0], 1 + source.take() % 3)
        turns.append((take_framing(source), 0))
    if source.rude:
        return
    sizes = [source.take() for _ in range(source.take() % 16)]
    stream = source.piece(1 << 20)
    chunks, at = [], 0
    for size in sizes:
        chunks.append(stream[at:at + size])
        at += size
    chunks.append(stream[at:])
    single = [stream[i:i + 1] for i in range(len(stream))] if len(stream) < 64 else chunks
    framings = [framing for framing, _ in turns]
    ways = ("decode", "batch", "feed_batch", "feed", "update") if len(turns) == 1 else ("feed", "update")
    first = None
    for wing in wings:
        for way in ways:
            for cut in ([stream], chunks, single):
                reader = Reader(wing, turns)
                seen = reader.read(getattr(reader, way), cut)
                if first is None:
                    first = seen
                same(f"{wing.__name__}, {way}, {[*map(len, cut)]}", framings, stream, first, seen)


# ---- round trip ----

def check_round_trip(source: Input, wings: "list[Any]") -> None:
    """Encode a payload, and decode what that gives."""
    framing = take_framing(source)
    payload = source.piece(1 << 20)
    if source.rude:
        return
    for wing in wings:
        encoder, decoder = wing.Encoder(framing), wing.Decoder(framing)
        try:
            frame = encoder.encode(payload)
        except ValueError:
            continue
        back = decoder.decode(frame) + decoder.finish()
        if back != [payload] and isinstance(framing, LengthField | Varint | Tagged) and len(back) == 1:
            back, payload, frame = [encoder.encode(back[0])], frame, b""
        same(f"{wing.__name__}, round trip", [framing], frame, back, [payload])


def check(data: bytes, wings: "list[Any]") -> None:
    """Hold one input to the invariant."""
    source = Input(data)
    how = source.take()
    part = check_calls if how & 1 else check_round_trip if how & 6 == 6 else check_cuts
    try:
        part(source, wings)
    finally:
        for view in KEPT:
            bytes(view)  # memory lent out stays valid
        KEPT.clear()
