"""The board: the devices of a machine, their ports and addresses, and the wiring of their outputs.

Pure data. `kvmbox run` connects the board to /dev/kvm and to device processes. Other tools that use the same
devices use the same board. `board_extras` has what only some machines have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, TypeVar

from kvmbox.base import layout
from kvmbox.base.stand_ins import Value
from kvmbox.contract import stop_values
from kvmbox.devices.pit import input_clock
from kvmbox.firmware.fw_cfg import FwCfgContent, FwCfgItem, content_of, machine_items

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

    count: int
    max_size: int = 256
    max_chains: int = 64
    initial_size: int = 0


class PciGrant(Value):
    """Base of the grants of `board`, which only machines with PCI load."""


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


class BootDrive(Value):
    """A drive of the built-in BIOS. `name` says which resource of the host it is."""

    name: str
    sectors: int
    writable: bool = False


class BoardOptions(Value):
    """What of the board can be chosen.

    `serial_ports` are those present; `rtc_base` is the wall clock that the RTC shows at guest time 0, in
    seconds since 1970; `debug_exit_port` None leaves the debug-exit device out; `uart_pace` makes UARTs take
    the time that their divisor asks for to transmit a character; `testdev` puts the test device of
    kvm-unit-tests on the board; `fw_cfg` are items beyond those that every guest is told; `has_bios` adds
    what is behind the built-in BIOS, and `boot_drives` are the drives that it reads and writes, if any.
    """

    serial_ports: tuple[str, ...]
    rtc_base: int
    memory_size: int
    debug_exit_port: int | None = layout.DEBUG_EXIT_PORT
    uart_pace: bool = False
    cpus: int = 1
    testdev: bool = False
    fw_cfg: tuple[FwCfgItem, ...] = ()
    has_bios: bool = False
    boot_drives: tuple[BootDrive, ...] = ()


MMIO_UART: Final = "MMIO"
"""Name of the memory-mapped UART among the serial ports."""

KEYBOARD: Final = "keyboard"
"""Name of the stream of keys, a byte for each change of one, as `devices.ps2.keyboard` says, and of the
mouse's events, as `devices.ps2.mouse` says.
"""
MOUSE_EVENT_SIZE: Final = 7

SERIAL_PORTS: Final = (*layout.COM_PORTS, MMIO_UART)


def _serial_port(name: str, *, pace: bool) -> DeviceSpec:
    ports: tuple[AddressRange, ...] = ()
    mmio: tuple[AddressRange, ...] = ()
    if name == MMIO_UART:
        mmio = (AddressRange(layout.MMIO_UART_BASE, layout.UART_PORT_COUNT),)
        irq = layout.MMIO_UART_IRQ
    else:
        ports = (AddressRange(layout.COM_PORTS[name], layout.UART_PORT_COUNT),)
        irq = layout.COM_IRQS[name]
    return DeviceSpec(
        name,
        "uart",
        "uart_16550a",
        ports=ports,
        mmio=mmio,
        parameters={"pace_transmit": int(pace)},
        grants=(Irq(irq), Output(name), Input(name), *(() if pace else (LateWrites(0),))),
    )


def _power_management() -> DeviceSpec:
    """Named by the block that its registers are: PM1a."""
    return DeviceSpec(
        "PM",
        "pm",
        "acpi_pm",
        ports=(AddressRange(layout.PM1_EVENT_PORT, layout.PM_PORT_COUNT),),
        grants=(
            Irq(layout.SCI_IRQ),
            StopClean(
                (
                    WrittenByte(
                        stop_values.PM1_CNT + 1,
                        (stop_values.SLP_EN | stop_values.S5 << stop_values.SLP_TYP_SHIFT) >> 8,
                        (stop_values.SLP_EN | stop_values.SLP_TYP) >> 8,
                    ),
                    WrittenByte(stop_values.PM1_STS, stop_values.CLOUD_HYPERVISOR_OFF),
                )
            ),
            Suspend(),
        ),
        natural_sizes=frozenset({2, 4}),
        on_demand=True,
    )


def _power_off_ports() -> DeviceSpec:
    return DeviceSpec(
        "power-off",
        "pm",
        "power_off_ports",
        ports=(
            AddressRange(layout.BOCHS_POWER_OFF_PORT, 4),
            AddressRange(layout.VIRTUALBOX_POWER_OFF_PORT, 4, offset=4),
        ),
        grants=(
            StopClean(
                tuple(WrittenByte(offset + 1, value >> 8) for offset, value in stop_values.POWER_OFF.items())
            ),
        ),
        natural_sizes=frozenset({2, 4}),
        on_demand=True,
    )


def _hpet() -> DeviceSpec:
    return DeviceSpec(
        "HPET",
        "hpet",
        "hpet",
        parameters={"announce": 1},
        mmio=(AddressRange(layout.HPET_BASE, layout.HPET_SIZE),),
        grants=(
            ReplacingIrq(layout.PIT_IRQ),
            ReplacingIrq(layout.RTC_IRQ),
            *(Irq(gsi) for gsi in layout.HPET_IRQS),
        ),
        natural_sizes=frozenset({4, 8}),
        on_demand=True,
    )


def rtc(base_seconds: int, memory_bytes: int, **more: Parameter) -> DeviceSpec:
    """The real-time clock, and `more` parameters of its model."""
    return DeviceSpec(
        "RTC",
        "rtc",
        "rtc_mc146818",
        ports=(AddressRange(layout.RTC_INDEX_PORT, 2),),
        parameters={"base_seconds": base_seconds, "memory_bytes": memory_bytes, "announce": 1, **more},
        grants=(Irq(layout.RTC_IRQ),),
        coalesced=(layout.RTC_INDEX_PORT,),
        latches=(layout.RTC_INDEX_PORT,),
        on_demand=True,
    )


def by_type(board: Sequence[DeviceSpec], *, per_device: bool = False) -> dict[str, list[DeviceSpec]]:
    """The devices of each process, in the order of `board`: their places are their index numbers.

    A process has the devices of one type and its name, or, with `per_device`, one device and its name.
    """
    types: dict[str, list[DeviceSpec]] = {}
    for device in board:
        types.setdefault(device.name if per_device else device.device_type, []).append(device)
    return types


def pc_board(options: BoardOptions) -> list[DeviceSpec]:
    """The devices of a PC, in the order of their types, but for those of `board_extras.whole_board`."""
    first, middle, last = _chips(options.serial_ports, options.uart_pace, options.debug_exit_port)
    board = [*first, rtc(options.rtc_base, options.memory_size)]
    board += [*middle, _fw_cfg(options), *last]
    return board


@lru_cache(maxsize=4)
def _chips(
    serial_ports: tuple[str, ...], uart_pace: bool, debug_exit_port: int | None
) -> tuple[tuple[DeviceSpec, ...], ...]:
    """What is before the RTC, between RTC and fw_cfg, and behind that. Kept: a run asks twice, and warm boots
    have it from their template.
    """
    post = AddressRange(layout.POST_PORT, 1)
    first = [_serial_port(name, pace=uart_pace) for name in SERIAL_PORTS if name in serial_ports]
    middle = [
        _i8042(),
        _debug(
            *("debugcon", "debugcon"),
            *(AddressRange(port, 1) for port in layout.DEBUGCON_PORTS),
            grants=(Output("debugcon"),),
            coalesced=layout.DEBUGCON_PORTS,
        ),
        _debug("POST", "post", post, grants=(), coalesced=(post.first,), latches=(post.first,)),
    ]
    wide = frozenset({2, 4})
    if debug_exit_port is not None:
        exits = {"debug-exit": debug_exit_port, "debug-exit-501": layout.EXTRA_DEBUG_EXIT_PORT}
        # The user's port wins: it may be the extra one, or beside it.
        if abs(debug_exit_port - layout.EXTRA_DEBUG_EXIT_PORT) < layout.DEBUG_EXIT_PORT_COUNT:
            del exits["debug-exit-501"]
        for name, port in exits.items():
            ports = AddressRange(port, layout.DEBUG_EXIT_PORT_COUNT)
            stop = (StopValue(),)
            middle += [_debug(name, "debug_exit", ports, grants=stop, natural_sizes=wide, stopped_by=b"")]
    clean = (StopClean((WrittenByte(0, stop_values.SHUTDOWN[-1]),)),)
    shutdown, panic = AddressRange(layout.SHUTDOWN_PORT, 1), AddressRange(layout.PVPANIC_PORT, 1)
    # All four ports, because a wide access to the first one is none to the second one.
    reset = AddressRange(layout.PCI_ADDRESS_PORT, 4)
    middle += [
        _debug("shutdown", "shutdown_port", shutdown, grants=clean, stopped_by=stop_values.SHUTDOWN),
        *(_power_management(), _power_off_ports(), _hpet()),
        _debug("pvpanic", "pvpanic", panic, grants=(StopPanic(),)),
        _debug("reset-control", "reset_control", reset, grants=(Reset(),), natural_sizes=wide),
    ]
    return (*first, _pit()), tuple(middle), (_vga(), _vbe())


def _pit() -> DeviceSpec:
    return DeviceSpec(
        "PIT",
        "pit",
        "pit_8254",
        ports=(
            AddressRange(layout.PIT_PORT, layout.PIT_PORT_COUNT),
            AddressRange(layout.SYSTEM_CONTROL_B_PORT, 1, offset=layout.PIT_PORT_COUNT),
        ),
        parameters={"announce": 1},
        grants=(Irq(layout.PIT_IRQ),),
        on_demand=True,
        # From power-on, counter 0 is in mode 3. The built-in BIOS writes mode 2, and 0, which is 65536.
        runs=FreeRunning(input_clock.CLK_HZ, 0x10000, 0x8000, ((3, b"\x34"), (0, b"\0\0")), 0xFFFF),
    )


def _i8042() -> DeviceSpec:
    return DeviceSpec(
        "i8042",
        "i8042",
        "i8042",
        ports=(
            AddressRange(layout.I8042_DATA_PORT, 1),
            AddressRange(layout.I8042_COMMAND_PORT, 1, offset=1),
            AddressRange(layout.SYSTEM_CONTROL_A_PORT, 1, offset=2),
        ),
        grants=(Irq(layout.I8042_IRQ), Irq(layout.I8042_AUX_IRQ), Reset(), Input(KEYBOARD)),
        on_demand=True,
    )


def _debug(name: str, model: str, *ports: AddressRange, grants: tuple[Grant, ...], **more: Any) -> DeviceSpec:
    """A device of the debug process, and `more` of it."""
    return DeviceSpec(name, "debug", model, ports=ports, grants=grants, on_demand=True, **more)


def _fw_cfg(options: BoardOptions) -> DeviceSpec:
    content = (
        content_of([*machine_items(options.memory_size, options.cpus), *options.fw_cfg])
        if options.fw_cfg
        else _usual_content(options.memory_size, options.cpus)
    )
    return DeviceSpec(
        "fw_cfg",
        "fwcfg",
        "fw_cfg",
        ports=(
            AddressRange(layout.FW_CFG_PORT, 2),
            AddressRange(layout.FW_CFG_DMA_PORT, 8, offset=4),
        ),
        parameters={"directory": content.directory, "small": content.small},
        # The request block, and the control word that is written back to it.
        grants=(Memory(max_bytes=16, max_ranges=1), Content(content.parts)),
        natural_sizes=frozenset({2, 4}),
        on_demand=True,
    )


@lru_cache(maxsize=4)
def _usual_content(memory_size: int, cpus: int) -> FwCfgContent:
    """What every guest of such a machine is told."""
    return content_of(machine_items(memory_size, cpus))


def _vga() -> DeviceSpec:
    """The window is memory of the guest, until its registers make more of it than that."""
    return DeviceSpec(
        VGA,
        "vga",
        "vga_text",
        ports=tuple(
            AddressRange(first, count, offset=first - layout.VGA_FIRST_PORT)
            for first, count in (*layout.VGA_MONOCHROME_PORTS, *layout.VGA_PORTS)
        ),
        mmio=(AddressRange(layout.VGA_MEMORY, layout.VGA_MEMORY_SIZE, offset=layout.VGA_MEMORY),),
        grants=(Aperture(),),
        # Many kernels move the cursor at each character: four writes.
        coalesced=layout.VGA_CRTC_PORTS,
        on_demand=True,
    )


def _vbe() -> DeviceSpec:
    ports = AddressRange(layout.VBE_PORT, layout.VBE_PORT_COUNT)
    return DeviceSpec(
        VBE,
        "vga",
        "vbe_dispi",
        ports=(ports,),
        grants=(FrameBuffer(),),
        natural_sizes=frozenset({2, 4}),
        on_demand=True,
    )


VBE: Final = "VBE"
"""Name of the device whose registers say what of the frame buffer is shown."""

VGA: Final = "VGA"
"""Name of the device whose registers say what of the text memory is shown."""

BIOS_TEXT: Final = "BIOS"
"""Name of the stream of text that the built-in BIOS prints."""


VIRTIO_CONSOLE: Final = "virtio-console"
"""Name of the virtio console, and of its streams."""
