"""The 82540EM: registers, EEPROM, PHY, interrupts, descriptors to and from chains, filters and snapshots."""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import pairwise

import pytest

from kvmbox.contract.bulk_data import Chain, ChainTransfer, ChainUsed, ChainWrite, Queue, Walk
from kvmbox.contract.model import BAD_ADDRESS, DONE, Effect, HostOutput, InputRoom, IrqLine, SnapshotError
from kvmbox.devices.e1000 import model as nic
from kvmbox.devices.e1000.model import (
    E1000,
    HEAD,
    LEN,
    MORE,
    OFFER,
    OFFLOAD,
    RDBAL,
    RECEIVED,
    SENT,
    TAIL,
    TDBAL,
)
from kvmbox.wire import bulk_effect_table  # noqa: F401 - they can be encoded from now on
from kvmbox.wire.effects import encode_effects_of
from kvmbox.wire.protocol import MAX_PAYLOAD

MAC = bytes.fromhex("026b76000001")
OTHER = bytes.fromhex("026b76000002")
EVERYBODY = b"\xff" * 6
GROUP = bytes.fromhex("01005e0000fb")
END, CHECKSUM, REPORT, EXTENDED, DATA = 1 << 24, 1 << 26, 1 << 27, 1 << 29, 1 << 20
DONE_BITS = nic.DD | nic.EOP | nic.NO_CHECKSUM
BROADCAST, STRIP = 1 << 15, 1 << 26
TAGGED, TAGS = 1 << 30, 1 << 30
LONG, TINY = 1 << 5, 3 << 16
ENTRIES = 64


def write(model: E1000, *registers: tuple[int, int]) -> list[Effect]:
    for offset, value in registers:
        model.write(0, offset, 4, value)
    return model.take_effects()


def read(model: E1000, offset: int) -> int:
    return model.read(0, offset, 4)


def started(control: int = BROADCAST | STRIP) -> E1000:
    """A driver has set up both rings, and given all descriptors but one to receive to."""
    model = E1000(mac=MAC)
    for ring in (RDBAL, TDBAL):
        write(model, (ring, 0x1000), (ring + LEN, 16 * ENTRIES))
    write(model, (nic.RCTL, nic.ENABLE | control), (nic.TCTL, nic.ENABLE), (RDBAL + TAIL, ENTRIES - 1))
    read(model, nic.ICR)  # that nothing is to be sent
    return model


def sent(handle: int, size: int, flags: int = END | REPORT, *, high: int = 0) -> Chain:
    return Chain(handle, size, 0, struct.pack("<II", size | flags, high))


def send(model: E1000, *chains: Chain) -> list[Effect]:
    """What becomes of descriptors; the guest has moved the tail so far."""
    model.write(0, TDBAL + TAIL, 4, (read(model, TDBAL + HEAD) + len(chains)) % ENTRIES)
    model.take_effects()
    model.chains(0, SENT, list(chains), DONE)
    return model.take_effects()


def give(model: E1000, *sizes: int, first: int = 1) -> list[Effect]:
    model.chains(0, RECEIVED, [Chain(handle, 0, size, b"") for handle, size in enumerate(sizes, first)], DONE)
    return model.take_effects()


def offer(model: E1000, *frames: tuple[int, bytes], behind: bytes = b"") -> tuple[int, list[Effect]]:
    """How many frames were accepted, and what is to be done. `behind` their addresses is this."""
    accepted = model.receive(0, b"".join(OFFER.pack(*frame, behind) for frame in frames))
    return accepted // OFFER.size, model.take_effects()


# --- Registers ------------------------------------------------------------------------------------------


def test_status_says_that_the_link_is_up() -> None:
    model = E1000(mac=MAC)

    assert read(model, nic.STATUS) & 0xC3 == 0x83
    write(model, (nic.STATUS, 0))
    assert read(model, nic.STATUS) & 2


def test_narrow_reads_are_parts_of_a_register_and_narrow_writes_are_none() -> None:
    model = E1000(mac=MAC)

    assert bytes(model.read(0, nic.RAL + place, 1) for place in range(4)) == MAC[:4]
    assert model.read(0, nic.RAH, 2) == 0x0100
    model.write(0, nic.RAL, 2, 0)
    assert read(model, nic.RAL) == int.from_bytes(MAC[:4], "little")


