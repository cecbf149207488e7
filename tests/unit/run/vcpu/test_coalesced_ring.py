"""The ring of writes that did not exit: what KVM has put there reaches its devices, in order, and once."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from typing import Any, Final, cast

import pytest

from kvmbox.base.errors import DeviceProcessError, UnknownExitError
from kvmbox.remote.bus.proxy import DeviceProxy
from kvmbox.remote.channel.connection import Channel
from kvmbox.run.vcpu.coalesced_ring import ENTRIES, ENTRY_SIZE, CoalescedRing
from kvmbox.wire import protocol
from kvmbox.wire.protocol import request_word
from tests.support.fake_room import FakeRoom
from tests.support.kernel_ring import RING, indices, kernel_writes

RTC, POST, DEBUGCON = 0x70, 0x80, 0xE9
INDEX, DATA, BEHIND = 0x3D4, 0x3D5, 0x3D6


READ_RTC: Final = request_word(protocol.READ, 0, 1)
INDEXED_RTC: Final = request_word(protocol.INDEXED_READ, 0, 1)


class FakeChannel:
    """Notes what it is asked: (device, register, bytes) and by which thread's way."""

    steady = None

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, int, bytes]] = []
        self.meanwhile: Callable[[], object] = lambda: None
        """What the guest or another thread does, or the process suffers, while it is asked."""

    def access(self, word: int, offset: int, value: int, limit: int) -> int:
        assert (word & 0xFF, word >> 16 & 0xFF, limit) == (protocol.WRITE, 1, 0)
        self.asked.append(("vcpu", word >> 8 & 0xFF, offset, bytes([value])))
        self.meanwhile()
        return 0

    def transact(self, kind: int, device: int, offset: int, payload: bytes) -> None:
        assert kind == protocol.WRITE_RUN
        self.asked.append(("vcpu", device, offset, payload))
        self.meanwhile()

    def request(self, kind: int, *, device: int, offset: int, payload: bytes) -> tuple[int, bytes]:
        assert kind == protocol.WRITE_RUN
        self.asked.append(("main", device, offset, payload))
        self.meanwhile()
        return 0, b""

    def write_string(
        self, device: int, offset: int, size: int, data: bytes, slices: int | None = None
    ) -> None:
        assert size == 2
        self.asked.append(("vcpu words" if slices is None else "main words", device, offset, data))
        self.meanwhile()

    def write_wide(self, device: int, offset: int, data: bytes, slices: int | None = None) -> None:
        assert 2 <= len(data) <= 8
        self.asked.append(("vcpu row" if slices is None else "main row", device, offset, data))
        self.meanwhile()


class Rig:
    """A ring as the kernel fills it, and the devices of three ports: one process has two of them. Another
    device has two adjacent registers, and the port behind them is one's that is none of its.
    """

    def __init__(self, *, start: int = 0, latches: tuple[int, ...] = ()) -> None:
        self.page = bytearray(3 * 4096)
        view = memoryview(self.page)
        self.room = FakeRoom()
        self.rtc_channel, self.debug_channel = FakeChannel(), FakeChannel()
        self.rtc = self._proxy(self.rtc_channel, 0, "RTC")
        self.debugcon = self._proxy(self.debug_channel, 0, "debugcon")
        self.post = self._proxy(self.debug_channel, 1, "POST")
        self.vga_channel = FakeChannel()
        self.vga = self._proxy(self.vga_channel, 0, "VGA")
        self.ring = CoalescedRing(
            view.cast("Q"),
            view.cast("I"),
            view,
            {
                RTC: (self.rtc, 0),
                DEBUGCON: (self.debugcon, 0),
                POST: (self.post, 3),
                INDEX: (self.vga, 0x24),
                DATA: (self.vga, 0x25),
                BEHIND: (self.post, 4),
            },
            room=self.room,
            latches=latches,
        )
        struct.pack_into("<II", self.page, RING, start, start)

    @staticmethod
    def _proxy(channel: FakeChannel, index: int, name: str) -> DeviceProxy:
        return DeviceProxy(cast(Channel, channel), index, name, frozenset())

    def indices(self) -> tuple[int, int]:
        return indices(self.page)

    def kernel_writes(self, port: int, data: bytes, **entry: int) -> None:
        kernel_writes(self.page, port, data, **entry)


