"""The walker of virtqueues and what moves their bytes, in both halves: the same chains, the same requests,
the same bytes of memory and disk, and the same refusals.
"""

from __future__ import annotations

import itertools
import random
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmbox.base.errors import DeviceProcessError
from kvmbox.contract.bulk_data import Chain, ChainRead, ChainServe, ChainTransfer, ChainUsed, ChainWrite, Walk
from kvmbox.contract.device_spec import Medium, Queues
from kvmbox.contract.model import Effect
from kvmbox.devices.virtio import board as virtio_board
from kvmbox.devices.virtio import mmio
from kvmbox.devices.virtio.blk import VirtioBlk
from kvmbox.devices.virtio.net import F_MRG_RXBUF, SENT
from kvmbox.devices.virtio.vmm import Virtqueue
from kvmbox.host.disk.stores import DiskRequest, DiskStore, open_disk
from kvmbox.jail.server import DeviceServer
from kvmbox.remote.published.walker import RingError
from kvmbox.remote.transport.direct import DirectLink
from tests.support import virtio_driver
from tests.support.halves import Half, built_halves, compiled_half
from tests.support.virtio_driver import DESCRIPTOR, NEXT, WRITE, Driver, FlatMemory, RealMemory
from tests.support.virtio_rig import VirtioRig

pytestmark = pytest.mark.skipif(len(built_halves()) < 2, reason="the hot path is not compiled")

