"""A checksum of a device's specification, by which a snapshot knows whether a board has the same device."""

from __future__ import annotations

import binascii

from kvmbox.contract.device_spec import Content, DeviceSpec


def checksum_of(device: DeviceSpec) -> int:
    """A checksum of all that a device's state and wiring depend on."""
    grants = [
        ("Content", [binascii.crc32(part) for part in grant.parts]) if isinstance(grant, Content) else grant
        for grant in device.grants
    ]
    text = repr(
        (
            device.name,
            device.device_type,
            device.model,
            device.ports,
            device.mmio,
            sorted(device.parameters.items()),
            grants,
            sorted(device.natural_sizes),
            device.coalesced,
            device.source,
        )
    )
    return binascii.crc32(text.encode("utf-8", "backslashreplace"))
