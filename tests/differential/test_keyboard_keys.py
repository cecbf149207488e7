"""What each key sends, in each scan code set and translated: the model beside QEMU.

QEMU's keys are pressed over QMP, and its bytes are read over qtest. QEMU is that of test_differential.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kvmbox.devices.ps2.keyboard import KEY_NUMBERS, RELEASED, scan_codes
from kvmbox.devices.ps2.model import I8042
from tests.differential.qemu_input import Qemu, drained, running
from tests.differential.runner import find_qemu

pytestmark = pytest.mark.thorough

needs_qemu = pytest.mark.skipif(
    find_qemu() is None,
    reason="no QEMU with -accel qtest: install qemu-system-xen, or name one in KVMBOX_QEMU",
)

NAMED = {124: "print", 126: "pause"}
"""Keys that QEMU has no plain number for."""
CODE_42 = 42
"""The key beside Enter of keyboards with 102 keys. QEMU knows it as key 29, as the sets do."""

KEYPAD = {95, 105}
"""Slash and minus of the keypad have own codes in set 3. QEMU sends those of the other slash and minus."""


def press(qemu: Qemu, change: int) -> None:
    """The same change of a key there."""
    number = change & ~RELEASED
    codes = scan_codes(number, 1)
    key = {"type": "number", "data": codes[-1] | (0x80 if len(codes) > 1 else 0)}
    if number in NAMED:
        key = {"type": "qcode", "data": NAMED[number]}
    qemu.send(("key", {"down": not change & RELEASED, "key": key}))


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[Qemu]:
    with running(tmp_path) as started:
        yield started


@needs_qemu
@pytest.mark.parametrize(("scan_set", "translate"), [(1, 0), (2, 0), (2, 0x40), (3, 0), (1, 0x40), (3, 0x40)])
def test_each_key_sends_what_it_sends_in_qemu(qemu: Qemu, scan_set: int, translate: int) -> None:
    model = I8042()
    for offset, value in ((1, 0x60), (0, translate), (0, 0xF0), (0, scan_set)):
        qemu.write(offset, value)
        model.write(0, offset, 1, value)
        qemu.drain()
        drained(model)
    left_out = {CODE_42} | KEYPAD if scan_set == 3 else {CODE_42}
    for number in sorted(KEY_NUMBERS - left_out):
        for change in (number, number | RELEASED):
            press(qemu, change)
            assert model.receive(0, bytes([change])) == 1
            assert (number, drained(model).hex()) == (number, qemu.drain().hex())
