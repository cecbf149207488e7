"""The keyboard behind the 8042, without its controller. Each key's codes are also compared with QEMU's."""

from __future__ import annotations

import pytest

from kvmbox.contract.model import SnapshotError
from kvmbox.devices.ps2.keyboard import GAP_NS, HOLD_NS, KEY_NUMBERS, RELEASED, Ps2Keyboard, scan_codes

KEY_A, PAUSE, PRINT_SCREEN, ENTER = 31, 126, 124, 43


def sent(keyboard: Ps2Keyboard) -> str:
    """All that the keyboard has to say, in hex digits."""
    made = bytearray()
    while (now := keyboard.ready_at) is not None:
        made.append(keyboard.take())
        keyboard.was_read(now)
    return made.hex()


def asked(keyboard: Ps2Keyboard, *values: int) -> str:
    """What it says to the last of `values`, each of which is read."""
    answer = ""
    for value in values:
        keyboard.write(value)
        answer = sent(keyboard)
    return answer


@pytest.mark.parametrize(
    ("values", "answer"),
    [
        ((0xED,), "fa"),
        ((0xED, 0x07), "fa"),
        ((0xEE,), "ee"),
        ((0xEF,), "fe"),
        ((0xF0, 0x00), "fa02"),
        ((0xF0, 0x01, 0xF0, 0x00), "fa01"),
        ((0xF0, 0x03, 0xF0, 0x00), "fa03"),
        ((0xF0, 0x04), "fe"),
        ((0xF0, 0x04, 0xF0, 0x00), "fa02"),
        ((0xF1,), "fe"),
        ((0xF2,), "faab83"),
        ((0xF3, 0x7F), "fa"),
        ((0xF4,), "fa"),
        ((0xF5,), "fa"),
        ((0xF0, 0x03, 0xF6, 0xF0, 0x00), "fa02"),
        ((0xF7,), "fa"),
        ((0xFA,), "fa"),
        ((0xFB, 0x1C), "fa"),
        ((0xFD, 0x1C, 0x1B), "fa"),
        ((0xFC, 0x1C, 0xEE), "ee"),
        ((0xEE, 0xFE), "ee"),
        ((0xFE,), "aa"),
        ((0xFF,), "faaa"),
        ((0x00,), "fe"),
        ((0x1C,), "fe"),
    ],
)
def test_keyboard_answers_commands(values: tuple[int, ...], answer: str) -> None:
    assert asked(Ps2Keyboard(), *values) == answer


def test_keyboard_does_a_command_in_the_place_of_an_option_byte() -> None:
    keyboard = Ps2Keyboard()
    assert asked(keyboard, 0xF0, 0xF2) == "faab83"
    assert asked(keyboard, 0x01) == "fe"  # no option byte any more


def test_keyboard_command_discards_the_rest_of_an_answer_and_no_key() -> None:
    keyboard = Ps2Keyboard()
    keyboard.press(KEY_A)
    keyboard.write(0xF2)
    assert keyboard.take() == 0xFA
    keyboard.write(0xEE)
    assert sent(keyboard) == "ee1c"


@pytest.mark.parametrize("command", [0xF5, 0xF6, 0xFF])
def test_keyboard_defaults_forget_keys(command: int) -> None:
    keyboard = Ps2Keyboard()
    keyboard.press(KEY_A)
    assert not asked(keyboard, command).endswith("1c")


def test_keyboard_takes_no_keys_while_scanning_is_off() -> None:
    keyboard = Ps2Keyboard()
    asked(keyboard, 0xF5)
    assert not keyboard.press(KEY_A)
    assert keyboard.room == 0
    asked(keyboard, 0xF4)
    assert keyboard.press(KEY_A)
    assert sent(keyboard) == "1c"


def test_keyboard_takes_a_change_whole_or_not_at_all() -> None:
    keyboard = Ps2Keyboard()
    for _ in range(2):
        assert keyboard.press(PAUSE)
    assert not keyboard.press(KEY_A)
    assert keyboard.take() == 0xE1
    assert keyboard.press(KEY_A)
    assert not keyboard.press(KEY_A | RELEASED)
    assert sent(keyboard) == "1477e1f014f077e11477e1f014f0771c"


