"""A line that is raised ahead does what it would have done, whatever the guest programs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmbox.contract.model import Effect, IrqLine, RisesAt, TakeLine
from kvmbox.host.interrupt_lines import InterruptRouter
from tests.property.test_model_fuzz import steps_for
from tests.support.model_programs import LAST_TIME, Step
from tests.support.model_rig import Rig
from tests.support.model_variants import VARIANTS

ANNOUNCING = [name for name, device in VARIANTS.items() if device.parameters.get("announce")]


class Wires:
    """Where the effects of a model go, and which level each line had, in order."""

    def __init__(self, name: str) -> None:
        device = VARIANTS[name]
        self.changes: dict[int, list[int]] = {gsi: [] for gsi in device.irqs}
        self.router = InterruptRouter()
        self.router.attach(lambda gsi, level: self.changes[gsi].append(level))
        self.sources, self.takers = [], {}
        for pin, gsi in enumerate(device.irqs):
            source, self.takers[pin] = self.router.replacing_source(gsi)
            self.sources.append(source)

    def apply(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case IrqLine(pin, level, coalesced):
                    self.sources[pin](level, coalesced)
                case TakeLine(pin, taken):
                    self.takers[pin](taken)
                case RisesAt(pin, at):
                    self.sources[pin].announce(at)

    def counts(self) -> list[tuple[int, int, int]]:
        return [(gsi, line.raised, line.coalesced) for gsi, line in self.router.lines.items()]


def test_timers_with_interrupts_announce() -> None:
    assert set(ANNOUNCING) == {"pit_8254", "rtc_mc146818", "hpet"}


@pytest.mark.parametrize("name", ANNOUNCING)
@settings(max_examples=150)
@given(data=st.data())
def test_line_that_is_raised_ahead_has_the_same_edges_and_counts(name: str, data: st.DataObject) -> None:
    rig = Rig(VARIANTS[name])
    plain, ahead = Wires(name), Wires(name)
    for step in data.draw(steps_for(name)):
        time = min(max(0, rig.now + step.jump), LAST_TIME)
        deadline = rig.model.next_deadline()
        if step.kind == "deadline" and deadline is not None and deadline <= LAST_TIME:
            time = max(time, deadline)
        for source in ahead.sources:
            if source.at <= max(time, rig.seen):
                source.raise_ahead()
        rig.step(step)
        last: Any = rig.trace[-1]
        effects: list[Effect] = last[1]
        plain.apply(effects)
        ahead.apply(effects)
        for source in ahead.sources:
            source.settle()
        assert ahead.changes == plain.changes
        assert ahead.counts() == plain.counts()


def test_rises_are_announced_where_a_program_shows_them() -> None:
    """The property above is not empty: in each of these there is a rise to be raised ahead."""
    programs = {
        "pit_8254": [(3, 1, 0x34), (0, 1, 0x10), (0, 1, 0)],
        "rtc_mc146818": [(0, 1, 0x0B), (1, 1, 0x42)],
        "hpet": [(0x100, 4, 20 << 9 | 4), (0x108, 8, 500), (0x10, 4, 1)],
    }
    for name, writes in programs.items():
        rig = Rig(VARIANTS[name])
        for offset, size, value in writes:
            rig.step(Step("write", 0, offset, size, value))
        assert list(rig.announced) == [4 + 2 if name == "hpet" else 0]
