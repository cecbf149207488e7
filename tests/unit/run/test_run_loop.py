"""The run loop against a vCPU that the test plays: exits in, completions out."""

from __future__ import annotations

import errno

import pytest

from kvmbox.base.errors import UnknownExitError
from kvmbox.base.outcome import GUEST_CRASHED
from kvmbox.kvm import uapi
from kvmbox.remote.bus.routing import Mapping
from kvmbox.run.vcpu.exit_routes import MAX_ROUTES, MOST_UNCLAIMED
from tests.support.halves import Half
from tests.support.loop_rig import Device, Rig
from tests.support.scripted_vcpu import DATA, IN, OUT


@pytest.fixture
def rig(half: Half) -> Rig:
    return Rig(half)


# --- Ports -----------------------------------------------------------------------------------------------


def test_port_write_reaches_the_device(rig: Rig) -> None:
    rig.port(OUT, 0x3F9, data=b"\x41")
    assert rig.play() is None
    assert rig.uart.accesses == [("write", 1, 1, 0x41)]


def test_port_read_is_completed_with_the_devices_value(rig: Rig) -> None:
    rig.uart.values = [0x60]
    rig.port(IN, 0x3FD)
    rig.play()
    assert rig.uart.accesses == [("read", 5, 1)]
    assert rig.data(2) == b"\x60\x00"


def test_port_access_again_takes_the_short_way_and_does_the_same(rig: Rig) -> None:
    rig.uart.values = [1, 2, 3]
    seen: list[bytes] = []
    for number in range(3):
        rig.port(IN, 0x3F8, offset=DATA + 16 * number)
        rig.peek(lambda at=DATA + 16 * number: seen.append(rig.data(1, at=at)))  # type: ignore[misc]  # a default
    for value in (b"a", b"b", b"c"):
        rig.port(OUT, 0x3FF, data=value)
    rig.play()
    assert seen == [b"\x01", b"\x02", b"\x03"]
    assert rig.uart.accesses[3:] == [("write", 7, 1, byte) for byte in b"abc"]
    # The first of each kind went by the bus, which counts by itself; the others are counted at the end.
    assert rig.uart.fast_paths == 4
    assert rig.uart.counted == {True: 2, False: 2}


def test_port_of_a_device_without_fast_paths_always_goes_by_the_bus(rig: Rig) -> None:
    plain = Device()
    rig.ports.attach(Mapping(0x80, 1, plain))
    for value in b"abc":
        rig.port(OUT, 0x80, data=bytes([value]))
    rig.play()
    assert plain.accesses == [("write", 0, 1, value) for value in b"abc"]
    assert (plain.fast_paths, rig.loop.routes.by_port) == (0, {})
    assert sum(rig.loop.routes.port_exits.values()) == 3


@pytest.mark.parametrize("rounds", [1, 2])
def test_port_access_that_is_taken_whole(rig: Rig, rounds: int) -> None:
    for _ in range(rounds):
        rig.port(OUT, 0xF4, size=4, data=b"\x44\x33\x22\x11")
        rig.port(IN, 0xF4, size=2)
    rig.exit.values = [0xBEEF] * rounds
    rig.play()
    assert rig.exit.accesses == [("write", 0, 4, 0x11223344), ("read", 0, 2)] * rounds
    assert rig.data(2) == b"\xef\xbe"


@pytest.mark.parametrize("rounds", [1, 2])
def test_port_access_that_is_wide_is_split_low_byte_first(rig: Rig, rounds: int) -> None:
    for _ in range(rounds):
        rig.port(OUT, 0x3FE, size=4, data=b"\x01\x02\x03\x04")
        rig.port(IN, 0x3FE, size=4)
    rig.uart.values = [0x0A, 0x0B] * rounds
    rig.play()
    assert (
        rig.uart.accesses == [("write", 6, 1, 1), ("write", 7, 1, 2), ("read", 6, 1), ("read", 7, 1)] * rounds
    )
    assert rig.data(4) == b"\x0a\x0b\xff\xff"
    assert (rig.ports.unclaimed_writes, rig.ports.unclaimed_reads) == (2 * rounds, 2 * rounds)


