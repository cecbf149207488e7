"""The floor: KVM_RUN in a loop of machine code, with no Python and no device model in it.

What an exit costs before any VMM has done anything is a fact of the host: hardware, KVM backend, system call.
No VMM can be below it, so it is what all others are measured by. The loop below is the whole of such a VMM:
it enters the guest again after each port or MMIO exit. It answers every read with 0x60 in each byte (which
an UART's LSR says when it can transmit, so that the bench guest can print its results), keeps what the guest
writes to COM1, and leaves when the guest writes to the debug-exit or the shutdown port, or when KVM_RUN fails
or exits for another reason.

It runs as a process of its own (`main`, started by `measurements`), as every other configuration does; the VM
is built by the parts that `kvmbox run` uses.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

from kvmbox.base import layout
from kvmbox.base.errors import KvmboxError, KvmError, UnknownExitError
from kvmbox.base.memory import GuestMemory
from kvmbox.kvm import uapi
from kvmbox.kvm.ioctl import libc
from kvmbox.kvm.system import Kvm
from kvmbox.kvm.vcpu import Vcpu
from kvmbox.run.api.machine import Machine
from kvmbox.run.machine.boot_source import BootSource
from kvmbox.run.machine.guest_vm import GuestVm

LISTING: Final = """
    push rbx                        53
    push rbp                        55
    mov rbx, rdi                    4889fb          ; struct floor_state
    mov rbp, [rbx + 8]              488b6b08        ; struct kvm_run
again:
    mov eax, 16                     b810000000      ; ioctl(descriptor, KVM_RUN, 0)
    mov rdi, [rbx]                  488b3b
    mov esi, 0xae80                 be80ae0000
    xor edx, edx                    31d2
    syscall                         0f05
    test eax, eax                   85c0
    js leave                        785e
    inc qword ptr [rbx + 40]        48ff4328        ; exits
    mov ecx, [rbp + 8]              8b4d08          ; exit_reason
    cmp ecx, 6                      83f906          ; KVM_EXIT_MMIO: data stays what it was
    je again                        74df
    cmp ecx, 2                      83f902          ; KVM_EXIT_IO
    jne leave                       754d
    mov rcx, [rbp + 0x20]           488b4d20        ; direction, size, port, count
    mov rdx, [rbp + 0x28]           488b5528        ; data_offset
    test cl, 1                      f6c101          ; KVM_EXIT_IO_OUT
    jnz write                       750a
    mov dword ptr [rbp + rdx], 0x60606060   c744150060606060
    jmp again                       ebc3
write:
    shr rcx, 16                     48c1e910        ; the port
    cmp cx, 0x3f8                   6681f9f803      ; COM1
    je keep                         7410
    cmp cx, 0xf4                    6681f9f400      ; debug-exit
    je leave                        7424
    cmp cx, 0x8900                  6681f90089      ; shutdown
    jne again                       75aa
    jmp leave                       eb1b
keep:
    mov rcx, [rbx + 32]             488b4b20        ; used
    cmp rcx, [rbx + 24]             483b4b18        ; size
    jae again                       739e
    mov al, [rbp + rdx]             8a441500
    mov rdx, [rbx + 16]             488b5310        ; output
    mov [rdx + rcx], al             88040a
    inc qword ptr [rbx + 32]        48ff4320
    jmp again                       eb8d
leave:
    cdqe                            4898            ; of ioctl: 0, or the negative errno
    pop rbp                         5d
    pop rbx                         5b
    ret                             c3
