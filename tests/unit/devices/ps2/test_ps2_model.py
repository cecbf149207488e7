"""The 8042 and port 0x92; its devices are in test_ps2_keyboard.py and test_ps2_mouse.py."""

from __future__ import annotations

import random

import pytest

from kvmbox.contract.model import InputRoom, IrqLine, Reset, SnapshotError
from kvmbox.devices.ps2.keyboard import GAP_NS, HOLD_NS
from kvmbox.devices.ps2.model import I8042
from kvmbox.devices.ps2.mouse import EVENT, EVENT_MARK

DATA, STATUS, PORT_92 = 0, 1, 2
OBF, SYS, CD, UNLOCKED, AUX = 0x01, 0x04, 0x08, 0x10, 0x20
KEY_A, KEY_UP = 31, 83
RELEASED = 0x80


class Board:
    def __init__(self) -> None:
        self.model = I8042()
        self.now = 0

    def key_data(self) -> int:
        """The next byte, which may be one that comes when a key has been held for long enough."""
        due = self.model.next_deadline()
        self.now = self.now if due is None else due
        return self.data()

    def command(self, command: int, *data: int) -> None:
        self.model.write(self.now, STATUS, 1, command)
        for byte in data:
            self.model.write(self.now, DATA, 1, byte)

    def status(self) -> int:
        return self.model.read(self.now, STATUS, 1)

    def data(self) -> int:
        return self.model.read(self.now, DATA, 1)

    def ask(self, command: int, *data: int) -> int:
        self.command(command, *data)
        assert self.status() & OBF
        answer = self.data()
        assert not self.status() & OBF
        return answer


def test_i8042_power_on_is_as_a_bios_leaves_it() -> None:
    kbc = Board()
    assert kbc.status() == UNLOCKED | SYS
    assert kbc.data() == 0
    assert kbc.model.take_effects() == []


def test_i8042_self_test_passes_and_sets_the_system_flag() -> None:
    kbc = Board()
    kbc.command(0xAA)
    assert kbc.status() == UNLOCKED | CD | SYS | OBF
    assert kbc.data() == 0x55
    assert kbc.status() == UNLOCKED | CD | SYS


@pytest.mark.parametrize(("command", "answer"), [(0xAB, 0x00), (0xA9, 0x00), (0xC0, 0x80), (0x20, 0x65)])
def test_i8042_command_answers(command: int, answer: int) -> None:
    assert Board().ask(command) == answer


def test_i8042_command_byte_is_written_and_mirrors_the_system_flag() -> None:
    kbc = Board()
    kbc.command(0x60, 0x74)
    assert kbc.status() == UNLOCKED | SYS  # and the last write was data
    assert kbc.ask(0x20) == 0x74
    kbc.command(0x60, 0x70)
    assert kbc.status() == UNLOCKED


@pytest.mark.parametrize(("off", "on", "bit"), [(0xAD, 0xAE, 0x10), (0xA7, 0xA8, 0x20)])
def test_i8042_interfaces_are_disabled_and_enabled_in_the_command_byte(off: int, on: int, bit: int) -> None:
    kbc = Board()
    kbc.command(off)
    assert kbc.ask(0x20) & bit
    kbc.command(on)
    assert kbc.ask(0x20) == 0x65 & ~bit


def test_i8042_keyboard_answers() -> None:
    kbc = Board()
    kbc.model.write(0, DATA, 1, 0xEE)
    assert kbc.status() == UNLOCKED | SYS | OBF
    assert kbc.data() == 0xEE
    assert kbc.status() == UNLOCKED | SYS


def moved(dx: int) -> bytes:
    return EVENT.pack(EVENT_MARK, 0, dx, 0, 0)


def with_mouse() -> Board:
    """One whose mouse reports, and raises IRQ 12."""
    kbc = Board()
    kbc.command(0x60, 0x47)
    kbc.command(0xD4, 0xF4)
    assert kbc.data() == 0xFA
    kbc.model.take_effects()
    kbc.now = 1_000_000_000
    return kbc


def test_i8042_mouse_answers_on_the_auxiliary_port_and_its_clock_is_released() -> None:
    kbc = Board()
    kbc.command(0x60, 0x67)
    kbc.command(0xD4, 0xF2)
    assert kbc.model.take_effects() == [IrqLine(1, 1)]
    assert kbc.status() == UNLOCKED | SYS | OBF | AUX
    assert kbc.data() == 0xFA
    assert kbc.model.take_effects() == [IrqLine(1, 0), IrqLine(1, 1)]
    assert kbc.data() == 0x00
    assert kbc.status() == UNLOCKED | SYS
    assert kbc.ask(0x20) == 0x47


