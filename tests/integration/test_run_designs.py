"""Every design of the RFC, by the command line: where models run, what they may call, how they are reached.

The guest cannot tell one from another, and whatever becomes of a device process is named in each.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
from typing import Final

import pytest

from kvmbox.base import layout
from kvmbox.jail.linux import seccomp_mode
from tests.support.family import DEVICE_TYPES, device_processes
from tests.support.patience import patience
from tests.support.real_mode import COM1, DEBUGCON, IDLE, SHUTDOWN, out, say
from tests.support.runs import ENTRY, Images, Run, error_lines, run_to_end

pytestmark = pytest.mark.kvm

strict_possible = pytest.mark.skipif(
    seccomp_mode() != 0, reason="strict mode cannot be entered where a filter is in force already"
)

IPC: Final = ("socketpair", "pipe", "shm")


def design(sandbox: str, seccomp: str, ipc: str) -> tuple[str, ...]:
    return ("--sandbox", sandbox, "--seccomp", seccomp, "--ipc", ipc)


IN_THE_VMM: Final = [("--sandbox", "none"), *(("--sandbox", "thread", "--ipc", ipc) for ipc in IPC)]
IN_PROCESSES: Final = [
    design(*choice) for choice in itertools.product(("process", "per-device"), ("filter", "off"), IPC)
]
STRICT: Final = [design(*choice) for choice in itertools.product(("process", "per-device"), ("strict",), IPC)]


def marked(designs: list[tuple[str, ...]]) -> list[object]:
    """As parameters, of which `make test` takes none: strict mode where it is possible."""
    return [
        pytest.param(
            one,
            id=" ".join(one[1::2]),
            marks=[pytest.mark.thorough, *([strict_possible] if "strict" in one else [])],
        )
        for one in designs
    ]


ALL: Final = marked([*IN_THE_VMM, *IN_PROCESSES, *STRICT])
PROCESSES_OTHERWISE_REACHED: Final = [design("process", "filter", ipc) for ipc in ("pipe", "shm")]
ONE_OF_EACH: Final = marked([*IN_THE_VMM, *PROCESSES_OTHERWISE_REACHED, STRICT[0], STRICT[-1]])
KILLABLE: Final = marked([*PROCESSES_OTHERWISE_REACHED, STRICT[0], STRICT[2]])


# --- The guest cannot tell -------------------------------------------------------------------------------

RTC_BASE: Final = ("--rtc-base", "2026-01-02T03:04:05")
_DEFAULT: Final[dict[str, tuple[int, bytes]]] = {}


def outcome(guest: str, *arguments: str, stdin: bytes = b"") -> tuple[int, bytes]:
    """Status and output of a bundled guest."""
    with Run(*RTC_BASE, "--timeout", f"{patience(60):g}", *arguments, guest, stdin=subprocess.PIPE) as run:
        run.send(stdin)
        assert run.process.stdin is not None
        run.process.stdin.close()
        status = run.status()
        assert error_lines(run.messages) == []
        return status, run.output


@pytest.mark.parametrize("chosen", ALL)
@pytest.mark.parametrize(
    ("guest", "stdin"),
    [("hello64", b""), ("irq64", b""), ("echo", b"The quick brown fox\rjumps over the dog\r\x04not this")],
    ids=["hello64", "irq64", "echo"],
)
def test_design_gives_the_same_output_and_status_as_the_default(
    chosen: tuple[str, ...], guest: str, stdin: bytes
) -> None:
    if guest not in _DEFAULT:
        _DEFAULT[guest] = outcome(guest, stdin=stdin)
        assert _DEFAULT[guest][0] == 0
        assert _DEFAULT[guest][1]
    assert outcome(guest, *chosen, stdin=stdin) == _DEFAULT[guest]


# --- Writes that do not exit -----------------------------------------------------------------------------


@pytest.mark.parametrize("chosen", ONE_OF_EACH)
def test_order_of_com1_and_debug_console_is_kept(images: Images, chosen: tuple[str, ...]) -> None:
    # Runs of all lengths around the ring's 169 on the debug console, between bytes on COM1.
    expected = b""
    code = b""
    for number, length in enumerate([1, 2, 3, 84, 168, 169, 170, 171, 400]):
        mark = b"<%d>" % number
        text = bytes(ord("a") + index % 26 for index in range(length))
        code += say(mark) + say(text, DEBUGCON)
        expected += mark + text
    status, output, _ = run_to_end(images.run(code + SHUTDOWN, *chosen))
    assert (status, output) == (0, expected)


@pytest.mark.parametrize("chosen", ONE_OF_EACH)
def test_debug_output_of_a_guest_that_never_exits_again_is_shown(
    images: Images, chosen: tuple[str, ...]
) -> None:
    with images.run(say(b"last words", DEBUGCON) + IDLE, *chosen) as run:
        run.stdout.until(b"last words")


@pytest.mark.parametrize("chosen", ONE_OF_EACH)
def test_index_of_the_rtc_is_the_one_written_before_each_access(
    images: Images, chosen: tuple[str, ...]
) -> None:
    index, data = layout.RTC_INDEX_PORT, layout.RTC_INDEX_PORT + 1
    to_com1 = b"\xba" + COM1.to_bytes(2, "little") + b"\xee"
    read = b"\xba" + data.to_bytes(2, "little") + b"\xec" + to_com1
    code = b""
    for register in range(0x40, 0x48):
        code += out(index, register) + out(data, 0x30 + register - 0x40)
    for register in (0x47, 0x40, 0x43):
        code += out(index, register) + read + read  # the index stays
    code += out(index, 0x41) + say(b"/") + read  # something else in between
    code += out(index, 0x42) + out(index, 0x44) + read  # two indices: the last one counts
    code += out(index, 0x45) + say(b"d", DEBUGCON) + read
    status, output, _ = run_to_end(images.run(code + SHUTDOWN, *chosen))
    assert (status, output) == (0, b"770033/14d5")


def test_debug_process_stopped_while_it_gets_a_ring_full_is_named(images: Images) -> None:
    flood = b"\xba" + DEBUGCON.to_bytes(2, "little") + bytes.fromhex("b041 ee ebfd")  # 'A' for ever
    with images.run(say(b"ready\n") + flood, "--serial-overflow", "drop") as run:
        run.stdout.until(b"AAAA")
        (debug,) = [pid for pid, name in device_processes(run.pid).items() if name == "debug"]
        os.kill(debug, signal.SIGSTOP)
        assert run.status() == 8
        (line,) = error_lines(run.messages)
        assert "device process 'debug' is hung" in line


# --- Deaths ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chosen", KILLABLE)
@pytest.mark.parametrize("device", DEVICE_TYPES)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_device_process_that_is_lost_gives_8_and_is_named(
    images: Images, chosen: tuple[str, ...], device: str, number: signal.Signals
) -> None:
    with images.run(say(b"ready\n") + IDLE, *chosen) as run:
        run.stdout.until(b"ready\n")
        os.kill(run.family.devices[device], number)
        assert run.status() == 8, run.messages
        (line,) = error_lines(run.messages)
        how = "was killed by signal 9 (SIGKILL)" if number == signal.SIGKILL else "is hung"
        assert f"device process '{device}' {how}" in line
        run.family.assert_gone()


@pytest.mark.parametrize("chosen", KILLABLE)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_device_process_that_is_lost_in_the_midst_of_requests_gives_8(
    images: Images, chosen: tuple[str, ...], number: signal.Signals
) -> None:
    poll = bytes.fromhex("bafd03 ec ebfd")  # in al,LSR for ever
    with images.run(say(b"ready\n") + poll, *chosen) as run:
        run.stdout.until(b"ready\n")
        os.kill(run.family.devices["uart"], number)
        assert run.status() == 8
        (line,) = error_lines(run.messages)
        assert "device process 'uart'" in line
        run.family.assert_gone()


@pytest.mark.parametrize("chosen", [("--sandbox", "none"), ("--sandbox", "thread")], ids=" ".join)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_a_run_without_device_processes(
    images: Images, chosen: tuple[str, ...], number: signal.Signals
) -> None:
    with images.run(say(b"ready\n") + IDLE, *chosen) as run:
        run.stdout.until(b"ready\n")
        run.signal(number)
        assert run.status() == 130


# --- What does not go together, or not here --------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--sandbox", "none", "--ipc", "shm"), "--ipc needs a --sandbox"),
        (("--sandbox", "none", "--ipc", "socketpair"), "--ipc needs a --sandbox"),
        (("--sandbox", "none", "--seccomp", "strict"), "--seccomp strict needs device processes"),
        (("--sandbox", "thread", "--seccomp", "filter"), "--seccomp filter needs device processes"),
        (("--sandbox", "thread", "--on-device-crash", "restart"), "needs device processes"),
        (("--sandbox", "somewhere"), "'somewhere' is not one of"),
        (("--seccomp", "none"), "'none' is not one of"),
        (("--ipc", "carrier-pigeon"), "'carrier-pigeon' is not one of"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_combination_that_makes_no_sense_is_a_usage_error(arguments: tuple[str, ...], complaint: str) -> None:
    status, output, messages = run_to_end(Run("hello64", *arguments))
    assert (status, output) == (2, b"")
    assert complaint in messages


@pytest.mark.parametrize("sandbox", ["none", "thread"])
def test_layer_that_is_required_where_there_is_none_is_refused(sandbox: str) -> None:
    status, output, messages = run_to_end(Run("hello64", "--sandbox", sandbox, "--require", "landlock"))
    assert (status, output) == (4, b"")
    assert f"no sandbox layer at all with --sandbox {sandbox}" in messages


@pytest.mark.parametrize(
    ("arguments", "warning"),
    [
        (("--sandbox", "none"), "nothing contains them"),
        (("--sandbox", "thread"), "nothing contains them"),
        (("--seccomp", "off"), "device processes may make any system call"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_weaker_design_is_said_aloud(arguments: tuple[str, ...], warning: str) -> None:
    status, _, messages = run_to_end(Run("hello64", *arguments))
    assert status == 0
    assert warning in messages


def test_default_design_says_nothing() -> None:
    status, _, messages = run_to_end(Run("hello64"))
    assert (status, messages) == (0, "")


@pytest.mark.parametrize("sandbox", ["process", "thread"])
@pytest.mark.parametrize("taken", [0, 1], ids=["a CPU to spare", "none to spare"])
def test_default_ipc_is_what_this_host_is_best_at_and_statistics_tell_it(sandbox: str, taken: int) -> None:
    allowed = len(os.sched_getaffinity(0))
    vcpus = allowed if taken else 1
    status, _, messages = run_to_end(
        Run("hello64", "--sandbox", sandbox, "--cpus", str(vcpus), "--stats", "--ipc", "auto")
    )
    ipc = "shm" if allowed > vcpus and sandbox == "process" else "pipe"
    assert status == 0
    assert re.search(rf"^sandbox \({sandbox}, .*, {ipc}\)", messages, re.MULTILINE)
    assert "--ipc auto" not in messages


UNDER_A_FILTER: Final = f"""
import ctypes
prctl = ctypes.CDLL(None).prctl
prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong]
# One instruction: return SECCOMP_RET_ALLOW.
code = ctypes.create_string_buffer(bytes.fromhex("0600 00 00 0000ff7f"))
program = ctypes.create_string_buffer(
    (1).to_bytes(8, "little") + ctypes.addressof(code).to_bytes(8, "little")
)
assert prctl(38, 1, None, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert prctl(22, 2, ctypes.addressof(program), 0, 0) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
{ENTRY}
"""


def test_strict_under_a_filter_is_refused_with_a_hint() -> None:
    command = (sys.executable, "-c", UNDER_A_FILTER)
    status, output, messages = run_to_end(Run("hello64", "--seccomp", "strict", command=command))
    assert (status, output) == (4, b"")
    assert "--seccomp strict is refused by the kernel: kvmbox itself runs under a seccomp filter" in messages
    assert "hint: " in messages


def test_filter_under_a_filter_works() -> None:
    command = (sys.executable, "-c", UNDER_A_FILTER)
    status, output, _ = run_to_end(Run("hello64", "--seccomp", "filter", command=command))
    assert status == 0
    assert output.startswith(b"Hello")


ON_ONE_CPU: Final = f"import os; os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}}); {ENTRY}"


@pytest.mark.parametrize("guest", ["hello64", "irq64"])
@pytest.mark.parametrize(
    "chosen", marked([design("process", "filter", "shm"), design("per-device", "strict", "shm")])
)
def test_shared_memory_on_one_cpu_says_so_and_works(guest: str, chosen: tuple[str, ...]) -> None:
    command = (sys.executable, "-c", ON_ONE_CPU)
    status, output, messages = run_to_end(Run(guest, *RTC_BASE, *chosen, command=command))
    assert "there is no further CPU to spin on" in messages
    assert (status, output) == outcome(guest)