def test_wide_access_is_two() -> None:
    model = E1000(mac=MAC)

    model.write(0, TDBAL, 8, 0x1_2345_6780)
    assert (read(model, TDBAL), read(model, TDBAL + 4)) == (0x2345_6780, 1)
    assert model.read(0, TDBAL, 8) == 0x1_2345_6780


def test_ports_reach_the_registers() -> None:
    model = E1000(mac=MAC)

    write(model, (nic.IOADDR, nic.RAL))
    assert read(model, nic.IODATA) == int.from_bytes(MAC[:4], "little")
    write(model, (nic.IODATA, 77))
    assert read(model, nic.RAL) == 77
    write(model, (nic.IOADDR, nic.IODATA), (nic.IODATA, 1))
    assert read(model, nic.IODATA) == 0


def test_reset_by_the_driver_forgets_all_but_the_address() -> None:
    model = started()
    write(model, (nic.RAL, 0), (nic.MTA, 5), (nic.IMS, nic.TXQE), (nic.ICS, nic.TXQE))

    effects = write(model, (nic.CTRL, nic.RESET))
    assert effects == [Queue(RECEIVED, 0, 0, 0, 0, 0), Queue(SENT, 0, 0, 0, 0, 0), IrqLine(0, 0)]
    assert read(model, nic.RAL) == int.from_bytes(MAC[:4], "little")
    assert [read(model, one) for one in (nic.MTA, nic.IMS, nic.ICR, nic.RCTL, TDBAL)] == [0] * 5
    assert not read(model, nic.CTRL) & nic.RESET


def test_eeprom_has_the_address_and_a_good_checksum() -> None:
    model = E1000(mac=MAC)
    words = []
    for address in range(64):
        write(model, (nic.EERD, address << 8 | 1))
        found = read(model, nic.EERD)
        assert found & 1 << 4
        words.append(found >> 16)

    assert struct.pack("<3H", *words[:3]) == MAC
    assert sum(words) & 0xFFFF == 0xBABA


def by_microwire(model: E1000, address: int) -> int:
    """Read a word as a driver does that moves clock and data itself."""

    def clock(value: int) -> int:
        write(model, (nic.EECD, value), (nic.EECD, value | 1))
        found = read(model, nic.EECD) >> 3 & 1
        write(model, (nic.EECD, value))
        return found

    write(model, (nic.EECD, 1 << 6))
    assert read(model, nic.EECD) & 1 << 7
    write(model, (nic.EECD, 1 << 6 | 2))
    for place in reversed(range(9)):
        clock(1 << 6 | 2 | (0b110 << 6 | address) >> place << 2 & 4)
    assert not read(model, nic.EECD) & 8
    word = 0
    for _ in range(16):
        word = word << 1 | clock(1 << 6 | 2)
    write(model, (nic.EECD, 0))
    return word


def test_eeprom_reads_the_same_by_its_wires() -> None:
    model = E1000(mac=MAC)

    for address in (0, 1, 2, 13, 63):
        write(model, (nic.EERD, address << 8 | 1))
        assert by_microwire(model, address) == read(model, nic.EERD) >> 16


def test_eeprom_is_not_written_by_its_wires() -> None:
    model = E1000(mac=MAC)
    for command in ("100110000", "101000001" + f"{0xBAD:016b}"):  # writing is enabled; word 1
        write(model, (nic.EECD, 1 << 6 | 2))
        for bit in command:
            pins = 1 << 6 | 2 | int(bit) << 2
            write(model, (nic.EECD, pins), (nic.EECD, pins | 1), (nic.EECD, pins))
        write(model, (nic.EECD, 1 << 6))

    assert by_microwire(model, 1) == int.from_bytes(MAC[2:4], "little")


def mdic(register: int, code: int, value: int = 0, *, phy: int = 1, interrupt: bool = False) -> int:
    return value | register << 16 | phy << 21 | code << 26 | interrupt << 29


