"""fw_cfg in a run: the bundled guest reads every file by port and by DMA, whatever the sandbox."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.real_mode import IDLE, SHUTDOWN, debug_exit, out
from tests.support.runs import DESIGNS, Images, Run, error_lines, run_to_end
from tests.support.selection import first_per_commit

pytestmark = pytest.mark.kvm

OTHER_SPAWNER = str(Path(__file__).parent / "run_payload" / "other_spawner.py")

LARGE = bytes(number * 7 & 0xFF for number in range(40_000))
COPIED = bytes(number * 3 & 0xFF for number in range(3 << 20))


def summed(data: bytes) -> int:
    """What the guest says of a file: a sum of its first 8 KiB."""
    total = 0
    for byte in data[:8192]:
        total = (total << 1 | total >> 31) + byte & 0xFFFF_FFFF
    return total


@pytest.mark.parametrize("design", first_per_commit(DESIGNS), ids=" ".join)
def test_guest_reads_every_file_by_port_and_by_dma(tmp_path: Path, design: tuple[str, ...]) -> None:
    files = {"opt/hello": b"Hello, guest.\n", "opt/large": LARGE, "opt/copied": COPIED, "opt/none": b""}
    options = []
    for number, (name, data) in enumerate(files.items()):
        (tmp_path / str(number)).write_bytes(data)
        options += ["--fw-cfg", f"{name}={tmp_path / str(number)}"]
    run = Run(*options, *design, "--memory", "64M", "--append", "opt/hello", "fwcfg")
    status, output, _ = run_to_end(run)
    lines = output.decode().splitlines()
    assert status == 0, lines
    assert lines[:2] == ["CPUs: 1", f"bytes of RAM: {64 << 20}"]
    for name, data in files.items():
        assert f"file {name}: {len(data)} bytes, sum {summed(data):#010x}" in lines
    assert "Hello, guest." in lines
    assert lines[-1] == "fwcfg: done"


# Read the next byte of fw_cfg, and show it on the debug console.
SHOW_BYTE = bytes.fromhex("ba1105 ec bae900 ee")


def test_process_that_is_lost_when_a_large_item_is_selected_comes_back(
    images: Images, tmp_path: Path
) -> None:
    (tmp_path / "x").write_bytes(LARGE)
    (tmp_path / "y").write_bytes(b"")
    # The directory's entries are in order: opt/x is the fifth file.
    code = out(0x510, 0x24, 2) + SHOW_BYTE * 70 + SHUTDOWN
    command = (sys.executable, OTHER_SPAWNER, "fwcfg", "leave", "1000")
    files = ("--fw-cfg", f"opt/x={tmp_path / 'x'}", "--fw-cfg", f"opt/y={tmp_path / 'y'}")
    run = images.run(code, *files, "--on-device-crash", "restart", command=command)
    status, output, messages = run_to_end(run)
    assert (status, output) == (0, LARGE[:70])
    assert "device process 'fwcfg' exited with status 7: restarted" in messages


def test_process_that_does_what_fw_cfg_may_not_breaks_the_protocol(images: Images) -> None:
    command = (sys.executable, OTHER_SPAWNER, "fwcfg", "stop", "1000")
    status, _, messages = run_to_end(images.run(out(0x510, 0x19, 2) + SHUTDOWN, command=command))
    assert status == 8
    assert "effect Stop of fw_cfg: not granted" in error_lines(messages)[0]


def test_name_that_is_not_the_users_is_warned_of(images: Images, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    run = images.run(debug_exit(1), "--fw-cfg", f"etc/x={tmp_path / 'x'}")
    status, _, messages = run_to_end(run)
    assert status == 3
    assert messages.startswith("kvmbox: --fw-cfg etc/x: names that do not begin with 'opt/'")


@pytest.mark.parametrize(
    ("name", "file", "status", "said"),
    [
        ("opt/x", "missing", 4, "no such file"),
        ("opt/" + "x" * 52, "x", 2, "has not 1 to 55 characters"),
        ("opt/\u00e4", "x", 2, "is not plain ASCII"),
        ("etc/e820", "x", 2, "two files with the name 'etc/e820'"),
    ],
)
def test_file_that_cannot_be_told_is_refused_in_a_line(
    images: Images, tmp_path: Path, name: str, file: str, status: int, said: str
) -> None:
    (tmp_path / "x").write_bytes(b"x")
    found, output, messages = run_to_end(images.run(IDLE, "--fw-cfg", f"{name}={tmp_path / file}"))
    assert (found, output) == (status, b"")
    assert said in messages
    assert "Traceback" not in messages


def test_testdev_is_there_on_request(images: Images) -> None:
    # out 0xe0,0x12345678; in eax,0xe0; shr eax,24; out the debug-exit port
    code = out(0xE0, 0x1234_5678, 4) + bytes.fromhex("66ed 66c1e818 baf400 ee")
    assert run_to_end(images.run(code, "--testdev"))[0] == 0x12 << 1 | 1
    assert run_to_end(images.run(code))[0] == 0xFF  # nobody answers
