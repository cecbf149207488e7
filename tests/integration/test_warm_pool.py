"""Warm boots: what a result tells, that nothing of one guest reaches the next, and that nothing is left.

`KVMBOX_WARM_BOOTS` sets how many boots in a row must all end well; whoever looks for a flaky one takes 1000.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from contextlib import closing
from typing import Any, Final

import pytest

from kvmbox.base import layout
from kvmbox.base.errors import UsageError
from kvmbox.host.console.captured_port import Capture
from kvmbox.jail import layers
from kvmbox.tools.warm import WarmPool, WarmResult
from kvmbox.tools.warm.boot_process import TITLE
from tests.support.family import children_of, descendants_of, pidfds_of, title_of
from tests.support.patience import patience
from tests.support.real_mode import COM1, SHUTDOWN, out
from tests.support.runs import KVMBOX, Images
from tests.support.waiting import until, wait_readable
from tests.support.warm import Beacon, files_of, running_boot, template_of

pytestmark = pytest.mark.kvm

HELLO: Final = b"Hello from 32-bit protected mode!\n"
BOOTS: Final = int(os.environ.get("KVMBOX_WARM_BOOTS", "20"))
CMOS_INDEX, CMOS_DATA, CMOS_BYTE = 0x70, 0x71, 0x40
SCRATCH: Final = layout.COM_PORTS["COM1"] + 7

MARK: Final = b"".join(
    (
        bytes.fromhex("b80020 8ed8 c6060000c3"),  # mov ax,0x2000; mov ds,ax; mov byte [0],0xc3
        out(CMOS_INDEX, CMOS_BYTE) + out(CMOS_DATA, 0xA5),
        out(SCRATCH, 0x5A),
    )
)
"""A byte in memory, one in the RTC's CMOS RAM, one in the UART."""

_TELL: Final = b"\xba" + COM1.to_bytes(2, "little") + b"\xee"  # mov dx,COM1; out dx,al
LOOK: Final = b"".join(
    (
        bytes.fromhex("b80020 8ed8 a00000") + _TELL,  # mov ax,0x2000; mov ds,ax; mov al,[0]
        out(CMOS_INDEX, CMOS_BYTE) + b"\xe4%c" % CMOS_DATA + _TELL,  # in al,0x71
        b"\xba" + SCRATCH.to_bytes(2, "little") + b"\xec" + _TELL,  # mov dx,SCR; in al,dx
    )
)
"""Prints the three."""


BOOT: Final = """
import sys
from kvmbox.base.compiled import is_compiled
from kvmbox.remote.process import prestart
from kvmbox.tools.warm import boot_process as boot, template

template.preload(is_compiled())
before = set(sys.modules)
if sys.argv[1] == "process":
    prestart.OWN.start()
machine = boot._machine({"image": "hello32", "sandbox": sys.argv[1]})
result = machine.run_here(boot.ProcessOwner(), boot.AheadTimeline())
print(result.status, *sorted(name for name in sys.modules.keys() - before if name.startswith("kvmbox.")))
"""
"""What a boot process does behind its fork: prints the status, and which modules it had to load."""


@pytest.fixture
def beacon(images: Images) -> Iterator[Beacon]:
    with closing(Beacon(images)) as made:
        yield made


# --- Results ----------------------------------------------------------------------------------------------


def test_boots_one_after_the_other_give_their_own_results(images: Images) -> None:
    silent = str(images.write(SHUTDOWN))
    with WarmPool(workers=2) as pool:
        futures = [
            pool.submit(options)
            for options in (
                {"image": "hello32", "timeout": patience(60)},
                {"image": silent, "boot": "real"},
                {"image": "triplefault"},
                {"image": "hello32", "sandbox": "none"},
                {"image": "hello32", "seccomp": "strict", "ipc": "pipe"},
            )
        ]
        results = [future.result() for future in futures]

    assert [result.status for result in results] == [0, 0, 6, 0, 0]
    assert [result.output == HELLO for result in results] == [True, False, False, True, True]
    assert results[1].output == b""
    assert results[2].failed
    assert "RIP" in results[2].crash_report
    assert "nothing contains them" in results[3].messages[0]
    assert 0 < results[0].durations["confined"] < results[0].durations["total"]
    assert results[0].statistics["boots"] == 1


def test_every_layer_of_a_plain_run_is_in_force_for_each_boot() -> None:
    with WarmPool(workers=1) as pool:
        warm = [pool.submit({"image": "hello32"}).result().statistics for _ in range(2)]
    plain = subprocess.run(
        [*KVMBOX, "run", "hello32", "--json", "/dev/stdout", "--serial", "COM1=null"],
        capture_output=True,
        check=True,
    )

    for statistics in warm:
        assert set(statistics["vmm"]) >= set(layers.names(layers.VMM & ~layers.VMM_LABEL))
        for layer in statistics["sandbox"]["uart"]:
            assert f'"{layer}"'.encode() in plain.stdout


