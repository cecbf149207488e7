"""Power management of a run: power-off, suspension to memory, and interrupt line 0 at the I/O APIC."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

import pytest

from kvmbox.base import layout
from tests.support.real_mode import IDLE, debug_exit, out, say
from tests.support.runs import KVMBOX

pytestmark = pytest.mark.kvm

MISSED: Final = debug_exit(3)
S3: Final = out(layout.PM1_CONTROL_PORT, 0x2400, 2)
RTC_EN: Final = out(layout.PM1_EVENT_PORT + 2, 0x0400, 2)


def rtc(register: int, value: int) -> bytes:
    return out(layout.RTC_INDEX_PORT, register) + out(layout.RTC_DATA_PORT, value)


ANY_SECOND: Final = b"".join(rtc(register, 0xFF) for register in (1, 3, 5))
ALARM: Final = ANY_SECOND + rtc(0x0B, 0x22)  # AIE, 24 hours


def facs(vector: int) -> bytes:
    """A FACS at 0xf0000 with this waking vector: DS = 0xf000; mov dword [place],value for both fields."""
    signature = b"\x66\xc7\x06\x00\x00FACS"
    return b"\xb8\x00\xf0\x8e\xd8" + signature + b"\x66\xc7\x06\x0c\x00" + vector.to_bytes(4, "little")


def run(directory: Path, image: bytes, *options: str) -> subprocess.CompletedProcess[str]:
    guest = directory / "guest.bin"
    guest.write_bytes(image)
    return subprocess.run(
        [*KVMBOX, "run", "--boot", "real", *options, guest], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("port", "value", "size"),
    [
        (0x604, 0x2000, 2),
        (0x604, 0x2000, 4),
        (0x605, 0x20, 1),
        (0xB004, 0x2000, 2),
        (0xB004, 0x2000, 4),
        (0x4004, 0x3400, 2),
        (0x600, 0x34, 1),
    ],
)
def test_power_off_is_a_clean_stop(tmp_path: Path, port: int, value: int, size: int) -> None:
    done = run(tmp_path, say(b"off") + out(port, value, size) + MISSED)
    assert (done.returncode, done.stdout, done.stderr) == (0, "off", "")


@pytest.mark.parametrize(
    ("port", "value", "size"),
    [
        (0x604, 0x3400, 2),
        (0xB004, 0x3400, 2),
        (0xB004, 0x20, 1),
        (0xB005, 0x20, 1),
        (0x4004, 0x2000, 2),
        (0x600, 0x34, 2),
        (0x600, 0x35, 1),
        (0xB2, 0xF1, 1),
    ],
)
def test_what_is_no_power_off_changes_nothing(tmp_path: Path, port: int, value: int, size: int) -> None:
    assert run(tmp_path, out(port, value, size) + MISSED).returncode == 7


def test_suspended_guest_goes_on_at_its_waking_vector(tmp_path: Path) -> None:
    before = facs(0) + RTC_EN + ALARM + say(b"asleep, ") + S3 + MISSED
    vector = layout.REAL_MODE_LOAD_ADDRESS + len(before)
    before = facs(vector) + before[len(facs(0)) :]
    where = b"\x8c\xc8\x3d" + (vector >> 4).to_bytes(2, "little")  # mov ax,cs; cmp ax,vector/16
    done = run(tmp_path, before + where + bytes((0x74, len(MISSED))) + MISSED + say(b"woken") + debug_exit(0))
    assert (done.returncode, done.stdout, done.stderr) == (1, "asleep, woken", "")


def test_alarm_that_came_before_the_sleep_wakes_the_guest_at_once(tmp_path: Path) -> None:
    wait = bytes.fromhex("b00a e6a0 e4a0 a801 74f8")  # the second 8259 has a request of IRQ 8: OCW3, read IRR
    before = facs(0) + RTC_EN + ALARM + wait + S3 + MISSED
    before = facs(layout.REAL_MODE_LOAD_ADDRESS + len(before)) + before[len(facs(0)) :]
    assert run(tmp_path, before + debug_exit(9)).returncode == 19


def test_suspension_without_a_wake_up_is_a_halt_for_ever(tmp_path: Path) -> None:
    done = run(tmp_path, ALARM + S3 + MISSED)
    assert done.returncode == 6
    assert "halted for ever: it suspended to memory (S3), and nothing that could wake it" in done.stderr
    assert "RTC_EN" in done.stderr


@pytest.mark.parametrize(
    ("prepare", "why"),
    [(b"", "there is no FACS"), (facs(0), "its waking vector is 0x0"), (facs(1 << 20), "vector is 0x100000")],
)
def test_wake_up_to_nowhere_is_a_halt_for_ever(tmp_path: Path, prepare: bytes, why: str) -> None:
    done = run(tmp_path, prepare + RTC_EN + ALARM + S3 + MISSED)
    assert done.returncode == 6
    assert why in done.stderr


def test_time_out_counts_while_the_guest_sleeps(tmp_path: Path) -> None:
    late = rtc(1, 0x59) + rtc(3, 0x59) + rtc(5, 0x23) + rtc(0x0B, 0x22)
    done = run(
        tmp_path,
        facs(0x500) + RTC_EN + late + S3 + IDLE,
        "--timeout",
        "1",
        "--rtc-base",
        "2026-01-02T03:04:05",
    )
    assert done.returncode == 124


def test_run_with_a_suspension_is_recorded_and_replayed(tmp_path: Path) -> None:
    before = facs(0) + RTC_EN + ALARM + S3 + MISSED
    before = facs(layout.REAL_MODE_LOAD_ADDRESS + len(before)) + before[len(facs(0)) :]
    record = tmp_path / "run.rec"
    done = run(tmp_path, before + debug_exit(0), "--record", str(record), "--on-device-crash", "restart")
    assert done.returncode == 1
    replayed = subprocess.run([*KVMBOX, "replay", str(record)], capture_output=True, text=True, check=False)
    assert replayed.returncode == 0, replayed.stderr
