"""The processes of a run: what each of them holds, what its death does, and that none outlives the run."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from kvmbox.wire import page_layout
from tests.support.family import DEVICE_TYPES, children_of
from tests.support.patience import far_enough, seconds
from tests.support.real_mode import (
    HALT_FOR_EVER,
    IDLE,
    POPCNT,
    RESET_8042,
    SHUTDOWN,
    SPIN,
    TRIPLE_FAULT,
    debug_exit,
    say,
    wait_input,
)
from tests.support.runs import Images, Run, error_lines
from tests.support.selection import first_per_commit

pytestmark = pytest.mark.kvm

READY = say(b"ready\n")
PR_SET_CHILD_SUBREAPER = 36
MEMORY = 256 << 20
SECRET = bytes(range(0xA0, 0xB0)) + b"guest memory only"


def start(images: Images, code: bytes, *arguments: str, stdin: int = subprocess.DEVNULL) -> Run:
    """A run whose guest has said that it is ready."""
    run = images.run(READY + code, *arguments, stdin=stdin)
    run.stdout.until(b"ready\n")
    assert len(run.family.devices) == len(DEVICE_TYPES)
    return run


# --- What a device process holds --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def idle_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run that stays, for all the tests that only look."""
    images = Images(tmp_path_factory.mktemp("idle"))
    with start(images, IDLE + SECRET, "--memory", str(MEMORY), "--ipc", "socketpair") as run:
        yield run


@pytest.fixture(scope="module")
def idle_run_with_pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The same over shared memory."""
    images = Images(tmp_path_factory.mktemp("idle"))
    with start(images, IDLE + SECRET, "--memory", str(MEMORY), "--ipc", "shm") as run:
        yield run


def status_field(pid: int, name: str) -> str:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return line.partition(":")[2].strip()
    raise AssertionError(f"no {name} in /proc/{pid}/status")


@pytest.mark.parametrize("device", DEVICE_TYPES)
def test_device_process_is_filtered_and_gains_no_privileges(idle_run: Run, device: str) -> None:
    pid = idle_run.family.devices[device]
    assert status_field(pid, "Seccomp") == "2"
    assert status_field(pid, "NoNewPrivs") == "1"
    assert {int(status_field(pid, name), 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}


@pytest.mark.root
@pytest.mark.parametrize("device", DEVICE_TYPES)
def test_device_process_holds_its_channel_only(idle_run: Run, device: str) -> None:
    directory = Path(f"/proc/{idle_run.family.devices[device]}/fd")
    (descriptor,) = directory.iterdir()
    assert os.readlink(descriptor).startswith("socket:")


@pytest.mark.root
@pytest.mark.parametrize("device", DEVICE_TYPES)
def test_device_process_with_shared_memory_shares_its_page_only(
    idle_run_with_pages: Run, device: str
) -> None:
    pid = idle_run_with_pages.family.devices[device]
    held = sorted(os.readlink(one).partition(":")[0] for one in Path(f"/proc/{pid}/fd").iterdir())
    assert held in (["pipe", "pipe"], ["/memfd", "pipe", "pipe"])
    shared = [
        (end - first, name)
        for first, end, permissions, name in mappings(pid)
        if permissions[1] == "w" and permissions[3] == "s"
    ]
    assert shared == [(page_layout.SIZE, "/memfd:kvmbox-page (deleted)")]
    assert not holds_secret(pid)


@pytest.mark.root
@pytest.mark.parametrize("device", DEVICE_TYPES)
def test_device_process_environment_is_empty(idle_run: Run, device: str) -> None:
    assert Path(f"/proc/{idle_run.family.devices[device]}/environ").read_bytes() == b""


def mappings(pid: int) -> Iterator[tuple[int, int, str, str]]:
    """First and end address, permissions and name of each mapping that can be read."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        fields = line.split(None, 5)
        first, _, end = fields[0].partition("-")
        yield int(first, 16), int(end, 16), fields[1], fields[5] if len(fields) > 5 else ""


