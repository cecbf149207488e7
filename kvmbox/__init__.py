"""kvmbox: boot small x86 guests on /dev/kvm, every legacy device in its own sandboxed process.

    from kvmbox import Machine

    with Machine("hello32") as vm:
        print(vm.wait(timeout=10).status)

The names below are loaded when they are first used. Importing this package costs nothing: the spawner of the
device processes starts from a bare interpreter and must not load what it does not need.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kvmbox.base.errors import (
        DeviceProcessError,
        ExpectError,
        ImageError,
        KvmboxError,
        KvmError,
        SandboxError,
        SnapshotFileError,
        StartError,
        StartTimeoutError,
        UsageError,
        WaitTimeoutError,
    )
    from kvmbox.contract.device_spec import AddressRange, DeviceSpec, Input, Irq, Memory, Output, Resource
    from kvmbox.host.console.captured_port import Capture
    from kvmbox.host.disk.transfers import BytesStore, FileStore
    from kvmbox.run.api.async_machine import AsyncMachine
    from kvmbox.run.api.machine import Machine
    from kvmbox.run.options.choices import ModuleSpec
    from kvmbox.run.result.run_result import RunResult
    from kvmbox.run.result.run_statistics import RunStats

__version__ = "0.1.0"

# The formatter would give each name a line of its own.
# fmt: off
__all__ = [
    "AddressRange", "AsyncMachine", "BytesStore", "Capture", "DeviceProcessError", "DeviceSpec",
    "ExpectError", "FileStore", "ImageError", "Input", "Irq", "KvmError", "KvmboxError", "Machine", "Memory",
    "ModuleSpec", "Output", "Resource", "RunResult", "RunStats", "SandboxError", "SnapshotFileError",
    "StartError", "StartTimeoutError", "UsageError", "WaitTimeoutError",
]
# fmt: on

_HOMES = {
    "contract.device_spec": ("AddressRange", "DeviceSpec", "Input", "Irq", "Memory", "Output", "Resource"),
    "host.disk.transfers": ("BytesStore", "FileStore"),
    "host.console.captured_port": ("Capture",),
    "run.api.async_machine": ("AsyncMachine",),
    "run.api.machine": ("Machine",),
    "run.options.choices": ("ModuleSpec",),
    "run.result.run_result": ("RunResult",),
    "run.result.run_statistics": ("RunStats",),
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'kvmbox' has no attribute '{name}'")
    from importlib import import_module

    home = next((module for module, names in _HOMES.items() if name in names), "base.errors")
    found: object = getattr(import_module(f"kvmbox.{home}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