def test_phy_is_a_marvell_with_a_link() -> None:
    model = E1000(mac=MAC)

    found = []
    for register in (1, 2, 3):
        write(model, (nic.MDIC, mdic(register, 2)))
        value = read(model, nic.MDIC)
        assert value & 1 << 28
        found.append(value & 0xFFFF)
    assert found[0] & 0x24 == 0x24
    assert found[1:] == [0x0141, 0x0C20]


@pytest.mark.parametrize("wrong", [mdic(1, 2, phy=2), mdic(31, 2), mdic(1, 3)])
def test_phy_that_is_not_there_is_an_error(wrong: int) -> None:
    model = E1000(mac=MAC)

    write(model, (nic.MDIC, wrong))
    assert read(model, nic.MDIC) >> 28 & 5 == 5


def test_phy_keeps_what_is_written_until_its_reset() -> None:
    model = E1000(mac=MAC)

    write(model, (nic.IMS, nic.MDAC), (nic.MDIC, mdic(16, 1, 0x1234)))
    assert write(model, (nic.MDIC, mdic(16, 2, interrupt=True))) == [IrqLine(0, 1)]
    assert read(model, nic.MDIC) & 0xFFFF == 0x1234
    write(model, (nic.MDIC, mdic(0, 1, 1 << 15)), (nic.MDIC, mdic(16, 2)))
    assert read(model, nic.MDIC) & 0xFFFF == 0x0360


def test_causes_interrupt_as_far_as_they_are_unmasked_and_reading_clears_them() -> None:
    model = E1000(mac=MAC)

    assert write(model, (nic.ICS, nic.RXT0 | nic.LSC)) == []
    assert write(model, (nic.IMS, nic.RXT0)) == [IrqLine(0, 1)]
    assert write(model, (nic.IMC, nic.RXT0)) == [IrqLine(0, 0)]
    assert write(model, (nic.IMS, nic.LSC)) == [IrqLine(0, 1)]
    assert write(model, (nic.ICR, nic.LSC)) == [IrqLine(0, 0)]
    assert read(model, nic.ICR) == nic.RXT0
    assert read(model, nic.ICR) == 0


def test_interrupt_is_held_back_until_the_interval_since_the_last_one_is_over() -> None:
    model = E1000(mac=MAC)
    write(model, (nic.ITR, 500), (nic.IMS, nic.RXT0))

    model.write(1000, nic.ICS, 4, nic.RXT0)
    model.read(2000, nic.ICR, 4)
    model.write(3000, nic.ICS, 4, nic.RXT0)
    assert model.take_effects() == [IrqLine(0, 1), IrqLine(0, 0)]
    assert model.next_deadline() == 1000 + 500 * 256

    model.advance(1000 + 500 * 256 - 1)
    assert model.take_effects() == []
    model.advance(1000 + 500 * 256)
    assert model.take_effects() == [IrqLine(0, 1)]
    assert model.next_deadline() is None


def test_interval_begins_with_the_rise_that_was_held_back_however_late_the_next_call_is() -> None:
    model = E1000(mac=MAC)
    write(model, (nic.ITR, 1000), (nic.IMS, nic.RXT0), (nic.ICS, nic.RXT0))
    model.read(10, nic.ICR, 4)
    model.write(20, nic.ICS, 4, nic.RXT0)

    model.read(300_000, nic.ICR, 4)
    model.write(300_001, nic.ICS, 4, nic.RXT0)
    assert model.take_effects() == [IrqLine(0, level) for level in (0, 1, 0)]
    assert model.next_deadline() == 2 * 256_000


@pytest.mark.parametrize("registers", [[(nic.ICR, nic.RXT0)], [(nic.IMC, nic.RXT0)], [(nic.CTRL, nic.RESET)]])
def test_interrupt_that_is_held_back_is_forgotten_with_its_cause(registers: list[tuple[int, int]]) -> None:
    model = E1000(mac=MAC)
    write(model, (nic.ITR, 500), (nic.IMS, nic.RXT0), (nic.ICS, nic.RXT0))
    read(model, nic.ICR)
    write(model, (nic.ICS, nic.RXT0))

    assert write(model, *registers) == []
    assert model.next_deadline() is None


