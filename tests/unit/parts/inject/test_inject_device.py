"""A device with faults, on a bus, and its interrupt line: what the guest sees and the model does not."""

from __future__ import annotations

from kvmbox.contract.model import NO_RISE
from kvmbox.parts.inject import chance
from kvmbox.parts.inject.device import FaultyDevice
from kvmbox.parts.inject.device_faults import DeviceFaults
from kvmbox.parts.inject.line import FaultyLine
from kvmbox.parts.inject.spec import parse

DROPS = "COM1:drop-irq=0.3,seed=7"


class Chip:
    """A device that reads as 0x12 in each byte, and whose pin is what a test says."""

    natural_sizes = frozenset({1, 4})

    def __init__(self) -> None:
        self.written: list[tuple[int, int, int]] = []
        self.reads = 0

    def read(self, offset: int, size: int) -> int:
        del offset
        self.reads += 1
        return int.from_bytes(b"\x12" * size)

    def write(self, offset: int, size: int, value: int) -> None:
        self.written.append((offset, size, value))


class Rig:
    """A chip with faults, its one line, and the levels that the controllers see."""

    def __init__(self, *texts: str) -> None:
        self.now = 0
        self.faults = DeviceFaults("COM1", lambda: self.now)
        for text in texts:
            spec = parse(text)
            for wanted in spec.wanted:
                assert self.faults.add(spec, wanted)
        self.chip = Chip()
        self.seen: list[int] = []
        self.postponed: list[int] = []
        self.line = FaultyLine(
            lambda level, _coalesced: self.seen.append(level),
            self.faults,
            lambda: self.postponed.append(self.line.at),
        )
        self.device = FaultyDevice(self.chip, self.faults, [self.line])

    def interrupt(self) -> bool:
        """The pin goes up and down. Returns whether the controllers have seen an edge."""
        before = self.seen.count(1)
        self.line(1, 0)
        self.line(0, 0)
        return self.seen.count(1) > before

    def read(self, times: int = 1) -> list[int]:
        return [self.device.read(0, 1) for _ in range(times)]

    def injected(self, fault: str) -> tuple[int, int]:
        """Events, and those that were hit."""
        (count,) = [count for count in self.faults.counts if count.fault == fault]
        return count.events, count.injected


def test_interrupts_are_dropped_as_the_seed_says_and_counted() -> None:
    rig = Rig(DROPS)
    came = [rig.interrupt() for _ in range(100)]
    key, limit = chance.key_of(7, "COM1", "drop-irq"), chance.threshold(0.3)
    assert came == [chance.number(key, index) >= limit for index in range(100)]
    assert rig.injected("drop-irq") == (100, came.count(False))
    assert rig.seen == [1, 0] * came.count(True)


def test_another_seed_drops_other_ones_and_other_faults_and_accesses_change_nothing() -> None:
    def came(*texts: str, reads: int = 0) -> list[bool]:
        rig = Rig(*texts)
        return [rig.read(reads) is not None and rig.interrupt() for _ in range(60)]

    assert came(DROPS) == came(DROPS, "COM1:all-ones=0.5,seed=7", reads=3)
    assert came(DROPS) != came("COM1:drop-irq=0.3,seed=8")


def test_interrupt_that_is_dropped_does_not_come_before_the_pin_was_low() -> None:
    rig = Rig("COM1:drop-irq=1")
    rig.line(1, 0)
    rig.line(1, 3)  # edges that a late host has folded into one
    rig.read(10)
    assert rig.seen == []


def test_edges_that_were_folded_are_passed_on_while_the_line_is_high() -> None:
    rig = Rig("COM1:drop-irq=0")
    rig.line(1, 0)
    rig.line(1, 3)
    assert rig.seen == [1, 1]


def test_interrupt_is_late_by_accesses_and_its_level_stays() -> None:
    rig = Rig("COM1:delay-irq=1@3")
    rig.line(1, 0)
    rig.read(2)
    assert rig.seen == []
    rig.read()
    assert rig.seen == [1]
    rig.line(0, 0)
    assert rig.seen == [1, 0]
    assert rig.injected("delay-irq") == (1, 1)


def test_interrupt_whose_cause_is_gone_comes_late_as_a_pulse() -> None:
    rig = Rig("COM1:delay-irq=1@2")
    rig.interrupt()
    rig.read(2)
    assert rig.seen == [1, 0]
    rig.read(5)
    assert rig.seen == [1, 0]


def test_interrupt_is_late_by_guest_time() -> None:
    rig = Rig("COM1:delay-irq=1@2ms")
    rig.now = 1_000_000
    rig.line(1, 0)
    assert rig.postponed == [rig.line.at] == [3_000_000]
    rig.read(5)
    assert rig.seen == []
    rig.now = 3_000_000
    rig.line.raise_ahead()  # the channel does that, before ADVANCE
    assert rig.seen == [1]
    assert rig.line.at == NO_RISE
    rig.line.raise_ahead()
    assert rig.seen == [1]


def test_reset_ends_a_delay() -> None:
    rig = Rig("COM1:delay-irq=1@2")
    rig.interrupt()
    rig.line.reset()
    rig.read(10)
    assert rig.seen == []


def test_spurious_interrupts_follow_accesses_while_the_line_is_low() -> None:
    rig = Rig("COM1:spurious-irq=1")
    rig.read()
    rig.device.write(1, 1, 2)
    assert rig.seen == [1, 0, 1, 0]
    rig.line(1, 0)
    rig.read(3)
    assert rig.seen == [1, 0, 1, 0, 1]
    assert rig.injected("spurious-irq") == (2, 2)


def test_read_that_gives_all_ones_has_the_width_of_the_access_and_does_not_reach_the_device() -> None:
    rig = Rig("COM1:all-ones=1")
    assert (rig.device.read(0, 1), rig.device.read(0, 4)) == (0xFF, 0xFFFF_FFFF)
    assert rig.chip.reads == 0
    rig.device.write(3, 1, 4)
    assert rig.chip.written == [(3, 1, 4)]
    assert rig.injected("all-ones") == (2, 2)


def test_device_vanishes_for_some_accesses_and_comes_back() -> None:
    rig = Rig("COM1:vanish=3,after=2")
    rig.line(1, 0)
    assert rig.read(2) == [0x12, 0x12]
    rig.device.write(0, 1, 1)
    assert rig.seen == [1, 0]
    assert rig.read(3) == [0xFF, 0xFF, 0x12]
    assert rig.chip.written == []
    rig.device.write(0, 1, 1)
    assert rig.chip.written == [(0, 1, 1)]
    assert rig.injected("vanish") == (6 - 2 + 1, 3)


def test_device_that_has_vanished_interrupts_nobody() -> None:
    rig = Rig("COM1:vanish=forever,spurious-irq=1")
    assert not rig.interrupt()
    assert rig.read() == [0xFF]
    assert rig.seen == []


def test_span_of_time_begins_with_its_first_event() -> None:
    rig = Rig("COM1:vanish=1ms,at=5ms")
    rig.now = 4_999_999
    assert rig.read() == [0x12]
    rig.now = 8_000_000
    assert rig.read() == [0xFF]
    rig.now = 8_999_999
    assert rig.read() == [0xFF]
    rig.now = 9_000_000
    assert rig.read() == [0x12]


def test_faults_begin_after_accesses() -> None:
    rig = Rig("COM1:all-ones=1,after=2")
    assert rig.read(4) == [0x12, 0x12, 0xFF, 0xFF]
    assert rig.injected("all-ones") == (2, 2)