BYTES: Final = 1 << 16
SECTORS: Final = 64
CONTENT: Final = bytes((place * 7 + place // 256) & 0xFF for place in range(SECTORS * 512))
TABLES: Final = (0x7000, 0x7801)
PLACES: Final = (0x8000, 0x9003, 0xA000, 0xBFFF, 0xFFF0, 0xFFFF, 0x1_0000, 1 << 32, (1 << 64) - 8)
FLAGS: Final = (0, *(WRITE,) * 3, *(NEXT,) * 5, *(NEXT | WRITE,) * 3, *(virtio_driver.INDIRECT,) * 4)
LENGTHS: Final = (0, 1, *(16, 32, 48) * 3, 512, 4096, 0xFFFF_FFFF)


def lay_out(dice: random.Random, driver: Driver) -> None:
    """A queue and tables whose every byte is made up, mostly so that they look like such."""
    for place in (driver.descriptors, *TABLES):
        for number in range(driver.size if place == driver.descriptors else 8):
            address = dice.choice(TABLES) if dice.random() < 0.3 else dice.choice(PLACES[:4])
            if dice.random() < 0.05:
                address = dice.choice(PLACES)
            fields = dice.choice(LENGTHS), dice.choice(FLAGS), dice.randrange(driver.size + 1)
            driver.memory.poke(place + DESCRIPTOR * number, "QIHH", address, *fields)
    driver.offer(*(dice.randrange(driver.size + (dice.random() < 0.1)) for _ in range(dice.randrange(5))))
    driver.set_flags(dice.randrange(2))
    driver.want_interrupt_at(driver.index - dice.randrange(3))
    if dice.random() < 0.05:
        driver.set_index(dice.randrange(1 << 16))


@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=400)
def test_walks_find_the_same_and_leave_the_same(seed: int) -> None:
    dice = random.Random(seed)
    size, index = dice.choice((1, 2, 4, 8, 16)), dice.choice((0, 0, 5, 0xFFFE, 0xFFFF))
    flags, limits = dice.randrange(4), [dice.randrange(6) for _ in range(3)]
    found: list[Any] = []
    for half in built_halves():
        memory = RealMemory(BYTES)
        driver = Driver(cast(FlatMemory, memory), size, index=index)
        lay_out(random.Random(seed), driver)
        ring = half.queues(Queues(1), memory, lambda _settle: False).new_ring(0, size, flags, *driver.areas)
        ring.next_available = ring.next_used = index
        told: list[Any] = []
        for limit in limits:
            try:
                told.append(ring.take(limit))
            except RingError:
                told.append(None)
                break
        found.append((told, ring.next_available, memory.data))
        memory.close()
    assert found[0] == found[1]


class Look:
    """What the process of a disk sees, and what it answers where it is taken over."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, dice: random.Random | None) -> None:
        self.seen: list[Any] = []
        self.dice = dice
        self.handles = [1]
        self.honest = VirtioBlk.chains
        self.take = VirtioBlk.take_effects
        self.sees = False
        look = self

        def chains(model: VirtioBlk, now: int, index: int, brought: list[Chain], status: int) -> None:
            look.seen += [(index, status, [(c.handle, c.readable, c.writable, c.head) for c in brought])]
            look.handles += [chain.handle for chain in brought]
            look.sees = True
            look.honest(model, now, index, brought, status)

        def take_effects(model: VirtioBlk) -> list[Effect]:
            honest, sees, look.sees = look.take(model), look.sees, False
            return look.forge(honest) if sees else honest

        monkeypatch.setattr(VirtioBlk, "chains", chains)
        monkeypatch.setattr(VirtioBlk, "take_effects", take_effects)

    def forge(self, honest: list[Effect]) -> list[Effect]:
        dice = self.dice
        if dice is None or dice.random() < 0.3:
            return honest
        made = [self._serve() if dice.random() < 0.4 else effect for effect in honest]
        for _ in range(dice.choice((0, 0, 1, 2))):
            handle, skip = dice.choice(self.handles[-3:]), dice.choice((0, 0, 1, 16, 513, (1 << 64) - 1))
            size = dice.choice((0, 1, 16, 512, 513, (1 << 20) + 1))
            made.insert(
                dice.randrange(len(made) + 1),
                dice.choice(
                    (
                        self._serve(),
                        ChainTransfer(handle, 0, 512, skip, size, 1),
                        ChainWrite(handle, 0, b"forged"),
                        ChainRead(handle, 0, 8),
                        ChainUsed(handle, dice.choice((0, 512))),
                        Walk(0, dice.choice((0, 1, 40))),
                    )
                ),
            )
        return made

    def _serve(self) -> Effect:
        """One that is good but for one thing, at most."""
        dice = self.dice
        assert dice is not None
        good = (dice.choice(self.handles[-3:]), 0, 512, 0, 512, 1, 512, 0, 1)
        other = (0, 1, len(CONTENT), 1, dice.choice((513, 16)), 0, dice.choice((513, 0)), 256, 256)
        place = dice.randrange(12)
        return ChainServe(*good[:place], *other[place : place + 1], *good[place + 1 :])


@pytest.fixture(name="image", scope="module")
def _image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nobody writes to it."""
    path = tmp_path_factory.mktemp("disk") / "disk.img"
    path.write_bytes(CONTENT)
    return path


def request(dice: random.Random, rig: VirtioRig, number: int) -> None:
    """Offer a request, of one piece or several, of a kind that there is or not."""
    driver = rig.drivers[0]
    kind = dice.choice((0, 0, 0, 0, 1, 4, 8, 9))
    header, data, status = 0x4000 + 32 * number, 0x8000 + 0x900 * number, 0x3000 + number
    rig.memory.poke(header, "IIQ", kind, 0, dice.choice((0, 1, 5, SECTORS - 2, SECTORS)))
    size = dice.choice((512, 512, 1024, 2048, 20, 0))
    cut = dice.randrange(size + 1)
    flags = 0 if kind == 1 else WRITE
    parts = [(header, 16, 0), (data, cut, flags), (data + cut, size - cut, flags), (status, 1, WRITE)]
    if dice.random() < 0.1:
        parts.pop()
    rig.memory.poke(status, "B", 0xEE)
    if dice.random() < 0.3:
        table = 0x5000 + 64 * number
        driver.chain(*parts, table=table)
        driver.describe(4 * number, table, DESCRIPTOR * len(parts), virtio_driver.INDIRECT)
    else:
        driver.chain(*parts, first=4 * number)
    driver.offer(4 * number)


def played(half: Half, seed: int, image: Path, look: Look) -> list[Any]:
    """What a guest sees of a disk, what its process sees, and what the disk is then."""
    dice = random.Random(seed)
    store: DiskStore = open_disk(DiskRequest(str(image)), overlay_bytes=1 << 20)
    memory = RealMemory(BYTES)
    spec = virtio_board.virtio_blk(0, Medium("disk", len(CONTENT), writable=True))
    rig = VirtioRig(spec, store, half=half, memory=memory)
    features = mmio.F_VERSION_1 | mmio.F_INDIRECT_DESC | mmio.F_EVENT_IDX * dice.randrange(2)
    driver = rig.start(size=32, features=features)
    trace: list[Any] = []
    for _ in range(dice.randrange(1, 6)):
        for number in range(dice.randrange(1, 8)):
            request(dice, rig, number)
        driver.want_interrupt_at(driver.index - dice.randrange(2)) if features & mmio.F_EVENT_IDX else None
        driver.set_flags(dice.randrange(2))
        if dice.random() < 0.02:
            driver.set_index(driver.index + 100)
        try:
            rig.notify()
        except DeviceProcessError as error:
            trace.append(str(error))
            break
        trace += [driver.take_used(), rig.lines(), rig.read(mmio.INTERRUPT_STATUS)]
        if dice.random() < 0.5:
            rig.write(mmio.INTERRUPT_ACK, 3)
        trace += [rig.lines(), rig.queues.state()]
    trace += [memory.data, store.overlay(), look.seen, store.summary()]
    medium: Any = rig.grants.media
    trace += [medium.by_number[0].reads, medium.by_number[0].writes, len(rig.host.errands)]
    store.close()
    memory.close()
    return trace


@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=100)
@pytest.mark.parametrize("is_hostile", [False, True])
def test_disks_behave_alike(image: Path, is_hostile: bool, seed: int) -> None:
    found = []
    for half in built_halves():
        with pytest.MonkeyPatch.context() as monkeypatch:
            look = Look(monkeypatch, random.Random(seed + 1) if is_hostile else None)
            found.append(played(half, seed, image, look))
    assert found[0] == found[1]