def test_ring_page_is_behind_kvm_run_and_the_data_page() -> None:
    assert (RING, ENTRY_SIZE, ENTRIES) == (2 * 4096, 24, 170)


def test_drain_of_an_empty_ring_asks_nobody() -> None:
    rig = Rig()
    assert not rig.ring.pending
    rig.ring.drain()
    rig.ring.flush()
    assert rig.debug_channel.asked == rig.rtc_channel.asked == []


def test_drain_gives_writes_to_one_port_as_one_run() -> None:
    rig = Rig()
    rig.kernel_writes(DEBUGCON, b"Hello")
    assert rig.ring.pending
    rig.ring.drain()
    assert rig.debug_channel.asked == [("vcpu", 0, 0, b"Hello")]
    assert rig.indices() == (5, 5)
    assert not rig.ring.pending
    assert (rig.ring.writes, rig.debugcon.writes, rig.post.writes) == (5, 5, 0)


def test_of_a_run_to_a_latch_the_last_write_reaches_the_device_and_all_count() -> None:
    rig = Rig(latches=(RTC,))
    rig.kernel_writes(RTC, b"\x0a\x0b\x0c")
    rig.kernel_writes(DEBUGCON, b"ab")
    rig.kernel_writes(RTC, b"\x0d")
    rig.ring.drain()
    assert rig.rtc_channel.asked == [("vcpu", 0, 0, b"\x0c"), ("vcpu", 0, 0, b"\x0d")]
    assert rig.debug_channel.asked == [("vcpu", 0, 0, b"ab")]
    assert (rig.ring.writes, rig.rtc.writes) == (6, 4)
    assert rig.indices() == (6, 6)


def test_a_latch_beside_its_data_register_gets_each_write_of_a_pair() -> None:
    rig = Rig(latches=(INDEX,))
    rig.kernel_writes(INDEX, b"\x0e")
    rig.kernel_writes(DATA, b"\x07")
    rig.kernel_writes(INDEX, b"\x0f")
    rig.kernel_writes(DATA, b"\xd0")
    rig.ring.drain()
    assert rig.vga_channel.asked == [("vcpu words", 0, 0x24, b"\x0e\x07\x0f\xd0")]


def test_drain_gives_a_single_write_as_an_access() -> None:
    rig = Rig()
    rig.kernel_writes(POST, b"\x42")
    rig.ring.drain()
    assert rig.debug_channel.asked == [("vcpu", 1, 3, b"\x42")]
    assert (rig.ring.writes, rig.post.writes) == (1, 1)


def test_drain_of_several_ports_keeps_the_order_between_them() -> None:
    rig = Rig()
    rig.kernel_writes(DEBUGCON, b"ab")
    rig.kernel_writes(POST, b"\x01")
    rig.kernel_writes(DEBUGCON, b"c")
    rig.kernel_writes(RTC, b"\x8c\x0d")
    rig.kernel_writes(DEBUGCON, b"de")
    rig.ring.drain()
    assert rig.debug_channel.asked == [
        ("vcpu", 0, 0, b"ab"),
        ("vcpu", 1, 3, b"\x01"),
        ("vcpu", 0, 0, b"c"),
        ("vcpu", 0, 0, b"de"),
    ]
    assert rig.rtc_channel.asked == [("vcpu", 0, 0, b"\x8c\x0d")]
    assert rig.ring.writes == 8


@pytest.mark.parametrize(
    ("who", "take"), [("vcpu", CoalescedRing.drain), ("main", CoalescedRing.flush)], ids=["drain", "flush"]
)
def test_index_and_data_in_turn_are_one_string_of_words(
    who: str, take: Callable[[CoalescedRing], object]
) -> None:
    rig = Rig()
    for port, byte in ((DATA, 9), (INDEX, 14), (DATA, 1), (INDEX, 15), (DATA, 80), (INDEX, 7), (INDEX, 8)):
        rig.kernel_writes(port, bytes([byte]))
    take(rig.ring)
    assert rig.vga_channel.asked == [
        (who, 0, 0x25, b"\x09"),
        (f"{who} words", 0, 0x24, bytes([14, 1, 15, 80])),
        (who, 0, 0x24, b"\x07\x08"),
    ]
    assert (rig.ring.writes, rig.vga.writes) == (7, 7)
    assert rig.indices() == (7, 7)