def test_port_wide_access_that_one_device_gets_as_bytes_has_a_route(rig: Rig) -> None:
    for _ in range(3):
        rig.port(OUT, 0x3F9, size=4, data=b"\x01\x02\x03\x04")
        rig.port(IN, 0x3FA, size=2)
    rig.uart.values = [0x0A, 0x0B] * 3
    rig.play()
    writes = [("write", register, 1, register) for register in (1, 2, 3, 4)]
    assert rig.uart.accesses == [*writes, ("read", 2, 1), ("read", 3, 1)] * 3
    assert rig.data(3) == b"\x0a\x0b\x03"
    assert rig.uart.fast_paths == 4  # all but the first of each kind
    assert rig.uart.counted == {True: 4, False: 8}
    assert (rig.ports.unclaimed_reads, rig.ports.unclaimed_writes) == (0, 0)


def test_port_wide_access_to_a_device_that_wants_each_byte_alone_has_no_route(rig: Rig) -> None:
    rig.uart.at_once = False
    for _ in range(2):
        rig.port(OUT, 0x3F9, size=2, data=b"\x01\x02")
        rig.port(IN, 0x3F9, count=2)
    rig.play()
    assert rig.uart.accesses == [("write", 1, 1, 1), ("write", 2, 1, 2), *[("read", 1, 1)] * 2] * 2
    assert (rig.uart.fast_paths, rig.uart.strings) == (0, 0)


@pytest.mark.parametrize("rounds", [1, 3])
def test_port_string_instruction_is_done_in_order(rig: Rig, rounds: int) -> None:
    for _ in range(rounds):
        rig.port(OUT, 0x3F8, count=5, data=b"hello")
        rig.port(IN, 0x3F8, count=3)
    rig.uart.values = [7, 8, 9] * rounds
    rig.play()
    assert (
        rig.uart.accesses
        == [
            *(("write", 0, 1, byte) for byte in b"hello"),
            *([("read", 0, 1)] * 3),
        ]
        * rounds
    )
    assert rig.data(3) == b"\x07\x08\x09"


def test_port_string_instruction_of_wide_accesses_steps_by_their_size(rig: Rig) -> None:
    rig.port(OUT, 0xF4, size=2, count=3, data=b"\x01\x00\x02\x00\x03\x00")
    rig.exit.values = [0x1111, 0x2222]
    rig.port(IN, 0xF4, size=2, count=2)
    rig.play()
    assert rig.exit.accesses == [*(("write", 0, 2, n) for n in (1, 2, 3)), *([("read", 0, 2)] * 2)]
    assert rig.data(4) == b"\x11\x11\x22\x22"


def test_port_string_instruction_may_fill_the_page_to_its_end(rig: Rig) -> None:
    rig.port(OUT, 0x3F8, count=0x1000, offset=0x2000, data=bytes(0x1000))
    rig.play()
    assert len(rig.uart.accesses) == 0x1000


@pytest.mark.parametrize("size", [1, 2, 4])
def test_port_unclaimed_read_gives_ones_and_write_is_dropped(rig: Rig, size: int) -> None:
    rig.port(OUT, 0x1234, size=size, data=b"\x55" * size)
    rig.port(IN, 0x1234, size=size)
    rig.port(IN, 0x1234, size=size, count=2)
    rig.play()
    assert rig.data(2 * size + 1) == b"\xff" * 2 * size + b"\x00"
    assert rig.ports.unclaimed_writes == size
    assert rig.ports.unclaimed_reads == 3 * size


def test_port_sweep_of_every_port_and_size_leaves_the_tables_small(rig: Rig) -> None:
    def sweep(ports: int) -> None:
        for direction in (IN, OUT):
            for size in (1, 2, 4):
                for port in range(ports):
                    word = direction | size << 8 | port << 16 | 1 << 32
                    rig.loop._port_exit(word, DATA)

    sweep(0x10000)
    # 1, 2 and 4 bytes, both ways, wherever COM1 has all of them, or the other device, which has 4 ports.
    claimed = 2 * ((8 + 7 + 5) + (4 + 3 + 1))
    assert len(rig.loop.routes.port_exits) == claimed
    assert len(rig.loop.routes.by_port) == claimed + MOST_UNCLAIMED
    sweep(0x400)
    assert len(rig.loop.routes.port_exits) == claimed
    assert len(rig.loop.routes.by_port) == claimed + MOST_UNCLAIMED


