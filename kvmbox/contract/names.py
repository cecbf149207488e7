"""Names of devices and streams that models, boards and the host have in common."""

from __future__ import annotations

from typing import Final

from kvmbox.base import layout

MMIO_UART: Final = "MMIO"
"""Name of the memory-mapped UART among the serial ports."""


KEYBOARD: Final = "keyboard"
"""Name of the stream of keys, a byte for each change of one, as `devices.ps2.keyboard` says, and of the
mouse's events, as `devices.ps2.mouse` says.
"""


MOUSE_EVENT_SIZE: Final = 7


SERIAL_PORTS: Final = (*layout.COM_PORTS, MMIO_UART)


VBE: Final = "VBE"
"""Name of the device whose registers say what of the frame buffer is shown."""


VGA: Final = "VGA"
"""Name of the device whose registers say what of the text memory is shown."""


BIOS_TEXT: Final = "BIOS"
"""Name of the stream of text that the built-in BIOS prints."""


VIRTIO_CONSOLE: Final = "virtio-console"
"""Name of the virtio console, and of its streams."""


BOOT_DISK: Final = "boot-disk"
"""Name of the disks of the built-in BIOS, and of the resource of the first one: the guest's image."""


VNC: Final = "vnc"
"""Name of the device that speaks with a client of --vnc, of its type, and of its streams."""


VIRTIO_RNG: Final = "virtio-rng"
"""Name of the virtio entropy device."""
