"""User-defined models: the source text of the module comes with HELLO and is executed here, in the jail.

No other process executes the text. The spawner has no filter, and a device process cannot open a file. So the
VMM reads the file and sends its text. The text may import only modules that are loaded in a device process
(`kvmbox.devices`, `struct`). The import of another module would open a file, which is a forbidden call.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from kvmbox.contract.model import DeviceModel
    from kvmbox.wire.protocol import Parameter


def build_from_source(name: str, source: Parameter, parameters: Mapping[str, Parameter]) -> DeviceModel:
    """The model of class `name` in the module whose text is `source`. Raises whatever that raises."""
    if not isinstance(source, bytes):
        raise TypeError(f"the source of model {name} is a number")
    namespace: dict[str, Any] = {"__name__": f"model {name}"}
    # Whatever it does, it does behind the same walls as a model that a guest has taken over.
    exec(compile(source, f"{name}.py", "exec", dont_inherit=True), namespace)  # noqa: S102 - jailed, as above
    model: DeviceModel = namespace[name](**parameters)
    return model