def test_interval_of_zero_holds_nothing_back_any_more() -> None:
    model = E1000(mac=MAC)
    write(model, (nic.ITR, 500), (nic.IMS, nic.RXT0), (nic.ICS, nic.RXT0))
    read(model, nic.ICR)
    write(model, (nic.ICS, nic.RXT0))

    assert write(model, (nic.ITR, 0)) == [IrqLine(0, 1)]


# --- Rings ----------------------------------------------------------------------------------------------


def test_ring_is_published_when_it_is_enabled_and_when_it_is_moved() -> None:
    model = E1000(mac=MAC)

    assert write(model, (TDBAL, 0x1000), (TDBAL + LEN, 16 * 8)) == []
    assert write(model, (nic.TCTL, nic.ENABLE)) == [Queue(SENT, 8, 0, 0, 0, 0), Walk(SENT, nic.BATCH)]
    assert write(model, (TDBAL + TAIL, 1)) == [Walk(SENT, nic.BATCH)]
    assert write(model, (TDBAL, 0x2000)) == [Queue(SENT, 8, 0, 0, 0, 0), Walk(SENT, nic.BATCH)]
    assert write(model, (TDBAL + LEN, 16 * 16)) == [Queue(SENT, 16, 0, 0, 0, 0), Walk(SENT, nic.BATCH)]
    assert write(model, (nic.TCTL, 0)) == [Queue(SENT, 0, 0, 0, 0, 0)]
    assert write(model, (TDBAL + TAIL, 2)) == []


def test_what_is_no_ring_stops_nothing_else() -> None:
    model = started()
    write(model, (TDBAL + TAIL, 1))

    model.chains(0, SENT, [], BAD_ADDRESS)
    assert model.take_effects() == []
    assert give(model, 2048) == [InputRoom(1)]


def test_frame_is_sent_and_its_descriptor_is_done() -> None:
    model = started()
    write(model, (nic.IMS, nic.TXDW))

    assert send(model, sent(7, 60)) == [
        ChainTransfer(7, 0, 0, 0, 60, 0),
        ChainUsed(7, 60 | END | REPORT | nic.DD),
        IrqLine(0, 1),
    ]
    assert read(model, TDBAL + HEAD) == 1
    assert read(model, nic.ICR) == nic.TXDW | nic.TXQE


def test_descriptor_without_report_is_left_as_it_is() -> None:
    assert send(started(), sent(7, 60, END))[-1] == ChainUsed(7, 0)


def test_frame_in_pieces_is_put_together() -> None:
    effects = send(started(), sent(1, 14, 0), sent(2, 100, 0), sent(3, 6, END))

    assert [one for one in effects if isinstance(one, ChainTransfer)] == [
        ChainTransfer(1, 0, MORE, 0, 14, 0),
        ChainTransfer(2, 0, 14 | MORE, 0, 100, 0),
        ChainTransfer(3, 0, 114, 0, 6, 0),
    ]


@pytest.mark.parametrize(
    "chain", [sent(1, 13), sent(1, 16289), Chain(1, 0, 0, struct.pack("<Q", 60 | END | REPORT))]
)
def test_what_is_no_frame_is_not_sent(chain: Chain) -> None:
    effects = send(started(), chain)

    assert [type(one) for one in effects] == [ChainUsed]
    assert send(started(), chain, sent(2, 60))[1] == ChainTransfer(2, 0, 0, 0, 60, 0)


def test_frame_beyond_all_bounds_is_dropped_to_its_end() -> None:
    effects = send(started(), sent(1, 0xFFFF, 0), sent(2, 0xFFFF, 0), sent(3, 60), sent(4, 60))

    moved = [one for one in effects if isinstance(one, ChainTransfer)]
    assert moved == [ChainTransfer(1, 0, MORE, 0, 0xFFFF, 0), ChainTransfer(4, 0, 0, 0, 60, 0)]


def test_jumbo_frame_is_sent_whole() -> None:
    assert ChainTransfer(1, 0, 0, 0, 16288, 0) in send(started(), sent(1, 16288))