@pytest.mark.parametrize(
    ("options", "status", "reason"),
    [
        ({"image": "hello32", "success_status": 4}, 2, "--success-status 4 is even"),
        ({"image": "hello32", "nonsense": 1}, 2, "wrong options: "),
        ({"image": "/nonexistent"}, 4, "cannot read '/nonexistent'"),
        ({"image": "hello32", "kvm_path": "/dev/null"}, 4, "/dev/null"),
    ],
)
def test_what_cannot_start_is_a_result(options: dict[str, Any], status: int, reason: str) -> None:
    with WarmPool(workers=1) as pool:
        result = pool.submit(options).result()

    assert result.status == status
    assert reason in result.reason
    assert result.failed
    assert not result.lost


@pytest.mark.parametrize(
    "options",
    [
        {"console": "stdio"},
        {"serial": ["COM2=stdio"]},
        {"serial": {"COM2": Capture()}},
        {"debugcon": "stdout"},
        {"say": print},
    ],
)
def test_what_belongs_to_the_program_is_refused_at_once(options: dict[str, Any]) -> None:
    with WarmPool(workers=1) as pool, pytest.raises(UsageError):
        pool.submit({"image": "hello32", **options})


def test_dialogue_is_held_with_the_guest() -> None:
    with WarmPool(workers=1) as pool:
        result = pool.submit(
            {"image": "echo", "timeout": patience(60), "expect": "Fine, and"},
            dialogue=[("leaves", b"How do you do?\n"), (rb"do\?", b"Fine, and you?\n"), ("never", b"")],
        ).result()

    assert result.status == 0
    assert result.answered == 2


def test_relative_paths_are_those_of_the_submission(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    image = images.write(SHUTDOWN)
    with WarmPool(workers=1) as pool:
        monkeypatch.chdir(image.parent)
        result = pool.submit({"image": image.name, "boot": "real", "record": "recording"}).result()

    assert result.status == 0
    assert (image.parent / "recording").stat().st_size > 0


def test_many_boots_in_a_row_all_end_well() -> None:
    with WarmPool(workers=2, renew_after=7) as pool:
        futures = [pool.submit({"image": "hello32", "timeout": patience(60)}) for _ in range(BOOTS)]
        results = [future.result() for future in futures]

    assert [(result.status, result.output) for result in results] == [(0, HELLO)] * BOOTS


# --- Isolation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sandbox", ["process", "none"])
def test_plain_boot_finds_all_that_it_needs_loaded(sandbox: str) -> None:
    command = [sys.executable, "-c", BOOT, sandbox]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=patience(60))
    assert done.stdout.split() == ["0"]


def test_templates_that_have_served_end_while_the_pool_is_open() -> None:
    with WarmPool(workers=1, renew_after=1) as pool:
        for _ in range(12):
            assert pool.submit({"image": "hello32"}).result().status == 0
        titles = [title_of(pid) for pid in children_of(os.getpid())]
    # One that serves, one that comes up, one that ends.
    assert titles.count("kvmbox: template") <= 3


def test_nothing_of_one_guest_reaches_the_next(images: Images) -> None:
    looking = {"image": str(images.write(LOOK, SHUTDOWN)), "boot": "real"}
    marking = {"image": str(images.write(MARK, LOOK, SHUTDOWN)), "boot": "real"}
    with WarmPool(workers=1) as pool:
        fresh, marked, after = (pool.submit(one).result() for one in (looking, marking, looking))

    assert marked.output == b"\xc3\xa5\x5a"
    assert after.output == fresh.output
    assert not set(after.output) & set(marked.output)
    assert after.statistics["device_accesses"] == fresh.statistics["device_accesses"]


def test_guest_time_begins_anew() -> None:
    with WarmPool(workers=1) as pool:
        long = pool.submit({"image": "clock"}).result()  # waits for half a second of the RTC
        short = pool.submit({"image": "hello32"}).result()

    assert short.statistics["guest_time"] < long.statistics["guest_time"]


def test_no_process_that_waits_has_anything_of_a_guest(beacon: Beacon) -> None:
    with WarmPool(workers=1) as pool:
        assert pool.submit({"image": "hello32"}).result().status == 0
        future = pool.submit(beacon.options | {"timeout": patience(60)})
        beacon.wait()
        template = template_of(os.getpid())
        boot = running_boot(os.getpid(), beacon.fifo)
        assert any("kvm" in file for file in files_of(boot))
        for pid in (template, *(pid for pid in children_of(template) if pid != boot)):
            held = {file for file in files_of(pid) if "kvm" in file or str(beacon.fifo) in file}
            assert held <= {"/memfd:kvmbox-page (deleted)"}  # channels that nobody has used yet
        os.kill(boot, signal.SIGTERM)
        assert future.result().status == 130


# --- What goes wrong --------------------------------------------------------------------------------------


