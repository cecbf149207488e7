"""Seeded random programs for the 8042, its keyboard and mouse; see programs.py, whose values these are."""

from __future__ import annotations

import random
from typing import Final

from tests.differential.programs import Program

_CONTROLLER_ANSWERS: Final = (0x20, 0x20, 0xA9, 0xAA, 0xAB, 0xC0, 0xD0)
_KEYBOARD_COMMANDS: Final = (0xEE, 0xEF, 0xF1, 0xF2, 0xF2, 0xF4, 0xF5, 0xF6, 0xFA, 0xFF, 0x01, 0x60, 0xEB)
_WITH_OPTION: Final = (0xED, 0xF0, 0xF0, 0xF3, 0xFC)
_MOUSE_COMMANDS: Final = (0xE6, 0xE7, 0xE9, 0xE9, 0xEA, 0xEB, 0xF0, 0xF2, 0xF2, 0xF4, 0xF5, 0xF6, 0xFF)
_RATES: Final = (10, 20, 40, 60, 80, 100)


class _KeyboardProgram:
    """The controller with its keyboard and its mouse, which nobody touches."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.program = Program(rng.choice((1, 1, 12)))
        self.program.do("irq_intercept_in ioapic")
        self.program.because_of("kbd-power-on")
        self.program.because_of("kbd-resend")
        self.program.because_of("kbd-no-command")
        self.program.because_of("kbd-key-types")
        self.status_mask = self.program.because_of("kbd-status").mask
        self.set_command_byte()
        self.program.because_of("kbd-mouse-power-on")
        self.ask_mouse(0xFF)

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

    def ask_mouse(self, *values: int) -> None:
        """Bytes to the mouse, each of whose answers is read."""
        self.program.because_of("kbd-mouse-unread")
        for value in values:
            self.drain()
            self.command(0xD4)
            self.data(value)

    def status(self) -> None:
        self.program.do("inb 0x64", mask=self.status_mask)

    def read(self, times: int = 1) -> None:
        for _ in range(times):
            self.program.do("inb 0x60")

    def drain(self) -> None:
        """Read more than can wait: one byte in the output buffer, an answer, and what the devices say."""
        self.program.because_of("kbd-disable-line")
        self.read(2)  # what is there while the clocks may be held
        self.program.do("outb 0x64 0xae", "outb 0x64 0xa8", *["inb 0x60"] * 9)
        self.status()

    def set_command_byte(self) -> None:
        self.drain()
        self.program.because_of("kbd-translation")
        self.command(0x60)
        self.data(self.rng.choice((0x43, 0x47, 0x65, 0x03, 0x01, 0x41, 0x00, 0x40, self.rng.randrange(256))))

    def step(self) -> None:
        rng = self.rng
        match rng.randrange(20):
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
            case 11 | 12:
                self.program.because_of("kbd-mouse-resend")
                self.program.because_of("kbd-mouse-no-command")
                self.ask_mouse(rng.choice(_MOUSE_COMMANDS))
            case 13:
                self.program.because_of("kbd-mouse-option")
                self.ask_mouse(*rng.choice(((0xE8, rng.randrange(4)), (0xF3, rng.choice(_RATES)))))
            case 14:
                third = rng.choice((100, 200))
                self.ask_mouse(0xF3, 200, 0xF3, third, 0xF3, 80, 0xF2)
            case 15:
                self.ask_mouse(0xEE, *(rng.randrange(0xEC) for _ in range(rng.randrange(3))), 0xEC)
                self.drain()
                self.command(0xA7)
            case _:
                self.read(rng.randrange(1, 4))


def keyboard_program(seed: int, size: int) -> Program:
    """`size` lines at least."""
    keyboard = _KeyboardProgram(random.Random(seed))
    while len(keyboard.program.lines) < size:
        keyboard.step()
    return keyboard.program