class Wire:
    """Keeps what is sent. The rest is the test's."""

    writes_now = True

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.told = 0

    def write(self, _offset: int, data: bytes) -> None:
        self.sent.append(data)

    def has_buffers(self) -> None:
        self.told += 1


def exchanged(half: Half, seed: int) -> list[Any]:
    """What a guest with a network, and its wire, see of frames in both directions."""
    dice = random.Random(seed)
    wire, memory = Wire(), RealMemory(BYTES)
    rig = VirtioRig(virtio_board.virtio_net(0, bytes(6)), wire, half=half, memory=memory)
    extra = dice.choice((0, F_MRG_RXBUF)) | dice.choice((0, mmio.F_EVENT_IDX))
    rig.start(size=16, features=mmio.F_VERSION_1 | mmio.F_INDIRECT_DESC | extra, queues=2)
    trace: list[Any] = []
    for _ in range(dice.randrange(1, 12)):
        driver, number = dice.choice(rig.drivers), dice.randrange(3)
        if dice.random() < 0.8:
            flags = 0 if driver is rig.drivers[SENT] else WRITE
            sizes = [dice.choice((0, 1, 12, 30, 700, 1600)) for _ in range(dice.randrange(1, 4))]
            parts = [
                (dice.choice((0x8000, 0x9003, 0xA000)), size, dice.choice((flags,) * 30 + (2,)))
                for size in sizes
            ]
            if dice.random() < 0.3:
                table = 0x5000 + 64 * number
                driver.chain(*parts, table=table)
                driver.describe(5 * number, table, DESCRIPTOR * len(parts), virtio_driver.INDIRECT)
            else:
                driver.chain(*parts, first=5 * number)
            driver.offer(*[5 * number] * dice.randrange(1, 4))
        driver.want_interrupt_at(driver.index - dice.randrange(4)) if extra & mmio.F_EVENT_IDX else None
        driver.set_flags(dice.randrange(2))
        packet = bytes((dice.randrange(256),)) * dice.choice((14, 60, 700, 1514))
        if dice.random() < 0.4:
            rig.notify(rig.drivers.index(driver))
        else:
            rig.channel.serve(partial(put, rig, wire, packet, trace), 10)
        trace += [driver.take_used(), rig.lines(), rig.read(mmio.INTERRUPT_STATUS), rig.read(mmio.STATUS)]
        trace += [rig.queues.state(), wire.sent[-1:], wire.told, memory.data, len(rig.host.errands)]
    memory.close()
    return trace


def put(rig: VirtioRig, wire: Wire, packet: bytes, trace: list[Any]) -> list[Any]:
    trace.append(rig.queues.put(wire, packet))
    return [rig.queues.next_request]


@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=300)
def test_networks_behave_alike(seed: int) -> None:
    pure, compiled = [exchanged(half, seed) for half in built_halves()]

    assert pure == compiled


