"""What the template loads and makes, since each boot process would do so anew."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from kvmbox.contract import catalog
from kvmbox.explain import capstone, disassembly
from kvmbox.kvm import uapi
from kvmbox.kvm.vcpu import SIGSET_SIZE
from kvmbox.kvm.vm import pc_routing
from kvmbox.run.api.machine import Machine
from kvmbox.run.machine.board_setup import board_of
from kvmbox.sandbox.seccomp import shipped
from kvmbox.sandbox.vmm import readable_directories

PRELOADED: Final = (
    "base64",
    "kvmbox.devices.virtio.board",
    "kvmbox.boot.elf.way",
    "kvmbox.boot.rom.way",
    "kvmbox.boot.linux.way",
    "kvmbox.boot.multiboot.way",
    "kvmbox.boot.multiboot2.way",
    "kvmbox.boot.pvh.way",
    "kvmbox.boot.real_mode.way",
    *("kvmbox.firmware.acpi", "kvmbox.firmware.bda", "kvmbox.firmware.mp_table", "kvmbox.firmware.smbios"),
    *("kvmbox.kvm.cpuid.backend_limits", "kvmbox.kvm.cpuid.cpu_models", "kvmbox.kvm.uapi_state"),
    "kvmbox.explain.diagnosis",
    "kvmbox.host.console.bios_messages",
    "kvmbox.host.time.start_timeout",
    "kvmbox.remote.channel.free_running",
    "kvmbox.sandbox.listener",
    *("kvmbox.parts.snapshot.restore", "kvmbox.parts.snapshot.start_options"),
    "zlib",
)
"""What a run imports when it needs it."""

COMPILED: Final = ("kvmbox.fast.compiled_channel", "kvmbox.fast.compiled_direct", "kvmbox.fast.compiled_loop")
"""The same of the compiled hot path."""


def preload(compiled: bool) -> None:
    """Load what boot processes need: modules, models for those without a sandbox, the disassembler; and make
    what is made at its first use, and kept.
    """
    for name in (*PRELOADED, *(COMPILED if compiled else ())):
        import_module(name)
    for device_type in catalog.USUAL:
        catalog.load_usual(device_type)
    disassembly.installed()
    capstone.mapped()  # a boot would map it in vain
    pc_routing()
    uapi.kvm_cpuid2(uapi.USUAL_CPUID_ENTRIES)
    uapi.kvm_msrs(1)
    uapi.kvm_signal_mask(SIGSET_SIZE)
    for name in ("vmm-main", "vmm-vcpu"):
        shipped(name)
    readable_directories()
    board_of(Machine("hello32", sandbox="none").config)  # opens nothing