def test_ports_of_two_devices_are_no_pair() -> None:
    rig = Rig()
    rig.kernel_writes(DATA, b"a")
    rig.kernel_writes(BEHIND, b"b")
    rig.ring.drain()
    assert rig.vga_channel.asked == [("vcpu", 0, 0x25, b"a")]
    assert rig.debug_channel.asked == [("vcpu", 1, 4, b"b")]


def test_pairs_around_the_end_of_the_ring_keep_their_order() -> None:
    rig = Rig(start=ENTRIES - 3)
    for number in range(4):
        rig.kernel_writes(INDEX, bytes([number]))
        rig.kernel_writes(DATA, bytes([0x10 + number]))
    rig.ring.drain()
    assert b"".join(data for *_, data in rig.vga_channel.asked) == bytes([0, 16, 1, 17, 2, 18, 3, 19])
    assert rig.indices() == (5, 5)


def task_file(rig: Rig) -> CoalescedRing:
    """A ring with twelve adjacent registers of one device, which takes words: no pair of them is one."""
    proxy = DeviceProxy(cast(Channel, rig.vga_channel), 0, "wide", frozenset({2}))
    view = memoryview(rig.page)
    zones = {0x1F1 + register: (proxy, 1 + register) for register in range(12)}
    return CoalescedRing(view.cast("Q"), view.cast("I"), view, zones, room=rig.room)


@pytest.mark.parametrize(
    ("ports", "given"),
    [
        ((1, 2), [(1, b"01")]),
        ((2, 3, 4, 5, 6), [(2, b"01234")]),
        ((6, 2, 3, 4, 5), [(6, b"0"), (2, b"1234")]),
        ((1, 2, 1, 2), [(1, b"01"), (1, b"23")]),
        ((3, 2, 1), [(3, b"0"), (2, b"1"), (1, b"2")]),
        ((2, 2, 3), [(2, b"01"), (3, b"2")]),
        ((*range(1, 11),), [(1, b"01234567"), (9, b"89")]),
    ],
)
def test_writes_to_registers_in_a_row_are_one_request(
    ports: tuple[int, ...], given: list[tuple[int, bytes]]
) -> None:
    for way in ("vcpu", "main"):
        rig = Rig()
        ring = task_file(rig)
        for number, port in enumerate(ports):
            rig.kernel_writes(0x1F0 + port, b"%d" % number)
        if way == "vcpu":
            ring.drain()
        else:
            assert ring.flush()
        asked = [(register, data) for _, _, register, data in rig.vga_channel.asked]
        assert asked == given
        assert {how.partition(" ")[0] for how, *_ in rig.vga_channel.asked} == {way}
        assert rig.indices() == (len(ports), len(ports))
        assert ring.writes == len(ports)


@pytest.mark.parametrize("start", [1, 100, ENTRIES - 1])
@pytest.mark.parametrize("count", [1, 2, ENTRIES - 1])
def test_drain_goes_around_the_end_of_the_ring(start: int, count: int) -> None:
    rig = Rig(start=start)
    text = bytes(index & 0xFF for index in range(count))
    rig.kernel_writes(DEBUGCON, text)
    rig.ring.drain()
    assert b"".join(data for *_, data in rig.debug_channel.asked) == text
    assert len(rig.debug_channel.asked) <= 2
    end = (start + count) % ENTRIES
    assert rig.indices() == (end, end)
    assert rig.ring.writes == count


TAKES_ALL: Final[list[Callable[[Rig], object]]] = [lambda rig: rig.ring.drain(), lambda rig: rig.ring.flush()]


