"""A model that is none of kvmbox's own: its module's text comes with HELLO and is run here, in the jail.

Nobody else ever runs it: the spawner would do so without a filter, and a device process cannot open a file.
So the VMM reads the file and hands over its text. The text may import what a device process has loaded anyway
(`kvmbox.devices`, `struct`): an import of anything else looks for a file, and is a forbidden call.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from kvmbox.devices.model import DeviceModel
    from kvmbox.wire.protocol import Parameter


def build_from_source(name: str, source: Parameter, parameters: Mapping[str, Parameter]) -> DeviceModel:
    """The model of class `name` in the module whose text is `source`. Raises whatever that raises."""
    if not isinstance(source, bytes):
        raise TypeError(f"the source of model {name} is a number")
    namespace: dict[str, Any] = {"__name__": f"model {name}"}
    # Whatever it does, it does behind the same walls as a model that a guest has taken over.
    exec(compile(source, f"{name}.py", "exec", dont_inherit=True), namespace)  # noqa: S102
    model: DeviceModel = namespace[name](**parameters)
    return model
