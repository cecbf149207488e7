"""ctypes over /dev/kvm: a small library of its own, that knows nothing of devices.

A guest of four instructions that prints "hi" through a port, run in the calling thread:

    import mmap, ctypes
    from kvmbox.kvm import Kvm, IoExit, HltExit, decode_exit, describe

    code = bytes.fromhex("b068 e6e9 b069 e6e9 f4")      # mov al,'h'; out 0xe9,al; mov al,'i'; …; hlt
    pages = mmap.mmap(-1, 0x10000)
    pages[0x1000 : 0x1000 + len(code)] = code
    address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    with Kvm.open() as kvm, kvm.create_vm() as vm:
        vm.set_user_memory_region(0, 0, len(pages), address)
        vcpu = vm.create_vcpu(0)
        sregs, regs = vcpu.get_sregs(), vcpu.get_regs()
        sregs.cs.base = sregs.cs.selector = 0           # real mode, at 0000:1000
        regs.rip, regs.rflags = 0x1000, 2
        vcpu.set_sregs(sregs)
        vcpu.set_regs(regs)
        while vcpu.run() == 0 and not isinstance(event := decode_exit(vcpu.bytes), HltExit):
            if isinstance(event, IoExit) and event.is_write:
                print(end=chr(vcpu.bytes[event.data_offset]))
            else:
                raise SystemExit(describe(event))

`system` is /dev/kvm, `vm` a virtual machine, `vcpu` a virtual CPU with the kick out of KVM_RUN; `exits` tells
what KVM_RUN returned with, `registers` prints registers, `uapi` and `ioctl` are the kernel's ABI.
The names below are loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvmbox.kvm.exits import (
        DebugExit,
        Exit,
        FailEntryExit,
        HltExit,
        InternalErrorExit,
        IntrExit,
        IoExit,
        MalformedExit,
        MmioExit,
        MsrExit,
        ShutdownExit,
        SystemEventExit,
        UnknownExit,
        decode_exit,
        describe,
        exit_name,
    )
    from kvmbox.kvm.registers import cpu_mode, format_registers
    from kvmbox.kvm.system import Kvm
    from kvmbox.kvm.vcpu import KICK_SIGNAL, Vcpu, install_kick_signal
    from kvmbox.kvm.vm import Vm

# The formatter would give each name a line of its own.
# fmt: off
__all__ = [
    "KICK_SIGNAL", "DebugExit", "Exit", "FailEntryExit", "HltExit", "InternalErrorExit", "IntrExit", "IoExit",
    "Kvm", "MalformedExit", "MmioExit", "MsrExit", "ShutdownExit", "SystemEventExit", "UnknownExit", "Vcpu",
    "Vm", "cpu_mode", "decode_exit", "describe", "exit_name", "format_registers", "install_kick_signal",
]
# fmt: on

_HOMES = {
    "Kvm": "system",
    "Vm": "vm",
    "Vcpu": "vcpu",
    "KICK_SIGNAL": "vcpu",
    "install_kick_signal": "vcpu",
    "cpu_mode": "registers",
    "format_registers": "registers",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'exits')}"), name)