"""
"""System V ABI: long loop(struct floor_state *). Intel syntax, then the bytes; a test assembles the one and
compares it with the other."""

OUTPUT_SIZE: Final = 1 << 24


class FloorState(ctypes.Structure):
    """What the loop works on; the offsets stand in LISTING."""

    _fields_ = (
        ("descriptor", ctypes.c_uint64),
        ("kvm_run", ctypes.c_uint64),
        ("output", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("used", ctypes.c_uint64),
        ("exits", ctypes.c_uint64),
    )


def split(listing: str) -> tuple[str, bytes]:
    """Source for an assembler, and the bytes that the listing says it assembles to."""
    source, code = [".intel_syntax noprefix"], bytearray()
    for line in listing.splitlines():
        text = line.partition(";")[0].rstrip()
        if not text or text.endswith(":"):
            source.append(text)
            continue
        instruction, _, digits = text.rpartition("  ")
        source.append(instruction.rstrip())
        code += bytes.fromhex(digits)
    return "\n".join(source) + "\n", bytes(code)


class NativeCode:
    """Machine code that can be called with one pointer. A context manager: its memory goes with it."""

    def __init__(self, code: bytes) -> None:
        """Raises OSError if the host does not allow memory to become executable."""
        self._mapping = mmap.mmap(-1, max(len(code), 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._mapping.write(code)
        # SAFETY: the address of a mapping of ours, which lives until `close`; from_buffer holds it in place.
        self._first = ctypes.c_char.from_buffer(self._mapping)
        address = ctypes.addressof(self._first)
        # Never writable and executable at the same time.
        if libc.mprotect(
            ctypes.c_void_p(address), ctypes.c_size_t(len(self._mapping)), mmap.PROT_READ | mmap.PROT_EXEC
        ):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), "mprotect")
        # SAFETY: CFUNCTYPE releases the GIL; the code keeps the registers that the ABI wants kept.
        self.call = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_void_p)(address)

    def close(self) -> None:
        """Unmap it; nobody may call it any more."""
        del self._first
        self._mapping.close()


def loop(vcpu: Vcpu, output_size: int = OUTPUT_SIZE) -> tuple[bytes, int]:
    """Run the guest of `vcpu` in the native loop to its end: its output on COM1, and the number of exits.

    Raises UnknownExitError for an exit that is neither a port's nor memory's, KvmError if KVM_RUN fails.
    """
    output = ctypes.create_string_buffer(output_size)
    # SAFETY: kvm_run's mapping and the buffer outlive the call, which is the only user of their addresses; a
    # slice of the view would keep `Vcpu.close` from unmapping, so the reference goes before this returns.
    page = ctypes.c_char.from_buffer(vcpu.bytes)
    state = FloorState(vcpu.fileno(), ctypes.addressof(page), ctypes.addressof(output), output_size, 0, 0)
    code = NativeCode(split(LISTING)[1])
    try:
        status = -errno.EINTR
        while status in (-errno.EINTR, -errno.EAGAIN):
            status = code.call(ctypes.addressof(state))
    finally:
        del page
        code.close()
    if status < 0:
        raise KvmError(f"the floor: KVM_RUN failed: {os.strerror(-status)}")
    reason = vcpu.words32[2]
    if reason != uapi.KVM_EXIT_IO:
        raise UnknownExitError(f"the floor: the guest left by exit {reason}, not by a port")
    return output.raw[: state.used], int(state.exits)


def run(image: str, words: str) -> bytes:
    """Boot `image` with the command line `words`, and return what it prints on COM1."""
    config = Machine(image, append=words).config
    source = BootSource.read(config)
    with ExitStack() as cleanup:
        memory = GuestMemory(layout.DEFAULT_MEMORY)
        cleanup.callback(memory.close)
        kvm = cleanup.enter_context(Kvm.open())
        guest = GuestVm(kvm, memory, source, cpu=config.cpu)
        cleanup.callback(guest.close)
        return loop(guest.vcpus[0])[0]


def main(arguments: Sequence[str]) -> int:
    """The process: image and command line in, the guest's output on descriptor 1; returns the status."""
    image, words = arguments
    try:
        output = run(image, words)
    except KvmboxError as error:
        os.write(2, f"kvmbox: error: {error}\n".encode())
        return error.exit_status
    while output:
        output = output[os.write(1, output) :]
    return 0
