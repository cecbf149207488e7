"""The device process's loop in shared memory, step by step: what it looks at, stores and rings, and when."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

import pytest

from kvmbox.contract.model import HostOutput
from kvmbox.jail.page_port import PagePort
from kvmbox.jail.server import DeviceServer
from kvmbox.jail.serving_loop import serve
from kvmbox.wire import page_layout, protocol
from kvmbox.wire.effect_kinds import EFFECT
from kvmbox.wire.effects import decode_effects
from kvmbox.wire.page_layout import DOORBELL, DOORBELLS_READ
from kvmbox.wire.protocol import HEADER, MAX_PAYLOAD, Request

DOORBELL_FD, BELL_OF_VMM_FD = 33, 44
NAMES: Final = {
    page_layout.REQUEST_WORD: "request",
    page_layout.REPLY_WORD: "reply",
    page_layout.DEVICE_WAITS: "DEVICE_WAITS",
    page_layout.VMM_WAITS: "VMM_WAITS",
    page_layout.MAY_SPIN: "MAY_SPIN",
}
LOOKS: Final = 5
LONG_RUN: Final = MAX_PAYLOAD - EFFECT.size
"""As many bytes as the reply to a run of writes to the debug console can give back."""


class Words:
    """The page as words: each look and each store is a step."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig

    def __getitem__(self, index: int) -> int:
        self._rig.step(f"look at {NAMES[index]}")
        return self._rig.words[index]

    def __setitem__(self, index: int, value: int) -> None:
        self._rig.step(f"{NAMES[index]} = {value}" if index >= page_layout.DEVICE_WAITS else NAMES[index])
        self._rig.words[index] = value


