"""The mouse behind the 8042, without its controller. Its answers are also compared with QEMU's."""

from __future__ import annotations

import pytest

from kvmbox.contract.model import SnapshotError
from kvmbox.contract.names import MOUSE_EVENT_SIZE
from kvmbox.devices.ps2.mouse import (
    BACK,
    EVENT,
    EVENT_MARK,
    FORWARD,
    HOLD_NS,
    LEFT,
    MIDDLE,
    RELEASED,
    RIGHT,
    Ps2Mouse,
)

WHEEL_KNOCK = (0xF3, 200, 0xF3, 100, 0xF3, 80)
EXPLORER_KNOCK = (*WHEEL_KNOCK, 0xF3, 200, 0xF3, 200, 0xF3, 80)
INTERVAL_NS = 10_000_000
"""Between packets at 100 reports a second."""


def sent(mouse: Ps2Mouse) -> str:
    """All that the mouse has to say, in hex digits."""
    made = bytearray()
    while (now := mouse.ready_at) is not None:
        made.append(mouse.take())
        mouse.was_read(now)
    return made.hex()


def asked(mouse: Ps2Mouse, *values: int) -> str:
    """What it says to the last of `values`, each of which is read."""
    answer = ""
    for value in values:
        mouse.write(value)
        answer = sent(mouse)
    return answer


def event(change: int = 0, dx: int = 0, dy: int = 0, dz: int = 0) -> bytes:
    return EVENT.pack(EVENT_MARK, change, dx, dy, dz)


def reporting(*values: int) -> Ps2Mouse:
    mouse = Ps2Mouse()
    asked(mouse, *values, 0xF4)
    return mouse


def packet(mouse: Ps2Mouse, change: int = 0, dx: int = 0, dy: int = 0, dz: int = 0) -> str:
    assert mouse.event(event(change, dx, dy, dz))
    return sent(mouse)


@pytest.mark.parametrize(
    ("values", "answer"),
    [
        ((0xFF,), "faaa00"),
        ((0xF6,), "fa"),
        ((0xF2,), "fa00"),
        ((*WHEEL_KNOCK, 0xF2), "fa03"),
        ((*EXPLORER_KNOCK, 0xF2), "fa04"),
        ((*WHEEL_KNOCK[:4], 0xF3, 60, 0xF3, 80, 0xF2), "fa00"),
        ((0xF3, 200, 0xF3, 200, 0xF3, 80, 0xF2), "fa04"),
        ((*EXPLORER_KNOCK, *WHEEL_KNOCK, 0xF2), "fa03"),
        ((*EXPLORER_KNOCK, 0xF6, 0xF2), "fa04"),
        ((*EXPLORER_KNOCK, 0xFF, 0xF2), "fa00"),
        ((0xE9,), "fa000264"),
        ((0xF4, 0xE7, 0xE8, 3, 0xF3, 40, 0xE9), "fa300328"),
        ((0xF4, 0xF0, 0xE9), "fa600264"),
        ((0xF4, 0xF0, 0xEA, 0xF5, 0xE7, 0xE6, 0xE9), "fa000264"),
        ((0xF4, 0xE7, 0xE8, 3, 0xF3, 40, 0xF6, 0xE9), "fa000264"),
        ((0xEB,), "fa080000"),
        ((*WHEEL_KNOCK, 0xEB), "fa08000000"),
        ((0xEE,), "fa"),
        ((0xEE, 0xF2), "f2"),
        ((0xEE, 0xFE), "fe"),
        ((0xEE, 0xF4, 0xEC), "fa"),
        ((0xEE, 0xF4, 0xEC, 0xE9), "fa000264"),
        ((0xEE, 0xFF), "faaa00"),
        ((0xEC,), "fa"),
        ((0xF3, 33), "fe"),
        ((0xF3, 33, 0xE9), "fa000264"),
        ((0xE8, 4), "fe"),
        ((0xF3, 0xF4, 0xE9), "fa200264"),
        ((0xE1,), "fe"),
        ((0x00,), "fe"),
        ((0xE9, 0xFE), "000264"),
        ((0xF4, 0xFE), "fa"),
        ((0xFE,), "fa"),
    ],
)
def test_mouse_answers_commands(values: tuple[int, ...], answer: str) -> None:
    assert asked(Ps2Mouse(), *values) == answer


def test_mouse_packet_has_signs_buttons_and_overflow() -> None:
    mouse = reporting()
    assert packet(mouse, dx=1, dy=2) == "080102"
    assert packet(mouse, dx=-1, dy=-255) == "38ff01"
    assert packet(mouse, dx=255, dy=0) == "08ff00"
    assert packet(mouse, dx=256, dy=-300) == "e8ff01"
    assert [packet(mouse, button) for button in (LEFT, RIGHT, MIDDLE)] == ["090000", "0b0000", "0f0000"]
    assert packet(mouse, RIGHT | RELEASED, dx=7) == "0d0700"


def test_mouse_wheel_and_further_buttons_are_told_by_their_protocols_alone() -> None:
    for knock, told in ((), ("", "", "080000", "")), (WHEEL_KNOCK, ("080000ff", "", "08000000", "")):
        mouse = reporting(*knock)
        assert packet(mouse, dz=-1) == told[0]
        assert packet(mouse, BACK) == told[1]
        assert asked(mouse, 0xEB)[2:] == told[2]
        assert packet(mouse, FORWARD) == told[3]
    mouse = reporting(*EXPLORER_KNOCK)
    assert [packet(mouse, dz=1), packet(mouse, dz=-100)] == ["08000001", "08000009"]
    assert [packet(mouse, BACK), packet(mouse, FORWARD)] == ["08000010", "08000030"]
    assert packet(mouse, BACK | RELEASED, dz=-1) == "0800002f"


