"""Law 3, twins: the same calls on either wing give the same values, the same exceptions and the same state."""

from itertools import islice
from typing import Any

from conftest import WINGS, load_wing
from generate import BYTES, FRAMING_AND_PAYLOADS, FRAMINGS, outcome, payload_of, stream_of
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sockframe.framings import Framing

#: What is no bytes-like object, no count and no framing.
WRONG = st.sampled_from([None, "text", 1.5, [1], memoryview(b"abcd")[::2], object])


class Step(RuleBasedStateMachine):
    """A decoder and an encoder of each wing, in step."""

    def __init__(self) -> None:
        super().__init__()
        self.wings = [load_wing(name) for name in WINGS]

    @initialize(framing=FRAMINGS)
    def begin(self, framing: Framing) -> None:
        self.framing = framing
        self.decoders = [wing.Decoder(framing) for wing in self.wings]
        self.encoders = [wing.Encoder(framing) for wing in self.wings]

    def both(self, call: Any) -> Any:
        """Do the same with each decoder; return what the first did."""
        first, *others = [outcome(call, decoder) for decoder in self.decoders]
        assert all(other == first for other in others), (first, others)
        return first

    # ---- bytes in ----

    @rule(data=st.data(), one_by_one=st.booleans())
    def decode(self, data: Any, one_by_one: bool) -> None:
        stream = data.draw(stream_of(self.framing))
        for piece in [stream[i:i + 1] for i in range(len(stream))] if one_by_one else [stream]:
            self.both(lambda decoder, piece=piece: decoder.decode(piece))

    @rule(data=st.data())
    def feed(self, data: Any) -> None:
        stream = data.draw(stream_of(self.framing))
        self.both(lambda decoder: decoder.feed(bytearray(stream)))

    @rule(data=BYTES)
    def feed_anything(self, data: bytes) -> None:
        self.both(lambda decoder: decoder.feed(memoryview(data)))

    @rule(data=st.data(), hint=st.sampled_from([-1, 0, 1, 5, 40, 70_000, 10**30]), more=st.sampled_from([0, 0, 0, 1]))
    def update(self, data: Any, hint: int, more: int) -> None:
        stream = data.draw(stream_of(self.framing))

        def write(decoder: Any) -> int:
            room = decoder.get_buffer(hint)
            size = min(len(room), len(stream))
            room[:size] = stream[:size]
            if more:
                decoder.next_frame()
            decoder.buffer_updated(size)
            return len(room)
        self.both(write)

    @rule(hint=st.sampled_from([-1, 3]))
    def only_borrow(self, hint: int) -> None:
        self.both(lambda decoder: len(decoder.get_buffer(hint)))

    @rule(count=st.sampled_from([-1, 0, 65537 * 2, 2**63, 2**70]))
    def only_update(self, count: int) -> None:
        """With no byte, or more than there ever is room for."""
        self.both(lambda decoder: decoder.buffer_updated(count))

    # ---- frames out ----

    @rule()
    def next_frame(self) -> None:
        self.both(lambda decoder: decoder.next_frame())

    @rule(most=st.integers(1, 4))
    def iterate(self, most: int) -> None:
        self.both(lambda decoder: list(islice(iter(decoder), most)))

    @rule()
    def take_buffered(self) -> None:
        self.both(lambda decoder: decoder.take_buffered())

    @rule(sure=st.integers(0, 3))
    def finish(self, sure: int) -> None:
        if not sure:
            self.both(lambda decoder: decoder.finish())

    @rule(framing=FRAMINGS)
    def switch(self, framing: Framing) -> None:
        """Also in mid-frame, and in the middle of one that is passed over."""
        how = self.both(lambda decoder: setattr(decoder, "framing", framing))
        if how[0] == "gives":
            self.framing = framing

    @rule(value=WRONG)
    def misuse(self, value: Any) -> None:
        for call in (lambda decoder: decoder.decode(value), lambda decoder: decoder.feed(value),
                     lambda decoder: setattr(decoder, "framing", value), lambda decoder: decoder.get_buffer(value),
                     lambda decoder: decoder.buffer_updated(value)):
            assert self.both(call)[0] == "raises"

    # ---- payloads in ----

    @rule(data=st.data(), spare=st.integers(-2, 2), offset=st.integers(-1, 3))
    def encode(self, data: Any, spare: int, offset: int) -> None:
        payloads = data.draw(st.lists(payload_of(self.encoders[0].framing) | BYTES, max_size=3))
        results = []
        for encoder in self.encoders:
            one = [outcome(encoder.encode, payload) for payload in payloads]
            size = len(one[0][2]) if one and one[0][0] == "gives" else 4
            target = bytearray(max(0, size + spare + max(0, offset)))
            into = outcome(encoder.encode_into, payloads[0], target, offset) if payloads else None
            results.append((one, outcome(encoder.encode_many, payloads), into, target))
        assert all(result == results[0] for result in results)

    @invariant()
    def same_state(self) -> None:
        how, _, (_, need, *_) = self.both(lambda decoder: (decoder.framing, decoder.need, decoder.buffered,
                                                            decoder.position, decoder.skipped))
        assert how == "gives"
        assert need >= 0


Step.TestCase.settings = settings(max_examples=200, stateful_step_count=30)
TestStep = Step.TestCase


@given(FRAMING_AND_PAYLOADS, st.data())
@settings(max_examples=150)
def test_encoders_agree(wings: Any, case: Any, data: Any) -> None:
    framing, payloads = case
    room = data.draw(st.integers(0, 40))
    offset = data.draw(st.integers(-2, 5))
    results = []
    for wing in wings:
        encoder, target = wing.Encoder(framing), bytearray(b"\xaa" * room)
        results.append([outcome(encoder.encode_many, payloads), outcome(encoder.encode_many, iter(payloads)),
                        *(outcome(encoder.encode, payload) for payload in payloads),
                        *((outcome(encoder.encode_into, payload, target, offset), bytes(target))
                          for payload in payloads)])
    assert all(result == results[0] for result in results)