class Page:
    """What `memoryview` makes of the memory: bytes as they are, words spied upon."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig

    def cast(self, _format: str) -> Words:
        return Words(self._rig)

    def __getitem__(self, place: slice) -> bytes:
        return bytes(self._rig.data[place])

    def __setitem__(self, place: slice, content: bytes) -> None:
        self._rig.step("rest of the reply")
        self._rig.data[place] = content


class Rig:
    """The VMM, played by the test: `before` has what it does just before a step of the loop.

    The loop ends when it reads the doorbell and the VMM has nothing to do any more: an end of file.
    """

    def __init__(self, *, may_spin: bool = False) -> None:
        self.data = memoryview(bytearray(page_layout.SIZE))
        self.words = self.data.cast("Q")
        self.words[page_layout.MAY_SPIN] = may_spin
        self.steps: list[str] = []
        self.before: list[tuple[str, Callable[[], None]]] = []
        self.server = DeviceServer()
        self.sequence = 0

    def unpack_from(self, _data: object, offset: int) -> tuple[Any, ...]:
        return protocol.WORDS.unpack_from(self.data, offset)

    def _pack_rest(self, _data: object, offset: int, *values: int) -> None:
        assert offset == page_layout.REPLY + 8
        self.step("rest of the reply")
        struct.pack_into("<QQQ", self.data, offset, *values)

    def step(self, what: str) -> None:
        if self.before and self.before[0][0] == what:
            self.before.pop(0)[1]()
        self.steps.append(what)

    def read(self, descriptor: int, size: int) -> bytes:
        assert (descriptor, size) == (DOORBELL_FD, DOORBELLS_READ)
        ends = not self.before or self.before[0][0] != "sleep"
        self.step("sleep")
        return b"" if ends else DOORBELL

    def write(self, descriptor: int, data: bytes) -> int:
        assert descriptor == BELL_OF_VMM_FD
        assert data in (b"", DOORBELL)
        self.step("ring" if data else "fence")
        return len(data)

    # --- What the VMM does ---

    def ask(self, kind: int, **fields: Any) -> None:
        """Hand a request over."""
        self.sequence += 1
        frame = Request(kind, sequence=self.sequence, **fields).encode()
        self.data[page_layout.REQUEST + 8 : page_layout.REQUEST + len(frame)] = frame[8:]
        self.words[page_layout.REQUEST_WORD] = int.from_bytes(frame[:8], "little")

    def hello(self, *models: str) -> None:
        (hello,) = protocol.hello_requests([(model, {}) for model in models or ("post",)])
        self.ask(protocol.HELLO, value=hello.value, payload=hello.payload)

    def serve(self) -> int:
        port = PagePort(
            self.data,
            DOORBELL_FD,
            BELL_OF_VMM_FD,
            view=lambda _memory: Page(self),
            pack=self._pack_rest,
            unpack=self.unpack_from,
            looks=LOOKS,
            read=self.read,
            write=self.write,
        )
        return serve(port, self.server)

    def reply(self) -> tuple[int, int, bytes]:
        """Kind, sequence number and payload of what lies there."""
        kind, _, _, _, sequence, _, _, _, length = HEADER.unpack_from(self.data, page_layout.REPLY)
        start = page_layout.REPLY + HEADER.size
        return kind, sequence, bytes(self.data[start : start + length])


FALL_ASLEEP: Final = [
    "look at request",
    "look at MAY_SPIN",
    "DEVICE_WAITS = 1",
    "fence",
    "look at request",
    "sleep",
]
ANSWER: Final = ["look at request", "rest of the reply", "reply", "look at VMM_WAITS"]


def test_serve_sleeps_only_after_flag_fence_and_a_last_look() -> None:
    rig = Rig()
    assert rig.serve() == 0
    assert rig.steps == FALL_ASLEEP


def test_serve_that_may_spin_looks_for_a_while_first() -> None:
    rig = Rig(may_spin=True)
    assert rig.serve() == 0
    assert rig.steps == FALL_ASLEEP[:2] + ["look at request"] * LOOKS + FALL_ASLEEP[2:]


def test_serve_answers_and_hands_over_by_the_first_word_last() -> None:
    rig = Rig()
    rig.hello()
    assert rig.serve() == 0
    assert rig.steps[: len(ANSWER)] == ANSWER
    assert rig.reply() == (protocol.HELLO | protocol.REPLY, 1, b"")


@pytest.mark.parametrize(
    ("model", "kind", "stores"),
    [("post", protocol.READ, 1), ("post", protocol.WRITE, 1), ("debugcon", protocol.WRITE, 2)],
)
def test_serve_stores_all_of_a_reply_before_its_first_word(model: str, kind: int, stores: int) -> None:
    rig = Rig()
    rig.hello(model)
    rig.before = [("sleep", lambda: rig.ask(kind, size=1, value=ord("x")))]
    rig.serve()
    start = rig.steps.index("DEVICE_WAITS = 0") + 1
    expected = [ANSWER[0], *[ANSWER[1]] * stores, *ANSWER[2:]]
    assert rig.steps[start : start + len(expected)] == expected
    assert rig.reply()[:2] == (kind | protocol.REPLY, 2)
    if stores == 2:
        assert decode_effects(1, rig.reply()[2]) == ([(0, HostOutput(b"x"))], b"")


def test_serve_rings_if_the_vmm_waits() -> None:
    rig = Rig()
    rig.words[page_layout.VMM_WAITS] = 1
    rig.hello()
    rig.serve()
    # It has rung: no second look at the flag is needed before it sleeps.
    assert rig.steps == [*ANSWER, "ring", *FALL_ASLEEP]


def test_serve_looks_a_second_time_whether_the_vmm_waits() -> None:
    rig = Rig()
    rig.hello()
    # The flag that the first look missed.
    rig.before = [("DEVICE_WAITS = 1", lambda: rig.words.__setitem__(page_layout.VMM_WAITS, 1))]
    rig.serve()
    second_look = ["look at VMM_WAITS", "ring"]
    assert rig.steps == [*ANSWER, *FALL_ASLEEP[:4], *second_look, *FALL_ASLEEP[4:]]


def test_serve_rings_once_for_each_reply() -> None:
    rig = Rig()
    rig.hello()
    rig.before = [("DEVICE_WAITS = 1", lambda: rig.words.__setitem__(page_layout.VMM_WAITS, 1))]
    rig.before += [("sleep", lambda: None)] * 3  # the VMM still waits, and rings for nothing
    rig.serve()
    assert rig.steps.count("sleep") == 4
    assert rig.steps.count("ring") == 1


def test_serve_does_not_ring_a_vmm_that_does_not_wait() -> None:
    rig = Rig()
    rig.hello()
    rig.serve()
    assert rig.steps == [*ANSWER, *FALL_ASLEEP[:4], "look at VMM_WAITS", *FALL_ASLEEP[4:]]
    assert "ring" not in rig.steps


@pytest.mark.parametrize("moment", FALL_ASLEEP[:4])
def test_serve_request_that_comes_while_it_falls_asleep_is_answered(moment: str) -> None:
    rig = Rig()
    rig.before = [(moment, rig.hello)]
    rig.serve()
    # It has slept once only, after the answer.
    assert rig.steps.count("sleep") == 1
    assert rig.steps.index("reply") < rig.steps.index("sleep")
    assert rig.reply()[:2] == (protocol.HELLO | protocol.REPLY, 1)


@pytest.mark.parametrize("look", range(LOOKS))
def test_serve_request_that_comes_while_it_spins_is_answered_without_a_flag(look: int) -> None:
    rig = Rig(may_spin=True)
    rig.before = [("look at request", lambda: None)] * (1 + look) + [("look at request", rig.hello)]
    rig.serve()
    assert rig.steps[: 2 + look + 1 + 3] == [*FALL_ASLEEP[:2], *["look at request"] * (look + 1), *ANSWER[1:]]


def test_serve_woken_up_takes_its_flag_back_and_answers() -> None:
    rig = Rig()
    rig.before = [("sleep", rig.hello)]
    rig.serve()
    assert rig.steps[: len(FALL_ASLEEP) + 2] == [*FALL_ASLEEP, "DEVICE_WAITS = 0", "look at request"]
    assert rig.reply()[1] == 1


def test_serve_bell_that_rang_for_nothing_costs_a_turn() -> None:
    rig = Rig()
    rig.before = [("sleep", lambda: None)] * 3 + [("sleep", rig.hello)]
    assert rig.serve() == 0
    assert rig.steps[: 4 * (len(FALL_ASLEEP) + 1)] == [*FALL_ASLEEP, "DEVICE_WAITS = 0"] * 4
    assert rig.reply()[1] == 1


def test_serve_one_request_after_another() -> None:
    rig = Rig()
    answers: list[tuple[int, int, bytes]] = []

    def then(kind: int, **fields: Any) -> Callable[[], None]:
        def act() -> None:
            answers.append(rig.reply())
            rig.ask(kind, **fields)

        return act

    rig.hello("post", "debugcon")
    rig.before = [
        ("look at MAY_SPIN", then(protocol.WRITE, device=0, size=1, value=0x42)),
        ("look at MAY_SPIN", then(protocol.READ, device=0, size=1)),
        ("look at MAY_SPIN", then(protocol.WRITE, device=1, size=1, value=ord("x"))),
        ("look at MAY_SPIN", then(protocol.WRITE_RUN, device=1, payload=b"y" * LONG_RUN)),
        ("look at MAY_SPIN", then(protocol.ADVANCE, now=9)),
    ]
    rig.serve()
    answers.append(rig.reply())
    assert [sequence for _, sequence, _ in answers] == [1, 2, 3, 4, 5, 6]
    output, rest = decode_effects(1, answers[3][2])
    assert (output, rest) == ([(1, HostOutput(b"x"))], b"")
    assert decode_effects(1, answers[4][2])[0] == [(1, HostOutput(b"y" * LONG_RUN))]


def test_serve_leaves_after_shutdown() -> None:
    rig = Rig()
    rig.ask(protocol.SHUTDOWN)
    assert rig.serve() == 0
    assert "sleep" not in rig.steps
    assert rig.reply()[0] == protocol.SHUTDOWN | protocol.REPLY


@pytest.mark.parametrize("vmm_waits", [0, 1])
def test_serve_model_that_raises_leaves_one_error_frame_and_always_rings(
    vmm_waits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig()
    rig.words[page_layout.VMM_WAITS] = vmm_waits

    def broken(*_arguments: object) -> tuple[int, int, int, bytes]:
        raise ZeroDivisionError("by zero" * 1000)

    monkeypatch.setattr(rig.server, "answer", broken)
    rig.ask(protocol.ADVANCE)
    assert rig.serve() == 1
    assert rig.steps == [ANSWER[0], *[ANSWER[1]] * 2, *ANSWER[2:], "ring"]
    kind, sequence, text = rig.reply()
    assert (kind, sequence) == (protocol.ERROR, 1)
    assert text.startswith(b"ZeroDivisionError: by zero")
    assert len(text) == 1024


def test_serve_request_that_makes_no_sense_is_an_error_frame() -> None:
    rig = Rig()
    rig.ask(0x70)
    assert rig.serve() == 1
    assert rig.reply()[2].startswith(b"FrameError: unknown request 112")
