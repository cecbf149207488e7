"""The register dump of crash reports."""

from __future__ import annotations

import pytest

from kvmbox.kvm.registers import cpu_mode, format_registers
from kvmbox.kvm.uapi import kvm_regs, kvm_sregs


def make_sregs(cr0: int = 0, efer: int = 0, *, long: int = 0, big: int = 0, dpl: int = 0) -> kvm_sregs:
    sregs = kvm_sregs(cr0=cr0, efer=efer)
    sregs.cs.l, sregs.cs.db, sregs.ss.dpl = long, big, dpl
    return sregs


@pytest.mark.parametrize(
    ("rflags", "sregs", "mode"),
    [
        (2, make_sregs(0x10), "real mode"),
        (2, make_sregs(0x11, big=1), "32-bit protected mode, CPL 0"),
        (2, make_sregs(0x11), "16-bit protected mode, CPL 0"),
        (0x20002, make_sregs(0x11, big=1), "virtual-8086 mode"),
        (2, make_sregs(0x80000011, 0x500, long=1), "64-bit mode, CPL 0"),
        (2, make_sregs(0x80000011, 0x500, long=1, dpl=3), "64-bit mode, CPL 3"),
        (2, make_sregs(0x80000011, 0x500, big=1), "compatibility mode, CPL 0"),
        (2, make_sregs(0x80000011, 0x100, big=1), "32-bit protected mode, CPL 0"),  # LME without LMA
    ],
)
def test_cpu_mode_from_control_bits_is_named(rflags: int, sregs: kvm_sregs, mode: str) -> None:
    assert cpu_mode(kvm_regs(rflags=rflags), sregs) == mode


def test_registers_have_32_bits_outside_of_long_mode() -> None:
    regs = kvm_regs(rax=0x1122334455667788, rip=0x1_0010_0000, r8=1, rflags=0x3002)
    text = format_registers(regs, make_sregs(0x11, big=1))
    assert "EAX=55667788 EBX=00000000" in text
    assert "EIP=00100000 EFLAGS=00003002 [] interrupts off, IOPL 3" in text
    assert "R8" not in text
    assert "CS  0000 00000000 00000000" in text
    assert text.startswith("CPU in 32-bit protected mode, CPL 0, RIP=0x100000\n")


def test_format_registers_shows_each_register_once_with_its_value() -> None:
    names = "rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 rip".split()  # noqa: SIM905 - a table
    regs = kvm_regs(**{name: 0x1122334455667700 + i for i, name in enumerate(names)}, rflags=0x246)
    sregs = make_sregs(0x80000011, 0x500, long=1)
    sregs.cr2, sregs.cs.selector, sregs.gdt.base, sregs.gdt.limit = 0xDEAD, 8, 0x1000, 0x37

    text = format_registers(regs, sregs)

    for i, name in enumerate(names):
        assert text.count(f"{name.upper():<3}={0x1122334455667700 + i:016x}") == 1
    assert "RFLAGS=00000246 [PF ZF IF] interrupts on, IOPL 0" in text
    assert "CR2=000000000000dead" in text
    assert "CS  0008 0000000000000000 00000000" in text
    assert "GDT      0000000000001000 00000037" in text
    assert text.startswith("CPU in 64-bit mode, CPL 0, RIP=0x1122334455667710\n")
    assert not text.endswith("\n")
    assert max(map(len, text.splitlines())) <= 100
