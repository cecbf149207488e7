"""The devices of a board: their ports and addresses, the wiring of their outputs, their grants. Pure data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

from kvmbox.base.value_classes import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kvmbox.contract.pci_function import PciFunction


class AddressRange(Value):
    """`count` ports or addresses from `first`, wired to the model's registers from `offset` on."""

    first: int
    count: int
    offset: int = 0


class Irq(Value):
    """The model's next output pin is wired to the interrupt line `gsi`."""

    gsi: int


class ReplacingIrq(Value):
    """The same, and while the model says so, the line follows this pin alone: other devices are cut off."""

    gsi: int


class Output(Value):
    """Output goes to `stream` of the host: a serial port's name, "debugcon", or the disk that asks for it."""

    stream: str


class Input(Value):
    """Input comes from `stream` of the host."""

    stream: str


class Reset(Value):
    """A write may reset the machine."""


class StopValue(Value):
    """A write may stop the machine, and the written value counts for the exit status."""


class WrittenByte(Value):
    """A byte of a write: the bits of `mask` at `offset` of the device are those of `value`."""

    offset: int
    value: int
    mask: int = 0xFF

    def is_in(self, offset: int, size: int, value: int) -> bool:
        """Whether a write of `size` bytes at `offset`, little-endian, has this byte."""
        place = self.offset - offset
        return 0 <= place < size and (value >> 8 * place ^ self.value) & self.mask == 0


class StopClean(Value):
    """A write that has one of the bytes `when` may stop the machine, with exit status 0.

    Without `when`, every write may. The VMM compares the write that it forwarded. So a device process cannot
    turn another write into a success of the guest.
    """

    when: tuple[WrittenByte, ...] = ()


class Suspend(Value):
    """A write may suspend the machine to memory, until a wake-up, of which the device is told as input."""


class StopPanic(Value):
    """A write tells how the guest fares, in the bits of pvpanic. The VMM knows the value that was written."""


class BiosReport(Value):
    """A write may name what the built-in BIOS does not provide, or stop the machine because of it."""


class LateWrites(Value):
    """Byte writes to `register` may reach the device late, in order, whenever its model allows it.

    As `DeviceSpec.coalesced`, but at times only. They are allowed after a reset.
    """

    register: int


class Aperture(Value):
    """The device may take the window of a VGA, 0xA0000 to 0xBFFFF, out of guest memory, and put it back."""


class FrameBuffer(Value):
    """The frame buffer may be there for the guest, cleared, and shown in pieces at 0xA0000."""


class Memory(Value):
    """Guest memory may be read and written, by effects of at most `max_bytes` in `max_ranges` ranges.

    What one effect reads or writes travels in one frame, which has room for no more than that.
    """

    max_bytes: int = 4040
    max_ranges: int = 64


class Resource(Value):
    """Bytes of the host may be transferred from and, if `writable`, to guest memory.

    The model's resources are its `Resource` and `Content` grants in their order. `name` says which bytes of
    the host; `size` is how many there are. One transfer moves at most `max_bytes` in `max_ranges` ranges, and
    at most `max_pending` of a device wait at a time: the model is told BUSY of more.
    """

    name: str
    size: int
    writable: bool = False
    max_bytes: int = 1 << 20
    max_ranges: int = 128
    max_pending: int = 64


class Content(Value):
    """Bytes that the VMM holds may be copied to guest memory, and given to the model in pieces.

    A resource that is read only and never late: what a model asks for is done before the guest's access is.
    Its bytes are those of `parts`, one after the other, and zeros without end behind them. One transfer
    copies at most `max_bytes` to `max_ranges` ranges.
    """

    parts: tuple[bytes, ...]
    max_bytes: int = 32 << 20
    max_ranges: int = 16

    @property
    def size(self) -> int:
        """How many bytes the parts have."""
        return sum(len(part) for part in self.parts)


class Medium(Value):
    """A disk, or another store of the host, whose bytes never reach the device, and no address that it names.

    The model's resources are its `Resource`, `Content` and `Medium` grants in their order. `name` says which
    store of the host; `size` is how many bytes it has. The guest reads them, and writes them if `writable`,
    through a window at register `window` of the device, or through buffers of a queue (`window` None). One
    effect moves at most `max_bytes`.
    """

    name: str
    size: int
    writable: bool = False
    window: int | None = None
    max_bytes: int = 1 << 20


