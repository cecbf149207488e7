"""kvmbox and QEMU over qtest: seeded random programs for each chip, compared line by line.

KVMBOX_DIFFERENTIAL_OPS is the number of compared lines per chip, 3000 by default; CI's long run takes 100000
and more. Skipped where no QEMU with the qtest accelerator is installed (`apt-get install qemu-system-xen`),
but for what needs no QEMU: the table of departures, and kvmbox's side of its witnesses.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import pytest

from tests.differential import programs
from tests.differential.departures import DEPARTURES, Departure, departure
from tests.differential.keyboard_program import keyboard_program
from tests.differential.programs import Program, Step
from tests.differential.runner import Answer, ask, find_qemu, kvmbox_command, qemu_command

pytestmark = pytest.mark.thorough

OPERATIONS = int(os.environ.get("KVMBOX_DIFFERENTIAL_OPS", "3000"))
LINES_PER_PROGRAM = 1000
CHIPS = ("uart", "pit", "rtc", "pm", "hpet", "kbd")

PROGRAMS = {**programs.PROGRAMS, "kbd": keyboard_program}

needs_qemu = pytest.mark.skipif(
    find_qemu() is None,
    reason="no QEMU with -accel qtest: install qemu-system-xen, or name one in KVMBOX_QEMU",
)


def difference(step: Step, ours: Sequence[Answer], theirs: Sequence[Answer]) -> str | None:
    """What differs in one step, or None."""
    for line, mask, our, their in zip(step.lines, step.masks, ours, theirs, strict=True):
        if our.text == their.text:
            continue
        values = [re.fullmatch(r"OK (0x[0-9a-f]+)", answer.text) for answer in (our, their)]
        if mask is None or values[0] is None or values[1] is None:
            return f"{line}: kvmbox '{our.text}', QEMU '{their.text}'"
        if (int(values[0][1], 16) ^ int(values[1][1], 16)) & mask:
            return f"{line}: kvmbox '{our.text}', QEMU '{their.text}' under mask {mask:#x}"
    if step.irq is not None:
        sides = [
            [irq for answer in answers for irq in answer.irqs if irq.split()[2] == str(step.irq)]
            for answers in (ours, theirs)
        ]
        if sides[0] != sides[1]:
            return f"{' / '.join(step.lines)}: kvmbox {sides[0]}, QEMU {sides[1]}"
    return None


def compare(program: Program, ours: Sequence[Answer], theirs: Sequence[Answer]) -> str | None:
    """The first difference, with the lines that led to it, or None."""
    position = 0
    for step in program.steps:
        end = position + len(step.lines)
        found = difference(step, ours[position:end], theirs[position:end])
        if found is not None:
            recent = program.lines[max(0, end - 40) : end]
            return f"line {end}: {found}\n" + "\n".join(recent)
        position = end
    return None


@needs_qemu
@pytest.mark.parametrize("chip", CHIPS)
def test_random_programs_give_what_qemu_gives(chip: str) -> None:
    compared = seed = 0
    while compared < OPERATIONS:
        program = PROGRAMS[chip](seed, min(LINES_PER_PROGRAM, OPERATIONS))
        lines = program.lines
        found = compare(program, ask(kvmbox_command(), lines), ask(qemu_command(), lines))
        assert found is None, f"seed {seed}: {found}"
        compared += len(lines)
        seed += 1


@pytest.mark.parametrize("chip", CHIPS)
def test_programs_are_the_same_each_time_and_differ_by_seed(chip: str) -> None:
    make = PROGRAMS[chip]
    assert make(1, 300).lines == make(1, 300).lines
    assert make(1, 300).lines != make(2, 300).lines


@pytest.mark.parametrize("chip", CHIPS)
def test_programs_use_every_entry_of_the_table_and_no_other(chip: str) -> None:
    used: set[str] = set()
    for seed in range(12):
        used |= PROGRAMS[chip](seed, 2000).used
    assert used == {entry.key for entry in DEPARTURES if entry.chip == chip}


# --- The table -----------------------------------------------------------------------------------------


def said(answer: Answer) -> tuple[str, ...]:
    return (*answer.irqs, answer.text)


def witness(entry: Departure) -> list[str]:
    return ["irq_intercept_in ioapic", *entry.lines]


@pytest.mark.parametrize("entry", DEPARTURES, ids=lambda entry: str(entry.key))
def test_witness_shows_the_data_sheet_here(entry: Departure) -> None:
    assert said(ask(kvmbox_command(), witness(entry))[-1]) == entry.ours


@needs_qemu
@pytest.mark.parametrize("entry", DEPARTURES, ids=lambda entry: str(entry.key))
def test_witness_shows_the_departure_in_qemu(entry: Departure) -> None:
    assert said(ask(qemu_command(), witness(entry))[-1]) == entry.theirs
    assert entry.ours != entry.theirs


def test_a_difference_is_found_under_the_mask_and_not_beyond_it() -> None:
    step = Step(("inb 0x40",), (departure("pit-null-count").mask,), 0)
    assert difference(step, [Answer((), "OK 0x00f4")], [Answer((), "OK 0x00b4")]) is None
    assert difference(step, [Answer((), "OK 0x00f4")], [Answer((), "OK 0x0034")]) is not None
    assert difference(step, [Answer((), "OK 0x00f4")], [Answer((), "FAIL")]) is not None
    assert difference(step, [Answer(("IRQ raise 0",), "OK 0x0000")], [Answer((), "OK 0x0000")]) is not None
    assert difference(step, [Answer(("IRQ raise 4",), "OK 0x0000")], [Answer((), "OK 0x0000")]) is None
