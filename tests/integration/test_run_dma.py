"""A device that reads guest memory, writes it and has bulk data moved, in runs of every design; and its lies.

The device is none of kvmbox's: its text goes into the jail with HELLO (tests/support/dma_probe.py).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.dma import (
    ADDRESS,
    BAD_ADDRESS,
    BEYOND_END,
    COMMAND,
    DISK,
    DISK_AFTER,
    DONE,
    LENGTH,
    LOAD,
    NO_SPACE,
    READ,
    STORE,
    WRITE,
    command,
    print_memory,
    store,
    tour,
)
from tests.support.family import device_processes
from tests.support.real_mode import DEBUGCON, SHUTDOWN, SPIN, out, say, wait_input
from tests.support.runs import KVMBOX, Images
from tests.support.selection import first_per_commit
from tests.support.waiting import PATIENCE_S

pytestmark = pytest.mark.kvm

ROOT = Path(__file__).parent.parent.parent
PROGRAM = ROOT / "tests/integration/run_payload/dma_run.py"
DESIGNS = [
    {"sandbox": "process", "ipc": "socketpair"},
    {"sandbox": "process", "ipc": "pipe"},
    {"sandbox": "process", "ipc": "shm"},
    {"sandbox": "process", "seccomp": "strict"},
    {"sandbox": "per-device"},
    {"sandbox": "thread", "ipc": "shm"},
    {"sandbox": "thread"},
    {"sandbox": "none"},
]


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(DISK)
    return path


@contextmanager
def start(
    images: Images, disk: Path, code: bytes, stdin: int = subprocess.DEVNULL, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """The run, which does not outlive the context. Its pipes are read without a buffer."""
    with subprocess.Popen(
        [sys.executable, PROGRAM, images.write(code + SHUTDOWN), disk, json.dumps(options)],
        stdin=stdin,
        bufsize=0,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def run(images: Images, disk: Path, code: bytes, **options: Any) -> tuple[int, bytes, str]:
    with start(images, disk, code, **options) as process:
        output, messages = process.communicate(timeout=PATIENCE_S)
    return process.returncode, output, messages.decode()


@pytest.mark.parametrize("design", first_per_commit(DESIGNS), ids=lambda design: "-".join(design.values()))
def test_run_with_memory_and_transfers_in_every_design(
    design: dict[str, str], images: Images, disk: Path
) -> None:
    code, printed = tour()
    status, output, messages = run(images, disk, code, **design)
    assert (status, output) == (0, printed), messages
    assert disk.read_bytes() == DISK_AFTER


@pytest.mark.parametrize("sandbox", first_per_commit(["process", "per-device", "none"]))
def test_recorded_run_is_replayed_without_memory_and_without_disk(
    sandbox: str, images: Images, disk: Path, tmp_path: Path
) -> None:
    code, printed = tour()
    recording = tmp_path / "run.rec"
    assert run(images, disk, code, sandbox=sandbox, record=str(recording))[:2] == (0, printed)
    disk.unlink()
    done = kvmbox("replay", recording)
    assert done.returncode == 0, done.stderr
    assert "replies are identical" in done.stdout
    # What came with the recording runs in a jail, or not at all.
    refused = kvmbox("replay", "--sandbox", "none", recording)
    assert refused.returncode == 4
    assert "brings its own source, which is for jailed processes only" in refused.stderr
    dump = kvmbox("replay", "--dump", "--device", "DMA", recording).stdout
    for words in (
        "write 4 bytes 0x00000001 to port 0x70c",
        "DMA asks for memory (tag 2): 4000 bytes at 0x20000",
        "memory (tag 2): 4000 bytes: ",
        "memory (tag 7): bad address",
        "DMA writes 4000 bytes to memory at 0x20000: ",
        "DMA asks to read resource 0 at byte 777 (tag 19): 5000 bytes at 0x40000, 5000 bytes at 0x41388",
        "complete (tag 19): done",
        "DMA raises IRQ 11",
    ):
        assert words in dump, words


def kvmbox(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*KVMBOX, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "design", first_per_commit(DESIGNS[:5]), ids=lambda design: "-".join(design.values())
)
def test_device_process_killed_again_and_again_is_not_noticed_by_the_guest(
    design: dict[str, str], images: Images, disk: Path
) -> None:
    laps = 6
    # Before each lap the guest waits for a byte, so that each process dies with some of a lap behind it.
    code, printed = tour(laps=laps, before=say(b"<", DEBUGCON) + wait_input(), shown=b"<")
    with start(images, disk, code, on_device_crash="restart", stdin=subprocess.PIPE, **design) as process:
        assert process.stdin is not None
        output = b""
        for lap in range(laps):
            output += next_bytes(process, lap * (len(printed) // laps) + 1 - len(output))
            assert output.endswith(b"<")
            process.stdin.write(b"x")
            process.stdin.flush()
            if lap < laps - 1:  # the run may end with the last lap at any moment
                # Somewhere in the middle of the next commands.
                output += next_bytes(process, 5 * lap + 1)
                os.kill(device_process(process.pid), signal.SIGKILL)
        rest, messages = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, output + rest) == (0, printed), messages.decode()
    assert (
        b"device process '%s' was killed" % (b"DMA" if "per-device" in design.values() else b"dma")
        in messages
    )
    assert messages.count(b": restarted, ") == laps - 1
    assert disk.read_bytes() == DISK_AFTER


def next_bytes(process: subprocess.Popen[bytes], size: int) -> bytes:
    """So many bytes of output, or the end of the test."""
    assert process.stdout is not None
    assert process.stderr is not None
    data = b""
    while len(data) < size:
        more = process.stdout.read(size - len(data))
        assert more, (process.stderr.read() or b"").decode()
        data += more
    return data


def device_process(vmm: int) -> int:
    """The process that is the probe now: the one of that name, or the replacement that is here longest."""
    wanted = ("dma", "DMA", "standby")
    return min(pid for pid, name in device_processes(vmm).items() if name in wanted)


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("too many bytes", "effect MemoryRead of DMA: not granted"),
        ("four gigabytes", "effect MemoryRead of DMA: not granted"),
        ("too many ranges", "effect MemoryRead of DMA: not granted"),
        ("endless legs", "DMA asks for more than 20 follow-ups of one request"),
        ("many legs at once", "DMA asks for more than 20 follow-ups of one request"),
        ("write to what is read only", "effect Transfer of DMA: not granted"),
        ("another resource", "effect Transfer of DMA: not granted"),
        ("a resource of the next life", "effect Transfer of DMA: not granted"),
        ("too large a transfer", "effect Transfer of DMA: not granted"),
    ],
)
def test_device_that_asks_for_more_than_it_was_granted_ends_the_run(
    way: str, words: str, images: Images, disk: Path
) -> None:
    code = say(b"before", DEBUGCON) + command(READ, 0x20000, 16) + say(b"after", DEBUGCON)
    status, output, messages = run(images, disk, code, way=way)
    assert (status, output) == (8, b"before")
    assert f"device process 'dma' broke the protocol: {words}" in messages
    assert disk.read_bytes() == DISK


@pytest.mark.parametrize("number", [READ, WRITE, LOAD])
def test_device_that_was_granted_no_memory_ends_the_run(number: int, images: Images, disk: Path) -> None:
    status, output, messages = run(images, disk, command(number, 0x20000, 16), grants="none")
    assert (status, output) == (8, b"")
    assert "device process 'dma' broke the protocol: effect " in messages
    assert "of DMA: not granted" in messages


@pytest.mark.parametrize(
    ("way", "digit"),
    [("wrapping", BAD_ADDRESS), ("wrapping read", BAD_ADDRESS), ("wrapping transfer", BEYOND_END)],
)
def test_range_that_wraps_is_no_memory_and_no_part_of_a_resource(
    way: str, digit: int, images: Images, disk: Path
) -> None:
    status, output, messages = run(images, disk, command(READ, 0x20000, 4) + say(b"!", DEBUGCON), way=way)
    assert (status, output) == (0, b"%d!" % digit), messages


def test_model_that_raises_is_named_with_its_own_file(images: Images, disk: Path) -> None:
    status, output, messages = run(images, disk, command(READ, 0x20000, 4), way="raise")
    assert (status, output) == (8, b"")
    assert "device process 'dma' failed: IndexError: a bug of the model at Hostile.py:" in messages


def test_model_that_imports_what_is_not_there_makes_a_forbidden_call(images: Images, disk: Path) -> None:
    status, output, messages = run(images, disk, command(READ, 0x20000, 4), way="import")
    assert (status, output) == (8, b"")
    assert "device process 'dma' was killed (SIGKILL): it called " in messages


def test_host_disk_that_is_full_is_the_devices_to_tell(images: Images, disk: Path) -> None:
    code = command(STORE, 0x20000, 512) + say(b"!", DEBUGCON)
    status, output, messages = run(images, Path("/dev/full"), code)
    assert (status, output) == (0, b"%d!" % NO_SPACE), messages


def test_file_that_is_shorter_than_its_grant_says_is_at_its_end(images: Images, disk: Path) -> None:
    disk.write_bytes(DISK[:1000])
    code = command(LOAD, 0x20000, 4, 990) + command(LOAD, 0x20000, 4, 998)
    assert run(images, disk, code)[:2] == (0, b"%d%d" % (DONE, BEYOND_END))


def test_reset_forgets_transfers_and_the_next_boot_has_none_of_them(images: Images, disk: Path) -> None:
    # The first boot leaves a command under way and resets; the second one finds memory clear, and the device
    # idle and working.
    first = store(ADDRESS, 0x60000) + store(LENGTH, 40_000) + store(COMMAND, LOAD) + out(0x92, 1) + SPIN
    code = first_boot_only(first) + print_memory(0x60000) + command(LOAD, 0x60000, 4) + print_memory(0x60000)
    status, output, messages = run(images, disk, code)
    assert (status, output) == (0, bytes(4) + b"%d" % DONE + DISK[:4]), messages


def first_boot_only(code: bytes) -> bytes:
    """Run `code` if a cell of the CMOS RAM, which a reset keeps, is 0; make it 1."""
    # mov al,0x40; out 0x70,al; in al,0x71; test al,al; jnz behind; then the same with mov al,1; out 0x71,al
    mark = bytes.fromhex("b040 e670 b001 e671")
    skip = len(mark) + len(code)
    return bytes.fromhex("b040 e670 e471 84c0 0f85") + skip.to_bytes(2, "little") + mark + code