class Queues(Value):
    """The device has `count` virtqueues in guest memory, of at most `max_size` entries each.

    The VMM walks them, and the device gets handles. At most `max_chains` of a queue are handed out at a time.
    A queue has `initial_size` entries until the guest says how many.
    """

    vmm = "virtio.vmm"  # the VMM's side of the chip, below `kvmbox.devices`: `remote.published.queue_kinds`

    count: int
    max_size: int = 256
    max_chains: int = 64
    initial_size: int = 0


class PciGrant(Value):
    """Base of the grants of `pci_grants`, which only machines with PCI load."""


_Wire = Irq | ReplacingIrq | Output | Input | PciGrant


_Power = Reset | StopValue | StopClean | StopPanic | BiosReport | Suspend


Grant = _Wire | _Power | LateWrites | Memory | Resource | Content | Medium | Queues | Aperture | FrameBuffer
"""What a device may be allowed: `wire.effects.TABLE` says which effect needs which."""


_AnyGrant = TypeVar("_AnyGrant", bound=Grant)


Parameter = int | bytes


_NO_PARAMETERS: Final[Mapping[str, Parameter]] = {}


class FreeRunning(Value):
    """The first output pin of a device follows a wave, whether the guest uses the device or not.

    A clock of `hertz` Hz counts a `period`. The wave is high for the first `high` counts, and low for the
    others. It begins at a RESET. It begins anew when firmware has made all writes of `firmware`, each a
    register and its data: then it is high for `high_after_firmware` counts.
    """

    hertz: int
    period: int
    high: int
    firmware: tuple[tuple[int, bytes], ...]
    high_after_firmware: int


class DeviceSpec(Value):
    """One device of the board.

    `grants` is all that its effects may do; the output pins of its model are its `Irq` and `ReplacingIrq`
    grants in their order.
    `natural_sizes` are the sizes in bytes, beyond 1, of accesses that its registers take at once, where they
    are aligned to their size. `coalesced` are ports whose byte writes may reach the device late, in order,
    before any other request to it: nothing that the guest can see depends on when they do. A write of a word
    to two of them that are adjacent is to the model as that of its two bytes, low byte first. `latches` are
    those of them where, of several writes in a row, only the last one makes a difference: the device may get
    it alone. `source` is the
    text of the Python module that defines the class `model`, where that is none of the catalogue.

    `on_demand` says that the process may start at the first use of the device. As long as such a model gets
    no other requests than HELLO, RESET and ADVANCE, they have no effects, and no deadline follows from them.
    What was before the last RESET makes no difference to what comes later, nor does an ADVANCE that another
    one follows. `runs` is the pin that has effects all the same, and announces them. `stopped_by` are the
    bytes that stop the machine if they are written one by one, before all others; empty: each write does.
    `pci` is the function that it is on a PCI bus: it has no other place.
    """

    name: str
    device_type: str
    model: str
    ports: tuple[AddressRange, ...] = ()
    mmio: tuple[AddressRange, ...] = ()
    parameters: Mapping[str, Parameter] = _NO_PARAMETERS
    grants: tuple[Grant, ...] = ()
    natural_sizes: frozenset[int] = frozenset()
    coalesced: tuple[int, ...] = ()
    latches: tuple[int, ...] = ()
    source: bytes = b""
    on_demand: bool = False
    runs: FreeRunning | None = None
    stopped_by: bytes | None = None
    pci: PciFunction | None = None

    def granted(self, kind: type[_AnyGrant]) -> list[_AnyGrant]:
        """The grants of one kind, in order."""
        return [grant for grant in self.grants if isinstance(grant, kind)]

    def port_of(self, register: int) -> int | None:
        """The port at which a register of the device is, or None for one that is in memory."""
        for one in self.ports:
            if one.offset <= register < one.offset + one.count:
                return one.first + register - one.offset
        return None

    @property
    def irqs(self) -> tuple[int, ...]:
        """The interrupt line (GSI) of each output pin of the model."""
        return tuple(grant.gsi for grant in self.grants if isinstance(grant, Irq | ReplacingIrq))


def by_type(board: Sequence[DeviceSpec], *, per_device: bool = False) -> dict[str, list[DeviceSpec]]:
    """The devices of each process, in the order of `board`: their places are their index numbers.

    A process has the devices of one type and its name, or, with `per_device`, one device and its name.
    """
    types: dict[str, list[DeviceSpec]] = {}
    for device in board:
        types.setdefault(device.name if per_device else device.device_type, []).append(device)
    return types