def test_i8042_packet_waits_while_the_clock_of_the_mouse_is_held() -> None:
    kbc = with_mouse()
    assert kbc.model.receive(kbc.now, moved(1)) == EVENT.size
    assert kbc.model.take_effects() == [IrqLine(1, 1)]
    kbc.command(0xA7)
    assert kbc.data() == 0x08
    assert not kbc.status() & OBF
    assert kbc.model.next_deadline() is None
    assert kbc.model.receive(kbc.now, moved(2)) == 0
    kbc.command(0xA8)
    assert (kbc.status() & (OBF | AUX), kbc.data(), kbc.data()) == (OBF | AUX, 1, 0)
    assert InputRoom(EVENT.size) in kbc.model.take_effects()


def test_i8042_keyboard_and_mouse_take_turns_and_mix_no_bytes() -> None:
    kbc = with_mouse()
    kbc.model.receive(kbc.now, moved(5) + bytes([KEY_A, KEY_UP]))
    got = []
    while kbc.status() & OBF:
        is_mouse = bool(kbc.status() & AUX)
        got.append((is_mouse, kbc.data()))
    assert [byte for is_mouse, byte in got if is_mouse] == [0x08, 5, 0]
    assert [byte for is_mouse, byte in got if not is_mouse] == [0x1E, 0xE0, 0x48]
    assert [is_mouse for is_mouse, _ in got] == [True, False, True, False, True, False]


def test_i8042_answer_of_the_controller_waits_for_a_byte_of_the_mouse() -> None:
    kbc = with_mouse()
    kbc.model.receive(kbc.now, moved(5))
    kbc.command(0x20)
    assert [kbc.data() for _ in range(4)] == [0x08, 0x47, 5, 0]


def test_i8042_events_and_keys_wait_apart() -> None:
    kbc = with_mouse()
    kbc.command(0xAD)  # the keyboard's clock is held
    assert kbc.model.receive(kbc.now, bytes([KEY_A])) == 0
    assert kbc.model.receive(kbc.now, moved(1)) == EVENT.size
    assert [kbc.data() for _ in range(3)] == [0x08, 1, 0]
    kbc.model.take_effects()
    kbc.command(0xAE)
    assert kbc.model.take_effects() == [InputRoom(2)]


def test_i8042_no_event_is_lost_if_the_host_waits_for_room() -> None:
    kbc = with_mouse()
    left = b"".join(moved(number) for number in range(1, 201))
    read = bytearray()
    left = left[kbc.model.receive(kbc.now, left) :]
    while left or kbc.status() & OBF or kbc.model.next_deadline():
        read.append(kbc.key_data())
        if any(isinstance(effect, InputRoom) for effect in kbc.model.take_effects()):
            accepted = kbc.model.receive(kbc.now, left)
            assert accepted > 0
            assert accepted % EVENT.size == 0
            left = left[accepted:]
    assert read == b"".join(bytes((0x08, number, 0)) for number in range(1, 201))


def test_i8042_guest_that_never_reads_takes_two_events() -> None:
    kbc = with_mouse()
    assert kbc.model.receive(kbc.now, moved(1) * 9) == 2 * EVENT.size  # one of which is on its way
    assert kbc.model.receive(kbc.now, moved(1) * 9) == 0
    assert InputRoom not in map(type, kbc.model.take_effects())


def test_i8042_part_of_an_event_is_not_taken() -> None:
    kbc = with_mouse()
    assert kbc.model.receive(kbc.now, moved(1)[:-1]) == 0
    assert not kbc.status() & OBF


def test_i8042_buffers_loop_back() -> None:
    kbc = Board()
    kbc.command(0xD3, 0x5A)
    assert kbc.status() == UNLOCKED | SYS | OBF | AUX
    assert kbc.data() == 0x5A
    kbc.command(0xD2, 0xA5)
    assert kbc.status() == UNLOCKED | SYS | OBF
    assert kbc.data() == 0xA5


def test_i8042_newer_answer_replaces_one_not_fetched() -> None:
    kbc = Board()
    kbc.command(0xD3, 0x5A)
    kbc.command(0xAB)
    assert kbc.status() == UNLOCKED | SYS | CD | OBF
    assert (kbc.data(), kbc.data()) == (0, 0)
    assert kbc.status() == UNLOCKED | SYS | CD