def holds_secret(pid: int) -> bool:
    """Whether SECRET is somewhere in the memory of `pid`; the large and empty rest of guest memory apart."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for first, end, permissions, name in mappings(pid):
            if "r" not in permissions or name in ("[vvar]", "[vsyscall]", "[vvar_vclock]"):
                continue
            memory.seek(first)
            if SECRET in memory.read(min(end - first, 16 << 20)):
                return True
    return False


@pytest.mark.root
@pytest.mark.parametrize("device", DEVICE_TYPES)
def test_device_process_maps_no_guest_memory(idle_run: Run, device: str) -> None:
    pid = idle_run.family.devices[device]
    for first, end, permissions, name in mappings(pid):
        assert end - first < MEMORY
        assert permissions[1] == "-" or permissions[3] == "p", name  # nothing that is writable is shared
        assert "kvm" not in name.rpartition("/")[2] or name.endswith(".py"), name
    assert not holds_secret(pid)


@pytest.mark.root
def test_spawner_has_neither_guest_memory_nor_kvm(idle_run: Run) -> None:
    pid = idle_run.family.spawner
    assert not holds_secret(pid)
    opened = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
    assert not [name for name in opened if "kvm" in name]
    assert sum(name.startswith("socket:") for name in opened) == 1


@pytest.mark.root
def test_vmm_does_hold_guest_memory(idle_run: Run) -> None:
    # The control of the two tests above: the secret would be found.
    assert holds_secret(idle_run.pid)
    assert max(end - first for first, end, _, _ in mappings(idle_run.pid)) >= MEMORY - (1 << 20)


# --- Deaths of device processes ---------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICE_TYPES)
@pytest.mark.parametrize(
    ("guest", "number"),
    [(IDLE, signal.SIGKILL), (SPIN, signal.SIGSEGV)],
    ids=["SIGKILL, halted", "SIGSEGV, spinning"],
)
def test_killed_device_process_gives_8_and_is_named(
    images: Images, device: str, guest: bytes, number: signal.Signals
) -> None:
    with start(images, guest, "--expect", "never", "--success-status", "3") as run:
        os.kill(run.family.devices[device], number)
        assert run.status() == 8
        assert run.output == b"ready\n"
        (line,) = error_lines(run.messages)
        assert f"device process '{device}' was killed by signal {number.value} ({number.name})" in line
        run.family.assert_gone()


@pytest.mark.parametrize("device", DEVICE_TYPES)
def test_stopped_device_process_gives_8_and_is_named(images: Images, device: str) -> None:
    with start(images, IDLE) as run:
        os.kill(run.family.devices[device], signal.SIGSTOP)
        assert run.status() == 8
        assert run.output == b"ready\n"
        (line,) = error_lines(run.messages)
        assert f"device process '{device}' is hung" in line
        run.family.assert_gone()


def test_device_process_stopped_in_the_midst_of_requests_gives_8(images: Images) -> None:
    poll = bytes.fromhex("bafd03 ec ebfd")  # in al,LSR for ever
    with start(images, poll) as run:
        os.kill(run.family.devices["uart"], signal.SIGSTOP)
        assert run.status() == 8
        (line,) = error_lines(run.messages)
        assert "device process 'uart' is hung" in line
        run.family.assert_gone()


@pytest.mark.parametrize("ipc", first_per_commit(["socketpair", "pipe", "shm"]))
def test_stopped_device_process_whose_spawner_is_stopped_too_gives_8(images: Images, ipc: str) -> None:
    # The spawner is the one that kills, and it does not: it is killed itself; the vCPU thread's read ends.
    poll = bytes.fromhex("bafd03 ec ebfd")
    with start(images, poll, "--ipc", ipc) as run:
        os.kill(run.family.spawner, signal.SIGSTOP)
        os.kill(run.family.devices["uart"], signal.SIGSTOP)
        assert run.status() == 8
        (line,) = error_lines(run.messages)
        assert "device process 'uart' is hung" in line
        run.family.assert_gone()


def test_vmm_signals_nobody_but_its_spawner(idle_run: Run) -> None:
    # CAP_KILL is gone, and so is every other: what ends device processes is the spawner.
    assert status_field(idle_run.process.pid, "CapEff") == "0" * 16
    limits = Path(f"/proc/{idle_run.process.pid}/limits").read_text().splitlines()
    (files,) = [line.split()[3:5] for line in limits if line.startswith("Max open files")]
    pinned = Path(f"/proc/{idle_run.process.pid}/fdinfo/{files[0]}").read_text()
    assert f"Pid:\t{idle_run.family.spawner}\n" in pinned  # nothing else can get this number
    assert files[0] == files[1]


def test_device_process_killed_in_the_midst_of_requests_gives_8(images: Images) -> None:
    poll = bytes.fromhex("bafd03 ec ebfd")
    with start(images, poll) as run:
        os.kill(run.family.devices["uart"], signal.SIGKILL)
        assert run.status() == 8
        (line,) = error_lines(run.messages)
        assert "device process 'uart' was killed by signal 9 (SIGKILL)" in line
        run.family.assert_gone()


POLL = bytes.fromhex("bafd03 ec ebfd")
"""in al,LSR for ever."""


@pytest.mark.parametrize("guest", [IDLE, SPIN, POLL], ids=["halted", "spinning", "polling"])
@pytest.mark.parametrize("choice", ["fail", "restart", "all-ones"])
def test_killed_spawner_gives_8_whatever_is_done_about_lost_processes(
    images: Images, guest: bytes, choice: str
) -> None:
    # As the kernel does for lack of memory. Nobody is left who could start another process.
    with images.run(READY + guest, "--on-device-crash", choice) as run:
        run.stdout.until(b"ready\n")
        (spawner,) = [pid for pid in children_of(run.pid) if children_of(pid)]
        os.kill(spawner, signal.SIGKILL)
        assert run.status() == 8
        assert run.output == b"ready\n"
        (line,) = error_lines(run.messages)
        assert "SIGKILL" in line


# --- Nothing is left --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "arguments", "statuses"),
    [
        (SHUTDOWN, (), {0}),
        (debug_exit(3), (), {7}),
        (RESET_8042, ("--no-reboot",), {0}),
        (TRIPLE_FAULT, (), {6}),
        (HALT_FOR_EVER, (), {6}),
        (POPCNT + debug_exit(5), (), {10, 11}),
        (say(b"seen") + IDLE, ("--expect", "seen"), {0}),
        (say(b"seen") + IDLE, ("--fail-on", "seen"), {12}),
    ],
    ids=["shutdown", "debug exit", "reset", "triple fault", "halt", "internal error", "expect", "fail-on"],
)
def test_no_process_is_left_when_the_guest_ends(
    images: Images, end: bytes, arguments: tuple[str, ...], statuses: set[int]
) -> None:
    with start(images, wait_input() + end, *arguments, stdin=subprocess.PIPE) as run:
        run.send(b"!")
        assert run.status() in statuses
        run.family.assert_gone()


def test_no_process_is_left_after_a_timeout(images: Images) -> None:
    def ended(scale: int) -> int | None:
        with images.run(READY + SPIN, "--timeout", seconds(2 * scale)) as run:
            if not run.stdout.comes(b"ready\n"):
                return None
            assert len(run.family.devices) == len(DEVICE_TYPES)
            status = run.status()
            run.family.assert_gone()
            return status

    assert far_enough(ended, bool) == 124


@pytest.mark.parametrize(
    ("guest", "number"),
    [
        (IDLE, signal.SIGINT),
        (IDLE, signal.SIGTERM),
        (SPIN, signal.SIGTERM),
        (SPIN, signal.SIGHUP),
        (IDLE, signal.SIGQUIT),
    ],
    ids=["SIGINT", "SIGTERM", "SIGTERM, spinning", "SIGHUP, spinning", "SIGQUIT"],
)
def test_signal_gives_130_and_leaves_no_process(images: Images, guest: bytes, number: signal.Signals) -> None:
    with start(images, guest, "--expect", "never", "--success-status", "3") as run:
        run.signal(number)
        assert run.status() == 130
        assert run.output == b"ready\n"
        assert error_lines(run.messages) == []
        run.family.assert_gone()


def test_signal_ends_a_run_whose_spawner_is_stopped(images: Images) -> None:
    with start(images, IDLE) as run:
        os.kill(run.family.spawner, signal.SIGSTOP)
        run.signal(signal.SIGTERM)
        assert run.status() == 130
        run.family.wait_dead()


@pytest.fixture
def subreaper() -> Iterator[None]:
    """Orphans of this test become children of this process, and are reaped at its end."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield
    libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@pytest.mark.usefixtures("subreaper")
@pytest.mark.parametrize("guest", [IDLE, SPIN], ids=["halted", "spinning"])
def test_no_process_outlives_a_killed_vmm(images: Images, guest: bytes) -> None:
    with start(images, guest) as run:
        run.signal(signal.SIGKILL)
        assert run.exit_status() == -signal.SIGKILL
        run.family.wait_dead()
        assert run.stdout.rest() == b"ready\n"  # nobody holds the pipe open either
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        run.family.assert_gone()
