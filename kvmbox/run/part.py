"""The contract between a run and its optional parts: a debugger, a recording, a profile, a core file, …

A part is one folder in `kvmbox.parts`. The core imports no part: `parts` has a table of names, and a part is
imported when one of its options is given. So a run pays for nothing that it was not asked for, and the code
of a run names no feature.

A `Part` whose option was given lives as long as the run. It is told of its stages in this order, each part in
the order of the table:

    equip     the image is read: put devices on the board, and open what they need; write to nothing yet
    open      files, sockets, forks, shared objects: the VMM is not confined yet, and there is no machine
    attach    the machine stands: admit visitors (`vcpu_pause`), listen to ports, set the exit filter
    start     the VMM is confined: start threads, which inherit that
    show      the guest has ended: print on the console, which is flushed next
    ended     write what is to be written; may find that a success is none
    report    the outcome is decided: add facts and lines to the result
    close     in reverse order, also where the run could not start

The run itself loads a part at the moment when it has something to do: a crash report for a bad end, the
screen of a guest that has used it. Such a part is told of its stages from `attach` on, but for `start`.

What a part does while the guest runs, it does as a `vcpu_pause.Visitor`, or in a *slot*. A slot is a place
where the machine asks somebody else, and one part at most fills it:

    tap             sees the requests and replies of each channel
    shims           between devices and guest
    loss_policy     what becomes of a device process that is lost
    exit_filter     is asked about each rare exit of a vCPU

If several parts have lost something, the console's loss counts, and then the first one in the table.

Errors. A KvmboxError of `open` or `attach`: the run could not start. Of `ended`: the same as `Lost`, and the
other parts still end. Everything else is a bug of kvmbox.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from kvmbox.base.value_classes import Value
from kvmbox.run.options.choices import DEFAULT_PCI
from kvmbox.run.part_loader import load

if TYPE_CHECKING:
    from kvmbox.base.judge import Judge
    from kvmbox.base.memory import GuestMemory
    from kvmbox.base.outcome import Outcome
    from kvmbox.boot.boot_files import HostFiles
    from kvmbox.contract.device_spec import DeviceSpec
    from kvmbox.devices.bios.board import BootDrive
    from kvmbox.host.console.serial_ports import Console
    from kvmbox.host.disk.stores import RunDisk
    from kvmbox.host.disk.transfers import Store
    from kvmbox.kvm.system import Kvm
    from kvmbox.run.frontend import Caller
    from kvmbox.run.loop.main_loop import LossPolicyOf, MainLoop
    from kvmbox.run.machine.boot_source import BootSource
    from kvmbox.run.machine.device_set import Devices, Shims
    from kvmbox.run.options.choices import PciChoice
    from kvmbox.run.options.config import RunConfig
    from kvmbox.run.result.run_result import Draft


PERHAPS_FULL: Final = "the disk may be full: make room, or name a file elsewhere"
"""The hint for a file that could be opened and not be written."""


class Unmet(Value):
    """What the part was asked to wait for did not come: `reason` completes "…, before"."""

    reason: str


class Lost(Value):
    """What the part was to give the user could not be had, for a `reason` of the host, which was `announced`
    to the user already or not. `hint` says what helps.
    """

    reason: str
    announced: bool = False
    hint: str | None = None


Finding: TypeAlias = Unmet | Lost
"""What makes of a success, a status of 0 or an odd one, something else."""


class RunNet(Protocol):
    """A network interface of the guest, and the wire that carries its frames."""

    name: str
    wire: Any


Tap: TypeAlias = Callable[[str], Callable[[bytes, bytes], None]]
"""Sees the traffic of channels: gives, by device type, what is called with each request and its reply, under
the lock of that channel."""


class Opening:
    """A run before it has a machine. `board` may be changed, and each slot filled once."""

    def __init__(
        self, config: RunConfig, caller: Caller, judge: Judge, source: BootSource, say: Callable[[str], None]
    ) -> None:
        self.config = config
        self.caller = caller
        self.judge = judge
        self.board: list[DeviceSpec] = []
        """The devices: those of parts, and then those of the PC before them, each of which gives way to a
        device of a part that has its name.
        """
        self.source = source
        """What is booted. `equip` may change which drives its BIOS shows, with `drives`."""
        self.drives: tuple[BootDrive, ...] = ()
        """The drives of the built-in BIOS."""
        self.disks: Sequence[RunDisk] = ()
        """The disks of the guest."""
        self.nets: Sequence[RunNet] = ()
        """Its network interfaces."""
        self.stores: dict[str, Store] = dict(config.resources)
        """The resources of the host that devices were granted, by name."""
        self.speak = say
        """What tells the person a line. It may be replaced by something that calls it."""
        self.exact = False
        """Whether each write that prints must exit: see `device_set.Devices`."""
        self.pci: PciChoice = DEFAULT_PCI
        """Whether there is a PCI bus: what --pci says."""
        self.tap: Tap | None = None
        self.shims: Shims | None = None
        self.loss_policy: LossPolicyOf | None = None

    def place_virtio(self, devices: Sequence[DeviceSpec]) -> None:
        """Put virtio devices on the board: on PCI with `--pci on`, else in memory, where the guest has to be
        told of them. Raises UsageError.
        """
        if devices and self.pci == "on":
            from kvmbox.run.machine import pci_setup

            self.board += pci_setup.functions(devices)
        elif devices:
            from kvmbox.devices.virtio.board import place_virtio, virtio_places

            self.board += place_virtio(devices, self.board)
            self.source = self.source.on_platform(virtio=virtio_places(self.board))

    def complete(self, of_pc: Sequence[DeviceSpec]) -> None:
        """The board has the devices of the parts, and now those of the PC. Raises UsageError."""
        self.board[:0] = [one for one in of_pc if one.name not in {device.name for device in self.board}]
        if self.pci == "on" or any(device.pci is not None for device in self.board):
            from kvmbox.run.machine import pci_setup

            self.board, interrupts = pci_setup.completed(self.board, self.pci)
            self.source = self.source.on_platform(pci=interrupts)

    def prepare_pictures(self) -> None:
        """Load what draws text, if it is installed: a confined VMM loads no shared object."""
        load("screen.text_picture", "prepare")()

    def say(self, line: str) -> None:
        """Tell the person a line."""
        self.speak(line)


class Standing(Value):
    """A machine that is about to run, and what belongs to the run. `part` gives the part of a name: the run's
    own, or one that is loaded for this.
    """

    config: RunConfig
    judge: Judge
    say: Callable[[str], None]
    kvm: Kvm
    board: Sequence[DeviceSpec]
    source: BootSource
    files: HostFiles
    memory: GuestMemory
    devices: Devices
    console: Console
    loop: MainLoop
    part: Callable[[str], Any]


class Part:
    """An optional part of a run. Everything is called by the main loop's thread."""

    readable: Sequence[str] = ()
    """Directories that the confined VMM must still be able to read."""
    accepts: bool = False
    """Whether a client may connect when the VMM is confined."""

    def equip(self, opening: Opening) -> None:
        """Put devices on the board, before that is checked. Raises UsageError, StartError."""

    def open(self, opening: Opening) -> None:
        """Open what the confined VMM could not. Raises UsageError, StartError."""

    def attach(self, machine: Standing) -> None:
        """The machine stands, and will run next. Raises UsageError, StartError."""

    def start(self) -> None:
        """The VMM is confined."""

    def show(self) -> None:
        """The guest has ended, with an outcome: print on the console what is to be printed."""

    def ended(self, outcome: Outcome | None) -> Finding | None:
        """The guest has ended: with None, because kvmbox has failed. Nothing is shown any more."""
        return None

    def report(self, draft: Draft) -> None:
        """The outcome is decided: add what the part has to tell."""

    def close(self) -> None:
        """Close everything. Idempotent; may be called at any stage, and never raises."""