@pytest.mark.parametrize("take", TAKES_ALL)
def test_taker_of_all_leaves_what_comes_meanwhile(take: Callable[[Rig], object]) -> None:
    # Or a guest that goes on writing would keep the main thread for ever.
    rig = Rig(start=ENTRIES - 3)
    rig.kernel_writes(DEBUGCON, b"abcdefgh")
    goes_on = iter([b"uv", b"wx", b"yz"])
    rig.debug_channel.meanwhile = lambda: rig.kernel_writes(DEBUGCON, next(goes_on, b""))
    take(rig)
    assert b"".join(data for *_, data in rig.debug_channel.asked) == b"abcdefgh"
    assert rig.ring.pending


@pytest.mark.parametrize("start", [0, ENTRIES - 2])
@pytest.mark.parametrize("take", TAKES_ALL)
def test_ring_is_not_empty_before_the_devices_have_it_all(take: Callable[[Rig], object], start: int) -> None:
    # The run loop looks at nothing else: it would let the guest's next access overtake these.
    rig = Rig(start=start)
    rig.kernel_writes(DEBUGCON, b"abc")
    rig.kernel_writes(POST, b"d")
    seen: list[tuple[bool, tuple[int, int]]] = []
    rig.debug_channel.meanwhile = lambda: seen.append((rig.ring.pending, rig.indices()))
    take(rig)
    assert seen
    assert all(pending for pending, _ in seen)
    last = (start + 4) % ENTRIES
    assert seen[0][1] == (start, last)
    assert seen[-1][1] == ((last - 1) % ENTRIES, last)  # and what a device has makes room at once
    assert rig.indices() == (last, last)


def test_drain_waits_for_room_only_after_the_release_of_the_lock() -> None:
    """Another vCPU that resets or crashes drains, too: it must not wait for whoever reads the output."""
    rig = Rig()
    rig.kernel_writes(DEBUGCON, b"a")
    during: list[int] = []
    rig.debug_channel.meanwhile = lambda: during.append(rig.room.postponed)
    flushed: list[bool] = []

    def wait() -> None:
        rig.kernel_writes(DEBUGCON, b"b")
        rig.debug_channel.meanwhile = lambda: None
        flushed.append(rig.ring.flush())  # takes the lock, if it is free

    rig.room.wait = wait
    rig.ring.drain()
    assert during == [threading.get_ident()]  # so the channel did not wait
    assert rig.room.postponed == 0
    assert flushed == [True]


def test_drain_that_fails_postpones_no_wait_any_more() -> None:
    rig = Rig()
    rig.kernel_writes(DEBUGCON, b"a")

    def fail() -> None:
        raise DeviceProcessError("debug", "is gone")

    rig.debug_channel.meanwhile = fail
    with pytest.raises(DeviceProcessError):
        rig.ring.drain()
    assert rig.room.postponed == 0


def test_interrupt_of_the_main_thread_is_no_failure_of_the_ring() -> None:
    rig = Rig()
    rig.kernel_writes(DEBUGCON, b"a")

    def interrupt() -> None:
        raise KeyboardInterrupt

    rig.debug_channel.meanwhile = interrupt
    with pytest.raises(KeyboardInterrupt):
        rig.ring.flush()
    rig.debug_channel.meanwhile = lambda: None
    rig.ring.drain()  # raises nothing that another thread was told
    assert not rig.ring.pending


def test_flush_tells_whether_there_was_anything() -> None:
    rig = Rig()
    assert rig.ring.flush() is False
    rig.kernel_writes(DEBUGCON, b"a")
    assert rig.ring.flush() is True
    assert rig.ring.flush() is False


