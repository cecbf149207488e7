"""`kvmbox run --gdb`: the real gdb, and clients that are not as friendly."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from kvmbox import Machine, UsageError
from kvmbox.parts.gdb import packets
from tests.support.debugged import Kernel
from tests.support.guest_table import backend
from tests.support.patience import patience
from tests.support.rsp import Client
from tests.support.runs import KVMBOX, Run

pytestmark = pytest.mark.kvm

COUNTED = 15 << 1 | 1
"""The exit status of a kernel that has counted to five."""

CTRL_C = b"\x03"

PLANTED = pytest.mark.skipif(
    "KVMBOX_TEST_BACKEND" in os.environ,
    reason="in the lab no planted INT3 can stop: QEMU's TCG does not let a hypervisor intercept it",
)


def gdb(kernel: Kernel, *commands: str, options: tuple[str, ...] = ()) -> str:
    """What gdb prints when it is given these commands, with a kvmbox at its pipe."""
    if shutil.which("gdb") is None:
        pytest.skip("gdb not found")
    command = " ".join([KVMBOX[0], KVMBOX[1], f"'{KVMBOX[2]}'", "run", "--gdb", "-", *options])
    scripts = ["set pagination off", "set confirm off", f"target remote | exec {command} {kernel.path}"]
    done = subprocess.run(
        ["gdb", "-q", "-nx", "-batch", *(f"-ex={one}" for one in [*scripts, *commands]), kernel.path],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=patience(60),
        check=False,
    )
    return done.stdout + done.stderr


@contextmanager
def attached(directory: Path, kernel: Kernel | str, *options: str) -> Iterator[tuple[Run, Client]]:
    """A run of a kernel, and a client that has connected to it."""
    place = directory / "gdb.sock"
    image = kernel if isinstance(kernel, str) else kernel.path
    with Run("--gdb", f"unix:{place}", *options, image) as run:
        run.stderr.until(b"waits for a client")
        with Client.connect(place) as client:
            yield run, client


def number(data: bytes) -> int:
    """A little-endian number, as a client gets it."""
    return int.from_bytes(bytes.fromhex(data.decode()), "little")


# --- The real gdb -------------------------------------------------------------------------------------------


@PLANTED
@pytest.mark.parametrize("bits", [32, 64])
def test_gdb_breaks_steps_prints_and_continues_to_the_end(bits: int, tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, bits)
    told = gdb(
        kernel,
        "break add",
        "continue",
        "backtrace",
        "stepi",
        "next",
        "print sum",
        "print/x $cr0 & 1",
        "print $xmm0.uint128",
        "delete",
        "set var limit = 6",
        f"monitor translate {kernel.address('total'):#x}",
        "continue",
    )
    assert "Breakpoint 1, add (number=1)" in told
    assert "#1 " in told
    assert " in main () at " in told
    assert "$1 = 1\n" in told
    assert "$2 = 0x1\n" in told
    assert "$3 = 0\n" in told
    assert f"{kernel.address('total'):#x} is physical {kernel.address('total'):#x}" in told
    assert "counted" in told
    assert f"exited with code {(21 << 1 | 1):03o}]" in told  # gdb prints octal digits


def test_gdb_in_a_batch_ends_with_an_endless_guest(tmp_path: Path) -> None:
    facts = tmp_path / "facts.json"
    told = gdb(Kernel(tmp_path, 64, "SPIN"), "print $pc", options=("--json", str(facts)))
    assert "$1 = " in told
    ended = json.loads(facts.read_text())
    assert (ended["status"], ended["reason"]) == (130, "the client of --gdb has left")


@PLANTED
@pytest.mark.parametrize("bits", [32, 64])
def test_gdb_finishes_a_function(bits: int, tmp_path: Path) -> None:
    told = gdb(Kernel(tmp_path, bits), "break add", "continue", "finish", "continue", "print number", "kill")
    assert "Value returned is $1 = 1" in told
    assert "$2 = 2\n" in told


@pytest.mark.parametrize("bits", [32, 64])
def test_gdb_stops_at_a_hardware_breakpoint_and_steps(bits: int, tmp_path: Path) -> None:
    told = gdb(
        Kernel(tmp_path, bits),
        "hbreak add",
        "continue",
        "continue",
        "print number",
        "stepi",
        "stepi",
        "step",
        "print sum",
        "kill",
    )
    assert told.count("Breakpoint 1, add (number=") == 2
    assert "$1 = 2\n" in told
    assert "$2 = 3\n" in told


@pytest.mark.parametrize("bits", [32, 64])
def test_gdb_watches_a_variable_or_is_refused(bits: int, tmp_path: Path) -> None:
    told = gdb(Kernel(tmp_path, bits), "watch total", "continue", "print total", "kill")
    if backend() == "pvm":
        assert "Could not insert hardware watchpoint 1" in told
        assert "has no watchpoints" in told
    else:
        assert "Old value = 0\nNew value = 1\n" in told
        assert "$1 = 1\n" in told


@pytest.mark.parametrize("bits", [32, 64])
def test_gdb_watches_in_software_where_it_is_told_to(bits: int, tmp_path: Path) -> None:
    told = gdb(
        Kernel(tmp_path, bits),
        "hbreak add",
        "continue",
        "set can-use-hw-watchpoints 0",
        "watch total",
        "continue",
        "kill",
    )
    assert "Old value = 0\nNew value = 1\n" in told


def test_gdb_shows_a_crash_before_the_run_ends(tmp_path: Path) -> None:
    told = gdb(Kernel(tmp_path, 64, "CRASH"), "continue", "backtrace", "continue")
    assert "kvmbox: the guest crashed: triple fault" in told
    assert "Program received signal SIGSEGV" in told
    if backend() != "svm":  # where a processor that shuts down leaves no state (APM volume 2, 15.14.3)
        assert " in main () at " in told.split("SIGSEGV")[1]
    assert "exited with code 06]" in told


def test_gdb_shows_a_guest_that_is_halted_for_ever_before_the_run_ends(tmp_path: Path) -> None:
    told = gdb(Kernel(tmp_path, 64, "HALT"), "continue", "info line", "continue")
    assert "kvmbox: the guest is halted for ever" in told
    assert "Program received signal SIGABRT" in told
    assert "exited with code 06]" in told


@PLANTED
def test_guests_own_int3_is_no_breakpoint(tmp_path: Path) -> None:
    told = gdb(Kernel(tmp_path, 64, "INT3"), "break add", "continue", "delete", "continue", "backtrace")
    assert "Breakpoint 1, add" in told
    # Without an IDT the guest crashes; and PVM cannot emulate it.
    assert f"signal {'SIGABRT' if backend() == 'pvm' else 'SIGSEGV'}" in told
    assert "own_int3 () at " in told


# --- The protocol -------------------------------------------------------------------------------------------


def test_client_stops_a_guest_that_runs_and_lets_it_end(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, 64, "SPIN")
    with attached(tmp_path, kernel) as (run, client):
        client.say(b"vCont;c")
        run.stdout.until(b"counted")
        client.raw(CTRL_C)
        assert client.hear().startswith(b"T02thread:1;")
        assert number(client.ask(b"m%x,4" % kernel.address("total"))) == 15
        assert client.ask(b"M%x,4:01000000" % kernel.address("released")) == b"OK"
        assert client.ask(b"c") == b"W%02x" % COUNTED
        assert client.hung_up
        assert run.status() == COUNTED


def test_client_attaches_later_and_detaches(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, 64, "SPIN")
    place = tmp_path / "gdb.sock"
    with Run("--gdb", f"unix:{place},nowait", kernel.path) as run:
        run.stdout.until(b"counted")
        for value in (0, 1):  # one client after the other
            with Client.connect(place) as client:
                assert client.ask(b"?").startswith(b"T05thread:1;")
                assert client.ask(b"M%x,4:%02x000000" % (kernel.address("released"), value)) == b"OK"
                assert client.ask(b"D") == b"OK"
                assert client.hung_up
        assert run.status() == COUNTED


def test_breakpoints_of_a_client_that_hangs_up_go_with_it(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, 64)
    with attached(tmp_path, kernel) as (run, client):
        assert client.ask(b"Z0,%x,1" % kernel.address("add")) == b"OK"
        assert client.ask(b"Z1,%x,1" % kernel.address("main")) == b"OK"
        client.close()
        assert run.status() == COUNTED
        assert run.output == b"counted\n"


def test_client_that_only_looks_whether_somebody_listens_lets_nothing_go(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, 64)
    place = tmp_path / "gdb.sock"
    with Run("--gdb", f"unix:{place}", kernel.path) as run:
        run.stderr.until(b"waits for a client")
        for _ in range(3):
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(place))
        with Client.connect(place) as client:
            assert number(client.ask(b"p10")) == kernel.address("_start")
            assert client.ask(b"k") == b""
        assert run.status() == 130


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x00\xff" * 40_000,
        packets.encode(b"g") * 20_000,
        packets.encode(b"g") + b"-" * 100_000,
        b"$" + b"a" * 100_000,
        b"$g#00" * 20,
        b"$}#7d$M0,4:#00$vCont;#ff$Z9,,,,#7a",
    ],
    ids=["bytes", "flood", "again", "long", "damaged", "wrong"],
)
def test_nonsense_of_a_client_harms_no_run(nonsense: bytes, tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, 64)
    with attached(tmp_path, kernel) as (run, client):
        with suppress(ConnectionError):  # it may be thrown out in the middle
            client.raw(nonsense)
        client.close()
        assert run.status() == COUNTED
        assert run.output == b"counted\n"
        assert "Traceback" not in run.messages


@PLANTED
def test_client_resets_the_guest_again_and_again(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, 64)
    with attached(tmp_path, kernel) as (run, client):
        assert client.ask(b"Z0,%x,1" % kernel.address("add")) == b"OK"
        for _ in range(2):
            assert b"swbreak" not in client.ask(b"c")  # it was not offered
            assert number(client.ask(b"p10")) == kernel.address("add")
            assert "is reset" in client.monitor("reset")
            assert number(client.ask(b"p10")) == kernel.address("_start")
            assert number(client.ask(b"m%x,1" % kernel.address("add"))) == 0x55  # push rbp, and no INT3
        assert client.ask(b"z0,%x,1" % kernel.address("add")) == b"OK"
        assert client.ask(b"c") == b"W%02x" % COUNTED
        assert run.status() == COUNTED


def test_reset_by_the_client_is_no_end_of_the_run_with_no_reboot(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, 64)
    with attached(tmp_path, kernel, "--no-reboot") as (run, client):
        assert "is reset" in client.monitor("reset")
        assert number(client.ask(b"p10")) == kernel.address("_start")
        assert client.ask(b"c") == b"W%02x" % COUNTED
        assert run.status() == COUNTED


def test_memory_by_linear_and_by_physical_address(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, 64)
    with attached(tmp_path, kernel) as (_, client):
        outside = 0x7000_0000_0000
        assert client.ask(b"m%x,4" % outside).startswith(b"E")
        assert "is not mapped" in client.monitor(f"translate {outside:#x}")
        assert "are physical" in client.monitor("phys on")
        assert client.ask(b"m%x,4" % kernel.address("limit")) == b"05000000"
        assert client.ask(b"m%x,4" % outside).startswith(b"E")
        assert client.ask(b"M%x,4:06000000" % kernel.address("limit")) == b"OK"
        assert "are linear" in client.monitor("phys off")
        assert client.ask(b"m%x,4" % kernel.address("limit")) == b"06000000"
        assert "uart_16550a" in client.monitor("devices")
        assert client.monitor("screen") == "the screen is blank\n"
        assert "monitor translate" in client.monitor("nonsense")
        assert "cr3" in client.monitor("registers")
        assert client.monitor("cpu").startswith("CPU 0, ")


def test_screen_of_a_guest_that_stands_still_is_shown(tmp_path: Path) -> None:
    with attached(tmp_path, "screen") as (_, client):
        assert client.ask(b"vCont;c").startswith(b"O")  # it is halted for ever
        assert client.hear().startswith(b"T")
        assert client.monitor("screen").startswith("Hello from the text screen!\n\n  ┌───┐ ☺ ←[31m\n")


def test_cpus_are_threads(tmp_path: Path) -> None:
    with attached(tmp_path, "smp", "--cpus", "2", "--timeout", "60") as (run, client):
        assert client.ask(b"qfThreadInfo") == b"m1,2"
        extra = [bytes.fromhex(client.ask(b"qThreadExtraInfo,%d" % one).decode()) for one in (1, 2)]
        assert extra[0].startswith(b"CPU 0")
        assert extra[1].startswith(b"CPU 1, waits for")
        assert client.ask(b"Hg2") == b"OK"
        assert client.ask(b"T3").startswith(b"E")
        first = client.ask(b"Hg1") and client.ask(b"g")
        assert client.ask(b"vCont;s:2") == b"E01"
        run.stderr.until(b"--gdb: CPU 1 waits for ")
        assert client.ask(b"vCont;s:1").startswith(b"T05thread:1;")
        assert client.ask(b"g") != first
        answer = client.ask(b"vCont;c")
        assert answer == b"W%02x" % run.status()


def test_real_mode_guest_stops_at_its_breakpoint(tmp_path: Path) -> None:
    image = tmp_path / "real.bin"
    image.write_bytes(bytes.fromhex("90 b0 61 e6 e9 b0 07 e6 f4 f4"))  # nop; al = 'a' to 0xe9; al = 7 to 0xf4
    with attached(tmp_path, str(image), "--boot", "real") as (run, client):
        assert b"<architecture>i8086<" in client.ask(b"qXfer:features:read:target.xml:0,200")
        assert client.ask(b"Z0,7c03,1") == b"OK"
        assert client.ask(b"c").startswith(b"T05")
        assert number(client.ask(b"p8")) == 0x7C03
        assert number(client.ask(b"p0")) & 0xFF == 0x61
        for address in (b"7c04", b"7c05", b"7c06"):
            assert client.ask(b"Z0,%s,1" % address) == b"OK"
        assert client.ask(b"Z0,7c07,1").startswith(b"E")
        run.stderr.until(b"the 4 debug registers are in use")
        for address in (b"7c04", b"7c05", b"7c06"):
            assert client.ask(b"z0,%s,1" % address) == b"OK"
        assert client.ask(b"s").startswith(b"T05")
        assert number(client.ask(b"p8")) == 0x7C05
        assert client.ask(b"P0=09000000") == b"OK"
        assert client.ask(b"vCont;s:1").startswith(b"T05")
        assert client.ask(b"D") == b"OK"
        assert run.status() == 7 << 1 | 1
        assert run.output == b"a"


# --- The endpoint -------------------------------------------------------------------------------------------


def test_socket_belongs_to_its_user_and_goes_with_the_run(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, 64)
    place = tmp_path / "gdb.sock"
    with attached(tmp_path, kernel) as (run, client):
        assert stat.S_IMODE(place.stat().st_mode) == 0o600
        with Run("--gdb", f"unix:{place}", kernel.path) as second:
            assert second.status() == 4
            assert "cannot listen at" in second.messages
            assert "hint:" in second.messages
        assert place.exists()
        assert client.ask(b"c") == b"W%02x" % COUNTED
        assert run.status() == COUNTED
    assert not place.exists()


def test_port_is_on_this_host_alone_and_said_to_be_open(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, 64)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with Run("--gdb", f":{port}", kernel.path) as run:
        run.stderr.until(b"every user of this host can connect")
        with Client.connect(port) as client:
            assert client.ask(b"c") == b"W%02x" % COUNTED
        assert run.status() == COUNTED


@PLANTED
@pytest.mark.parametrize(
    "options", [["--sandbox", "none"], ["--ipc", "pipe"], ["--on-device-crash", "restart"]]
)
def test_client_of_every_design(options: list[str], tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, 64)
    with attached(tmp_path, kernel, *options) as (run, client):
        assert client.ask(b"Z0,%x,1" % kernel.address("add")) == b"OK"
        assert client.ask(b"c").startswith(b"T05")
        assert client.ask(b"z0,%x,1" % kernel.address("add")) == b"OK"
        assert client.ask(b"c") == b"W%02x" % COUNTED
        assert run.status() == COUNTED


@PLANTED
@pytest.mark.parametrize("half", ["", "1"])
def test_client_of_both_halves(half: str, tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, 64)
    place = tmp_path / "gdb.sock"
    environment = {**os.environ, "KVMBOX_PURE": half}
    with Run("--gdb", f"unix:{place}", kernel.path, env=environment) as run:
        run.stderr.until(b"waits for a client")
        with Client.connect(place) as client:
            assert client.ask(b"Z0,%x,1" % kernel.address("add")) == b"OK"
            for _ in range(5):
                assert client.ask(b"c").startswith(b"T05")
                assert client.ask(b"z0,%x,1" % kernel.address("add")) == b"OK"
                assert client.ask(b"s").startswith(b"T05")
                assert client.ask(b"Z0,%x,1" % kernel.address("add")) == b"OK"
            assert client.ask(b"c") == b"W%02x" % COUNTED
        assert run.status() == COUNTED
        assert run.output == b"counted\n"


def test_every_instruction_can_be_stepped_over_port_writes_too(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, 64)
    with attached(tmp_path, kernel) as (run, client):
        assert client.ask(b"M%x,4:01000000" % kernel.address("limit")) == b"OK"
        answer, steps = b"T05", 0
        while answer.startswith(b"T05") and steps < 2000:
            answer, steps = client.ask(b"vCont;s:1"), steps + 1
        assert answer == b"W%02x" % (1 << 1 | 1)
        assert run.status() == 1 << 1 | 1
        assert run.output == b"counted\n"
        assert steps > 100


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--gdb", "0.0.0.0:1234"], "only this host may connect"),
        (["--gdb", "kernel"], "is no endpoint"),
        (["--watch", "--gdb", "-"], "has one pipe, and --watch boots many times"),
    ],
)
def test_endpoint_that_cannot_be_is_refused_with_a_hint(options: list[str], reason: str) -> None:
    with Run(*options, "hello64") as run:
        assert run.status() == 2
        assert reason in run.messages
        assert "\nhint: " in run.messages


def test_pipe_that_nobody_holds_ends_the_run_and_says_so() -> None:
    with Run("--gdb", "-", "hello64") as run:
        assert run.status() == 130
        assert run.messages == "kvmbox: the client of --gdb has hung up\n"


# --- Beside other things ---


@PLANTED
def test_snapshot_of_a_guest_at_its_breakpoint_has_none(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, 64, "SPIN")
    place, file = tmp_path / "gdb.sock", tmp_path / "snapshot"
    with Machine(str(kernel.path), gdb=f"unix:{place}") as vm, Client.connect(place) as client:
        assert client.ask(b"Z0,%x,1" % kernel.address("add")) == b"OK"
        assert client.ask(b"c").startswith(b"T05")
        vm.snapshot(file)
        assert number(client.ask(b"p10")) == kernel.address("add")  # it still stands
    with Run("--gdb", f"unix:{place}", "--from", file) as run:
        run.stderr.until(b"waits for a client")
        with Client.connect(place) as client:
            assert number(client.ask(b"p10")) == kernel.address("add")
            assert number(client.ask(b"m%x,1" % kernel.address("add"))) == 0x55
            assert client.ask(b"M%x,4:01000000" % kernel.address("released")) == b"OK"
            assert client.ask(b"c") == b"W%02x" % COUNTED
        assert run.status() == COUNTED


def test_guest_that_is_suspended_stops_when_it_wakes_up(tmp_path: Path) -> None:
    with attached(tmp_path, "acpipm") as (run, client):
        client.say(b"c")
        run.stdout.until(b"suspending")
        client.raw(CTRL_C)  # answered at once if it is quicker than the sleep
        assert client.hear().startswith(b"T02thread:1;")
        assert client.ask(b"c") == b"W00"
        assert run.status() == 0


def test_signal_ends_a_run_that_stands_still(tmp_path: Path) -> None:
    with attached(tmp_path, Kernel(tmp_path, 64)) as (run, client):
        assert client.ask(b"?").startswith(b"T05")
        run.signal(signal.SIGTERM)
        assert run.status() == 130
        assert client.hung_up
    assert not (tmp_path / "gdb.sock").exists()


def test_program_has_no_pipe_to_a_debugger() -> None:
    with pytest.raises(UsageError, match="is for the command line"):
        Machine("hello64", gdb="-").start()
