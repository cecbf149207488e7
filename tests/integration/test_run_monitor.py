"""The monitor on a terminal: Ctrl-A C, its words, and what becomes of the guest meanwhile."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.real_mode import IDLE, SPIN, debug_exit, echo, say, wait_input
from tests.support.runs import Images
from tests.support.terminal import Terminal

pytestmark = pytest.mark.kvm

PROMPT: Final = b"(kvmbox) "


class Person(Terminal):
    """Uses the monitor on a terminal."""

    def open(self) -> None:
        self.send(b"\x01c")
        self.screen.until(PROMPT)

    def say(self, line: str) -> str:
        """What is answered, behind what was typed."""
        start = len(self.screen.seen)
        self.send(line.encode() + b"\r")
        self.screen.until(line.encode() + b"\r\n")
        while not self.screen.seen[start:].endswith(PROMPT):
            assert self.screen.more()
        answer = bytes(self.screen.seen[start:]).decode().replace("\r\n", "\n")
        return answer.removeprefix(f"{line}\n").removesuffix(PROMPT.decode())

    def place(self, line: str) -> int:
        """Where the CPU is, as the answer says."""
        found = re.search("at (0x[0-9a-f]+):", self.say(line))
        assert found is not None
        return int(found[1], 16)


@pytest.fixture
def person() -> Iterator[Person]:
    person = Person()
    yield person
    person.close()


def test_words_look_at_a_guest_that_goes_on(images: Images, person: Person) -> None:
    with person.run(images, echo()) as run:
        person.open()
        assert "continue " in person.say("help")
        assert re.search(r"^   rip [0-9a-f]{16} ", person.say("registers"), re.MULTILINE)
        assert person.say("cpu").startswith("CPU 0, 16-bit code, at 0x7c")
        assert person.say("memory 0x7c00 2") == f"{0x7C00:016x}  ba f8{' ' * 43} ..\n"
        assert "is physical 0x1234: paging is off" in person.say("translate 0x1234")
        assert "uart_16550a" in person.say("devices")
        assert person.say("screen") == "the screen is blank\n"
        person.send(b"\x01c")
        person.send(b"to the guest")
        person.screen.until(b"to the guest")
        person.open()
        person.say("quit")
        assert run.status() == 130
    assert person.settings() == person.before


def test_what_is_wrong_is_told_and_nothing_is_done(images: Images, person: Person) -> None:
    with person.run(images, IDLE) as run:
        person.open()
        for line, answer in (
            ("frobnicate", "there is no word 'frobnicate'"),
            ("memory", "it is used as: memory ADDR [COUNT]"),
            ("memory here", "'here' is no address"),
            ("memory 0 99999", "4096 bytes are shown at most"),
            ("cpu 7", "there is no CPU 7"),
            ("continue", "the guest is not paused"),
            ("press f13", "there is no key 'f13'"),
            ("mouse jump", "is nothing that a mouse does"),
            ("inject uart:drop-irq=1", "start with --inject"),
            ("inject nothing:kill", "no device process 'nothing'"),
            ("snapshot", "--snapshot-when"),
            ("phys maybe", "phys on|off"),
        ):
            assert answer in person.say(line)
        person.say("quit")
        assert run.status() == 130


def test_paused_guest_stands_and_its_time_with_it_until_it_is_continued(
    images: Images, person: Person
) -> None:
    with person.run(images, echo(), "--timeout", "600") as run:
        person.open()
        person.say("pause")
        first, place = person.say("time"), person.place("cpu")
        person.send(b"\x01c")
        person.screen.until(b"the guest is paused")
        person.send(b"Z")
        person.open()
        assert (person.say("time"), person.place("cpu")) == (first, place)
        person.send(b"continue\r")
        person.screen.until(b"Z")  # the guest says it in front of the next prompt, or behind it
        assert first not in person.say("time")
        person.say("quit")
        assert run.status() == 130


def test_step_executes_one_instruction_of_a_paused_guest(images: Images, person: Person) -> None:
    loop = bytes.fromhex("90 90 90 ebfb")  # nop; nop; nop; jmp to the first one
    with person.run(images, loop) as run:
        person.open()
        begin = 0x7C00 + len(say(b"ready\n"))
        person.say("pause")
        while person.place("step") != begin:
            pass
        assert [person.place("step") for _ in range(4)] == [begin + 1, begin + 2, begin + 3, begin]
        assert person.place("step 6") == begin + 2
        person.say("quit")
        assert run.status() == 130


def test_halted_cpu_takes_no_step_and_says_so(images: Images, person: Person) -> None:
    with person.run(images, IDLE) as run:
        person.open()
        person.say("pause")
        person.send(b"step\r")
        person.screen.until(b"step\r\n")
        assert "has executed nothing" in person.say("time")
        person.say("quit")
        assert run.status() == 130


def test_keys_of_the_monitor_reach_the_guest(images: Images, person: Person) -> None:
    # wait: in al,0x64; test al,1; jz wait; in al,0x60; mov dx,COM1; out dx,al: the codes of the key A
    send_key = bytes.fromhex("e464 a801 74fa e460 baf803 ee")
    with person.run(images, send_key * 2 + debug_exit(1)) as run:
        person.open()
        person.send(b"type a\r")
        person.screen.until(b"\x1e\x9e")
        assert run.status() == 3


def test_snapshot_is_taken_when_it_is_wanted(images: Images, person: Person, tmp_path: Path) -> None:
    path = tmp_path / "now.snap"
    with person.run(images, wait_input() + debug_exit(1), "--snapshot-when", f"time:86400={path}") as run:
        person.open()
        assert str(path) in person.say("snapshot")
        assert "has been taken" in person.say("snapshot")
        person.send(b"\x01cx")
        assert run.status() == 3
    assert path.read_bytes()


def test_faults_are_injected(images: Images, person: Person) -> None:
    options = ("--on-device-crash", "restart", "--inject", "COM1:drop-irq=0.5,after=1000000")
    with person.run(images, echo(), *options) as run:
        person.open()
        assert person.say("inject uart:kill") == "the process 'uart' is killed\n"
        assert "COM1 has the fault 'drop-irq' already" in person.say("inject COM1:drop-irq=1")
        assert "has not been prepared" in person.say("inject RTC:vanish=forever")
        assert "from now on" in person.say("inject COM1:vanish=forever")
        person.send(b"\x01cx\x01c")
        person.screen.until(PROMPT)
        person.say("quit")
        assert run.status() == 130
        assert "restarted" in run.messages


def test_nmi_is_injected(images: Images, person: Person) -> None:
    # xor ax,ax; mov ds,ax; mov word [8],handler; mov word [10],0; then wait; handler: say, and stop
    idle = b"\xf4\xeb\xfd"
    start = bytes.fromhex("31c0 8ed8 c7060800 0000 c7060a00 0000")
    handler = 0x7C00 + len(say(b"ready\n")) + len(start) + len(IDLE) + len(idle)
    code = (
        bytes.fromhex("31c0 8ed8 c7060800") + handler.to_bytes(2, "little") + bytes.fromhex("c7060a00 0000")
    )
    with person.run(images, code + IDLE + idle + say(b"nmi\n") + debug_exit(1)) as run:
        person.open()
        person.send(b"inject nmi\r")
        person.screen.until(b"nmi\r\n")
        assert run.status() == 3


def test_reset_of_a_paused_guest_boots_it_again(images: Images, person: Person) -> None:
    with person.run(images, SPIN) as run:
        person.open()
        person.say("pause")
        person.say("reset")
        person.screen.until(b"ready\r\n")
        assert "not paused" in person.say("continue")
        person.say("quit")
        assert run.status() == 130


def test_monitor_beside_gdb_looks_and_does_not_pause(images: Images, person: Person, tmp_path: Path) -> None:
    with person.run(images, SPIN, "--gdb", f"unix:{tmp_path / 'gdb'},nowait") as run:
        person.open()
        assert "16-bit code" in person.say("registers")
        assert "with --gdb, gdb stops the guest" in person.say("pause")
        person.say("quit")
        assert run.status() == 130
