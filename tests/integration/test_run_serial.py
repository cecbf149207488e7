"""Serial ports of a run: input without loss, and every backend of --serial."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.real_mode import (
    COM1,
    COM2,
    DEBUGCON,
    IDLE,
    SHUTDOWN,
    SPIN,
    debug_exit,
    echo,
    out,
    say,
    wait_input,
)
from tests.support.runs import Images, Run, run_to_end
from tests.support.waiting import Stream

pytestmark = pytest.mark.kvm

READY = say(b"ready\n")
LSR_TO_DEBUG_EXIT = bytes.fromhex("ec baf400 ee")  # in al,dx; mov dx,0xf4; out dx,al


# --- Input ------------------------------------------------------------------------------------------------


def echo_blocks() -> bytes:
    """Send everything back, by eight at FIFO level 8, by one after a character time-out; say when ready.

    start: mov dx,IIR; poll: in al,dx; and al,15; mov cx,8; cmp al,4; je move; cmp al,12; jne poll; mov cx,1;
    move: mov dl,RBR; mov bx,cx; mov di,0x2000; cld; rep insb; mov cx,bx; mov si,0x2000; rep outsb; jmp start
    """
    set_up = out(COM1 + 2, 0x81) + out(COM1 + 1, 0x01)  # FCR: FIFOs on, level 8; IER: received data
    loop = bytes.fromhex(
        "bafa03 ec 240f b90800 3c04 7407 3c0c 75f2 b90100 b2f8 89cb bf0020 fc f36c 89d9 be0020 f36e"
    )
    return set_up + READY + loop + b"\xeb%c" % (256 - len(loop) - 2)


def test_64_kib_from_a_pipe_come_back_complete_and_in_order(images: Images) -> None:
    end = b"the end of the stream"
    data = random.Random(1).randbytes((64 << 10) - len(end)) + end
    source, typed = os.pipe()
    with images.run(echo_blocks(), "--expect", end.decode(), stdin=source) as run:
        os.close(source)
        run.stdout.until(b"ready\n")
        remaining = memoryview(data)
        os.set_blocking(typed, False)
        while remaining:
            try:
                remaining = remaining[os.write(typed, remaining) :]
            except BlockingIOError:
                run.stdout.more()
        os.close(typed)
        assert run.status() == 0
        assert run.output == b"ready\n" + data


def test_guest_that_polls_byte_by_byte_without_fifo_loses_nothing(images: Images) -> None:
    data = bytes(range(256)) * 4 + b"end of it"
    with images.run(READY + echo(), "--expect", "end of it", stdin=subprocess.PIPE) as run:
        run.send(data)
        assert run.status() == 0
        assert run.output == b"ready\n" + data


def test_input_is_taken_no_faster_than_the_guest_reads(images: Images) -> None:
    # A guest that reads nothing leaves what is in the pipe to others.
    source, typed = os.pipe()
    os.write(typed, bytes(60_000))
    with images.run(READY + IDLE, stdin=source) as run:
        run.stdout.until(b"ready\n")
        run.signal(signal.SIGTERM)
        assert run.status() == 130
    os.close(typed)
    left = Stream(source, "the pipe").rest()
    assert len(left) >= 60_000 - 3 * 4096
    os.close(source)


def test_end_of_input_is_harmless(images: Images) -> None:
    with images.run(READY + echo(), stdin=subprocess.PIPE) as run:
        run.stdout.until(b"ready\n")
        run.send(b"last words")
        assert run.process.stdin is not None
        run.process.stdin.close()
        run.stdout.until(b"last words")
        run.signal(signal.SIGTERM)
        assert run.status() == 130


def test_escape_character_in_a_pipe_is_the_guests(images: Images) -> None:
    with images.run(echo(), "--expect", "end", stdin=subprocess.PIPE) as run:
        run.send(b"\x01x\x01h\x01\x01end")
        assert run.status() == 0
        assert run.output == b"\x01x\x01h\x01\x01end"
        assert run.messages == ""


def test_input_typed_before_the_guest_runs_is_kept(images: Images, tmp_path: Path) -> None:
    script = tmp_path / "typed"
    script.write_bytes(b"early" * 100 + b"end")
    with script.open("rb") as stdin:
        status, output, _ = run_to_end(images.run(echo(), "--expect", "end", stdin=stdin))
    assert (status, output) == (0, b"early" * 100 + b"end")


# --- Backends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status"), [((), 0xFF), (("--serial", "COM2=null"), 0xC1)], ids=["absent", "present"]
)
def test_com2_is_there_only_if_asked_for(images: Images, arguments: tuple[str, ...], status: int) -> None:
    # LSR 0x60: transmitter empty. Where nothing answers, all ones.
    code = b"\xba" + (COM2 + 5).to_bytes(2, "little") + LSR_TO_DEBUG_EXIT
    assert run_to_end(images.run(code, *arguments))[0] == status


def test_serial_to_file_holds_the_port_s_output_only(images: Images, tmp_path: Path) -> None:
    target = tmp_path / "com2.txt"
    target.write_bytes(b"what was here before")
    code = say(b"one") + say(b"two\r\n\x00\xff", COM2) + say(b"three") + debug_exit(0)
    assert run_to_end(images.run(code, "--serial", f"COM2=file:{target}")) == (1, b"onethree", "")
    assert target.read_bytes() == b"two\r\n\x00\xff"


def test_com1_to_file_leaves_stdout_empty(images: Images, tmp_path: Path) -> None:
    target = tmp_path / "com1.txt"
    assert run_to_end(images.run(say(b"one") + SHUTDOWN, "--serial", f"COM1=file:{target}")) == (0, b"", "")
    assert target.read_bytes() == b"one"


def test_serial_null_swallows_output(images: Images) -> None:
    code = say(b"shown") + say(b"swallowed", COM2) + SHUTDOWN
    assert run_to_end(images.run(code, "--serial", "com2=null")) == (0, b"shown", "")


def test_com2_on_stdio_gets_what_is_typed(images: Images) -> None:
    code = wait_input(COM2) + b"\xee" + SHUTDOWN
    with images.run(code, "--serial", "COM2=stdio", stdin=subprocess.PIPE) as run:
        run.send(b"!")
        assert run.status() == 0
        assert run.output == b"!"


def test_com1_that_printed_for_nobody_is_told_of(images: Images) -> None:
    told = "kvmbox: COM1 printed, and nobody got it"
    for code, options, lost in (
        (say(b"lost"), ("--serial", "COM2=stdio"), True),
        (say(b"shown", COM2), ("--serial", "COM2=stdio"), False),
        (say(b"lost"), ("--serial", "com1=null", "--serial", "COM2=stdio"), False),
    ):
        assert run_to_end(images.run(code + SHUTDOWN, *options))[2].startswith(told) == lost


def open_pty(run: Run) -> int:
    """The pseudo-terminal that the run has announced, opened."""
    run.stderr.until(b"COM2 is /dev/")
    run.stderr.until(b"\n")
    path = run.messages.rpartition("COM2 is ")[2].splitlines()[0]
    return os.open(path, os.O_RDWR | os.O_NOCTTY)


def test_serial_on_a_pty_speaks_both_ways(images: Images) -> None:
    with images.run(echo(COM2), "--serial", "COM2=pty") as run:
        terminal = open_pty(run)
        screen = Stream(terminal, "the pseudo-terminal")
        for text in (b"ping", b"\x03\x04\r\n\xff raw"):
            os.write(terminal, text)
            screen.until(text)
        os.close(terminal)
        run.signal(signal.SIGTERM)
        assert run.status() == 130


def test_pty_without_a_reader_drops_and_can_be_opened_again(images: Images) -> None:
    lost = say(b"nobody hears this", COM2)
    with images.run(
        lost + READY + wait_input() + lost + READY + echo(COM2), "--serial", "COM2=pty", stdin=subprocess.PIPE
    ) as run:
        run.stdout.until(b"ready\n")
        terminal = open_pty(run)
        os.close(terminal)
        run.send(b"!")
        run.stdout.until(b"ready\n")
        terminal = os.open(run.messages.rpartition("COM2 is ")[2].splitlines()[0], os.O_RDWR | os.O_NOCTTY)
        os.write(terminal, b"again")
        Stream(terminal, "the pseudo-terminal").until(b"again")
        os.close(terminal)
        run.signal(signal.SIGTERM)
        assert run.status() == 130


def test_all_ports_are_separate(images: Images, tmp_path: Path) -> None:
    ports = {"COM1": COM1, "COM2": COM2, "COM3": 0x3E8, "COM4": 0x2E8}
    arguments = [f"--serial={name}=file:{tmp_path / name}" for name in ports]
    code = b"".join(say(name.encode(), port) for name, port in ports.items()) + SHUTDOWN
    assert run_to_end(images.run(code, *arguments)) == (0, b"", "")
    assert {name: (tmp_path / name).read_text() for name in ports} == {name: name for name in ports}


# --- The debug console ------------------------------------------------------------------------------------


def to_both(text: bytes) -> bytes:
    """Each byte to the debug console and to COM1, as a kernel's putc does it: CR before LF for the UART."""
    return b"".join(
        say(byte, DEBUGCON) + say(b"\r\n" if byte == b"\n" else byte)
        for byte in (text[i : i + 1] for i in range(len(text)))
    )


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        (say(b"hello\n", DEBUGCON), b"hello\n"),
        (say(b"hello\n"), b"hello\n"),
        (say(b"hello\r\n") + say(b"hello\n", DEBUGCON), b"hello\r\n"),
        (say(b"hello\n", DEBUGCON) + say(b"hello\r\n"), b"hello\n"),
        (to_both(b"hello\nworld\n> "), b"hello\nworld\n> "),
        (say(b"one\n") + say(b"two\n", DEBUGCON), b"one\ntwo\n"),
        (say(b"hello\n") + say(b"help", DEBUGCON), b"hello\nhelp"),
        (say(b"hello\n") + say(b"hel", DEBUGCON), b"hello\nhel"),
    ],
    ids=[
        "debug console",
        "COM1",
        "both",
        "both, reverse",
        "by character",
        "different",
        "begins alike",
        "cut off",
    ],
)
def test_debug_console_and_com1_share_stdout_and_say_the_same_once(
    images: Images, code: bytes, shown: bytes
) -> None:
    assert run_to_end(images.run(code + SHUTDOWN)) == (0, shown, "")


