"""`kvmbox.Machine` in a program: several machines in one process, which is left as it was found.

`KVMBOX_API_ROUNDS` sets how often the test of two machines starts them; whoever looks for a leak takes 100.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kvmbox import (
    Capture,
    ExpectError,
    ImageError,
    KvmboxError,
    KvmError,
    Machine,
    SandboxError,
    StartTimeoutError,
    UsageError,
    WaitTimeoutError,
)
from tests.support.family import children_of, device_processes
from tests.support.patience import far_enough, patience
from tests.support.real_mode import IDLE, TRIPLE_FAULT, debug_exit, echo, say, wait_input
from tests.support.runs import Images
from tests.support.waiting import Stream, wait_readable

pytestmark = pytest.mark.kvm

PATIENCE_S = patience(30.0)
ROUNDS = int(os.environ.get("KVMBOX_API_ROUNDS", "3"))


def census() -> tuple[dict[str, str], list[int], list[threading.Thread]]:
    """What this process has: descriptors with what they are, child processes, threads."""
    descriptors = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            descriptors[number] = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            continue  # that of the listing itself
    return descriptors, sorted(children_of(os.getpid())), threading.enumerate()


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """After the test there is no descriptor, process or thread that was not there before."""
    before = census()
    yield
    assert census() == before


def device_process(name: str) -> int:
    """The pid of the one device process of this name."""
    (found,) = [pid for pid, title in device_processes(os.getpid()).items() if title == name]
    return found


def real(images: Images, *code: bytes) -> dict[str, Any]:
    """The parameters for a flat guest of these bytes."""
    return {"image": images.write(*code), "boot": "real"}


# --- Several machines in one process ----------------------------------------------------------------------


@pytest.mark.usefixtures("nothing_left")
def test_two_machines_in_one_process_have_each_their_console_and_verdict(images: Images) -> None:
    one, other = real(images, say(b"one\n"), debug_exit(1)), real(images, say(b"other\n"), debug_exit(2))
    before: Any = None
    for _ in range(ROUNDS):
        with Machine(**one) as first, Machine(**other) as second:
            results = first.wait(PATIENCE_S), second.wait(PATIENCE_S)
        assert [(result.status, result.output) for result in results] == [(3, b"one\n"), (5, b"other\n")]
        found = census()
        assert before is None or found == before
        before = found


@pytest.mark.usefixtures("nothing_left")
def test_machine_started_and_stopped_by_different_threads(images: Images) -> None:
    guest = real(images, say(b"ready\n"), IDLE)
    machines = [Machine(**guest) for _ in range(4)]
    found: list[object] = []
    # Each step of a machine's life in another thread, and the steps of all machines at once.
    steps: list[Callable[[Machine], object]] = [
        Machine.start,
        lambda vm: vm.expect(rb"ready\n", PATIENCE_S),
        Machine.stop,
        lambda vm: vm.wait(0).status,
    ]
    for step in steps:
        with ThreadPoolExecutor(len(machines)) as threads:
            found = list(threads.map(step, machines))
    assert found == [130] * len(machines)


@pytest.mark.usefixtures("nothing_left")
def test_stop_by_several_threads_at_once_ends_the_guest_once(images: Images) -> None:
    with Machine(**real(images, IDLE)) as vm, ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: vm.stop(), range(8)))
        assert not vm.running
    assert vm.wait(0).reason == "stopped by the program"


@pytest.mark.usefixtures("nothing_left")
def test_stop_while_another_thread_starts_it_ends_it(images: Images) -> None:
    for _ in range(ROUNDS):
        vm = Machine(**real(images, IDLE))
        with ThreadPoolExecutor(1) as threads:
            starting = threads.submit(vm.start)
            vm.stop()
            starting.result()
        vm.stop()
        assert vm.wait(0).status == 130


@pytest.mark.usefixtures("nothing_left")
def test_stop_before_the_start_ends_the_guest_before_it_runs(images: Images) -> None:
    vm = Machine(**real(images, say(b"x"), IDLE))
    vm.stop()
    vm.start()
    assert (vm.wait(PATIENCE_S).status, vm.output) == (130, b"")


@pytest.mark.usefixtures("nothing_left")
def test_start_that_is_interrupted_leaves_nothing(images: Images) -> None:
    heard = threading.Event()

    def interrupt(_number: int, _frame: object) -> None:
        heard.set()
        raise KeyboardInterrupt

    def tell(_line: str) -> None:  # in the machine's thread, while it starts
        os.kill(os.getpid(), signal.SIGUSR1)
        assert heard.wait(PATIENCE_S)

    found = signal.signal(signal.SIGUSR1, interrupt)
    vm = Machine(**real(images, IDLE), serial={"COM2": "pty"}, say=tell)
    try:
        with pytest.raises(KeyboardInterrupt):
            vm.start()
    finally:
        signal.signal(signal.SIGUSR1, found)
    assert not vm.running


# --- The console ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nothing_left")
def test_console_is_expected_and_answered(images: Images) -> None:
    with Machine(**real(images, say(b"login: "), echo())) as vm:
        assert vm.expect(rb"(log)in: ", PATIENCE_S).group(1) == b"log"
        vm.send(b"root\r\n")
        vm.expect("root\r\n", PATIENCE_S)
        assert vm.running
        assert vm.output == b"login: root\r\n"
    result = vm.wait(0)
    assert (result.status, result.output) == (130, b"login: root\r\n")
    assert result.statistics.bytes_in == {"COM1": 6}


@pytest.mark.usefixtures("nothing_left")
def test_input_before_the_start_is_kept_and_counted(images: Images) -> None:
    vm = Machine(**real(images, echo()))
    vm.send(b"early")
    with vm:
        vm.expect(rb"early", PATIENCE_S)
    assert vm.wait(0).statistics.bytes_in == {"COM1": 5}


@pytest.mark.usefixtures("nothing_left")
def test_input_of_more_than_a_fifo_arrives_whole(images: Images) -> None:
    text = bytes(range(32, 127)) * 100
    with Machine(**real(images, echo())) as vm:
        for start in range(0, len(text), 1000):
            vm.send(text[start : start + 1000])
        while len(vm.output) < len(text):
            vm.expect(b"(?s).", PATIENCE_S)
        assert vm.output == text


@pytest.mark.usefixtures("nothing_left")
def test_each_port_has_its_own_capture(images: Images) -> None:
    com1, com2, debugcon = Capture(), Capture(limit=4), Capture()
    guest = real(images, say(b"a"), say(b"second", 0x2F8), say(b"c", 0xE9), debug_exit(0))
    with Machine(**guest, serial={"COM1": com1, "com2": com2}, debugcon=debugcon) as vm:
        assert vm.wait(PATIENCE_S).status == 1
    assert (com1.output, com2.output, debugcon.output) == (b"a", b"cond", b"c")
    assert com2.dropped == 2
    assert vm.console is com1


def test_console_shows_once_what_com1_and_the_debug_console_both_print(images: Images) -> None:
    line = b"twice\n"
    with Machine(**real(images, say(line), say(line, 0xE9), say(b"once\n", 0xE9), debug_exit(0))) as vm:
        assert vm.wait(PATIENCE_S).output == b"twice\nonce\n"


@pytest.mark.usefixtures("nothing_left")
def test_expect_guest_that_ends_first_raises_with_the_output_and_the_reason(images: Images) -> None:
    vm = Machine(**real(images, say(b"panic: no root\n"), debug_exit(3)))
    with vm, pytest.raises(ExpectError, match=r"'login: ' was not seen before the guest ended") as caught:
        vm.expect(rb"login: ", PATIENCE_S)
    assert "panic: no root" in str(caught.value)
    assert caught.value.output == b"panic: no root\n"
    assert "0x3 to the debug-exit port" in str(caught.value.hint)


def test_expect_time_that_runs_out_raises_and_the_guest_runs_on(images: Images) -> None:
    with Machine(**real(images, say(b"ready\n"), IDLE)) as vm:
        vm.expect(rb"ready", PATIENCE_S)
        with pytest.raises(ExpectError, match=r"'ready' was not seen within 0.01 s"):
            vm.expect(rb"ready", 0.01)  # the first one has taken it
        assert vm.running


@pytest.mark.usefixtures("nothing_left")
def test_serial_limit_ends_a_guest_that_floods_its_capture(images: Images) -> None:
    flood = b"\xba\xf8\x03" + bytes.fromhex("b041 ee ebfd")
    with Machine(**real(images, flood), serial_limit=1000) as vm:
        result = vm.wait(PATIENCE_S)
    assert (result.status, result.output) == (12, b"A" * 1000)


@pytest.mark.usefixtures("nothing_left")
def test_fail_on_and_expect_of_the_run_judge_it_as_on_the_command_line(images: Images) -> None:
    guest = real(images, say(b"panic"), IDLE)
    with Machine(**guest, fail_on="panic") as vm:
        assert vm.wait(PATIENCE_S).status == 12
    with Machine(**guest, expect=[b"pan", "nic"]) as vm:
        assert vm.wait(PATIENCE_S).status == 0


@pytest.mark.usefixtures("nothing_left")
def test_message_for_a_person_is_kept_and_told(images: Images) -> None:
    told: list[str] = []
    with Machine(**real(images, debug_exit(0)), serial={"COM2": "pty"}, say=told.append) as vm:
        vm.wait(PATIENCE_S)
    assert list(vm.messages) == told
    assert told[0].startswith("COM2 is /dev/pts/")


# --- The end ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nothing_left")
def test_result_of_a_crash_has_a_report_and_statistics(images: Images) -> None:
    with Machine(**real(images, TRIPLE_FAULT)) as vm:
        result = vm.wait(PATIENCE_S)
    assert (result.status, result.failed) == (6, True)
    assert "rip" in result.crash_report.lower()
    assert result.statistics.format == "real"
    assert result.statistics.boots == 1


@pytest.mark.usefixtures("nothing_left")
def test_wait_time_that_runs_out_raises_and_the_guest_runs_on(images: Images) -> None:
    with Machine(**real(images, IDLE)) as vm:
        with pytest.raises(WaitTimeoutError, match=r"still runs after 0.01 s"):
            vm.wait(0.01)
        assert vm.running


@pytest.mark.usefixtures("nothing_left")
def test_exception_in_the_body_ends_the_guest(images: Images) -> None:
    with pytest.raises(ZeroDivisionError), Machine(**real(images, IDLE)) as vm:
        raise ZeroDivisionError
    assert vm.wait(0).status == 130


@pytest.mark.usefixtures("nothing_left")
def test_timeout_ends_a_guest_without_an_alarm(images: Images) -> None:
    def status(scale: int) -> int | None:
        try:
            with Machine(**real(images, IDLE), timeout=patience(scale)) as vm:
                return vm.wait().status
        except StartTimeoutError:
            return None

    assert far_enough(status, bool) == 124


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    "choices",
    [
        {"sandbox": "none"},
        {"sandbox": "thread"},
        {"sandbox": "per-device"},
        {"seccomp": "strict"},
        {"ipc": "pipe"},
        {"ipc": "shm"},
        {"on_device_crash": "restart"},
    ],
)
def test_every_design_works_in_a_thread_of_its_own(images: Images, choices: dict[str, str]) -> None:
    with Machine(**real(images, say(b"x"), debug_exit(0)), **choices) as vm:  # type: ignore[arg-type]
        result = vm.wait(PATIENCE_S)
    assert (result.status, result.output) == (1, b"x")


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("answer", ["fail", "restart"])
def test_lost_device_process_is_a_result_or_replaced(images: Images, answer: Any) -> None:
    with Machine(**real(images, say(b"ready"), echo()), on_device_crash=answer) as vm:
        vm.expect(b"ready", PATIENCE_S)
        os.kill(device_process("uart"), signal.SIGKILL)
        vm.send(b"x")
        if answer == "restart":
            vm.expect(b"x", PATIENCE_S)
            vm.stop()
            assert "device process 'uart' was killed by signal 9 (SIGKILL): restarted" in vm.messages[0]
        else:
            result = vm.wait(PATIENCE_S)
            assert (result.status, result.failed) == (8, True)
            assert result.reason == "device process 'uart' was killed by signal 9 (SIGKILL)"


@pytest.mark.usefixtures("nothing_left")
def test_spawner_that_hangs_beside_a_device_delays_the_end_and_prevents_none(images: Images) -> None:
    with Machine(**real(images, say(b"ready"), echo())) as vm:
        vm.expect(b"ready", PATIENCE_S)
        (spawner,) = children_of(os.getpid())
        uart = device_process("uart")
        for pid in (spawner, uart):
            os.kill(pid, signal.SIGSTOP)
        vm.send(b"x")
        result = vm.wait(PATIENCE_S)
    assert (result.status, result.failed) == (8, True)


class Broken(Capture):
    """A bug in the machine, as it were."""

    def append(self, data: bytes) -> None:
        raise ZeroDivisionError(data)


@pytest.mark.usefixtures("nothing_left")
def test_failure_of_kvmbox_itself_is_raised_in_who_waits_or_at_the_end_of_the_block(images: Images) -> None:
    guest = real(images, say(b"x"), IDLE)
    vm = Machine(**guest, serial={"COM1": Broken()})
    with pytest.raises(ZeroDivisionError), vm, pytest.raises(ExpectError, match="before the guest ended"):
        vm.expect(b"never", PATIENCE_S)
    with Machine(**guest, serial={"COM1": Broken()}) as vm, pytest.raises(ZeroDivisionError):
        vm.wait(PATIENCE_S)


@pytest.mark.usefixtures("nothing_left")
def test_failure_of_the_function_that_is_told_is_raised_by_start(images: Images) -> None:
    def refuse(line: str) -> None:
        raise ZeroDivisionError(line)

    with pytest.raises(ZeroDivisionError, match="COM2 is /dev/pts/"):
        Machine(**real(images, IDLE), serial={"COM2": "pty"}, say=refuse).start()


# --- Machines that cannot start ---------------------------------------------------------------------------


@pytest.mark.usefixtures("nothing_left")
def test_machine_that_cannot_start_raises_the_documented_error_and_leaves_nothing(
    images: Images, tmp_path: Path
) -> None:
    guest = real(images, IDLE)
    missing = str(tmp_path / "missing")
    file = tmp_path / "empty"
    file.touch()
    refused: list[tuple[type[KvmboxError], dict[str, Any]]] = [
        (ImageError, {"image": missing}),
        (ImageError, {"image": file}),
        (KvmError, guest | {"kvm_path": missing}),
        (SandboxError, guest | {"require": ["vmm-seccomp"]}),
        (UsageError, guest | {"record": guest["image"]}),
        (UsageError, guest | {"pin": 4096}),
        (StartTimeoutError, guest | {"timeout": 1e-9}),
    ]
    for error, options in refused:
        vm = Machine(**options)
        with pytest.raises(error), vm:
            pytest.fail("it has started")
        assert not vm.running
        with pytest.raises(error):
            vm.wait(0)
        with pytest.raises(ExpectError, match="before the guest ended"):
            vm.expect(b"never", PATIENCE_S)
        vm.stop()


@pytest.mark.usefixtures("nothing_left")
def test_start_whose_processes_hang_ends_with_the_timeout(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A spawner that never says hello.
    interpreter = tmp_path / "python"
    interpreter.write_text("#!/bin/sh\nexec sleep 1000\n")
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    with pytest.raises(StartTimeoutError, match="ran out before the guest ran") as caught:
        Machine(**real(images, IDLE), timeout=0.2).start()
    # What it waited for was not waited for as long as without a time-out.
    assert "5000 ms" not in str(caught.value.__cause__)


@pytest.mark.usefixtures("nothing_left")
def test_machine_runs_once(images: Images) -> None:
    with Machine(**real(images, debug_exit(0))) as vm:
        vm.wait(PATIENCE_S)
    with pytest.raises(UsageError, match="runs once"):
        vm.start()


# --- The process is the program's -------------------------------------------------------------------------


def state_of_the_process() -> dict[str, object]:
    """What a library must not touch."""
    status = Path("/proc/self/status").read_text()
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    umask = os.umask(0)
    os.umask(umask)
    # Ours, and what the kernel counts for us, apart: they change by themselves.
    kept = ("Name", "Umask", "SigBlk", "SigIgn", "SigCgt", "CapEff", "CapPrm", "NoNewPrivs", "Seccomp",
            "Seccomp_filters", "Cpus_allowed")  # fmt: skip
    return {
        "handlers": [signal.getsignal(number) for number in sorted(signal.valid_signals())],
        "mask": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "wakeup": wakeup,
        "timer": signal.getitimer(signal.ITIMER_REAL),
        "switch interval": sys.getswitchinterval(),
        "gc": (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()),
        "descriptors": [os.readlink(f"/proc/self/fd/{number}") for number in range(3)],
        "blocking": [os.get_blocking(number) for number in range(3)],
        "affinity": os.sched_getaffinity(0),
        "limits": [resource.getrlimit(number) for number in range(resource.RLIM_NLIMITS)]
        if hasattr(resource, "RLIM_NLIMITS")
        else resource.getrlimit(resource.RLIMIT_NOFILE),
        "umask": umask,
        "cwd": os.getcwd(),
        "environment": dict(os.environ),
        "status": [line for line in status.splitlines() if line.partition(":")[0] in kept],
        "excepthooks": (sys.excepthook, sys.unraisablehook, threading.excepthook),
        "stdio": (sys.stdin, sys.stdout, sys.stderr),
    }


@pytest.mark.usefixtures("nothing_left")
def test_nothing_of_the_process_is_touched(images: Images) -> None:
    before = state_of_the_process()
    with Machine(**real(images, say(b"ready"), echo()), timeout=PATIENCE_S) as vm:
        vm.expect(b"ready", PATIENCE_S)
        assert state_of_the_process() == before
        vm.stop()
        assert state_of_the_process() == before


PROGRAM = """
import os, sys
from kvmbox import Machine
from tests.support.family import children_of
with Machine(sys.argv[1], boot="real") as vm:
    vm.expect(b"ready")
    try:
        print("children", *children_of(os.getpid()), flush=True)
        {body}
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        vm.stop()
        print("left", *children_of(os.getpid()), vm.wait().status, flush=True)