@pytest.mark.parametrize("size", [1, 2, 4])
def test_port_unclaimed_that_is_polled_gives_ones_each_time_and_is_counted(rig: Rig, size: int) -> None:
    for _ in range(5):
        rig.port(OUT, 0x1234, size=size, data=b"\x55" * size)
        rig.port(IN, 0x1234, size=size)
    rig.play()
    assert rig.data(size + 1) == b"\xff" * size + b"\x00"
    assert (rig.ports.unclaimed_writes, rig.ports.unclaimed_reads) == (5 * size, 5 * size)
    assert rig.loop.routes.port_exits == {}
    assert rig.loop.routes.guest_exits == 10


def test_port_claimed_in_part_is_no_unclaimed_one(rig: Rig) -> None:
    rig.uart.values = [1, 2, 3]
    for _ in range(3):
        rig.port(IN, 0x3FF, size=2)  # the last register of COM1, and a port that nobody has
    rig.play()
    assert rig.uart.accesses == [("read", 7, 1)] * 3
    assert rig.data(2) == b"\x03\xff"
    assert rig.ports.unclaimed_reads == 3


def test_more_unclaimed_ports_than_get_a_route_are_answered_all_the_same(rig: Rig) -> None:
    for _ in range(2):
        for port in range(0x2000, 0x2000 + MOST_UNCLAIMED + 5):
            rig.port(IN, port)
    rig.play()
    assert rig.ports.unclaimed_reads == 2 * (MOST_UNCLAIMED + 5)
    assert rig.data(1) == b"\xff"


def test_port_string_counts_leave_the_tables_small(rig: Rig) -> None:
    # A guest chooses the count of a string instruction: each must not be an entry of its own.
    for count in range(1, 300):
        rig.port(OUT, 0x3F8, count=count, data=bytes(count))
    rig.play()
    assert len(rig.loop.routes.by_port) == 1
    assert len(rig.loop.routes.port_exits) <= 2
    assert sum(rig.loop.routes.port_exits.values()) == 299


def test_port_exits_are_counted_by_kind(rig: Rig) -> None:
    for _ in range(3):
        rig.port(OUT, 0x3F8, data=b"x")
    rig.port(OUT, 0x3F8, count=4, data=b"abcd")
    rig.port(OUT, 0x3F8, data=b"x")
    rig.port(IN, 0x3FD)
    rig.play()
    counts: dict[int, int] = {}
    for word, count in rig.loop.routes.port_exits.items():
        counts[word & 0xFFFF_FFFF] = counts.get(word & 0xFFFF_FFFF, 0) + count
    assert counts == {0x3F8 << 16 | 1 << 8 | OUT: 5, 0x3FD << 16 | 1 << 8 | IN: 1}
    assert rig.loop.routes.exit_count == 7  # with the one that asked to leave


@pytest.mark.parametrize(
    ("size", "count", "offset"),
    [(0, 1, DATA), (3, 1, DATA), (8, 1, DATA), (255, 1, DATA), (1, 0x2001, DATA), (4, 0x801, DATA),
     (1, 0xFFFF_FFFF, DATA), (1, 1, 0x3000), (1, 1, 2**64 - 1)],
)  # fmt: skip
def test_port_exit_that_cannot_be_is_an_unknown_exit(rig: Rig, size: int, count: int, offset: int) -> None:
    rig.port(IN, 0x1234, size=size, count=count, offset=offset)
    with pytest.raises(UnknownExitError, match="which cannot be") as caught:
        rig.play()
    assert caught.value.exit_status == 10


# --- Memory ----------------------------------------------------------------------------------------------


def test_memory_write_and_read_reach_the_device(rig: Rig) -> None:
    rig.memory(0xD000_0003, 1, b"\x83")
    rig.memory(0xD000_0005, 1)
    rig.mmio_uart.values = [0x60]
    rig.play()
    assert rig.mmio_uart.accesses == [("write", 3, 1, 0x83), ("read", 5, 1)]
    assert rig.data(2, at=uapi.RUN_MMIO_DATA) == b"\x60\xee"
    assert rig.loop.routes.mmio_exits == 2