def test_mouse_scaling_changes_small_counts_of_packets_but_no_data_that_are_asked_for() -> None:
    mouse = reporting(0xE7)
    counts = [int(packet(mouse, dx=count)[2:4], 16) for count in range(1, 8)]
    assert counts == [1, 1, 3, 6, 9, 12, 14]
    assert packet(mouse, dx=-200) == "5801" + "00"
    asked(mouse, 0xF0)
    assert mouse.event(event(dx=5))
    assert asked(mouse, 0xEB) == "fa080500"


def test_mouse_takes_events_only_while_somebody_will_hear_of_them() -> None:
    mouse = Ps2Mouse()
    assert (mouse.event(event(dx=1)), mouse.room) == (False, 0)
    asked(mouse, 0xF4)
    assert mouse.room == MOUSE_EVENT_SIZE == EVENT.size
    assert mouse.event(event(dx=1))
    assert (mouse.event(event(dx=1)), mouse.room) == (False, 0)  # until the first one has left
    assert sent(mouse) == "080100"
    asked(mouse, 0xEE)
    assert not mouse.event(event(dx=1))
    asked(mouse, 0xEC, 0xF5)
    assert not mouse.event(event(dx=1))


def test_mouse_in_remote_mode_says_nothing_until_it_is_asked() -> None:
    mouse = reporting(0xF0)
    assert mouse.event(event(LEFT, 3, 4))
    assert mouse.ready_at is None
    assert not mouse.event(event(LEFT | RELEASED))
    assert asked(mouse, 0xEB) == "fa090304"
    assert mouse.event(event(LEFT | RELEASED))
    assert asked(mouse, 0xEB) == "fa080000"


def test_mouse_packets_leave_at_the_rate_and_a_click_is_held() -> None:
    mouse = reporting()
    assert mouse.event(event(LEFT))
    for _ in range(3):
        mouse.take()
    mouse.was_read(1_000)
    assert mouse.event(event(LEFT | RELEASED))
    assert mouse.ready_at == 1_000 + HOLD_NS
    sent(mouse)
    asked(mouse, 0xF3, 200)
    assert mouse.event(event(dx=1))
    at = mouse.ready_at
    assert at is not None
    mouse.take()
    assert mouse.ready_at == 0  # the rest of a packet has no time between
    assert sent(mouse) == "0100"
    mouse.was_read(at)
    assert mouse.event(event(dx=1))
    assert mouse.ready_at == at + INTERVAL_NS // 2


def test_mouse_answer_is_never_inside_a_packet() -> None:
    mouse = reporting()
    assert mouse.event(event(dx=1, dy=1))
    assert mouse.take() == 0x08
    assert asked(mouse, 0xF2) == "fa00"
    assert packet(mouse, dx=2) == "080200"


def test_mouse_command_clears_the_counters_but_a_button_is_told() -> None:
    mouse = reporting()
    assert mouse.event(event(LEFT, dx=9))
    asked(mouse, 0xF5)
    mouse.write(0xF4)
    assert sent(mouse) == "fa090000"
    assert mouse.event(event(dx=9))
    assert asked(mouse, 0xFE) == "090000" + "090900"  # the counters are as they were


def test_mouse_status_tells_the_buttons() -> None:
    mouse = reporting()
    for button in (LEFT, RIGHT):
        packet(mouse, button)
    assert asked(mouse, 0xE9) == "fa250264"
    packet(mouse, MIDDLE)
    assert asked(mouse, 0xE9) == "fa270264"


def test_mouse_keeps_what_is_held_over_a_reset() -> None:
    mouse = reporting()
    packet(mouse, LEFT)
    assert asked(mouse, 0xFF, 0xF4) == "fa"
    assert packet(mouse, dx=1) == "090100"


# command 0, identity 1, modes 2, resolution 3, rate 4, older rates 5 and 6, buttons 7, told buttons 8,
# counters 9 to 13, read at 14, wait 22, bytes 30 and 5 more, bytes that RESEND gives 36 and 4 more.
@pytest.mark.parametrize(
    ("position", "value"),
    [
        *((0, 0xF4), (1, 1), (2, 0x80), (3, 4), (4, 33), (5, 1), (6, 33), (7, 0x20), (8, 0x08), (13, 1)),
        *((22, 1), (30, 6), (31, 1), (36, 5), (40, 1)),
    ],
)
def test_mouse_snapshot_of_an_impossible_state_is_refused(position: int, value: int) -> None:
    mouse = Ps2Mouse()
    state = bytearray(mouse.snapshot())
    state[position] = value
    with pytest.raises(SnapshotError, match="the mouse cannot have"):
        mouse.restore(bytes(state))
    assert mouse.snapshot() == Ps2Mouse().snapshot()


def test_mouse_button_that_the_protocol_loses_is_told_no_more() -> None:
    mouse = reporting(*EXPLORER_KNOCK)
    assert mouse.event(event(BACK))
    asked(mouse, 0xF5, *WHEEL_KNOCK)
    copy = Ps2Mouse()
    copy.restore(mouse.snapshot())
    assert asked(copy, 0xF4) == "fa"


def test_wrap_mode_echoes_all_bytes_but_two_however_many_come() -> None:
    """None of them is a command, and none is kept (the planted bug `ps2-queue`)."""
    mouse = Ps2Mouse()
    assert asked(mouse, 0xEE) == "fa"
    for value in set(range(256)) - {0xEC, 0xFF}:
        assert asked(mouse, value) == f"{value:02x}"
    assert asked(mouse, 0xEC) == "fa"
    assert asked(mouse, 0xF2) == "fa00"