"""


class Program:
    """A program of its own that runs an idle guest."""

    def __init__(self, images: Images, body: str) -> None:
        image = images.write(say(b"ready"), IDLE)
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(body=body), str(image)], stdout=subprocess.PIPE, bufsize=0
        )
        assert self.process.stdout is not None
        self.stdout = Stream(self.process.stdout.fileno(), "stdout")
        self.stdout.until(b"children ")
        self.stdout.until(b"\n")
        (spawner,) = self.stdout.seen.split()[1:]
        self.spawner = os.pidfd_open(int(spawner))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        os.close(self.spawner)


def test_interrupt_while_it_waits_reaches_the_program(images: Images) -> None:
    program = Program(images, "vm.wait()")
    try:
        program.process.send_signal(signal.SIGINT)
        assert program.stdout.rest().endswith(b"interrupted\nleft 130\n")
        assert program.process.wait() == 0
    finally:
        program.close()


def test_console_on_stdio_is_that_of_the_program(images: Images) -> None:
    code = "import sys; from kvmbox import Machine\n"
    code += "with Machine(sys.argv[1], boot='real', console='stdio') as vm: sys.exit(vm.wait().status)"
    image = images.write(say(b"name? "), wait_input(), say(b"hello"), debug_exit(4))
    done = subprocess.run(
        [sys.executable, "-c", code, str(image)],
        input=b"x",
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (9, b"name? hello", b"")


def test_program_that_ends_without_stopping_it_takes_everything_along(images: Images) -> None:
    program = Program(images, "sys.stdout.flush(); os._exit(7)")
    try:
        assert program.process.wait() == 7
        wait_readable(program.spawner, "the end of the spawner")
    finally:
        program.close()
