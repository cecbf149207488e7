"""The accesses that a run loop remembers for the report of a crash."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvmbox.base.errors import DeviceProcessError
from kvmbox.kvm import uapi
from kvmbox.run.vcpu.run_loop import MOST_RECENT
from tests.support.halves import Half
from tests.support.loop_rig import Rig
from tests.support.scripted_vcpu import IN, OUT


@pytest.fixture
def rig(half: Half) -> Rig:
    return Rig(half)


def test_accesses_are_remembered_with_their_values_the_newest_last(rig: Rig) -> None:
    rig.uart.values += [0x60, 0x61]
    rig.mmio_uart.values += [0x34, 0x12]  # it takes bytes
    rig.port(IN, 0x3FD)
    rig.port(IN, 0x3FD)  # the second has a route
    for _ in range(2):
        rig.port(OUT, 0xF4, size=4, data=b"\x04\x03\x02\x01")
        rig.port(IN, 0x1234, size=2)  # nobody's
        rig.port(OUT, 0x1234, size=2, data=b"\xfe\xca")
        rig.memory(0xD000_0002, 2)
        rig.memory(0xD000_0000, 1, b"x")
        rig.port(IN, 0x3FA, count=3)
    assert rig.play() is None
    again = [
        (("out", 0xF4, 4), 0x01020304),
        (("in", 0x1234, 2), 0xFFFF),
        (("out", 0x1234, 2), 0xCAFE),
        (("read", 0xD000_0002, 2), 0x1234),
        (("write", 0xD000_0000, 1), ord("x")),
        (("in", 0x3FA, 1), None),
    ]
    first = [(("in", 0x3FD, 1), 0x60), (("in", 0x3FD, 1), 0x61)]
    second = [(what, 0xFFFF if what[0] == "read" else value) for what, value in again]
    assert rig.loop.recent == first + again + second


@pytest.mark.parametrize("shown", [False, True])
def test_rip_of_the_last_access_is_kept_where_kvm_shows_it(half: Half, shown: bool) -> None:
    rig = Rig(half)
    if shown:
        rig.vcpu.page[uapi.RUN_VALID_REGS] = uapi.KVM_SYNC_X86_REGS
        rig.named(None)  # a loop that knows

    def step(access: Callable[[], None], rip: int) -> None:
        access()
        play = rig.vcpu.script.pop()

        def exits() -> int:
            rig.vcpu.words64[uapi.RUN_SYNC_RIP // 8] = rip if shown else 0
            return play()

        rig.vcpu.script.append(exits)

    for number in range(3):  # the first has no route
        step(lambda: rig.port(OUT, 0x3F8, data=b"a"), 0x7C00 + number)
    assert rig.play() is None
    assert rig.loop.last_rip == (0x7C02 if shown else 0)
    step(lambda: rig.memory(0xD000_0000, 1, b"x"), 0x7C10)
    step(lambda: rig.reason(uapi.KVM_EXIT_SHUTDOWN), 0xFFF0)
    assert rig.loop.run() is not None
    assert rig.loop.last_rip == (0x7C10 if shown else 0)


@pytest.mark.parametrize("count", [MOST_RECENT - 1, MOST_RECENT, MOST_RECENT + 1, 3 * MOST_RECENT + 5])
def test_only_the_last_accesses_are_remembered(rig: Rig, count: int) -> None:
    for number in range(count):
        if number % 3:
            rig.port(OUT, 0x3F8, data=bytes((number,)))
        else:  # never has a route
            rig.port(OUT, 0x3F8, count=2, data=bytes(2))
    assert rig.play() is None
    expected = [(("out", 0x3F8, 1), number if number % 3 else None) for number in range(count)]
    assert rig.loop.recent == expected[-MOST_RECENT:]


def test_access_that_its_device_does_not_answer_is_not_remembered(rig: Rig) -> None:
    def write(offset: int, size: int, value: int) -> None:
        if (offset, size, value) == (0, 1, ord("c")):
            raise DeviceProcessError("uart", "is gone")

    rig.uart.write = write  # type: ignore[method-assign]  # a channel whose process has died
    for character in (b"a", b"b", b"c"):
        rig.port(OUT, 0x3F8, data=character)
    with pytest.raises(DeviceProcessError):
        rig.loop.run()
    assert rig.loop.recent == [(("out", 0x3F8, 1), ord("a")), (("out", 0x3F8, 1), ord("b"))]


def test_loop_without_accesses_remembers_nothing(rig: Rig) -> None:
    assert rig.play() is None
    assert rig.loop.recent == []