def test_killed_boot_process_gives_a_result_and_is_replaced(beacon: Beacon) -> None:
    with WarmPool(workers=1) as pool:
        future = pool.submit(beacon.options)
        beacon.wait()
        os.kill(running_boot(os.getpid(), beacon.fifo), signal.SIGKILL)
        result = future.result()
        following = pool.submit({"image": "hello32"}).result()

    assert (result.status, result.lost, result.failed) == (14, True, True)
    assert "was lost" in result.reason
    assert "SIGKILL" in f"{result.reason} {result.hint}"
    assert (following.status, following.output) == (0, HELLO)


def test_killed_template_loses_its_boots_and_is_replaced(beacon: Beacon) -> None:
    with WarmPool(workers=1) as pool:
        future = pool.submit(beacon.options)
        beacon.wait()
        os.kill(template_of(os.getpid()), signal.SIGKILL)
        result = future.result()
        following = pool.submit({"image": "hello32"}).result()

    # Its sockets close before the kernel ends its children: a boot may see its device processes die first.
    assert (result.status, result.lost) in ((14, True), (8, False))
    assert following.status == 0


def test_boot_process_that_hangs_is_ended_behind_its_time_out(beacon: Beacon) -> None:
    with WarmPool(workers=1, grace=0.2) as pool:
        running = pool.submit(beacon.options)
        beacon.wait()
        boot, template = running_boot(os.getpid(), beacon.fifo), template_of(os.getpid())
        boots = until(  # the next one is being forked
            lambda: [pid for pid in children_of(template) if title_of(pid) == TITLE],
            lambda boots: len(boots) > 1,
        )
        for pid in {*boots} - {boot}:
            os.kill(pid, signal.SIGSTOP)
        os.kill(boot, signal.SIGTERM)
        assert running.result().status == 130
        result = pool.submit({"image": "hello32", "timeout": 0.1}).result()
        following = pool.submit({"image": "hello32"}).result()

    assert (result.status, result.lost) == (14, True)
    assert "when its time was over" in result.reason
    assert following.status == 0


def test_template_that_does_not_answer_is_replaced_and_does_not_keep_the_pool_open() -> None:
    with WarmPool(workers=1, grace=0.2) as pool:
        first = pool.submit({"image": "hello32"}).result()
        stopped = template_of(os.getpid())
        os.kill(stopped, signal.SIGSTOP)
        # The boot process that waits serves one more; the template forks no further one.
        following = [pool.submit({"image": "hello32"}).result() for _ in range(3)]
        assert template_of(os.getpid()) != stopped
        os.kill(template_of(os.getpid()), signal.SIGSTOP)

    assert [result.status for result in (first, *following)] == [0, 0, 0, 0]
    assert not [pid for pid in children_of(os.getpid()) if title_of(pid).startswith("kvmbox")]


@pytest.mark.parametrize(
    ("interpreter", "reason"),
    [("/bin/false", "the template died"), ("/nonexistent/python", "cannot start a warm worker")],
)
def test_template_that_cannot_start_is_the_reason_of_every_result(
    interpreter: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", interpreter)
    with WarmPool(workers=1) as pool:
        results = [future.result() for future in [pool.submit({"image": "hello32"}) for _ in range(3)]]

    assert [result.lost for result in results] == [True] * 3
    assert all(reason in result.reason for result in results)


def test_pool_that_is_left_by_an_exception_ends_its_guests(beacon: Beacon) -> None:
    futures: list[Future[WarmResult]] = []

    def fail() -> None:
        with WarmPool(workers=1) as pool:
            futures.extend(pool.submit(options) for options in (beacon.options, {"image": "hello32"}))
            beacon.wait()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    running, waiting = futures
    assert running.result().lost
    with pytest.raises(CancelledError):
        waiting.result()
    assert not [pid for pid in children_of(os.getpid()) if title_of(pid).startswith("kvmbox")]


def test_closed_pool_leaves_nothing_and_takes_nothing() -> None:
    before = set(os.listdir("/proc/self/fd"))
    pool = WarmPool(workers=2)
    assert pool.submit({"image": "hello32"}).result().status == 0
    pool.close()
    pool.close()

    assert set(os.listdir("/proc/self/fd")) == before
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit({"image": "hello32"})


PROGRAM: Final = """
import sys
from kvmbox.tools.warm import WarmPool
image, fifo = sys.argv[1:]
with WarmPool(workers=2) as pool:
    pool.submit({"image": image, "boot": "real", "serial": [f"COM2=file:{fifo}"]}).result()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_a_program_that_is_ended(beacon: Beacon, number: signal.Signals) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, beacon.options["image"], str(beacon.fifo)], stderr=subprocess.DEVNULL
    )
    with program:
        try:
            beacon.wait()
            pidfds = pidfds_of(descendants_of(program.pid))
            assert len(pidfds) >= len(("template", "boot", "spawner", "uart"))
            program.send_signal(number)
            for pidfd in pidfds:
                wait_readable(pidfd, "the end of a process of the pool")
                os.close(pidfd)
        except BaseException:
            program.kill()  # else it is waited for
            raise
