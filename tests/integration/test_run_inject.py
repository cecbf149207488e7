"""`kvmbox run --inject` with real guests: a driver that survives what is wrong, and one that does not."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kvmbox.base import layout
from kvmbox.base.errors import UsageError
from kvmbox.parts.inject import chance
from kvmbox.run.api.machine import Machine
from tests.support.real_mode import COM1, RESET_92, SHUTDOWN, out, say
from tests.support.runs import KVMBOX, Images, Run, error_lines, run_to_end

pytestmark = pytest.mark.kvm

DRIVER = Path(__file__).parents[1] / "drivers" / "uart_sender.S"
RESTARTING = (sys.executable, str(Path(__file__).parent / "run_payload" / "other_spawner.py"))
TEXT = (
    b"A driver must survive an interrupt that never comes.\nThis one asks again, and so each byte arrives.\n"
)
PAGE = (Path(__file__).parents[2] / "docs/fault-injection.md").read_text(encoding="utf-8")
DROPS = "COM1:drop-irq=0.2,seed=7"


@pytest.fixture
def driver(tmp_path: Path) -> Path:
    return build(tmp_path)


def build(directory: Path, *flags: str) -> Path:
    """The driver, in a flat image."""
    if not (shutil.which("cc") and shutil.which("ld")):
        pytest.skip("cc or ld not found: the driver cannot be built")
    built = directory / "driver.o"
    subprocess.run(["cc", "-m32", *flags, "-c", "-o", built, DRIVER], check=True)
    image = directory / "driver.bin"
    subprocess.run(
        ["ld", "-m", "elf_i386", "-Ttext=0x7c00", "-e", "_start", "--oformat", "binary", "-o", image, built],
        check=True,
    )
    return image


def run(image: Path, *arguments: str | Path, **options: Any) -> tuple[int, bytes, str]:
    return run_to_end(Run("--boot", "real", "--timeout", "60", *arguments, image, **options))


def dropped(events: int) -> int:
    """How many of the first interrupts are lost with DROPS."""
    key, limit = chance.key_of(7, "COM1", "drop-irq"), chance.threshold(0.2)
    return sum(chance.number(key, index) < limit for index in range(events))


def lost(messages: str) -> tuple[int, int]:
    """Interrupts that were dropped, and all of them."""
    found = re.search(r"^kvmbox: --inject: COM1: (\d+) of (\d+) interrupts dropped$", messages, re.MULTILINE)
    assert found is not None, messages
    return int(found[1]), int(found[2])


# --- Lost and late interrupts ---------------------------------------------------------------------------


def test_driver_without_faults_never_has_to_ask_again(driver: Path) -> None:
    assert run(driver) == (1, TEXT, "")


@pytest.mark.parametrize(
    "options",
    [
        ("--sandbox", "none"),
        ("--sandbox", "thread"),
        ("--sandbox", "per-device"),
        *(("--ipc", ipc) for ipc in ("socketpair", "pipe", "shm")),
    ],
    ids=lambda options: options[1],
)
def test_driver_that_asks_again_survives_each_lost_interrupt(driver: Path, options: tuple[str, ...]) -> None:
    status, output, messages = run(driver, "--inject", DROPS, *options)
    injected, events = lost(messages)
    assert output == TEXT
    assert injected == dropped(events) > 10
    assert status == 2 * injected + 1  # it has asked again for each


def test_pure_python_drops_the_same_interrupts(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = run(driver, "--inject", DROPS)
    monkeypatch.setenv("KVMBOX_PURE", "1")
    assert run(driver, "--inject", DROPS) == compiled


def test_naive_driver_stops_where_the_first_interrupt_is_lost(tmp_path: Path) -> None:
    image = build(tmp_path, "-DNAIVE")
    assert run(image)[:2] == (1, TEXT)
    status, output, messages = run(image, "--inject", DROPS)
    injected, events = lost(messages)
    assert (status, injected, dropped(events - 1)) == (255, 1, 0)
    assert output == TEXT[: events - 1]


def test_driver_that_waits_long_enough_survives_late_interrupts(tmp_path: Path) -> None:
    image = build(tmp_path, "-DNAIVE")
    status, output, messages = run(image, "--inject", "COM1:delay-irq=0.5@50")
    assert (status, output) == (1, TEXT)
    assert re.search(r"COM1: [1-9]\d of 101 interrupts delayed", messages)
    assert run(image, "--inject", "COM1:delay-irq=0.5@500")[0] == 255


def test_sequence_goes_on_when_the_device_process_is_restarted(tmp_path: Path) -> None:
    # The process leaves at a write to the scratch register, which the driver makes in the middle of its text.
    image = build(tmp_path, "-DSCRATCH")
    undisturbed = run(image, "--inject", DROPS)
    status, output, messages = run(
        image,
        *("--inject", DROPS, "--on-device-crash", "restart"),
        command=(*RESTARTING, "uart", "leave", "1000"),
    )
    assert "(restart 1, " in messages
    assert (status, output, lost(messages)) == (undisturbed[0], TEXT, lost(undisturbed[2]))


def test_timer_whose_interrupts_are_dropped_never_ticks() -> None:
    status, output, messages = run_to_end(Run("clock", "--inject", "PIT:drop-irq=1"))
    assert (status, output.splitlines()[-1]) == (3, b"not ok PIT: no interrupts")
    assert re.search(r"PIT: (\d+) of \1 interrupts dropped", messages)


def test_timer_whose_interrupts_are_late_ticks_all_the_same() -> None:
    status, output, messages = run_to_end(Run("clock", "--inject", "PIT:delay-irq=1@1ms"))
    assert status == 0
    assert re.search(rb"ticked [1-9]\d* times", output)
    assert re.search(r"PIT: (\d+) of \1 interrupts delayed", messages)


# --- Registers ------------------------------------------------------------------------------------------


def read_to_debug_exit(port: int) -> bytes:
    """mov dx,port; in al,dx; mov dx,0xf4; out dx,al."""
    return b"\xba" + port.to_bytes(2, "little") + b"\xec\xba\xf4\x00\xee"


def test_read_gives_all_ones(images: Images) -> None:
    code = read_to_debug_exit(layout.RTC_DATA_PORT)
    assert run_to_end(images.run(code))[0] != 255
    status, _, messages = run_to_end(images.run(code, "--inject", "RTC:all-ones=1"))
    assert status == 255
    assert "RTC: 1 of 1 reads gave all ones" in messages


def test_string_instructions_meet_the_faults_at_each_access(images: Images) -> None:
    # mov dx,LSR; mov cx,300; mov di,0x2000; cld; rep insb; then how many of them were all ones.
    code = b"\xba" + (COM1 + 5).to_bytes(2, "little") + bytes.fromhex("b92c01 bf0020 fc f36c")
    _, _, messages = run_to_end(images.run(code + SHUTDOWN, "--inject", "COM1:all-ones=0.5"))
    found = re.search(r"COM1: (\d+) of 300 reads gave all ones", messages)
    assert found is not None
    assert 100 < int(found[1]) < 200


def test_device_that_has_vanished_prints_nothing(images: Images) -> None:
    status, output, messages = run_to_end(
        images.run(say(b"heard unheard") + SHUTDOWN, "--inject", "COM1:vanish=forever,after=5")
    )
    assert (status, output) == (0, b"heard")
    assert "COM1: 8 of 8 accesses not answered" in messages


def test_uart_that_stays_busy_makes_a_driver_wait() -> None:
    status, output, messages = run_to_end(Run("hello32", "--inject", "COM1:busy=20"))
    assert (status, output) == (0, b"Hello from 32-bit protected mode!\n")
    assert re.search(r"COM1: 20 of [2-9]\d reads of LSR showed a busy transmitter", messages)


RECEIVER = (
    # poll: mov dx,LSR; in al,dx; test al,0x1f; jz poll; mov ah,al; out 0xe9,al
    bytes.fromhex("bafd03 ec a81f 74fb 88c4 e6e9")
    # test ah,1; jz poll; mov dx,RBR; in al,dx; out 0xe9,al; cmp al,'.'; jne poll
    + bytes.fromhex("f6c401 74ef baf803 ec e6e9 3c2e 75e5")
)
"""Prints LSR and, if there is one, the byte that was received, on the debug console; ends behind a point."""


@pytest.mark.parametrize(
    ("fault", "shown"),
    [
        ("framing", b"\x69a\x69."),
        ("parity", b"\x65a\x65."),
    ],
)
def test_driver_sees_errors_of_received_bytes(
    images: Images, tmp_path: Path, fault: str, shown: bytes
) -> None:
    log = tmp_path / "log"
    with images.run(
        say(b"?") + RECEIVER + SHUTDOWN,
        *("--debugcon", f"file:{log}", "--inject", f"COM1:{fault}=1", "--timeout", "60"),
        stdin=subprocess.PIPE,
    ) as running:
        running.stdout.until(b"?")
        running.send(b"a.")
        assert running.status() == 0
        assert f"COM1: 2 of 2 received bytes with a {fault} error" in running.messages
    assert log.read_bytes() == shown


def test_driver_sees_overruns_and_gets_the_other_bytes(images: Images, tmp_path: Path) -> None:
    log, typed = tmp_path / "log", bytes(range(0x30, 0x60)) + b"." * 20
    with images.run(
        say(b"?") + RECEIVER + SHUTDOWN,
        *("--debugcon", f"file:{log}", "--inject", "COM1:overrun=0.3", "--timeout", "60"),
        stdin=subprocess.PIPE,
    ) as running:
        running.stdout.until(b"?")
        running.send(typed)
        assert running.status() == 0
        found = re.search(r"COM1: (\d+) of \d+ received bytes overrun", running.messages)
    assert found is not None
    overrun = int(found[1])
    seen = log.read_bytes()
    arrived = bytes(byte for byte in seen if byte < 0x60)
    assert list(arrived) == [*sorted(arrived[:-1]), ord(".")]  # in order
    assert len(arrived) + overrun <= len(typed)
    assert len(typed) - 20 - (len(arrived) - 1) <= overrun
    assert sum(byte in (0x62, 0x63) for byte in seen) == overrun > 5  # LSR with OE, each time


def test_clock_jumps() -> None:
    start = ("--rtc-base", "2024-02-29T12:00:00")
    _, output, messages = run_to_end(Run("clock", *start, "--inject", "RTC:jump=+86400"))
    assert re.search(rb"Today is Friday, 2024-03-01; the RTC says 12:00:0\d\.", output)
    assert "RTC: 1 of 1 jumps of the clock" in messages


# --- The page ------------------------------------------------------------------------------------------


def test_page_shows_what_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, output, messages = run(build(tmp_path, "-DNAIVE"), "--inject", DROPS)
    assert f"{output.decode()}\n{messages}{status}\n" in PAGE
    status, output, messages = run(build(tmp_path), "--inject", DROPS)
    assert f"{output.decode()}{messages}{status}\n" in PAGE
    (program,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("example.py").write_text(program)
    runpy.run_path("example.py")


# --- Around it ------------------------------------------------------------------------------------------


def test_faults_are_counted_in_stats_and_json(driver: Path, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    _, _, messages = run(driver, "--inject", DROPS, "--inject", "RTC:jump=+5", "--stats", "--json", result)
    injected, events = lost(messages)
    assert json.loads(result.read_text())["injected"] == [
        {"device": "COM1", "fault": "drop-irq", "events": events, "injected": injected},
        {"device": "RTC", "fault": "jump", "events": 0, "injected": 0},
    ]
    assert f"COM1 drop-irq            {injected} of {events} injected" in messages.splitlines()


def test_run_without_faults_counts_none(driver: Path, tmp_path: Path) -> None:
    run(driver, "--json", tmp_path / "result.json")
    assert json.loads((tmp_path / "result.json").read_text())["injected"] == []


def test_recording_names_the_faults_and_replays(driver: Path, tmp_path: Path) -> None:
    recording = tmp_path / "run.rec"
    _, output, _ = run(driver, "--inject", DROPS, "--inject", "RTC:jump=+5", "--record", recording)
    assert output == TEXT
    for command, words in (("replay", " replies are identical"), ("trace", " records, guest time ")):
        shown = subprocess.run(
            [*KVMBOX, command, recording], check=False, capture_output=True, text=True, timeout=60
        )
        assert shown.returncode == 0
        assert words in shown.stdout
        assert shown.stderr.splitlines() == [
            f"kvmbox: recorded with --inject {fault}: the guest saw other answers"
            for fault in (DROPS, "RTC:jump=+5")
        ]


def test_faults_go_on_over_a_reboot() -> None:
    status, output, messages = run_to_end(Run("reboot", "--inject", "RTC:jump=+5"))
    assert (status, output) == run_to_end(Run("reboot"))[:2]
    assert "RTC: 1 of 1 jumps of the clock" in messages


@pytest.mark.parametrize(("resets", "status"), [(False, 0x21), (True, 0x01)], ids=["goes on", "reset"])
def test_reset_ends_the_delay_of_an_interrupt(images: Images, resets: bool, status: int) -> None:
    # A THRE interrupt, ten accesses late; then LSR twenty times, and the request of IRQ 4 in the 8259A's IRR.
    interrupt = out(COM1 + 4, 0x0B) + out(COM1 + 1, 0x02)
    look = bytes.fromhex("bafd03 b91400 ec e2fd e420 2410 baf400 ee")
    if not resets:
        code = interrupt + look
    else:
        # CMOS RAM keeps 0x77 over the reset: mov al,0x50; out 0x70,al; in al,0x71; cmp al,0x77; je look
        first = bytes.fromhex("b077 e671") + interrupt + RESET_92
        code = bytes.fromhex("b050 e670 e471 3c77 74") + bytes([len(first)]) + first + look
    ended, _, messages = run_to_end(images.run(code, "--inject", "COM1:delay-irq=1@10"))
    assert ended == status
    assert "COM1: 1 of 1 interrupts delayed" in messages


def test_machine_takes_faults(driver: Path) -> None:
    with Machine(str(driver), boot="real", inject=[DROPS, "RTC:jump=+5"], timeout=60) as vm:
        result = vm.wait(timeout=60)
    assert vm.output == TEXT
    assert result.status > 1
    assert [line for line in vm.messages if "interrupts dropped" in line]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--snapshot-when", "x=FILE"), "--inject contradicts --snapshot-when"),
        (("--from", "FILE"), "--inject contradicts --from"),
    ],
)
def test_snapshots_have_no_faults(tmp_path: Path, options: tuple[str, str], words: str) -> None:
    snapshot = tmp_path / "booted.snap"
    saved = run_to_end(Run("hello32", "--snapshot-when", f"Hello={snapshot}", "--snapshot-stop"))
    assert saved[0] == 0, saved
    guest = () if options[0] == "--from" else ("hello32",)
    named = (options[0], options[1].replace("FILE", str(snapshot)))
    status, _, messages = run_to_end(Run(*guest, *named, "--inject", "uart:busy=1"))
    assert status == 2
    assert error_lines(messages) == [f"kvmbox: error: {words}"]
    assert "\nhint: " in messages


def test_program_takes_no_snapshot_of_a_machine_with_faults(tmp_path: Path) -> None:
    with Machine("echo", inject="uart:busy=1") as vm:
        vm.expect("type something", timeout=60)
        with pytest.raises(UsageError, match="--inject contradicts a snapshot"):
            vm.snapshot(tmp_path / "echo.snap")
    assert not (tmp_path / "echo.snap").exists()


def test_device_that_the_machine_does_not_have_is_refused_before_the_guest_runs() -> None:
    status, output, messages = run_to_end(Run("hello32", "--inject", "COM2:busy=1"))
    assert (status, output) == (2, b"")
    assert "this machine has no device 'COM2'" in messages


def test_guest_that_shares_a_device_between_accesses_of_all_widths_goes_on() -> None:
    status, _, _ = run_to_end(
        Run("portsweep", *(f"--inject={kind}:all-ones=0.1,spurious-irq=0.1" for kind in ("uart", "rtc")))
    )
    assert status == 0
