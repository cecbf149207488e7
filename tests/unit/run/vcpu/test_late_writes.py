"""Which ports KVM coalesces at times: when one is registered, taken back, and how long it rests then."""

from __future__ import annotations

from typing import Any

import pytest

from kvmbox.contract.model import PULSES
from kvmbox.run.vcpu.late_writes import BUSY_WRITES, FIRST_REST, LONGEST_REST, LateWrites

PORT = 0x3F8
WORD = 1 | 1 << 8 | PORT << 16


class FakeVm:
    def __init__(self) -> None:
        self.log: list[str] = []

    def register_coalesced(self, address: int, size: int, *, pio: bool) -> None:
        assert (address, size, pio) == (PORT, 1, True)
        self.log.append("on")

    def unregister_coalesced(self, address: int, size: int, *, pio: bool) -> None:
        assert (address, size, pio) == (PORT, 1, True)
        self.log.append("off")


class FakeRing:
    def __init__(self) -> None:
        self.log: list[tuple[int, int]] = []

    def let_post(self, port: int, allowed: int) -> None:
        self.log.append((port, allowed))

    def be_busy(self, port: int) -> None:
        raise AssertionError("it was told whom to call")


class Rig:
    """One port, and a guest whose writes exit while the port is not coalesced."""

    def __init__(self) -> None:
        self.late = LateWrites()
        self.allow = self.late.add(PORT)
        self.vm = FakeVm()
        self.exits = 0
        self.ring = FakeRing()
        self.attach()

    def attach(self, forbidden: tuple[int, ...] = ()) -> None:
        vm: Any = self.vm
        ring: Any = self.ring
        self.late.attach(vm, ring, forbidden)

    def slice(self, writes: int = BUSY_WRITES) -> list[str]:
        """A slice with so many writes; what was asked of KVM at its end."""
        if self.vm.log[-1:] != ["on"]:
            self.exits += writes
        before = len(self.vm.log)
        self.late.slice_over(lambda: {WORD: self.exits, WORD ^ 1: 99999})
        return self.vm.log[before:]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_port_is_coalesced_after_a_busy_slice_and_once(rig: Rig) -> None:
    assert rig.slice(BUSY_WRITES - 1) == []
    assert rig.slice(BUSY_WRITES) == ["on"]
    assert rig.slice() == []


def test_port_that_must_not_be_late_is_taken_back_at_once(rig: Rig) -> None:
    rig.slice()
    rig.allow(0)

    assert rig.vm.log == ["on", "off"]
    assert rig.slice() == []
    rig.allow(0)
    assert rig.vm.log == ["on", "off"]


def test_port_is_not_coalesced_in_a_slice_in_which_it_was_forbidden(rig: Rig) -> None:
    rig.allow(0)
    rig.allow(1)

    assert rig.slice() == []
    assert rig.slice() == ["on"]


def test_port_that_is_forbidden_now_is_not_coalesced(rig: Rig) -> None:
    rig.allow(0)

    assert [rig.slice() for _ in range(5)] == [[]] * 5


def test_port_rests_twice_as_long_after_each_time(rig: Rig) -> None:
    rests = []
    for _ in range(9):
        count = 0
        while rig.slice() == []:
            count += 1
        rests.append(count)
        rig.allow(0)
        rig.allow(1)
    assert rests[0] == 0
    # The first slice after a time in which it was forbidden does not count as rest alone.
    assert rests[1:4] == [FIRST_REST, 2 * FIRST_REST, 4 * FIRST_REST]
    assert rests[-1] == LONGEST_REST


def test_new_machine_begins_anew_and_keeps_the_rest(rig: Rig) -> None:
    rig.slice()
    rig.allow(0)
    rig.late.detach()
    rig.allow(1)
    assert rig.slice() == []
    rig.vm, rig.exits = FakeVm(), 0
    rig.attach()

    assert [rig.slice() for _ in range(FIRST_REST)] == [[]] * FIRST_REST
    assert rig.slice() == ["on"]


def test_nothing_is_asked_of_a_machine_that_is_gone(rig: Rig) -> None:
    rig.slice()
    rig.late.detach()
    rig.allow(0)

    assert rig.vm.log == ["on"]


def test_exits_are_not_counted_where_there_is_nothing_to_decide() -> None:
    late = LateWrites()
    fake: Any = None
    late.attach(fake, fake)

    def counted() -> dict[int, int]:
        raise AssertionError

    late.slice_over(counted)


def test_machine_that_goes_on_starts_with_what_was_forbidden(rig: Rig) -> None:
    rig.allow(0)
    forbidden = rig.late.forbidden
    assert forbidden == (PORT,)
    other = Rig()
    other.attach(forbidden)
    assert other.slice() == []
    other.allow(1)
    assert other.late.forbidden == ()
    assert other.slice() == ["on"]


def test_port_whose_writes_pulse_is_not_coalesced_but_posted(rig: Rig) -> None:
    rig.slice()
    rig.allow(PULSES)

    assert rig.vm.log == ["on", "off"]
    assert rig.late.forbidden == (PORT,)
    rig.allow(1)
    rig.late.detach()
    rig.allow(PULSES)
    assert rig.ring.log == [(PORT, 1), (PORT, PULSES), (PORT, 1)]


def test_what_a_device_says_is_known_where_every_write_exits() -> None:
    late = LateWrites(exact=True)
    hear = late.add(PORT)
    vm: Any = FakeVm()
    late.attach(vm, None)
    hear(PULSES)
    assert late.forbidden == (PORT,)
    late.slice_over(lambda: {WORD: 99999})
    assert vm.log == []
    hear(1)
    assert not late.forbidden
    late.attach(vm, None, (PORT,))
    assert late.forbidden == (PORT,)
    late.attach(vm, None)
    assert not late.forbidden


def test_port_is_coalesced_as_soon_as_compiled_code_finds_it_busy(rig: Rig) -> None:
    rig.ring.be_busy(PORT)
    rig.ring.be_busy(PORT)
    assert rig.vm.log == ["on"]
    assert rig.slice() == []
    rig.allow(0)
    rig.allow(1)
    rig.ring.be_busy(PORT)
    assert rig.vm.log == ["on", "off"]


def test_busy_port_is_not_coalesced_while_it_must_not_be_late_or_without_a_machine(rig: Rig) -> None:
    rig.allow(0)
    rig.ring.be_busy(PORT)
    rig.allow(1)
    rig.late.detach()
    rig.ring.be_busy(PORT)
    assert rig.vm.log == []