def test_i8042_lines_follow_the_output_buffer_where_enabled() -> None:
    kbc = Board()
    kbc.command(0x60, 0x03)
    kbc.command(0xD2, 1)
    assert kbc.model.take_effects() == [IrqLine(0, 1)]
    kbc.command(0xD3, 2)
    assert kbc.model.take_effects() == [IrqLine(0, 0), IrqLine(1, 1)]
    kbc.data()
    assert kbc.model.take_effects() == [IrqLine(1, 0)]
    kbc.command(0x60, 0x00)
    kbc.command(0xD2, 1)
    kbc.command(0xD3, 1)
    assert kbc.model.take_effects() == []
    kbc.command(0x60, 0x02)
    assert kbc.model.take_effects() == [IrqLine(1, 1)]


def test_i8042_another_command_cancels_one_that_waits_for_data() -> None:
    kbc = Board()
    kbc.command(0x60)
    kbc.command(0xAB)
    assert kbc.data() == 0
    kbc.model.write(0, DATA, 1, 0x00)
    assert kbc.data() == 0xFE
    assert kbc.ask(0x20) == 0x65


def test_i8042_output_port_keeps_a20_and_shows_the_buffer() -> None:
    kbc = Board()
    assert kbc.ask(0xD0) == 0xCF
    kbc.command(0xD1, 0xFD)
    assert kbc.ask(0xD0) == 0xCD
    kbc.command(0xDF)
    assert kbc.ask(0xD0) == 0xCF
    kbc.command(0xDD)
    assert kbc.ask(0xD0) == 0xCD
    kbc.command(0xD2, 0)
    assert kbc.ask(0xD0) == 0xDD
    kbc.command(0xD3, 0)
    assert kbc.ask(0xD0) == 0xFD
    assert Reset() not in kbc.model.take_effects()


@pytest.mark.parametrize("command", range(0xF0, 0x100))
def test_i8042_pulse_of_output_bit_0_resets(command: int) -> None:
    kbc = Board()
    kbc.command(command)
    assert kbc.model.take_effects() == ([] if command & 1 else [Reset()])


def test_i8042_output_port_bit_0_low_resets() -> None:
    kbc = Board()
    kbc.command(0xD1, 0xDE)
    assert kbc.model.take_effects() == [Reset()]


def test_port_92_bit_0_rising_resets_and_a20_is_kept() -> None:
    kbc = Board()
    assert kbc.model.read(0, PORT_92, 1) == 0x02
    kbc.model.write(0, PORT_92, 1, 0x00)
    assert kbc.model.read(0, PORT_92, 1) == 0x00
    kbc.model.write(0, PORT_92, 1, 0x03)
    assert kbc.model.take_effects() == [Reset()]
    kbc.model.write(0, PORT_92, 1, 0x01)
    assert kbc.model.take_effects() == []
    kbc.model.reset(0)
    assert kbc.model.read(0, PORT_92, 1) == 0x02


def test_i8042_reset_empties_the_buffer_and_lowers_the_line() -> None:
    kbc = Board()
    kbc.command(0x60, 0x67)
    kbc.command(0xD2, 1)
    kbc.model.take_effects()
    kbc.model.reset(0)
    assert kbc.model.take_effects() == [IrqLine(0, 0)]
    assert kbc.status() == UNLOCKED | SYS
    assert kbc.ask(0x20) == 0x65


# --- The keyboard behind it ------------------------------------------------------------------------------


def test_i8042_key_is_a_byte_of_set_1_and_an_edge_of_irq_1_each() -> None:
    kbc = Board()
    assert kbc.model.receive(0, bytes([KEY_A, KEY_A | RELEASED])) == 2
    assert kbc.model.take_effects() == [IrqLine(0, 1)]
    assert kbc.data() == 0x1E
    assert kbc.model.take_effects() == [IrqLine(0, 0)]
    assert kbc.key_data() == 0x9E
    assert kbc.model.take_effects() == [IrqLine(0, 1), IrqLine(0, 0)]
    assert kbc.data() == 0x9E  # what was there last
    assert kbc.model.take_effects() == []


def test_i8042_key_without_translation_is_set_2() -> None:
    kbc = Board()
    kbc.command(0x60, 0x01)
    kbc.model.receive(0, bytes([KEY_UP, KEY_UP | RELEASED]))
    assert [kbc.key_data() for _ in range(5)] == [0xE0, 0x75, 0xE0, 0xF0, 0x75]