def test_keyboard_holds_a_key_from_the_read_of_its_press_and_waits_before_the_next() -> None:
    keyboard = Ps2Keyboard()
    chord_and_key = (58, KEY_A, KEY_A | RELEASED, 58 | RELEASED, KEY_A)
    assert all(keyboard.press(change) for change in chord_and_key)
    waits, now = [], 1_000
    while (ready_at := keyboard.ready_at) is not None:
        waits.append(max(0, ready_at - now))
        now = max(now, ready_at) + 7  # until the guest reads it
        keyboard.take()
        keyboard.was_read(now)
    assert waits == [0, 0, HOLD_NS, 0, 0, 0, GAP_NS]


def test_keyboard_that_was_reset_while_a_key_was_held_owes_no_time() -> None:
    keyboard = Ps2Keyboard()
    keyboard.press(KEY_A)
    keyboard.take()
    keyboard.was_read(5)
    asked(keyboard, 0xFF)
    keyboard.press(KEY_A | RELEASED)
    assert keyboard.ready_at == 0


def test_keyboard_that_goes_on_from_a_snapshot_holds_the_key_as_long() -> None:
    keyboard, other = Ps2Keyboard(), Ps2Keyboard()
    keyboard.press(KEY_A)
    keyboard.press(KEY_A | RELEASED)
    keyboard.take()
    keyboard.was_read(5)
    other.restore(keyboard.snapshot())
    assert other.ready_at == 5 + HOLD_NS
    assert other.snapshot() == keyboard.snapshot()


@pytest.mark.parametrize("number", sorted(set(range(128)) - KEY_NUMBERS))
def test_keyboard_drops_keys_that_it_does_not_have(number: int) -> None:
    keyboard = Ps2Keyboard()
    assert keyboard.press(number)
    assert keyboard.press(number | RELEASED)
    assert keyboard.ready_at is None


@pytest.mark.parametrize(
    ("change", "in_1", "in_2", "in_3"),
    [
        (KEY_A, "1e", "1c", "1c"),
        (KEY_A | RELEASED, "9e", "f01c", "f01c"),
        (64, "e01d", "e014", "58"),  # the right Ctrl
        (64 | RELEASED, "e09d", "e0f014", "f058"),
        (118, "41", "83", "37"),  # F7, the one code above 0x7f
        (118 | RELEASED, "c1", "f083", "f037"),
        (PRINT_SCREEN, "e02ae037", "e012e07c", "57"),
        (PRINT_SCREEN | RELEASED, "e0b7e0aa", "e0f07ce0f012", "f057"),
        (PAUSE, "e11d45e19dc5", "e11477e1f014f077", "62"),
        (PAUSE | RELEASED, "", "", "f062"),
    ],
)
def test_scan_codes_of_each_kind_of_key(change: int, in_1: str, in_2: str, in_3: str) -> None:
    assert [scan_codes(change, scan_set).hex() for scan_set in (1, 2, 3)] == [in_1, in_2, in_3]


@pytest.mark.parametrize("scan_set", [1, 2, 3])
def test_scan_codes_tell_all_keys_apart(scan_set: int) -> None:
    same = {29, 42}  # one key, of keyboards with 101 and with 102 keys
    numbers = KEY_NUMBERS if scan_set == 3 else KEY_NUMBERS - {42}
    assert len({scan_codes(number, scan_set) for number in numbers}) == len(numbers)
    assert len({scan_codes(number, scan_set) for number in same}) == (2 if scan_set == 3 else 1)


def test_keyboard_restores_nothing_that_it_refuses() -> None:
    keyboard = Ps2Keyboard()
    asked(keyboard, 0xF0, 0x03)
    state = bytearray(keyboard.snapshot())
    state[1] = 9
    with pytest.raises(SnapshotError):
        keyboard.restore(bytes(state))
    assert asked(keyboard, 0xF0, 0x00) == "fa03"