def test_checksum_of_a_legacy_descriptor_is_left_to_the_host() -> None:
    chain = sent(1, 60 | 24 << 16, END | CHECKSUM, high=14 << 8)
    effects = send(started(), Chain(1, 60, 0, chain.head))

    assert effects[0] == HostOutput(OFFLOAD.pack(nic.SUM_TCP, 0, 0, 0, 14, 24, 0, 0, 0, 0))
    assert effects[1] == ChainTransfer(1, 0, 0, 0, 60, 0)


def context(handle: int, *, command: int = 0, header: int = 0, segment: int = 0) -> Chain:
    places = struct.pack("<BBHBBH", 14, 24, 33, 34, 50, 0)
    half = struct.pack("<IBBH", command << 24 | EXTENDED, 0, header, segment)
    return Chain(handle, 0, 0, places + half)


def test_context_says_where_the_checksums_of_later_frames_are() -> None:
    model = started()

    assert send(model, context(1)) == [ChainUsed(1, 0)]
    for _ in range(2):
        effects = send(model, sent(2, 100, END | EXTENDED | DATA, high=3 << 8))
        wish = OFFLOAD.pack(nic.SUM_IP | nic.SUM_TCP, 14, 24, 33, 34, 50, 0, 0, 0, 0)
        assert effects[0] == HostOutput(wish)
    assert not any(isinstance(one, HostOutput) for one in send(model, sent(3, 60)))


def test_large_frame_is_sent_as_segments_and_counted_so() -> None:
    model = started()
    send(model, context(1, command=0b111, header=54, segment=1000))

    large = EXTENDED | DATA | CHECKSUM
    effects = send(model, sent(2, 54, large, high=3 << 8), sent(3, 2500, large | END, high=3 << 8))
    flags = nic.SUM_IP | nic.SUM_TCP | nic.SEGMENTS | nic.IS_TCP | nic.IS_IPV4
    assert HostOutput(OFFLOAD.pack(flags, 14, 24, 33, 34, 50, 0, 54, 1000, 0)) in effects
    assert ChainTransfer(3, 0, 54, 0, 2500, 0) in effects
    assert read(model, 0x4080) == 3  # GPTC
    assert read(model, 0x40F8) == 1  # TSCTC
    assert read(model, 0x4090) == 2500 + 3 * (54 + 4)  # GOTCL


@pytest.mark.parametrize("registers", [(nic.RCTL, nic.ENABLE | 3 << 6), (nic.MDIC, mdic(0, 1, 0x4140))])
def test_loopback_sends_nothing_and_the_frame_waits_to_be_received(registers: tuple[int, int]) -> None:
    model = started()
    write(model, registers)

    assert send(model, sent(1, 60))[:2] == [
        HostOutput(OFFLOAD.pack(nic.LOOPED, *[0] * 9)),
        ChainTransfer(1, 0, 0, 0, 60, 0),
    ]


def test_tag_is_put_in_where_the_last_descriptor_wants_it_and_tags_are_on() -> None:
    model = started()
    tagged = sent(1, 60, END | TAGGED, high=0x6123 << 16)
    assert not isinstance(send(model, tagged)[0], HostOutput)

    write(model, (nic.CTRL, TAGS), (nic.VET, 0x88A8))
    assert send(model, tagged)[0] == HostOutput(OFFLOAD.pack(*[0] * 9, 0x88A8_6123))
    assert not isinstance(send(model, sent(1, 60))[0], HostOutput)
    assert read(model, 0x4090) == 64 + 68 + 64  # GOTCL


# --- Receiving ------------------------------------------------------------------------------------------


def test_received_frame_is_in_a_buffer_and_interrupts() -> None:
    model = started()
    write(model, (nic.IMS, nic.RXT0))
    assert give(model, 2048, 2048) == [InputRoom(2)]

    accepted, effects = offer(model, (60, MAC), (1514, EVERYBODY))
    assert accepted == 2
    assert effects == [
        *(ChainTransfer(1, 0, 0, 0, 60, 1), ChainUsed(1, 60 | DONE_BITS)),
        *(ChainTransfer(2, 0, 1 << 16, 0, 1514, 1), ChainUsed(2, 1514 | DONE_BITS)),
        IrqLine(0, 1),
    ]
    assert read(model, RDBAL + HEAD) == 2