@pytest.mark.parametrize("take", TAKES_ALL)
@pytest.mark.parametrize("then", TAKES_ALL)
def test_nothing_is_given_once_a_device_has_failed_at_a_write(
    take: Callable[[Rig], object], then: Callable[[Rig], object]
) -> None:
    rig = Rig(start=ENTRIES - 1)
    rig.kernel_writes(POST, b"\x01")
    rig.kernel_writes(RTC, b"\x0c")
    rig.kernel_writes(DEBUGCON, b"bc")
    failure = DeviceProcessError("rtc", "is gone")

    def fail() -> None:
        raise failure

    rig.rtc_channel.meanwhile = fail
    for taken in (take, then, take):
        with pytest.raises(DeviceProcessError) as caught:
            taken(rig)
        assert caught.value is failure
    assert [data for *_, data in rig.debug_channel.asked] == [b"\x01"]
    assert [data for *_, data in rig.rtc_channel.asked] == [b"\x0c"]
    assert rig.ring.pending  # so the vCPU thread does not take the devices for served
    assert rig.indices() == (0, 3)
    assert rig.ring.writes == 1


def test_read_does_not_carry_the_write_that_its_device_has_failed_at() -> None:
    rig = Rig()
    rig.kernel_writes(RTC, b"\x0c")

    def fail() -> None:
        raise DeviceProcessError("rtc", "is gone")

    rig.rtc_channel.meanwhile = fail
    with pytest.raises(DeviceProcessError):
        rig.ring.flush()
    with pytest.raises(DeviceProcessError):
        rig.ring.carry_along(rig.rtc, READ_RTC)


def test_flush_uses_the_way_of_the_main_thread() -> None:
    rig = Rig(start=ENTRIES - 2)
    rig.kernel_writes(DEBUGCON, b"abc")
    rig.kernel_writes(POST, b"d")
    rig.ring.flush()
    assert rig.debug_channel.asked == [
        ("main", 0, 0, b"ab"),
        ("main", 0, 0, b"c"),
        ("main", 1, 3, b"d"),
    ]
    assert (rig.debugcon.writes, rig.post.writes) == (3, 1)


def test_flush_does_not_wait_for_a_drain_that_hangs() -> None:
    """The main thread is who ends the wait of the other one: it must not wait for it."""
    rig = Rig(start=ENTRIES - 2)
    rig.kernel_writes(DEBUGCON, b"abcd")  # goes around: there is something left while the first part is given
    hangs, killed = threading.Event(), threading.Event()

    def transact(*_: Any) -> None:
        hangs.set()
        assert killed.wait(30)
        raise DeviceProcessError("debug", "was killed")

    rig.debug_channel.transact = transact  # type: ignore[method-assign, assignment]  # a device that hangs
    ended: list[BaseException] = []

    def drain() -> None:
        try:
            rig.ring.drain()
        except DeviceProcessError as error:
            ended.append(error)

    vcpu_thread = threading.Thread(target=drain, daemon=True)
    vcpu_thread.start()
    assert hangs.wait(30)
    assert rig.ring.pending
    flushed = threading.Thread(target=rig.ring.flush, daemon=True)
    flushed.start()
    flushed.join(10)
    waits = flushed.is_alive()
    killed.set()
    vcpu_thread.join(30)
    flushed.join(30)
    assert not waits
    assert len(ended) == 1
    # And the lock is free again.
    with pytest.raises(DeviceProcessError):
        rig.ring.flush()
    assert rig.debug_channel.asked == []


# --- The index that travels with a read -----------------------------------------------------------------


@pytest.mark.parametrize("start", [0, ENTRIES - 1])
def test_carry_along_takes_the_only_write_if_it_is_for_the_device(start: int) -> None:
    rig = Rig(start=start)
    rig.kernel_writes(RTC, b"\x8c")
    assert rig.ring.carry_along(rig.rtc, READ_RTC) == (INDEXED_RTC, 0 << 32 | 0x8C)
    assert rig.rtc_channel.asked == []
    assert not rig.ring.pending
    assert (rig.ring.writes, rig.rtc.writes) == (1, 1)


def test_carry_along_tells_the_register_of_the_port() -> None:
    rig = Rig()
    rig.kernel_writes(POST, b"\x05")
    word, value = rig.ring.carry_along(rig.post, request_word(protocol.READ, 1, 1))
    assert (word, value) == (request_word(protocol.INDEXED_READ, 1, 1), 3 << 32 | 5)


