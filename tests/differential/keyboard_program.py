"""Seeded random programs for the 8042 and its keyboard; see programs.py, whose values these are."""

from __future__ import annotations

import random
from typing import Final

from tests.differential.programs import Program

_CONTROLLER_ANSWERS: Final = (0x20, 0x20, 0xA9, 0xAA, 0xAB, 0xC0, 0xD0)
_KEYBOARD_COMMANDS: Final = (0xEE, 0xEF, 0xF1, 0xF2, 0xF2, 0xF4, 0xF5, 0xF6, 0xFA, 0xFF, 0x01, 0x60, 0xEB)
_WITH_OPTION: Final = (0xED, 0xF0, 0xF0, 0xF3, 0xFC)


class _KeyboardProgram:
    """The controller and its keyboard, or the second port, without keys that are pressed."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.program = Program(rng.choice((1, 1, 1, 12)))
        self.program.do("irq_intercept_in ioapic")
        self.program.because_of("kbd-power-on")
        self.program.because_of("kbd-no-mouse")  # the second port gets loopback alone
        self.program.because_of("kbd-resend")
        self.program.because_of("kbd-no-command")
        self.program.because_of("kbd-key-types")
        self.status_mask = self.program.because_of("kbd-status").mask
        self.set_command_byte()

    def command(self, value: int) -> None:
        self.program.do(f"outb 0x64 {value:#x}")

    def data(self, value: int) -> None:
        self.program.do(f"outb 0x60 {value:#x}")

    def ask_keyboard(self, value: int) -> None:
        self.program.because_of("kbd-unread")
        if self.rng.randrange(3):
            self.drain()
        else:  # while its clock is held
            self.drain()
            self.command(0xAD)
        self.data(value)

    def status(self) -> None:
        self.program.do("inb 0x64", mask=self.status_mask)

    def read(self, times: int = 1) -> None:
        for _ in range(times):
            self.program.do("inb 0x60")

    def drain(self) -> None:
        """Read more than can wait: one byte in the output buffer, an answer, three bytes of the keyboard."""
        self.program.because_of("kbd-disable-line")
        self.read(2)  # what is there while the clock may be held
        self.program.do("outb 0x64 0xae", *["inb 0x60"] * 4)
        self.status()

    def set_command_byte(self) -> None:
        self.drain()
        self.program.because_of("kbd-translation")
        self.command(0x60)
        self.data(self.rng.choice((0x43, 0x47, 0x65, 0x03, 0x01, 0x41, 0x00, 0x40, self.rng.randrange(256))))

    def step(self) -> None:
        rng = self.rng
        match rng.randrange(16):
            case 0:
                self.set_command_byte()
            case 1 | 2:
                self.command(rng.choice(_CONTROLLER_ANSWERS))
            case 3:
                self.program.because_of("kbd-other-port")
                self.drain()
                self.command(rng.choice((0xD2, 0xD3)))
                self.data(rng.randrange(256))
                self.status()
                self.read()
            case 4:
                self.drain()
                self.command(0xAD)
            case 5:
                self.command(rng.choice((0xA7, 0xA8, 0xDD, 0xDF, 0xF1, 0xFF)))
            case 6 | 7:
                self.ask_keyboard(rng.choice(_KEYBOARD_COMMANDS))
            case 8:
                command = rng.choice(_WITH_OPTION)
                self.ask_keyboard(command)
                self.program.because_of("kbd-option")
                self.ask_keyboard(rng.randrange(6 if command == 0xF0 else 0xED))
                if command == 0xFC:  # ends what takes any number of keys
                    self.ask_keyboard(0xF4)
            case 9 | 10:
                self.status()
            case _:
                self.read(rng.randrange(1, 4))


def keyboard_program(seed: int, size: int) -> Program:
    """`size` lines at least."""
    keyboard = _KeyboardProgram(random.Random(seed))
    while len(keyboard.program.lines) < size:
        keyboard.step()
    return keyboard.program