def test_checksum_counts_unless_it_is_stripped() -> None:
    model = started(BROADCAST)
    give(model, 2048)

    assert offer(model, (60, MAC))[1][-1] == ChainUsed(1, 64 | DONE_BITS)


def test_short_frame_has_zeros_behind_it() -> None:
    model = started()
    give(model, 2048)

    _, effects = offer(model, (42, MAC))
    assert effects == [
        *(ChainTransfer(1, 0, 0, 0, 42, 1), ChainWrite(1, 42, bytes(18))),
        ChainUsed(1, 60 | DONE_BITS),
    ]


def test_frame_goes_over_several_buffers() -> None:
    model = started()
    give(model, 256, 256, 256)

    _, effects = offer(model, (600, MAC))
    assert effects == [
        *(ChainTransfer(1, 0, 0, 0, 256, 1), ChainUsed(1, 256 | nic.DD)),
        *(ChainTransfer(2, 0, 256, 0, 256, 1), ChainUsed(2, 256 | nic.DD)),
        *(ChainTransfer(3, 0, 512, 0, 88, 1), ChainUsed(3, 88 | DONE_BITS)),
    ]


def test_frame_for_more_buffers_than_there_are_waits_for_them() -> None:
    model = started()
    write(model, (RDBAL + TAIL, 2))
    give(model, 256, 256)
    assert offer(model, (600, MAC)) == (0, [])
    assert read(model, nic.ICR) == nic.RXO

    write(model, (RDBAL + TAIL, 3))
    assert give(model, 256, first=3) == [InputRoom(3)]
    assert offer(model, (600, MAC))[0] == 1


def test_frame_that_all_buffers_cannot_hold_is_missed_and_the_next_one_comes() -> None:
    model = started(STRIP | LONG)
    write(model, (RDBAL + TAIL, ENTRIES - 1))
    give(model, *[256] * (ENTRIES - 1))
    accepted, effects = offer(model, (256 * (ENTRIES - 1) + 1, MAC), (100, MAC))
    assert accepted == 2
    assert read(model, 0x4010) == 1  # MPC
    assert read(model, 0x40A0) == 1  # RNBC
    assert [one.handle for one in effects if isinstance(one, ChainUsed)] == [1]


def test_frame_for_buffers_that_are_on_their_way_overruns_nothing() -> None:
    model = started()
    give(model, 256, 256)

    assert offer(model, (600, MAC)) == (0, [])
    assert read(model, nic.ICR) == read(model, 0x40A0) == 0  # RNBC
    assert give(model, 256, first=3) == [InputRoom(3)]


