"""The VMM's side of the rings of an 82540EM: what is walked, and what a device may do with it."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from kvmbox.base.errors import ProtocolError
from kvmbox.contract.bulk_data import ChainServe, ChainTransfer, ChainUsed, ChainWrite, Queue, Walk
from kvmbox.contract.model import DONE, Effect
from kvmbox.devices.e1000 import model as nic
from kvmbox.devices.e1000.model import HEAD, LEN, RDBAL, RECEIVED, SENT, TAIL, TDBAL
from kvmbox.devices.e1000.ring_watch import NOTED, RingWatch
from kvmbox.devices.e1000.vmm import DescriptorQueues
from kvmbox.parts.net.gathering import GatheringPort
from kvmbox.remote.published.queue_packets import CONNECTION
from kvmbox.wire import protocol
from kvmbox.wire.chains import decode_chains
from tests.support.e1000_rig import BASES, BUFFERS, END, ENTRIES, REPORT, STEP, E1000Rig, NotingWire
from tests.support.halves import Half

FRAME = bytes(range(60))


class Wired(E1000Rig):
    """With a port, and what was sent."""

    def __init__(self, half: Half | None = None) -> None:
        self.port = GatheringPort("net0")
        self.port.wire = wire = NotingWire()
        self.sent = wire.sent
        super().__init__(self.port, half=half)

    def receive(self, *frames: bytes) -> None:
        self.port.has_room = True
        self.port.incoming.extend(frames)
        self.port.feed(self.channel, 0)


@pytest.fixture
def rig(half: Half) -> Wired:
    made = Wired(half)
    made.run()
    return made


def test_frames_are_sent_when_the_guest_moves_the_tail(rig: Wired) -> None:
    rig.send(FRAME)
    rig.send(FRAME[:14], FRAME[14:40], FRAME[40:])

    assert rig.sent == [FRAME, FRAME]
    assert rig.read(TDBAL + HEAD) == 4
    assert rig.descriptor(SENT, 3) == (BUFFERS[SENT] + 3 * STEP, 20 | END | REPORT, 1)
    assert rig.requests.count(protocol.CHAINS) == 2


def test_ring_goes_round(rig: Wired) -> None:
    for number in range(3 * ENTRIES):
        rig.send(bytes((number,)) * 60)

    assert rig.sent == [bytes((number,)) * 60 for number in range(3 * ENTRIES)]


def test_many_descriptors_are_walked_in_one_access(rig: Wired) -> None:
    for number in range(ENTRIES - 1):
        rig.describe(SENT, number, BUFFERS[SENT], 60 | END)
    rig.move(SENT, ENTRIES - 1)

    assert len(rig.sent) == ENTRIES - 1


def test_tail_that_was_there_before_counts_when_the_ring_is_enabled() -> None:
    rig = Wired()
    rig.set_up(SENT)
    rig.send(FRAME)
    assert rig.sent == []

    rig.enable(SENT, 0)
    assert rig.sent == [FRAME]


def test_descriptors_without_report_are_not_written(rig: Wired) -> None:
    before = len(rig.memory.stored)
    rig.send(FRAME, flags=0)

    assert rig.sent == [FRAME]
    assert [
        one for one in rig.memory.stored[before:] if one[0] in range(BASES[SENT], BASES[SENT] + 256)
    ] == []


def test_received_frames_are_in_their_buffers_and_the_status_comes_last(rig: Wired) -> None:
    rig.give(4)
    rig.memory.stored.clear()
    rig.receive(FRAME, FRAME * 20)

    assert rig.received([0, 1]) == [FRAME, FRAME * 20]
    assert [rig.descriptor(RECEIVED, number)[2] & 0xFF for number in range(3)] == [7, 7, 0]
    first = [one for one in rig.memory.stored if one[0] < BUFFERS[RECEIVED]][:3]
    assert first == [(BASES[RECEIVED] + 8, 4), (BASES[RECEIVED] + 13, 3), (BASES[RECEIVED] + 12, 1)]
    assert rig.read(RDBAL + HEAD) == 2
    assert rig.pin.level == 0


def test_interrupt_is_the_pin_of_the_function(rig: Wired) -> None:
    rig.write(nic.IMS, nic.RXT0)
    rig.give(1)
    rig.receive(FRAME)

    assert rig.pin.level == 1
    assert rig.read(nic.ICR) & nic.RXT0
    assert rig.pin.level == 0


def test_head_goes_on_where_it_was_when_a_ring_is_enabled_again(rig: Wired) -> None:
    rig.send(FRAME)
    rig.give(4)
    rig.receive(FRAME)
    for index in (RECEIVED, SENT):
        rig.write(nic.CONTROLS[index], 0)
    rig.send(FRAME)
    assert len(rig.sent) == 1

    for index in (RECEIVED, SENT):
        rig.enable(index)
    rig.receive(FRAME[::-1])
    assert len(rig.sent) == 2
    assert [rig.read(ring + HEAD) for ring in (RDBAL, TDBAL)] == [2, 2]
    assert rig.received([1]) == [FRAME[::-1]]


def test_ring_that_is_moved_begins_at_its_new_place(rig: Wired) -> None:
    rig.send(FRAME)
    rig.memory.poke(0x3000 + 16, "QII", BUFFERS[SENT], 60 | END, 0)
    rig.write(TDBAL, 0x3000)
    rig.write(TDBAL + TAIL, 2)

    assert rig.sent == [FRAME, FRAME]


@pytest.mark.parametrize("writes", [[(TDBAL, 0xFFFF_0000)], [(TDBAL + HEAD, ENTRIES)], [(TDBAL + 4, 1)]])
def test_ring_that_is_none_sends_nothing_and_another_one_does(
    rig: Wired, writes: list[tuple[int, int]]
) -> None:
    for register, value in writes:
        rig.write(register, value)
    rig.send(FRAME)
    assert rig.sent == []

    rig.write(nic.TCTL, 0)
    rig.write(TDBAL + 4, 0)
    rig.set_up(SENT)
    rig.enable(SENT, 0)
    rig.send(FRAME)
    assert rig.sent == [FRAME]


def test_tail_beyond_the_ring_receives_to_every_descriptor_again_and_again(rig: Wired) -> None:
    for number in range(ENTRIES):
        rig.describe(RECEIVED, number, BUFFERS[RECEIVED] + STEP * number)
    rig.write(RDBAL + TAIL, ENTRIES)

    for number in range(3 * ENTRIES):
        frame = bytes((number,)) * 60
        rig.receive(frame)
        assert rig.received([number % ENTRIES]) == [frame]


def test_frame_is_received_without_its_tag(rig: Wired) -> None:
    rig.write(nic.CTRL, 1 << 30)
    rig.write(nic.RCTL, nic.ENABLE | 3 << 3 | 1 << 26 | 3 << 16)  # buffers of 256 bytes
    rig.give(4)
    rig.receive(bytes(12) + b"\x81\x00\x61\x23" + bytes(range(256)) + bytes(range(60)))

    assert b"".join(rig.received([0, 1])) == bytes(12) + bytes(range(256)) + bytes(range(60))
    assert [rig.descriptor(RECEIVED, number)[2] >> 16 for number in (0, 1)] == [0x6123, 0x6123]


def test_tail_beyond_the_ring_sends_nothing(rig: Wired) -> None:
    rig.write(TDBAL + TAIL, ENTRIES + 3)
    assert rig.sent == []
    assert rig.read(TDBAL + HEAD) == 0  # also descriptors of no bytes would move it
    assert protocol.CHAINS not in rig.requests

    rig.send(FRAME)
    assert rig.sent == [FRAME]


@pytest.mark.parametrize("address", [0, 0xFFFF_0000, 1 << 63])
def test_buffer_that_is_no_memory_is_not_reached(rig: Wired, address: int) -> None:
    rig.describe(SENT, 0, address, 60 | END | REPORT)
    rig.move(SENT, 1)
    rig.describe(RECEIVED, 0, address)
    rig.move(RECEIVED, 1)
    rig.receive(FRAME)

    assert rig.sent == []
    assert rig.descriptor(SENT, 0)[2] & 1
    assert rig.descriptor(RECEIVED, 0) == (address, 0, 7)


def test_reset_by_the_guest_takes_the_rings_back(rig: Wired) -> None:
    rig.give(4)
    rig.write(nic.CTRL, nic.RESET)
    rig.send(FRAME)

    assert rig.sent == []
    assert rig.queues.interrupts.status == 0
    rig.run()
    rig.send(FRAME)
    assert rig.sent == [FRAME]


def test_ports_publish_as_memory_does(rig: Wired) -> None:
    rig.memory.poke(0x3000, "QII", BUFFERS[SENT], 60 | END, 0)
    for register, value in ((nic.TCTL, 0), (TDBAL, 0x3000), (nic.TCTL, nic.ENABLE), (TDBAL + TAIL, 1)):
        rig.write(nic.IOADDR, register)
        rig.write(nic.IODATA, value)

    assert len(rig.sent) == 1


def test_access_of_8_bytes_is_two(rig: Wired) -> None:
    rig.memory.poke(0x3000, "QII", BUFFERS[SENT], 60 | END, 0)
    rig.write(TDBAL, 0x3000, size=8)
    rig.write(TDBAL + TAIL, 1)

    assert len(rig.sent) == 1
    assert rig.read(TDBAL, size=8) == 0x3000


def test_reset_of_the_machine_forgets_all(rig: Wired) -> None:
    rig.give(4)
    rig.reset()
    assert [rig.read(register) for register in (TDBAL, RDBAL + TAIL, nic.RCTL)] == [0, 0, 0]

    rig.run()
    rig.send(FRAME)
    assert rig.sent == [FRAME]


def test_another_machine_goes_on_with_both_states(rig: Wired) -> None:
    rig.give(4)
    rig.send(FRAME)
    rig.receive(FRAME)
    other = Wired()
    other.memory.data[:] = rig.memory.data
    model = rig.channel.request(protocol.SNAPSHOT, limit=1 << 20)[1]
    other.channel.request(protocol.RESTORE, value=len(model), payload=model, limit=1)
    other.channel.serve(lambda: other.queues.restore(0, rig.queues.state()), 10)

    other.tails = rig.tails
    other.send(FRAME)
    other.receive(FRAME[::-1])
    assert other.sent == [FRAME]
    assert other.received([1]) == [FRAME[::-1]]
    with pytest.raises(ValueError, match="no state"):
        other.queues.restore(0, rig.queues.state()[:-1])


def test_state_of_a_ring_that_goes_on_behind_its_end_or_is_connected_is_refused(rig: Wired) -> None:
    rig.give(4)
    state = rig.queues.state()
    ring = struct.pack("<BIBQ", 1, ENTRIES, 0, BASES[RECEIVED])
    at = state.index(ring) + len(ring) + 16  # the numbers of the descriptors where it goes on
    damaged = [
        state[:at] + struct.pack("<H", ENTRIES) + state[at + 2 :],
        state[: at + 2] + b"\xff\xff" + state[at + 4 :],
        state[: -2 * CONNECTION.size] + CONNECTION.pack(16, 1, 0, 12, 10) + state[-CONNECTION.size :],
    ]
    media = rig.channel.media(0)
    assert media is not None
    for one in damaged:
        with pytest.raises(ValueError, match="no state"):
            Wired().queues.restore(0, one, media.by_number.get)


# --- What a process that is taken over asks for ---------------------------------------------------------


class Taken:
    """Rings that the guest has published, of 8 entries, and their device, which is not honest."""

    def __init__(self) -> None:
        self.rig = Wired()
        self.queues = self.rig.queues
        assert isinstance(self.queues, DescriptorQueues)
        for index in (RECEIVED, SENT):
            ring = nic.RINGS[index]
            for register, value in ((ring, BASES[index]), (ring + LEN, 128), (ring + TAIL, 1)):
                self.queues.note(register, value)
            self.queues.note(nic.CONTROLS[index], nic.ENABLE)
            low = 0 if index == RECEIVED else 60 | END
            self.rig.describe(index, 0, BUFFERS[index], low)

    def handles(self) -> list[int]:
        """Those of the first descriptor of each ring."""
        found = []
        for index in (RECEIVED, SENT):
            assert self.do(Queue(index, 1, 0, 0, 0, 0)) is None
            (ask,) = self.do(Walk(index, 16))
            request = ask(True)
            assert (request.kind, request.value) == (protocol.CHAINS, DONE)
            found += [chain.handle for chain in decode_chains(request.payload)]
        return found

    def do(self, effect: Effect) -> Any:
        media = self.rig.grants.media
        assert media is not None
        found = self.queues.check(0, effect, media.by_number.get)
        if found is None:
            raise ProtocolError("e1000", "not granted")
        return found[0](*found[1])


def test_chains_have_what_descriptors_say_and_no_address() -> None:
    taken = Taken()
    taken.rig.describe(SENT, 0, 0x1234_5678_9ABC_DEF0, 1 << 29, 0x77)
    taken.queues.note(nic.CONTROLS[SENT], 0)
    taken.queues.note(nic.CONTROLS[SENT], nic.ENABLE)
    taken.do(Queue(SENT, 1, 0, 0, 0, 0))
    (ask,) = taken.do(Walk(SENT, 16))
    (context,) = decode_chains(ask(True).payload)
    assert context.head == taken.rig.memory.read(BASES[SENT], 16)

    taken = Taken()
    taken.do(Queue(SENT, 1, 0, 0, 0, 0))
    (ask,) = taken.do(Walk(SENT, 16))
    (chain,) = decode_chains(ask(True).payload)
    assert (chain.readable, chain.writable) == (60, 0)
    assert chain.head == taken.rig.memory.read(BASES[SENT] + 8, 8)


def test_process_cannot_have_a_ring_that_the_guest_has_not_enabled() -> None:
    taken = Taken()
    taken.queues.note(nic.TCTL, 0)
    taken.do(Queue(SENT, 8, 0, BASES[SENT], 0, 0))

    (ask,) = taken.do(Walk(SENT, 16))
    assert ask(True).value != DONE


@pytest.mark.parametrize(
    "effect",
    [
        lambda received, _sent: ChainUsed(received, 2049 | nic.DD),
        lambda received, _sent: ChainWrite(received, 2048, b"x"),
        lambda _received, sent: ChainWrite(sent, 0, b"x"),
        lambda received, _sent: ChainTransfer(received, 0, 0, 1, 2048, 1),
        lambda _received, sent: ChainTransfer(sent, 0, 0, 0, 61, 0),
        lambda _received, sent: ChainTransfer(sent, 1, 0, 0, 60, 0),
        lambda received, _sent: ChainServe(received, 0, 0, 0, 60, 1, 100, 0, 1),
        lambda received, sent: ChainUsed(received + sent + 1, 0),
    ],
)
def test_effect_beyond_what_is_published_is_not_granted(effect: object) -> None:
    taken = Taken()
    assert callable(effect)

    with pytest.raises(ProtocolError):
        taken.do(effect(*taken.handles()))


def test_buffer_that_the_guest_has_taken_back_is_out_of_reach() -> None:
    taken = Taken()
    received, sent = taken.handles()
    for index in (RECEIVED, SENT):
        taken.queues.note(nic.CONTROLS[index], 0)
    before = bytes(taken.rig.memory.data)

    taken.do(ChainWrite(received, 0, b"too late"))
    taken.do(ChainUsed(received, 60 | nic.DD))
    taken.do(ChainTransfer(sent, 0, 0, 0, 60, 0))
    taken.do(ChainUsed(sent, 60 | nic.DD))
    assert bytes(taken.rig.memory.data) == before
    assert taken.rig.sent == []


def test_only_the_status_of_a_sent_descriptor_is_written() -> None:
    taken = Taken()
    _, sent = taken.handles()

    taken.do(ChainUsed(sent, 0xFFFF_FFFF_FFFF_FFFF))
    assert taken.rig.descriptor(SENT, 0) == (BUFFERS[SENT], 60 | END, 0xFF)


def test_notes_know_the_registers_of_the_model() -> None:
    notes = RingWatch()
    for ring in nic.RINGS:
        assert {ring, ring + 4, ring + LEN, ring + HEAD, ring + TAIL} <= NOTED
    notes.write(nic.RCTL, 3 << 16 | 1 << 25)
    assert notes.buffer_size == 4096
    notes.write(nic.RCTL, 0)
    assert notes.buffer_size == 2048
