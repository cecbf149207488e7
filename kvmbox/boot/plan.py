"""What a way to boot looks like: it examines an image, and plans what is written and how the CPU starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from kvmbox.base import layout
from kvmbox.base.value_classes import Value
from kvmbox.boot.cpu_state import CpuState
from kvmbox.boot.image import GuestImage, Module
from kvmbox.boot.segments import LoadSegment
from kvmbox.firmware.platform import NO_DRIVES, Further, Platform

if TYPE_CHECKING:
    from kvmbox.base.memory import GuestMemory
    from kvmbox.firmware.video_modes import VideoMode


BUILTIN_BIOS: Final = "builtin"
NO_BIOS: Final = "none"
"""What --bios may say instead of a file."""


class Offer(Value):
    """The image can be booted this way. `kind` says what it is then, with its article.

    Where `doubt` says why the image is more likely something else, this way has to be asked for.
    """

    kind: str
    doubt: str = ""


class Refusal(Value):
    """The image cannot be booted this way: `reason`, and a `hint` if there is something to do about it.

    `kind` names the image if it was meant for this way all the same.
    """

    reason: str
    hint: str = ""
    kind: str = ""


class BootContext(Value):
    """All that a plan may depend on, besides the image.

    `rsdp` is the guest-physical address of ACPI's RSDP, 0 where there are no tables, and `firmware` all that
    firmware writes. `command_line` is None if none was given. `load_address`, `entry` (CS, IP) and `segments`
    are for flat 16-bit images. `bios` is "builtin", "none", or None where the image decides. `bios_rom` is
    the ROM of the built-in BIOS, empty where it is not there: nothing will run then (`boot.inspection`), or a
    test runs without. `further` are the drives of the BIOS besides the image.
    """

    memory: GuestMemory
    platform: Platform
    rsdp: int = 0
    command_line: str | None = None
    modules: tuple[Module, ...] = ()
    initrd: Module | None = None
    load_address: int | None = None
    entry: tuple[int, int] | None = None
    segments: str | None = None
    firmware: tuple[tuple[int, bytes], ...] = ()
    bios: str | None = None
    bios_rom: bytes = b""
    further: Further = NO_DRIVES

    @property
    def basic_memory(self) -> tuple[int, int]:
        """Conventional memory, and memory from 1 MiB on below the hole for devices, in KiB."""
        end = self.memory.regions[0].end
        return min(end, layout.EBDA) // layout.KIB, max(end - layout.HIGH_MEMORY_START, 0) // layout.KIB

    @property
    def all_modules(self) -> tuple[Module, ...]:
        """The initrd, if there is one, and the modules: for ways that know only modules."""
        return self.modules if self.initrd is None else (self.initrd, *self.modules)


class BootPlan(Value):
    """A way to boot an image, checked whole. Nothing is written yet.

    `segments` come from the image; `writes` are further (guest-physical address, bytes) pairs. `modules` has
    the (start, end) of each module. `format` names the way, and what it found. `has_firmware` says whether
    firmware tables are written as well, `after_bios` whether interrupt controllers and timer are to be as a
    PC's BIOS leaves them, and `without_bios` why there is no BIOS, if the image is in its place. `rom` is
    (guest-physical address, bytes) that only can be read. `video` is the mode of the frame buffer, if the
    guest is started with one.
    """

    format: str
    state: CpuState
    entry: int
    segments: tuple[LoadSegment, ...] = ()
    writes: tuple[tuple[int, bytes], ...] = ()
    modules: tuple[tuple[int, int], ...] = ()
    has_firmware: bool = True
    after_bios: bool = False
    without_bios: str = ""
    rom: tuple[int, bytes] | None = None
    video: VideoMode | None = None


class Way(Protocol):
    """A way to boot. `name` is how --boot spells it."""

    name: str

    def examine(self, image: GuestImage) -> Offer | Refusal:
        """Whether this way fits the image: a look, not a check."""
        ...

    def plan(self, image: GuestImage, context: BootContext) -> BootPlan:
        """Check everything, and lay it out. Raises ImageError and UsageError."""
        ...