def test_i8042_translation_begins_where_the_byte_is_taken() -> None:
    kbc = Board()
    kbc.command(0x60, 0x01)
    kbc.model.receive(0, bytes([KEY_A, KEY_A | RELEASED, KEY_A, KEY_A | RELEASED]))
    assert [kbc.key_data(), kbc.key_data()] == [0x1C, 0xF0]
    kbc.command(0x60, 0x41)
    assert [kbc.key_data() for _ in range(3)] == [0x1C, 0x1E, 0x9E]  # the first one was there already


def test_i8042_identification_is_that_of_an_at_keyboard_with_translation() -> None:
    kbc = Board()
    kbc.model.write(0, DATA, 1, 0xF2)
    assert [kbc.data() for _ in range(3)] == [0xFA, 0xAB, 0x41]
    kbc.command(0x60, 0x01)
    kbc.model.write(0, DATA, 1, 0xF2)
    assert [kbc.data() for _ in range(3)] == [0xFA, 0xAB, 0x83]


def test_i8042_disabled_keyboard_keeps_its_bytes_and_takes_no_keys() -> None:
    kbc = Board()
    kbc.model.receive(0, bytes([KEY_A, KEY_A | RELEASED]))
    kbc.command(0xAD)
    assert kbc.data() == 0x1E  # it was in the output buffer
    assert not kbc.status() & OBF
    assert kbc.model.receive(0, bytes([KEY_A])) == 0
    kbc.model.take_effects()
    kbc.now += HOLD_NS
    assert kbc.model.next_deadline() is None
    kbc.command(0xAE)
    assert kbc.model.take_effects() == [IrqLine(0, 1), InputRoom(2)]
    assert kbc.data() == 0x9E


def test_i8042_byte_to_the_keyboard_enables_it() -> None:
    kbc = Board()
    kbc.command(0xAD)
    kbc.model.write(0, DATA, 1, 0xEE)
    assert kbc.data() == 0xEE
    assert kbc.ask(0x20) == 0x65


def test_i8042_answer_waits_for_a_key_and_goes_before_the_next_one() -> None:
    kbc = Board()
    kbc.model.receive(0, bytes([KEY_A, KEY_A | RELEASED]))
    kbc.command(0xD0)
    kbc.command(0xAB)  # a newer answer in its place
    assert [kbc.data(), kbc.data(), kbc.key_data()] == [0x1E, 0x00, 0x9E]


def test_i8042_release_comes_at_a_deadline_after_the_press_was_read() -> None:
    kbc = Board()
    kbc.now = 1_000
    kbc.model.receive(kbc.now, bytes([KEY_A, KEY_A | RELEASED, KEY_UP]))
    kbc.now = 5 * HOLD_NS  # the guest takes its time
    assert kbc.model.next_deadline() is None
    assert kbc.data() == 0x1E
    kbc.model.take_effects()
    due = 6 * HOLD_NS
    assert kbc.model.next_deadline() == due
    kbc.model.advance(due - 1)
    assert kbc.model.take_effects() == []
    kbc.model.advance(due)
    assert kbc.model.take_effects() == [IrqLine(0, 1)]
    kbc.now = due + 3
    assert kbc.data() == 0x9E
    assert kbc.model.next_deadline() == due + 3 + GAP_NS
    kbc.now = due + 3 + GAP_NS  # nobody has told it of the deadline: the access comes at the same time
    assert (kbc.data(), kbc.data(), kbc.model.next_deadline()) == (0xE0, 0x48, None)


def test_i8042_repeated_break_prefix_does_not_swallow_the_key_that_waits() -> None:
    kbc = Board()
    kbc.command(0x60, 0x01)  # no translation
    kbc.model.receive(0, bytes([KEY_A, KEY_A | RELEASED]))
    assert kbc.key_data() == 0x1C
    kbc.model.advance(HOLD_NS)
    kbc.command(0x60, 0x41)
    for command in (0xF6, 0xFE):  # the rest of the release is dropped, and the prefix is wanted again
        kbc.model.write(HOLD_NS, DATA, 1, command)
    kbc.model.receive(HOLD_NS, bytes([KEY_A]))
    assert [kbc.key_data(), kbc.key_data(), kbc.key_data()] == [0xF0, 0xF0, 0x1E]