def test_memory_access_again_takes_the_short_way_and_does_the_same(rig: Rig) -> None:
    rig.mmio_uart.values = [1, 2, 3]
    seen: list[bytes] = []
    for _ in range(3):
        rig.memory(0xD000_0005, 1)
        rig.peek(lambda: seen.append(rig.data(2, at=uapi.RUN_MMIO_DATA)))
    for value in (b"a", b"b", b"c"):
        rig.memory(0xD000_0005, 1, value)
    rig.play()
    assert seen == [b"\1\xee", b"\2\xee", b"\3\xee"]
    assert rig.mmio_uart.accesses == [*[("read", 5, 1)] * 3, *(("write", 5, 1, ord(c)) for c in "abc")]
    assert rig.mmio_uart.fast_paths == 4  # all but the first of each kind
    assert rig.mmio_uart.counted == {True: 2, False: 2}
    assert rig.loop.routes.mmio_exits == 6
    assert rig.loop.routes.exit_count == 6 + 4  # with those that looked, and the one that asked to leave


def test_memory_access_beside_a_known_one_is_another_one(rig: Rig) -> None:
    for address, length in ((0xD000_0005, 1), (0xD000_0006, 1), (0xD000_0005, 2), (0x1_D000_0005, 1)):
        rig.memory(address, length)
    rig.mmio_uart.values = [5, 6, 7, 8]
    rig.play()
    assert rig.mmio_uart.accesses == [("read", 5, 1), ("read", 6, 1), ("read", 5, 1), ("read", 6, 1)]
    assert rig.mmio.unclaimed_reads == 1


def test_memory_access_is_known_whatever_the_kernel_left_behind_its_fields(rig: Rig) -> None:
    def leave(rest: bytes) -> None:
        rig.vcpu.page[53:56] = rest

    for rest in (b"\0\0\0", b"\xff\1\2", b"\0\0\1"):
        rig.peek(lambda rest=rest: leave(rest))  # type: ignore[misc]  # a default
        rig.memory(0xD000_0005, 1)
    rig.play()
    assert rig.mmio_uart.fast_paths == 2


def test_memory_sweep_of_every_length_leaves_the_tables_small(rig: Rig) -> None:
    for address in range(0xCFFF_FFF0, 0xD000_0020):
        for length in range(1, 9):
            rig.memory(address, length)
            rig.memory(address, length, bytes(length))
    rig.play()
    assert len(rig.loop.routes.by_address) == 2 * sum(range(1, 9))  # as many as fit into eight registers


def test_memory_of_a_large_device_has_no_more_routes_than_can_be_counted_at_once(rig: Rig) -> None:
    large = Device()
    rig.mmio.attach(Mapping(0xFF00_0000, 2 * MAX_ROUTES, large, direct=large))
    last = 2 * MAX_ROUTES - 1
    for offset in (*range(2 * MAX_ROUTES), 0, last):
        rig.memory(0xFF00_0000 + offset, 1, b"\1")
    rig.play()
    assert len(rig.loop.routes.by_address) == MAX_ROUTES
    assert large.accesses[-2:] == [("write", 0, 1, 1), ("write", last, 1, 1)]
    assert rig.loop.routes.mmio_exits == 2 * MAX_ROUTES + 2


@pytest.mark.parametrize("length", [2, 3, 4, 5, 7, 8])
def test_memory_access_of_any_length_is_split(rig: Rig, length: int) -> None:
    rig.memory(0xD000_0000, length, bytes(range(1, length + 1)))
    rig.memory(0xD000_0000, length)
    rig.mmio_uart.values = list(range(0x11, 0x11 + length))
    rig.play()
    assert rig.mmio_uart.accesses == [
        *(("write", n, 1, n + 1) for n in range(length)),
        *(("read", n, 1) for n in range(length)),
    ]
    read = bytes(range(0x11, 0x11 + length))
    assert rig.data(8, at=uapi.RUN_MMIO_DATA) == read.ljust(8, b"\xee")


def test_memory_that_nobody_claims_reads_as_ones(rig: Rig) -> None:
    rig.memory(0xE000_0000, 4, b"abcd")
    rig.memory(0xE000_0000, 4)
    rig.play()
    assert rig.data(5, at=uapi.RUN_MMIO_DATA) == b"\xff\xff\xff\xff\xee"
    assert (rig.mmio.unclaimed_reads, rig.mmio.unclaimed_writes) == (4, 4)


@pytest.mark.parametrize("length", [0, 9, 0xFFFF_FFFF])
def test_memory_access_that_cannot_be_is_an_unknown_exit(rig: Rig, length: int) -> None:
    rig.memory(0xD000_0000, length)
    with pytest.raises(UnknownExitError, match="malformed KVM_EXIT_MMIO"):
        rig.play()
    assert rig.mmio_uart.accesses == []


