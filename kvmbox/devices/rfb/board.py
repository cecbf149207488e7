"""The server of VNC clients on the board: a device that no guest sees."""

from __future__ import annotations

from kvmbox.contract.device_spec import DeviceSpec, Input, Output
from kvmbox.contract.names import VNC


def vnc_server(source: bytes = b"") -> DeviceSpec:
    """What speaks with a client of --vnc: no device of the guest. `source` is the text of its model."""
    return DeviceSpec(VNC, VNC, "RfbServer", grants=(Output(VNC), Input(VNC)), source=source)
