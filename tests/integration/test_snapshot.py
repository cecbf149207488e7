"""Snapshots of real machines: they go on where they were, every time, in every sandbox."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kvmbox import KvmboxError, Machine, SnapshotFileError, UsageError
from kvmbox.parts.snapshot.description import Description
from kvmbox.parts.snapshot.file import SnapshotFile, write_snapshot
from tests.support.family import children_of, pidfds_of
from tests.support.patience import patience
from tests.support.real_mode import (
    DEBUGCON,
    HALT_FOR_EVER,
    IDLE,
    RESET_8042,
    SPIN,
    debug_exit,
    echo,
    out,
    say,
    wait_input,
)
from tests.support.runs import KVMBOX, Images, Run
from tests.support.selection import first_per_commit
from tests.support.waiting import wait_readable

pytestmark = pytest.mark.kvm

PATIENCE_S = patience(30.0)
FORKS = int(os.environ.get("KVMBOX_SNAPSHOT_FORKS", "20"))

COUNT = bytes.fromhex(
    "c606000630"  # mov byte [0x600], '0'
    "baf803"  # next: mov dx, 0x3f8
    "a00006"  # mov al, [0x600]
    "ee"  # out dx, al
    "fe060006"  # inc byte [0x600]
    "803e00063a"  # cmp byte [0x600], '9' + 1
    "75ee"  # jne next
)
"""Prints 0123456789: the state is in memory, in a register and in the instruction pointer."""

SHOW_600 = bytes.fromhex("baf803 a00006 0430 ee fe060006")  # '0' + [0x600], then inc [0x600]


def machine(path: Path, **options: Any) -> Machine:
    return Machine.from_snapshot(path, timeout=PATIENCE_S, **options)


@pytest.fixture
def counting(images: Images, tmp_path: Path) -> Path:
    """A machine that has printed 01234."""
    path = tmp_path / "counting.snap"
    guest = images.write(COUNT, debug_exit(21))
    with Machine(guest, boot="real", timeout=PATIENCE_S, snapshot_when=[f"1234={path}"]) as vm:
        result = vm.wait()
    assert (result.status, result.output) == (43, b"0123456789")
    return path


def test_machine_goes_on_behind_the_text_and_the_first_one_does_too(counting: Path) -> None:
    with machine(counting) as vm:
        result = vm.wait()
    assert (result.status, result.output) == (43, b"56789")
    assert result.statistics.format == "real"


def test_all_forks_of_a_snapshot_are_the_same(counting: Path) -> None:
    before = counting.stat()
    for _ in range(FORKS):
        with machine(counting, sandbox="none") as vm:
            result = vm.wait()
        assert (result.status, result.output) == (43, b"56789")
    assert counting.stat().st_mtime_ns == before.st_mtime_ns


DESIGNS: tuple[dict[str, Any], ...] = (
    {"ipc": "pipe"},
    {"sandbox": "none"},
    {"sandbox": "thread"},
    {"seccomp": "strict"},
    {"sandbox": "per-device"},
    {"ipc": "shm"},
    {"on_device_crash": "restart"},
)


@pytest.mark.parametrize(
    "design", first_per_commit(DESIGNS), ids=lambda design: "-".join(map(str, design.values()))
)
def test_machine_goes_on_in_every_sandbox(
    images: Images, tmp_path: Path, counting: Path, design: Any
) -> None:
    with machine(counting, **design) as vm:
        assert vm.wait().output == b"56789"
    path = tmp_path / "other.snap"
    guest = images.write(COUNT, debug_exit(21))
    with Machine(guest, boot="real", timeout=PATIENCE_S, snapshot_when=[f"1234={path}"], **design) as vm:
        vm.wait()
    with machine(path) as vm:
        assert vm.wait().output == b"56789"


def test_write_to_a_port_is_a_moment(images: Images, tmp_path: Path) -> None:
    path = tmp_path / "a.snap"
    guest = images.write(say(b"one "), out(0x5F0, 1, 2), say(b"two"), debug_exit(1))
    with Machine(guest, boot="real", timeout=PATIENCE_S, snapshot_when=[f"port:0x5f0={path}"]) as vm:
        assert vm.wait().output == b"one two"
    with machine(path) as vm:
        assert vm.wait().output == b"two"


def test_port_is_a_moment_for_each_snapshot_that_names_it(images: Images, tmp_path: Path) -> None:
    guest = images.write(out(0x5F0, 1), debug_exit(1))
    wanted = [f"port:0x5f0={tmp_path}/a.snap", f"port:1520={tmp_path}/b.snap"]
    with Machine(guest, boot="real", timeout=PATIENCE_S, snapshot_when=wanted) as vm:
        assert vm.wait().status == 3
    for name in ("a.snap", "b.snap"):
        with machine(tmp_path / name) as vm:
            assert vm.wait().status == 3


def test_guest_time_is_a_moment_also_for_a_guest_that_never_exits(images: Images, tmp_path: Path) -> None:
    path = tmp_path / "a.snap"
    with Run(
        "--boot", "real", "--snapshot-when", f"time:0.05={path}", "--snapshot-stop", images.write(SPIN)
    ) as run:
        assert run.status() == 0
        assert "written" in run.messages
    with Run("--from", path, "--timeout", "0.5") as run:
        assert run.status() == 124


def test_program_takes_a_snapshot_of_a_guest_that_waits(images: Images, tmp_path: Path) -> None:
    path = tmp_path / "a.snap"
    with Machine(images.write(say(b"?"), echo()), boot="real", timeout=PATIENCE_S) as vm:
        vm.expect(r"\?")
        vm.snapshot(path)
        vm.send(b"first")
        vm.expect("first")
    with machine(path) as one, machine(path) as other:
        one.send(b"one")
        other.send(b"other")
        assert one.expect("one").group() == b"one"
        assert other.expect("other").group() == b"other"
        assert one.output == b"one"


def test_snapshot_of_a_machine_that_was_started_from_one(counting: Path, tmp_path: Path) -> None:
    path = tmp_path / "second.snap"
    with machine(counting, snapshot_when=[f"567={path}"]) as vm:
        assert vm.wait().output == b"56789"
    counting.unlink()
    with machine(path) as vm:
        assert vm.wait().output == b"89"


def test_owner_who_empties_the_file_under_a_run_does_not_harm_it(images: Images, tmp_path: Path) -> None:
    path = tmp_path / "a.snap"
    guest = images.write(say(b"?"), wait_input(), say(b"a"), wait_input(), SHOW_600, HALT_FOR_EVER)
    with Machine(
        guest, boot="real", timeout=PATIENCE_S, snapshot_when=[f"?={path}"], snapshot_stop=True
    ) as vm:
        vm.wait()
    with Run("--from", path, stdin=subprocess.PIPE) as run:
        run.send(b"x")
        run.stdout.until(b"a")
        os.truncate(path, 0)
        run.send(b"y")
        assert run.status() == 6
        assert run.output == b"a0"
        assert "the guest is halted for ever" in run.messages


def test_reset_boots_the_same_image_on_fresh_memory(images: Images, tmp_path: Path) -> None:
    path = tmp_path / "a.snap"
    image = images.write(SHOW_600, say(b"READY"), RESET_8042)
    with Machine(
        image, boot="real", timeout=PATIENCE_S, snapshot_when=[f"READY={path}"], snapshot_stop=True
    ) as vm:
        vm.wait()
    image.unlink()
    with machine(path, expect="0READY") as vm:
        assert (vm.wait().status, vm.output) == (0, b"0READY")


@pytest.mark.parametrize(
    ("guest", "at", "options"),
    [
        # Texts in the midst of what they prove: at a time, the guest may have ended on a busy host.
        ("clock", "the RTC says", {}),
        ("irq64", "ok RTC: periodic", {}),
        ("hpet", "ok HPET: edge", {}),
        ("smp", "smp: CPUs", {"cpus": 2}),
        ("smp", "ok CPUID", {"cpus": 2}),
        ("acpipm", "suspending", {}),
    ],
)
def test_guests_that_prove_interrupts_and_clocks_go_on(
    tmp_path: Path, guest: str, at: str, options: dict[str, Any]
) -> None:
    path = tmp_path / "a.snap"
    with Machine(guest, timeout=PATIENCE_S, snapshot_when=[f"{at}={path}"], **options) as vm:
        first = vm.wait()
    with machine(path) as vm:
        second = vm.wait()
    assert (first.status, second.status) == (0, 0)
    assert first.output.split()[-3:] == second.output.split()[-3:]


def test_device_that_the_guest_never_used_has_no_process_afterwards(counting: Path) -> None:
    with machine(counting) as vm:
        statistics = vm.wait().statistics
    # The PIT runs by itself, so a snapshot has its state.
    assert {name for name, start in statistics.on_demand.items() if start is not None} == {"pit"}


def test_lost_device_process_is_restarted_with_its_state(images: Images, tmp_path: Path) -> None:
    path = tmp_path / "a.snap"
    code = (bytes.fromhex("baff03 b05a ee"), say(b"?"), out(0x5F0, 1), echo())  # COM1's scratch register
    with Machine(
        images.write(*code), boot="real", timeout=PATIENCE_S, snapshot_when=[f"port:0x5f0={path}"]
    ) as vm:
        vm.expect(r"\?")
        vm.send(b"x")
        vm.expect("x")
    with machine(path, on_device_crash="restart") as vm:
        vm.send(b"a")
        vm.expect("a")
        (spawner,) = children_of(os.getpid())
        for pid in children_of(spawner):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        vm.send(b"b")
        vm.expect("b")
    assert any("restart" in line for line in vm.messages)


def test_recording_of_a_machine_from_a_snapshot_replays(counting: Path, tmp_path: Path) -> None:
    record = tmp_path / "a.rec"
    with Run("--from", counting, "--record", record, "--on-device-crash", "restart") as run:
        assert run.status() == 43
    replay = subprocess.run([*KVMBOX, "replay", str(record)], capture_output=True, check=False, text=True)
    assert (replay.returncode, replay.stderr) == (0, "")
    assert "replies are identical" in replay.stdout


def test_line_that_two_ports_print_is_shown_once_across_a_snapshot(images: Images, tmp_path: Path) -> None:
    path = tmp_path / "a.snap"
    guest = images.write(
        say(b"both\n"), out(0x5F0, 1), say(b"both\n", DEBUGCON), say(b"end\n"), debug_exit(1)
    )
    with Machine(guest, boot="real", timeout=PATIENCE_S, snapshot_when=[f"port:0x5f0={path}"]) as vm:
        assert vm.wait().output == b"both\nend\n"
    with machine(path) as vm:
        assert vm.wait().output == b"end\n"


def test_clock_stands_still_or_catches_up(images: Images, tmp_path: Path) -> None:
    path = tmp_path / "a.snap"
    year = bytes.fromhex("b009 e670 e471 baf803 ee")  # the RTC's year, in BCD, to COM1
    guest = images.write(out(0x5F0, 1), year, debug_exit(1))
    options: dict[str, Any] = {"boot": "real", "timeout": PATIENCE_S, "rtc_base": "2001-01-01T00:00:00"}
    with Machine(guest, snapshot_when=[f"port:0x5f0={path}"], **options) as vm:
        assert vm.wait().output == b"\x01"
    ten_years_ago = changed(path, {"taken": time.time_ns() - 10 * 366 * 86400 * 10**9}, "times")
    with machine(ten_years_ago) as vm:
        assert vm.wait().output == b"\x01"
    with machine(ten_years_ago, rtc="catch-up") as vm:
        assert vm.wait().output == b"\x11"


def test_line_that_is_high_falls_and_rises_again(images: Images, tmp_path: Path) -> None:
    """The PIT in mode 0 holds IRQ 0 high. If its fall were not passed on, its next edge would be none."""
    path = tmp_path / "a.snap"
    arm = "b030 e643 b010 e640 b000 e640"  # counter 0 in mode 0, 16 ticks
    pic = "b011e620 b008e621 b004e621 b001e621 b0fee621"  # vectors from 8; only IRQ 0 is not masked
    before = bytes.fromhex(f"fa {pic} {arm} fb")  # cli; arm; sti
    until_high = bytes.fromhex("b0e2e643 e440 a880 74f6")  # by the read-back command: OUT
    until_seen = bytes.fromhex("803e000631 72f9 b98813 e2fe fa")  # and all interrupts that are pending; cli
    # Snapshot; arm; sti; and hlt until it is seen.
    after = bytes.fromhex(f"c606000630 baf005 ee {arm} fb f4 803e000631 72f8")
    show = bytes.fromhex("baf803 a00006 ee")
    handler = bytes.fromhex("50 fe060006 b020e620 58 cf")  # inc byte [0x600]; EOI; iret
    rest = (before, until_high, until_seen, after, show, debug_exit(1), handler)
    start = 0x7C00 + 17 + sum(map(len, rest[:-1]))  # where the handler is: vector 8
    vector = b"\xc7\x06\x20\x00" + start.to_bytes(2, "little") + bytes.fromhex("c70622000000")
    setup = bytes.fromhex("c606000630") + vector
    guest = images.write(setup, *rest)
    with Machine(guest, boot="real", timeout=PATIENCE_S, snapshot_when=[f"port:0x5f0={path}"]) as vm:
        assert vm.wait().output == b"1"
    with machine(path) as vm:
        result = vm.wait()
    assert (result.output, result.status) == (b"1", 3)


def test_guest_time_goes_on(images: Images, tmp_path: Path) -> None:
    path = tmp_path / "a.snap"
    guest = images.write(IDLE)
    options: dict[str, Any] = {"snapshot_when": [f"time:0.3={path}"], "snapshot_stop": True}
    with Machine(guest, boot="real", timeout=PATIENCE_S, **options) as vm:
        assert vm.wait().statistics.guest_time >= 300_000_000
    with machine(path) as vm:
        vm.stop()
        assert vm.wait().statistics.guest_time >= 300_000_000


# --- What is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--memory", "64M"), "--memory contradicts --from"),
        (("--append", "x"), "--append contradicts --from"),
        (("--serial", "COM2=null"), "the machine of the snapshot has no COM2"),
        (("hello32",), "there is a GUEST beside it"),
    ],
)
def test_option_that_the_snapshot_decides_is_a_usage_error(
    counting: Path, arguments: tuple[str, ...], words: str
) -> None:
    with Run("--from", counting, *arguments) as run:
        assert run.status() == 2
        assert words in run.messages


def test_configuration_of_machines_that_boot_is_nothing_to_a_snapshot(counting: Path, tmp_path: Path) -> None:
    (tmp_path / "kvmbox.toml").write_text('[run]\nmemory = "64M"\nexpect = ["789"]\n')
    with Run("--from", counting, cwd=tmp_path) as run:
        assert run.status() == 0
    with Run("--from", counting, "--memory", "64M", cwd=tmp_path) as run:
        assert run.status() == 2
        assert "--memory contradicts --from" in run.messages


def changed(path: Path, change: dict[str, Any], part: str) -> Path:
    """A copy of a snapshot with other facts, and right checksums."""
    with SnapshotFile(str(path)) as file:
        memory = file.memory()
        facts = file.description.as_dict()
        facts[part] = type(facts[part])(**(facts[part].as_dict() | change))
        sections = {name: file.section(name) for name in file.sections if name != "memory"}
        other = path.with_suffix(".other")
        descriptor = os.open(other, os.O_RDWR | os.O_CREAT)
        write_snapshot(descriptor, Description(**facts), sections, memory)
        os.close(descriptor)
        memory.close()
    return other


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("host", {"tsc_khz": 1_000_000}, "time-stamp counter runs at 1000000 kHz"),
        (
            "host",
            {"leaves": ()},
            "the guest's CPU would be another one here: its vendor is ",
        ),
        ("board", {"debug_exit_port": 0x900}, "device debug-exit is another one"),
        ("board", {"serial": ("COM1", "COM3", "MMIO")}, "device COM3 is another one"),
        ("times", {"reset_at": 1 << 60, "guest": 1}, "a reset in the future"),
        ("board", {"cpu": "no such model"}, "it is damaged: --cpu"),
        ("board", {"serial": ("COM1", "MMIO", "COM9")}, "it is damaged: .*COM9"),
        ("boot", {"firmware_tables": "some"}, "it is damaged: --firmware-tables"),
    ],
)
def test_other_host_or_board_is_refused(
    counting: Path, part: str, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(SnapshotFileError, match=words), machine(changed(counting, change, part)):
        pass


def test_damaged_memory_is_refused_before_the_guest_runs(counting: Path) -> None:
    with counting.open("r+b") as file:
        file.seek(4096 + 0x7C00)
        file.write(b"\xf4")
    with Run("--from", counting) as run:
        assert run.status() == 4
        assert run.output == b""
        assert "checksum of guest memory" in run.messages
        assert "hint: " in run.messages


def test_snapshot_that_is_booted_as_an_image_is_named(counting: Path) -> None:
    with Run(counting) as run:
        assert run.status() == 4
        assert "it is a snapshot" in run.messages
        assert "hint: kvmbox run --from starts it" in run.messages


def test_port_of_a_device_is_refused(images: Images, tmp_path: Path) -> None:
    with Run("--boot", "real", "--snapshot-when", f"port:0x3f9={tmp_path}/a", images.write(IDLE)) as run:
        assert run.status() == 2
        assert "port 0x3f9 belongs to COM1" in run.messages
    assert not (tmp_path / "a").exists()


# --- What is written, and what is not ---------------------------------------------------------------------


def left_in(directory: Path) -> list[str]:
    return [name for name in os.listdir(directory) if "snap" in name]


def test_condition_that_never_came_is_told(images: Images, tmp_path: Path) -> None:
    guest = images.write(say(b"hello"), debug_exit(21))
    with Run("--boot", "real", "--snapshot-when", f"READY={tmp_path}/a.snap", guest) as run:
        assert run.status() == 12
        assert "before it had printed 'READY' (--snapshot-when)" in run.messages
    assert left_in(tmp_path) == []


def test_file_that_cannot_be_written_is_told_and_the_guest_runs_on(images: Images, tmp_path: Path) -> None:
    guest = images.write(COUNT, debug_exit(21))
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))  # noqa: E731
    with Run("--boot", "real", "--snapshot-when", f"34={tmp_path}/a.snap", guest, preexec_fn=limit) as run:
        assert run.status() == 14
        assert run.output == b"0123456789"
        assert run.messages.count("cannot write snapshot") == 2  # at once, and at the end
        assert "File too large; the run goes on" in run.messages
    assert left_in(tmp_path) == []


def test_wrong_place_is_an_error_of_the_start(images: Images, tmp_path: Path) -> None:
    guest = images.write(say(b"never"), IDLE)
    with Run("--boot", "real", "--snapshot-when", f"x={tmp_path}/none/a.snap", guest) as run:
        assert run.status() == 4
        assert run.output == b""
        assert "No such file or directory" in run.messages


def test_killed_vmm_leaves_no_file_and_no_process(images: Images, tmp_path: Path) -> None:
    guest = images.write(say(b"?"), IDLE)
    with Run("--boot", "real", "--snapshot-when", f"READY={tmp_path}/a.snap", guest) as run:
        run.stdout.until(b"?")
        pidfds = pidfds_of(children_of(run.pid))
        run.signal(signal.SIGKILL)
        for pidfd in pidfds:
            wait_readable(pidfd, "the end of the committer")
            os.close(pidfd)
    assert left_in(tmp_path) == []


def test_machine_that_ends_before_its_snapshot_says_so(images: Images, tmp_path: Path) -> None:
    vm = Machine(images.write(debug_exit(1)), boot="real", timeout=PATIENCE_S)
    with pytest.raises(UsageError, match="was not started"):
        vm.snapshot(tmp_path / "a.snap")
    with vm:
        vm.wait()
        with pytest.raises(SnapshotFileError, match="the guest ended before"):
            vm.snapshot(tmp_path / "a.snap")
    assert left_in(tmp_path) == []
    assert issubclass(SnapshotFileError, KvmboxError)