# --- Other exits -----------------------------------------------------------------------------------------


def test_halt_and_interrupted_exits_go_on(rig: Rig) -> None:
    rig.reason(uapi.KVM_EXIT_HLT)
    rig.reason(uapi.KVM_EXIT_INTR)
    rig.reason(uapi.KVM_EXIT_HLT)
    assert rig.play() is None
    assert rig.loop.routes.guest_exits == 3


def test_triple_fault_is_the_outcome_with_registers_and_code(rig: Rig) -> None:
    rig.reason(uapi.KVM_EXIT_SHUTDOWN)
    assert rig.loop.run() is not None
    outcome = rig.loop.outcome
    assert outcome is not None
    assert (outcome.status, outcome.error) == (GUEST_CRASHED, True)
    assert outcome.reason == "the guest crashed: triple fault"
    # A byte that is no RAM, and a page that is not mapped.
    assert outcome.report.endswith("Code at RIP: 00 01 02 ?? 04 05 06 07" + " ??" * 8)


def test_triple_fault_of_one_of_several_cpus_names_it(rig: Rig) -> None:
    rig.named("CPU 3")
    rig.reason(uapi.KVM_EXIT_SHUTDOWN)
    rig.loop.run()
    assert rig.loop.outcome is not None
    assert rig.loop.outcome.reason == "the guest crashed: triple fault of CPU 3"
    assert rig.loop.outcome.report.startswith("CPU 3\nCPU in ")


@pytest.mark.parametrize("reason", [uapi.KVM_EXIT_INTERNAL_ERROR, uapi.KVM_EXIT_FAIL_ENTRY])
def test_error_of_one_of_several_cpus_names_it_above_its_registers(rig: Rig, reason: int) -> None:
    rig.named("CPU 3")
    rig.reason(reason)
    with pytest.raises(UnknownExitError) as caught:
        rig.loop.run()
    _, second, third = str(caught.value).split("\n")[:3]
    assert second == "CPU 3"
    assert third.startswith("CPU in ")


def test_crash_report_of_a_vcpu_that_cannot_be_read_says_so(rig: Rig) -> None:
    rig.vcpu.gone = True
    rig.reason(uapi.KVM_EXIT_SHUTDOWN)
    rig.loop.run()
    assert rig.loop.outcome is not None
    assert "registers cannot be read" in rig.loop.outcome.report


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (uapi.KVM_EXIT_INTERNAL_ERROR, "KVM internal error"),
        (uapi.KVM_EXIT_FAIL_ENTRY, "refused to enter"),
        (0x7777, "exit reason 30583"),
    ],
)
def test_exit_that_is_not_known_is_told_in_words_with_a_report(rig: Rig, reason: int, text: str) -> None:
    rig.reason(reason)
    with pytest.raises(UnknownExitError, match=text) as caught:
        rig.loop.run()
    first, _, report = str(caught.value).partition("\n")
    assert text in first
    assert "Code at RIP" in report


def test_interrupted_and_try_again_go_on(rig: Rig) -> None:
    rig.step(lambda: -errno.EINTR)
    rig.step(lambda: -errno.EAGAIN)
    rig.port(OUT, 0x3F8, data=b"x")
    rig.play()
    assert rig.uart.accesses == [("write", 0, 1, ord("x"))]


def test_interrupted_run_does_not_take_the_former_exit_for_a_new_one(rig: Rig) -> None:
    rig.port(OUT, 0x3F8, data=b"x")
    rig.step(lambda: -errno.EINTR)
    rig.step(lambda: -errno.EAGAIN)
    rig.play()
    assert len(rig.uart.accesses) == 1


def test_first_cpu_that_never_runs_does_not_try_for_ever(rig: Rig) -> None:
    for _ in range(2000):
        rig.step(lambda: -errno.EAGAIN)
    with pytest.raises(UnknownExitError, match="KVM_RUN failed: Resource temporarily unavailable"):
        rig.loop.run()


@pytest.mark.parametrize("number", [errno.EFAULT, errno.ENOEXEC, errno.EIO])
def test_failure_of_kvm_is_an_unknown_exit_with_its_words(rig: Rig, number: int) -> None:
    rig.step(lambda: -number)
    with pytest.raises(UnknownExitError, match="KVM_RUN failed: "):
        rig.loop.run()