def test_debugcon_backends_get_all_of_the_debug_console_and_nothing_else(
    images: Images, tmp_path: Path
) -> None:
    code, log = to_both(b"hello\n") + SHUTDOWN, tmp_path / "debug.log"
    assert run_to_end(images.run(code, "--debugcon", "stderr")) == (0, b"hello\r\n", "hello\n")
    assert run_to_end(images.run(code, "--debugcon", "null")) == (0, b"hello\r\n", "")
    assert run_to_end(images.run(code, "--debugcon", f"file:{log}")) == (0, b"hello\r\n", "")
    assert log.read_bytes() == b"hello\n"
    status, output, _ = run_to_end(images.run(code, "--debugcon", "stdout"))
    assert (status, output) == (0, b"hheelllloo\n\r\n")


def test_prompt_that_begins_like_an_earlier_line_appears(images: Images) -> None:
    with images.run(say(b"> run\n", DEBUGCON) + say(b"> ") + IDLE) as run:
        run.stdout.until(b"> run\n> ")


def test_text_written_to_both_by_character_is_found_and_counted(images: Images, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    arguments = ("--expect", "hello", "--json", result)
    assert run_to_end(images.run(to_both(b"hello") + SPIN, *arguments)) == (0, b"hello", "")
    facts = json.loads(result.read_text())
    assert facts["bytes_out"]["debugcon"] == 5
    assert facts["bytes_shown_for_another"]["COM1"] + facts["bytes_shown_for_another"]["debugcon"] in (4, 5)
