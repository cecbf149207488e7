"""kvmbox.kvm.uapi and .ioctl against the real <linux/kvm.h>: a C program prints what a compiler sees."""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvmbox.kvm import guest_debug, ioctl, uapi, uapi_state

# The C side has no names for these.
_EVENT_MEMBERS = {
    f"kvm_vcpu_events_{member}": member for member in ("exception", "interrupt", "nmi", "smi", "triple_fault")
}

# struct kvm_run is read by offset: constant → member of struct kvm_run.
_RUN_MEMBERS = {
    "RUN_IMMEDIATE_EXIT": "immediate_exit",
    "RUN_EXIT_REASON": "exit_reason",
    "RUN_FAIL_ENTRY_REASON": "fail_entry.hardware_entry_failure_reason",
    "RUN_IO_DIRECTION": "io.direction",
    "RUN_DEBUG_EXCEPTION": "debug.arch.exception",
    "RUN_MMIO_PHYS_ADDR": "mmio.phys_addr",
    "RUN_MMIO_DATA": "mmio.data",
    "RUN_INTERNAL_SUBERROR": "internal.suberror",
    "RUN_INTERNAL_DATA": "internal.data",
    "RUN_EMULATION_FLAGS": "emulation_failure.flags",
    "RUN_SYSTEM_EVENT_TYPE": "system_event.type",
    "RUN_SYSTEM_EVENT_DATA": "system_event.data",
    "RUN_MSR_ERROR": "msr.error",
    "RUN_UNION": "hw",
    "RUN_VALID_REGS": "kvm_valid_regs",
    "RUN_SYNC_RIP": "s.regs.regs.rip",
}


def _structures() -> Iterator[tuple[str, type[ctypes.Structure]]]:
    for name, value in (vars(uapi) | vars(uapi_state)).items():
        if isinstance(value, type) and issubclass(value, ctypes.Structure) and value is not ctypes.Structure:
            yield name, value


def _constants(module: Any) -> dict[str, int]:
    return {
        name: value
        for name, value in vars(module).items()
        if name.startswith("KVM_") and isinstance(value, int)
    }


def _expectations() -> Iterator[tuple[str, str, int]]:
    """(C integer expression, preprocessor symbol that must exist for it or "", what Python says)."""
    for name, structure in _structures():
        if name in _EVENT_MEMBERS:
            member = _EVENT_MEMBERS[name]
            yield f"sizeof(((struct kvm_vcpu_events *)0)->{member})", "", ctypes.sizeof(structure)
            start = uapi.kvm_vcpu_events.__dict__[member].offset
            for field, *_ in structure._fields_:
                offset = start + getattr(structure, field).offset
                yield f"offsetof(struct kvm_vcpu_events, {member}.{field})", "", offset
            continue
        tag = f"struct {name}"
        yield f"sizeof({tag})", "", ctypes.sizeof(structure)
        for field, *_ in structure._fields_:
            descriptor = getattr(structure, field)
            yield f"offsetof({tag}, {field})", "", descriptor.offset
            yield f"sizeof((({tag} *)0)->{field})", "", descriptor.size
    for constant, member in _RUN_MEMBERS.items():
        yield f"offsetof(struct kvm_run, {member})", "", getattr(uapi, constant)
    union_end = uapi.RUN_UNION + uapi.RUN_UNION_SIZE
    yield "offsetof(struct kvm_run, kvm_valid_regs)", "", union_end
    debug = guest_debug.kvm_guest_debug
    yield "sizeof(struct kvm_guest_debug)", "", ctypes.sizeof(debug)
    yield "offsetof(struct kvm_guest_debug, arch.debugreg)", "", debug.debugreg.offset
    for name, value in (
        _constants(uapi) | _constants(uapi_state) | _constants(ioctl) | _constants(guest_debug)
    ).items():
        yield name, name, value


@pytest.fixture(scope="module")
def c_values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Each expression → its value for the compiler; symbols that the header is too old for are absent."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    if platform.machine() != "x86_64":
        pytest.skip("the structures are those of x86")
    lines = ["#include <stddef.h>", "#include <stdio.h>", "#include <linux/kvm.h>", "int main(void) {"]
    for expression, symbol, _ in _expectations():
        line = f'printf("%llu {expression}\\n", (unsigned long long)({expression}));'
        lines += [f"#ifdef {symbol}", line, "#endif"] if symbol else [line]
    lines.append("return 0; }")
    directory: Path = tmp_path_factory.mktemp("probe")
    source, program = directory / "probe.c", directory / "probe"
    source.write_text("\n".join(lines))
    headers = subprocess.run(
        [compiler, "-E", "-include", "linux/kvm.h", "-x", "c", "/dev/null"], capture_output=True, check=False
    )
    if headers.returncode != 0:
        pytest.skip("no <linux/kvm.h>")
    subprocess.run([compiler, "-o", str(program), str(source)], check=True)
    output = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    return {
        expression: int(value) for value, expression in (line.split(" ", 1) for line in output.splitlines())
    }


def test_uapi_sizes_offsets_and_constants_match_the_kernel_header(c_values: dict[str, int]) -> None:
    wrong = {
        expression: (python, c_values[expression])
        for expression, _, python in _expectations()
        if expression in c_values and python != c_values[expression]
    }

    assert wrong == {}


def test_uapi_probe_covers_every_structure_and_request(c_values: dict[str, int]) -> None:
    assert "sizeof(struct kvm_sregs)" in c_values
    assert "offsetof(struct kvm_vcpu_events, triple_fault.pending)" in c_values
    assert set(ioctl.REQUEST_NAMES.values()) <= set(c_values)
    assert len(c_values) > 350


def test_run_offsets_are_all_compared_with_the_header() -> None:
    offsets = {name for name in vars(uapi) if name.startswith("RUN_")}

    assert offsets - set(_RUN_MEMBERS) == {"RUN_UNION_SIZE"}


def test_request_names_are_unique_and_complete() -> None:
    by_number = {value: name for name, value in _constants(ioctl).items()}

    assert by_number == ioctl.REQUEST_NAMES
    assert len(by_number) == len(_constants(ioctl))
    assert ioctl.request_name(ioctl.KVM_RUN) == "KVM_RUN"
    assert ioctl.request_name(0x1234) == "0x1234"


def test_structures_of_saved_state_are_found_as_those_of_a_plain_run() -> None:
    assert uapi.kvm_fpu is uapi_state.kvm_fpu
    with pytest.raises(AttributeError, match="kvm_nothing"):
        _ = uapi.kvm_nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize("count", [0, 1, 75])
def test_flexible_structure_with_n_entries_has_header_and_n_entries(count: int) -> None:
    msrs, cpuid, routing = uapi.kvm_msrs(count), uapi.kvm_cpuid2(count), uapi.kvm_irq_routing(count)

    assert ctypes.sizeof(msrs) == 8 + count * 16
    assert ctypes.sizeof(cpuid) == 8 + count * 40
    assert ctypes.sizeof(routing) == 8 + count * 48
    assert uapi.kvm_msrs(count) is msrs


def test_irqchip_views_share_the_memory_of_the_state() -> None:
    state = uapi.kvm_irqchip(uapi.KVM_IRQCHIP_PIC_MASTER)

    state.pic.imr = 0xFB
    state.ioapic.redirtbl[0] = 0x10000

    assert state.chip[2] == 0xFB
    assert bytes(state)[8 + 24 : 8 + 32] == (0x10000).to_bytes(8, "little")