def test_i8042_no_key_is_lost_if_the_host_waits_for_room() -> None:
    kbc = Board()
    typed = bytes([KEY_A, KEY_A | RELEASED, KEY_UP, KEY_UP | RELEASED] * 100)
    read, left = bytearray(), typed
    left = left[kbc.model.receive(0, left) :]
    while left or kbc.status() & OBF or kbc.model.next_deadline():
        if any(isinstance(effect, InputRoom) for effect in kbc.model.take_effects()):
            accepted = kbc.model.receive(0, left)
            assert accepted > 0
            left = left[accepted:]
        read.append(kbc.key_data())
    assert read == bytes([0x1E, 0x9E, 0xE0, 0x48, 0xE0, 0xC8] * 100)


def test_i8042_guest_that_never_reads_takes_sixteen_bytes_and_one() -> None:
    kbc = Board()
    assert kbc.model.receive(0, bytes([KEY_A] * 64)) == 16
    assert kbc.model.receive(0, bytes([KEY_A] * 64)) == 1  # as the first one is in the output buffer
    assert kbc.model.receive(0, bytes([KEY_A] * 64)) == 0
    assert InputRoom not in map(type, kbc.model.take_effects())


def test_i8042_reset_forgets_keys_and_says_that_there_is_room() -> None:
    kbc = Board()
    kbc.model.receive(0, bytes([KEY_A] * 64))
    kbc.model.take_effects()
    kbc.model.reset(0)
    assert kbc.model.take_effects() == [IrqLine(0, 0), InputRoom(2)]
    assert not kbc.status() & OBF


def test_i8042_unknown_commands_are_ignored() -> None:
    known = {0x20, 0x60, 0xA7, 0xA8, 0xA9, 0xAA, 0xAB, 0xAD, 0xAE, 0xC0, 0xDD, 0xDF, *range(0xD0, 0xD5)}
    for command in set(range(0xF0)) - known:
        kbc = Board()
        kbc.command(0xFF)  # pulses nothing
        before = kbc.model.snapshot()
        kbc.command(command)
        assert kbc.model.snapshot() == before
        assert kbc.model.take_effects() == []


def test_i8042_snapshot_at_any_point_continues_the_same() -> None:
    seeded = random.Random(8042)
    model = I8042()
    now = 0
    for _ in range(3000):
        now += seeded.choice([0, 0, 1, GAP_NS, HOLD_NS])
        copy = I8042()
        copy.restore(model.snapshot())
        assert copy.take_effects() == []
        offset, value = (
            seeded.randrange(3),
            seeded.choice([0x60, 0xD1, 0xD2, 0xD3, 0xD4, 0xAE, 0xF2, 0xF4, seeded.randrange(256)]),
        )
        if seeded.random() < 0.2:
            keys = seeded.choice((seeded.randbytes(20), b"\0\x01\1\0\2\0\3" * 3))
            assert copy.receive(now, keys) == model.receive(now, keys)
        elif seeded.random() < 0.5:
            assert copy.read(now, offset, 1) == model.read(now, offset, 1)
        else:
            copy.write(now, offset, 1, value)
            model.write(now, offset, 1, value)
        assert copy.next_deadline() == model.next_deadline()
        assert copy.take_effects() == model.take_effects()
        assert copy.snapshot() == model.snapshot()


# After the magic: status 4, command byte 5, waiting command 6, output 7, output port 8, port 0x92 9,
# answer 10, its kind 11, flags 12, time 13 and 7 more. Of the keyboard: command 21, set 22, scanning 23,
# indicators 24, rate 25, last byte 26, answers 27 and 3 bytes, keys 31 and 16 bytes, marks 48 and 15 more,
# last mark 64, time of the last read 65. Of the mouse: 73, as test_ps2_mouse.py has it.
@pytest.mark.parametrize(
    ("position", "value"),
    [
        *((4, 0x12), (4, 0x90), (4, 0x00), (4, 0x30), (4, 0x50), (4, 0x54), (6, 1), (8, 0x10)),
        *((10, 1), (11, 0x20), (12, 1), (12, 4), (12, 8), (12, 0x10), (12, 0x40)),
        *((20, 0x80), (21, 0xF4), (22, 0), (22, 4), (23, 2), (24, 8), (25, 0x80), (27, 1), (27, 4), (28, 1)),
        *((31, 1), (31, 17), (32, 1), (48, 1), (63, 1), (64, 3), (65, 1), (73, 1), (87, 1)),
    ],
)
def test_i8042_snapshot_of_an_impossible_state_is_refused(position: int, value: int) -> None:
    model = I8042()
    state = bytearray(model.snapshot())
    state[position] = value
    with pytest.raises(SnapshotError):
        model.restore(bytes(state))
    assert model.snapshot() == I8042().snapshot()
