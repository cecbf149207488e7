"""A guest that accesses the registers of a device with queues as it likes: some the VMM answers for.

Whatever it reads fits, and what several reads of one register give is what as many single ones may give. None
raises but where the device process is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from kvmbox.base.errors import DeviceProcessError
from kvmbox.contract.device_spec import Medium
from kvmbox.devices.e1000.board import DescriptorRings
from kvmbox.devices.virtio import mmio
from kvmbox.devices.virtio.board import virtio_blk
from kvmbox.devices.virtio.register_watch import INTERRUPT_STATUS, NOTED, SERVED
from kvmbox.devices.virtio.vmm import VirtioRegisters
from kvmbox.host.disk.transfers import BytesStore
from kvmbox.remote.published.queue_interrupts import CONFIG_CHANGE, USED_BUFFER
from kvmbox.remote.published.queue_kinds import queues_of, registers_of
from kvmbox.remote.published.registers import Registers
from kvmbox.wire import protocol
from kvmbox.wire.protocol import request_word
from tests.support.dice import Dice
from tests.support.halves import Half
from tests.support.virtio_rig import VirtioRig

SIZE: Final = 1 << 16
DISK: Final = virtio_blk(0, Medium("disk", SIZE, writable=True))
PLACES: Final = tuple(sorted(set().union(*NOTED.values(), *SERVED.values())))
RINGS: Final = DescriptorRings(2, 256, 80, 64)


def _accesses(dice: Dice, rig: VirtioRig) -> dict[int, Registers]:
    """By size: in Python, as a run has them, or those of another kind of queues."""
    way = dice.byte()
    if way < 200:
        return {size: VirtioRegisters(rig.channel, 0, rig.queues, size) for size in NOTED}
    if way < 230:
        return dict(registers_of(rig.channel, 0, rig.queues))
    return dict(registers_of(rig.channel, 0, queues_of(RINGS, rig.host.ram, lambda _settle: True)))


def use_registers(dice: Dice) -> None:
    """See the module."""
    rig = VirtioRig(DISK, BytesStore(bytes(SIZE)), half=Half())
    driver = rig.start(size=4)
    accesses = _accesses(dice, rig)
    while not dice.ended:
        way = dice.byte()
        if way < 20:
            driver.offer(way % 4)
        elif way < 40:
            rig.queues.interrupts.add(dice.some((USED_BUFFER, CONFIG_CHANGE)), 0, raises=bool(way & 1))
        elif way == 40:
            rig.channel.fail(DeviceProcessError("fuzzed", "is gone"))
        try:
            _access(dice, accesses[dice.some(tuple(accesses))])
            rig.do_errands(10)
        except DeviceProcessError:
            assert rig.channel.failure is not None
            return


def _access(dice: Dice, registers: Registers) -> None:
    size = registers.size
    offset = dice.some((*PLACES, mmio.INTERRUPT_ACK, INTERRUPT_STATUS, dice.number(2)))
    count = dice.byte() % 4
    match dice.byte() % 4:
        case 0:
            value = registers.access(request_word(protocol.READ, 0, size), offset, 0, (1 << 8 * size) - 1)
            assert value < 1 << 8 * size
        case 1:
            value = dice.number(size) if dice.byte() & 1 else dice.byte() % 16
            registers.access(request_word(protocol.WRITE, 0, size), offset, value, 0)
        case 2:
            assert len(registers.read_string(offset, count)) == count * size
        case _:
            registers.write_string(offset, dice.randbytes(count * size))


TARGETS: Final[dict[str, Callable[[Dice], Any]]] = {"registers": use_registers}