def test_carry_along_of_another_devices_write_drains() -> None:
    rig = Rig()
    rig.kernel_writes(POST, b"\x05")
    assert rig.ring.carry_along(rig.debugcon, READ_RTC) == (
        READ_RTC,
        0,
    )  # the same process, but not the same device
    assert rig.debug_channel.asked == [("vcpu", 1, 3, b"\x05")]
    assert rig.ring.writes == 1


def test_carry_along_of_two_writes_drains_in_order() -> None:
    rig = Rig(start=ENTRIES - 1)
    rig.kernel_writes(RTC, b"\x0a\x0b")
    assert rig.ring.carry_along(rig.rtc, READ_RTC) == (READ_RTC, 0)
    assert [data for *_, data in rig.rtc_channel.asked] == [b"\x0a", b"\x0b"]
    assert not rig.ring.pending


def test_carry_along_behind_another_write_drains() -> None:
    rig = Rig()
    rig.kernel_writes(DEBUGCON, b"x")
    rig.kernel_writes(RTC, b"\x0a")
    assert rig.ring.carry_along(rig.rtc, READ_RTC) == (READ_RTC, 0)
    assert rig.debug_channel.asked == [("vcpu", 0, 0, b"x")]
    assert rig.rtc_channel.asked == [("vcpu", 0, 0, b"\x0a")]


def test_carry_along_of_an_empty_ring_carries_nothing() -> None:
    # The main thread was quicker.
    assert Rig().ring.carry_along(object(), READ_RTC) == (READ_RTC, 0)


def test_ring_shares_a_process_with_the_devices_behind_its_channels() -> None:
    rig = Rig()
    sibling = Rig._proxy(rig.debug_channel, 2, "debug-exit")
    stranger = Rig._proxy(FakeChannel(), 0, "COM1")
    assert rig.ring.shares_process_with(sibling)
    assert not rig.ring.shares_process_with(stranger)
    assert not rig.ring.shares_process_with(object())
    assert rig.ring.ports == [RTC, DEBUGCON, POST, INDEX, DATA, BEHIND]


TAKERS: Final[list[Callable[[Rig], object]]] = [
    lambda rig: rig.ring.drain(),
    lambda rig: rig.ring.flush(),
    lambda rig: rig.ring.carry_along(rig.post, READ_RTC),
]


# --- What cannot be -------------------------------------------------------------------------------------


@pytest.mark.parametrize("indices", [(0, ENTRIES), (ENTRIES, 0), (ENTRIES, ENTRIES + 1), (0, 2**32 - 1)])
def test_indices_beyond_the_ring_are_an_unknown_exit(indices: tuple[int, int]) -> None:
    for take in TAKERS:
        rig = Rig()
        struct.pack_into("<II", rig.page, RING, *indices)
        with pytest.raises(UnknownExitError, match="of 170"):
            take(rig)
        assert rig.indices() == indices


@pytest.mark.parametrize(
    ("port", "length", "is_port"),
    [(0x3F8, 1, 1), (DEBUGCON, 2, 1), (DEBUGCON, 0, 1), (DEBUGCON, 1, 0), (DEBUGCON, 1, 2),
     (DEBUGCON, 2**32 - 1, 1), (2**64 - 1, 1, 1), (0, 0, 0)],
)  # fmt: skip
def test_entry_that_cannot_be_is_an_unknown_exit_and_reaches_no_device(
    port: int, length: int, is_port: int
) -> None:
    for take in TAKERS:
        rig = Rig()
        rig.kernel_writes(DEBUGCON, b"fine")
        rig.kernel_writes(port, b"x", length=length, is_port=is_port)
        rig.kernel_writes(DEBUGCON, b"fine")
        with pytest.raises(UnknownExitError, match="not asked for"):
            take(rig)
        assert rig.debug_channel.asked == rig.rtc_channel.asked == []


def test_lock_is_free_after_what_cannot_be() -> None:
    rig = Rig()
    struct.pack_into("<II", rig.page, RING, 0, ENTRIES)
    for _ in range(2):
        with pytest.raises(UnknownExitError):
            rig.ring.flush()
        with pytest.raises(UnknownExitError):
            rig.ring.drain()
