"""Writes that do not exit, on the real /dev/kvm: the devices get them in the guest's order."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

import pytest

from kvmbox.base import layout
from tests.support.patience import far_enough, seconds
from tests.support.real_mode import COM1, DEBUGCON, SHUTDOWN, SPIN, TRIPLE_FAULT, debug_exit, out, say
from tests.support.runs import Images, run_to_end
from tests.support.selection import first_per_commit

pytestmark = pytest.mark.kvm

RESTLESS: Final = (sys.executable, str(Path(__file__).parent / "run_payload" / "restless_main.py"))
ROUNDS: Final = 500
IPC: Final = ("socketpair", "pipe", "shm")


def write_cmos(index: int, value: int) -> bytes:
    """Store a byte in the RTC's memory."""
    return out(layout.RTC_INDEX_PORT, index) + out(layout.RTC_INDEX_PORT + 1, value)


def repeat(body: bytes) -> bytes:
    """mov cx,ROUNDS; body; dec cx; jnz body."""
    back = -(len(body) + 5) & 0xFFFF
    return b"\xb9" + ROUNDS.to_bytes(2, "little") + body + b"\x49\x0f\x85" + back.to_bytes(2, "little")


def read_cmos(index: int, value: int) -> bytes:
    """mov al,index; out 0x70,al; in al,0x71; cmp al,value; je on; and the verdict of a wrong byte."""
    wrong = debug_exit(0x21)
    return b"\xb0%c\xe6\x70\xe4\x71\x3c%c\x74%c" % (index, value, len(wrong)) + wrong


@pytest.mark.parametrize("ipc", first_per_commit(IPC))
def test_read_of_the_rtc_is_behind_its_index_whoever_gives_that(images: Images, ipc: str) -> None:
    guest = (
        write_cmos(0x40, 0x55)
        + write_cmos(0x41, 0xAA)
        + repeat(read_cmos(0x40, 0x55) + read_cmos(0x41, 0xAA))
    )
    result = run_to_end(images.run(guest + SHUTDOWN + SPIN, "--ipc", ipc, command=RESTLESS))
    assert result == (0, b"", "")


@pytest.mark.parametrize("ipc", first_per_commit(IPC))
def test_output_of_debug_console_and_uart_keeps_its_order(images: Images, ipc: str) -> None:
    guest = repeat(say(b"a", DEBUGCON) + say(b"b", COM1))
    result = run_to_end(images.run(guest + SHUTDOWN + SPIN, "--ipc", ipc, command=RESTLESS))
    assert result == (0, b"ab" * ROUNDS, "")


def test_guest_that_never_stops_writing_keeps_the_main_thread_for_no_longer_than_a_ring(
    images: Images,
) -> None:
    flood = b"\xba" + DEBUGCON.to_bytes(2, "little") + bytes.fromhex("b041 ee ebfd")  # 'A' for ever
    status, output, messages = far_enough(
        lambda scale: run_to_end(images.run(flood, "--timeout", seconds(scale))), lambda result: result[1]
    )
    assert status == 124
    assert output.startswith(b"AAAA")
    assert " s ran out" in messages


LATE: Final = 200_000
"""As many characters as take several slices of the main thread on any host."""


def many(body: bytes, rounds: int) -> bytes:
    """mov ecx,rounds; body; dec ecx; jnz body."""
    back = -(len(body) + 6) & 0xFFFF
    return (
        b"\x66\xb9" + rounds.to_bytes(4, "little") + body + b"\x66\x49\x0f\x85" + back.to_bytes(2, "little")
    )


@pytest.mark.parametrize("ipc", first_per_commit(IPC))
def test_output_without_interrupts_takes_fewer_exits_than_characters_and_keeps_its_order(
    images: Images, tmp_path: Path, ipc: str
) -> None:
    interrupts = out(COM1 + 1, 0x02) + say(b"c", COM1) + out(COM1 + 1, 0x00)
    guest = many(b"\xba" + COM1.to_bytes(2, "little") + b"\xb0a\xee", LATE) + say(b"b", DEBUGCON) + interrupts
    json_file = tmp_path / "out.json"
    result = run_to_end(
        images.run(guest * 2 + SHUTDOWN + SPIN, "--ipc", ipc, "--json", str(json_file), "--timeout", "60")
    )
    assert result == (0, (b"a" * LATE + b"bc") * 2, "")
    assert json.loads(json_file.read_text())["exits"] < LATE


def test_last_characters_of_a_guest_that_crashes_are_printed(images: Images) -> None:
    guest = many(b"\xba" + COM1.to_bytes(2, "little") + b"\xb0a\xee", LATE) + TRIPLE_FAULT
    status, output, _ = run_to_end(images.run(guest, "--timeout", "60"))
    assert (status, output) == (6, b"a" * LATE)