def test_compiled_half_serves_a_read_without_python(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the others test nothing."""
    half = compiled_half()

    def fail(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(DiskStore, "read_now", fail)
    monkeypatch.setattr(Virtqueue, "give_back", fail)
    store = open_disk(DiskRequest(str(image)), overlay_bytes=1 << 20)
    memory = RealMemory(BYTES)
    rig = VirtioRig(virtio_board.virtio_blk(0, Medium("disk", len(CONTENT))), store, half=half, memory=memory)
    driver = rig.start(size=8)
    memory.poke(0x8000, "IIQ", 0, 0, 3)
    driver.chain((0x8000, 16, 0), (0x9001, 100, WRITE), (0xA000, 412, WRITE), (0xB000, 1, WRITE))
    driver.offer(0)
    rig.notify()

    assert driver.take_used() == [(0, 513)]
    assert memory.read(0x9001, 100) + memory.read(0xA000, 412) == CONTENT[3 * 512 : 4 * 512]
    assert rig.lines() == [1]
    store.close()
    memory.close()


class Serving(VirtioBlk):
    """It has any part of a chain filled."""

    asked: tuple[int, int, int] = (0, 0, 0)

    def chains(self, now: int, index: int, brought: list[Chain], status: int) -> None:
        super().chains(now, index, [], status)
        skip, size, place = self.asked
        self._effects += [ChainServe(one.handle, 0, 0, skip, size, 1, place, 0xAA, 0) for one in brought]


@pytest.mark.parametrize("number", [0, 1])
def test_any_part_of_a_chain_is_filled_and_nothing_else(image: Path, number: int) -> None:
    """All small ones: three pieces, and one more for the status."""
    store = open_disk(DiskRequest(str(image)), overlay_bytes=1 << 20)
    memory = RealMemory(BYTES)
    models: list[Serving] = []

    def build(_name: str, parameters: dict[str, Any]) -> Serving:
        models.append(Serving(**parameters))
        return models[0]

    server = partial(DeviceServer, build=build)
    spec = virtio_board.virtio_blk(0, Medium("disk", len(CONTENT)))
    rig = VirtioRig(spec, store, half=built_halves()[number], memory=memory, link=DirectLink(server))
    driver = rig.start(size=4)
    for sizes in itertools.product(range(1, 4), repeat=3):
        places = [0x8000, 0x9001, 0xA002]
        whole = [at + step for at, size in zip(places, sizes, strict=True) for step in range(size)]
        parts = [(at, size, WRITE) for at, size in zip(places, sizes, strict=True)]
        for skip, size in itertools.combinations_with_replacement(range(len(whole) + 1), 2):
            models[0].asked = skip, size - skip, len(whole)
            memory.write(0x8000, bytes(0x4000))
            driver.chain(*parts, (0xB000, 1, WRITE))
            driver.offer(0)
            rig.notify()
            expected = bytearray(0x4000)
            expected[0x3000] = 0xAA
            for at, byte in zip(whole[skip:size], CONTENT, strict=False):
                expected[at - 0x8000] = byte
            assert memory.read(0x8000, 0x4000) == expected, (sizes, skip, size)
    store.close()
    memory.close()


@pytest.mark.parametrize("number", [0, 1])
def test_part_beyond_a_chain_ends_the_process_and_moves_nothing(image: Path, number: int) -> None:
    """Each part that ends behind the last byte, wherever it begins: of three bytes and the status."""
    models: list[Serving] = []

    def build(_name: str, parameters: dict[str, Any]) -> Serving:
        models.append(Serving(**parameters))
        return models[-1]

    beyond = [(skip, size) for skip in range(7) for size in range(1, 7) if skip + size > 4]
    for skip, size in [*beyond, ((1 << 64) - 1, 2), (1, 1 << 20)]:
        store = open_disk(DiskRequest(str(image)), overlay_bytes=1 << 20)
        memory = RealMemory(BYTES)
        server = partial(DeviceServer, build=build)
        spec = virtio_board.virtio_blk(0, Medium("disk", len(CONTENT)))
        rig = VirtioRig(spec, store, half=built_halves()[number], memory=memory, link=DirectLink(server))
        driver = rig.start(size=4)
        driver.chain((0x8000, 3, WRITE), (0xB000, 1, WRITE))
        driver.offer(0)
        models[-1].asked = skip, size, 3
        with pytest.raises(DeviceProcessError):
            rig.notify()
        assert memory.read(0x8000, 0x4000) == bytes(0x4000), (skip, size)
        store.close()
        memory.close()