@pytest.mark.parametrize(
    ("control", "most"), [(STRIP, 1518), (STRIP | LONG, 16380), (LONG, 16380), (STRIP | LONG | TINY, 16380)]
)
def test_frame_is_received_as_long_as_rctl_allows_it(control: int, most: int) -> None:
    model = started(control)
    size = nic.buffer_size(control)
    total = most + (0 if control & STRIP else 4)
    needed = -(-total // size)
    write(model, (RDBAL + TAIL, needed - 1))
    for first in range(1, needed + 1, nic.BATCH):
        give(model, *[size] * min(nic.BATCH, needed + 1 - first), first=first)

    assert offer(model, (most + 1, OTHER), (most + 1, MAC)) == (2, [])
    assert read(model, 0x40AC) == read(model, 0x4040) == 1  # ROC, RLEC
    accepted, effects = offer(model, (most, MAC))
    assert accepted == 1
    moved = [one for one in effects if isinstance(one, ChainTransfer)]
    assert sum(one.size for one in moved) == most
    assert all(one.offset == before.offset + size for before, one in pairwise(moved))
    used = [one for one in effects if isinstance(one, ChainUsed)]
    assert used[-1] == ChainUsed(needed, total - size * (needed - 1) | DONE_BITS)
    assert used[:-1] == [ChainUsed(handle, size | nic.DD) for handle in range(1, needed)]


def test_frames_that_one_reply_has_no_room_for_are_wanted_again_without_a_buffer_too() -> None:
    model = started()
    give(model, *[2048] * 13)

    accepted, effects = offer(model, *[(60, MAC)] * 14)
    assert accepted == 13
    assert InputRoom(1) in effects


def test_buffer_that_is_no_memory_takes_its_part_and_says_so() -> None:
    model = started()
    give(model, 0, 2048)

    assert offer(model, (60, MAC))[1] == [ChainUsed(1, DONE_BITS)]


def test_nothing_is_accepted_before_it_is_enabled() -> None:
    model = E1000(mac=MAC)
    assert offer(model, (60, MAC)) == (0, [])


def test_tail_beyond_the_ring_asks_for_what_went_back() -> None:
    model = started()
    write(model, (RDBAL + TAIL, ENTRIES))
    give(model, 2048)

    assert offer(model, (60, MAC))[1][-1] == Walk(RECEIVED, nic.BATCH)


def test_tag_is_taken_out_if_tags_are_on() -> None:
    model = started()
    give(model, 2048, 2048, 256, 256)
    tag = bytes.fromhex("81006123")
    _, effects = offer(model, (100, MAC), behind=tag)
    assert effects == [ChainTransfer(1, 0, 0, 0, 100, 1), ChainUsed(1, 100 | DONE_BITS)]

    write(model, (nic.CTRL, TAGS))
    has_tag = DONE_BITS | 1 << 35 | 0x6123 << 48
    assert offer(model, (58, MAC), behind=tag)[1] == [
        ChainTransfer(2, 0, nic.UNTAGGED, 0, 54, 1),
        ChainWrite(2, 54, bytes(2)),
        ChainUsed(2, 56 | has_tag),
    ]
    assert offer(model, (304, MAC), behind=tag)[1] == [
        ChainTransfer(3, 0, nic.UNTAGGED, 0, 256, 1),
        ChainUsed(3, 256 | has_tag & ~(nic.EOP | nic.NO_CHECKSUM)),
        *(ChainTransfer(4, 0, nic.UNTAGGED | 256, 0, 44, 1), ChainUsed(4, 44 | has_tag)),
    ]


def test_tag_is_looked_up_if_that_filter_is_on() -> None:
    model = started(STRIP | 1 << 18)
    give(model, 2048, 2048)
    tag = bytes.fromhex("81006123")
    assert offer(model, (100, MAC), behind=tag)[1] == []

    write(model, (nic.VFTA + 4 * (0x123 >> 5), 1 << 3))
    assert offer(model, (100, MAC), behind=tag)[1]
    assert offer(model, (100, MAC), behind=bytes.fromhex("08004500"))[1]


def test_few_descriptors_are_told() -> None:
    model = started()
    write(model, (RDBAL + TAIL, ENTRIES // 2 + 2))
    give(model, 2048, 2048)

    offer(model, (60, MAC))
    assert read(model, nic.ICR) == nic.RXT0
    offer(model, (60, MAC))
    assert read(model, nic.ICR) == nic.RXT0 | nic.RXDMT0


@pytest.mark.parametrize(
    ("control", "address", "takes"),
    [
        (0, MAC, True),
        (0, OTHER, False),
        (1 << 3, OTHER, True),
        (1 << 3, GROUP, False),
        (0, EVERYBODY, False),
        (BROADCAST, EVERYBODY, True),
        (0, GROUP, False),
        (1 << 4, GROUP, True),
        (1 << 4, OTHER, False),
    ],
)
def test_filters_take_what_they_are_for(control: int, address: bytes, takes: bool) -> None:
    model = started(control | STRIP)
    give(model, 2048)

    accepted, effects = offer(model, (60, address))
    assert accepted == 1
    assert bool(effects) == takes


@pytest.mark.parametrize(("shift", "place"), [(0, 0xFB0), (1, 0xF60), (2, 0xEC0), (3, 0xB00)])
def test_group_is_taken_by_its_bit_in_the_table(shift: int, place: int) -> None:
    model = started(shift << 12)
    give(model, 2048)
    write(model, (nic.MTA + 4 * (place >> 5), 1 << (place & 31)))

    assert offer(model, (60, GROUP))[1]


def test_every_address_register_counts_if_it_is_valid() -> None:
    model = started()
    give(model, 2048)
    low, high = struct.unpack("<IH", OTHER)
    write(model, (nic.RAL + 120, low), (nic.RAH + 120, high))
    assert offer(model, (60, OTHER))[1] == []

    write(model, (nic.RAH + 120, high | 1 << 31))
    assert offer(model, (60, OTHER))[1]


def test_statistics_count_and_reading_clears_them() -> None:
    model = started()
    give(model, 2048, 2048)
    offer(model, (60, EVERYBODY), (1000, MAC))

    assert [read(model, one) for one in (0x4074, 0x40D0, 0x4078, 0x405C, 0x406C)] == [2, 2, 1, 1, 1]
    assert (read(model, 0x4088), read(model, 0x408C)) == (1068, 0)
    assert [read(model, one) for one in (0x4074, 0x4088)] == [0, 0]


def test_one_request_takes_as_many_frames_as_a_reply_has_room_for() -> None:
    model = started()
    give(model, *[2048] * 32)

    accepted, effects = offer(model, *[(60, MAC)] * 16)
    assert accepted == 13
    assert InputRoom(32 - 13) in effects
    assert offer(model, *[(60, MAC)] * 3)[0] == 3


def test_longest_frame_in_the_smallest_buffers_fits_behind_the_most_effects() -> None:
    model = started(STRIP | LONG | TINY)
    write(model, (nic.RDBAL + LEN, 16 * 256), (RDBAL + TAIL, 255))
    give(model, *[256] * nic.MOST_CHAINS)

    accepted, effects = offer(model, *[(256, MAC)] * 12, (13000, MAC))
    assert accepted == 13
    assert len(effects) <= 255
    assert len(encode_effects_of(0, effects)) <= MAX_PAYLOAD


def test_tail_beyond_the_ring_asks_also_where_a_request_ends_early() -> None:
    model = started()
    write(model, (RDBAL + TAIL, ENTRIES))
    give(model, *[1024] * (ENTRIES - 1))

    accepted, effects = offer(model, *[(1500, MAC)] * 16)
    assert accepted < 16
    assert InputRoom(ENTRIES - 1 - 2 * accepted) in effects
    assert Walk(RECEIVED, nic.BATCH) in effects


# --- Snapshots ------------------------------------------------------------------------------------------


def busy() -> E1000:
    model = started()
    write(model, (nic.ITR, 9), (nic.IMS, nic.LSC), (nic.ICS, nic.LSC), (nic.ICR, nic.LSC), (nic.ICS, nic.LSC))
    give(model, 2048, 256)
    send(model, context(1), sent(2, 20, EXTENDED | DATA))
    write(model, (nic.IMS, nic.TXQE), (nic.EECD, 3), (nic.MDIC, mdic(2, 2)))
    return model


def test_snapshot_goes_on_in_the_middle_of_a_frame() -> None:
    model, other = busy(), E1000(mac=OTHER)

    other.restore(model.snapshot())
    assert other.snapshot() == model.snapshot()
    end = sent(3, 60, END | EXTENDED | DATA)
    assert send(other, end) == send(model, end)
    assert offer(other, (60, MAC)) == offer(model, (60, MAC))
    assert other.next_deadline() == model.next_deadline() == 9 * 256


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state[:-1],
        lambda state: state + bytes(4),
        lambda state: state[:-8] + state[-16:-8],
        lambda state: b"E1K\x01" + state[4:],
        lambda state: state[:-20] + b"\xff" * 4 + state[-16:],
        lambda state: state + bytes(range(256)) * 3,
    ],
)
def test_snapshot_that_cannot_be_is_refused(change: Callable[[bytes], bytes]) -> None:
    model = busy()
    before = model.snapshot()

    with pytest.raises(SnapshotError):
        model.restore(change(before))
    assert model.snapshot() == before
