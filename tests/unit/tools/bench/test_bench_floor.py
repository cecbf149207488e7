"""The native loop: the bytes are those of the listing, and memory becomes executable."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from kvmbox.base import layout
from kvmbox.kvm import ioctl, uapi
from kvmbox.tools.bench.floor import LISTING, FloorState, NativeCode, split


def test_listing_assembles_to_its_bytes(tmp_path: Path) -> None:
    assembler, extract = shutil.which("as"), shutil.which("objcopy")
    if assembler is None or extract is None:
        pytest.skip("needs as and objcopy of binutils")
    source, code = split(LISTING)
    (tmp_path / "loop.s").write_text(source)
    subprocess.run([assembler, "--64", "-o", "loop.o", "loop.s"], cwd=tmp_path, check=True)
    subprocess.run([extract, "-O", "binary", "-j", ".text", "loop.o", "loop.bin"], cwd=tmp_path, check=True)
    assert (tmp_path / "loop.bin").read_bytes() == code


def test_listing_names_the_numbers_of_the_layout_and_of_kvm() -> None:
    source, _ = split(LISTING)
    assert f"mov esi, {ioctl.KVM_RUN:#x}" in source
    assert f"cmp ecx, {uapi.KVM_EXIT_MMIO}" in source
    assert f"cmp ecx, {uapi.KVM_EXIT_IO}" in source
    for port in (layout.COM_PORTS["COM1"], layout.DEBUG_EXIT_PORT, layout.SHUTDOWN_PORT):
        assert f"cmp cx, {port:#x}" in source


def test_listing_names_the_offsets_of_the_state() -> None:
    source, _ = split(LISTING)
    offsets = {name: getattr(FloorState, name).offset for name, _ in FloorState._fields_}
    assert offsets["descriptor"] == 0
    for name, register in (("kvm_run", "mov rbp"), ("size", "cmp rcx"), ("output", "mov rdx")):
        assert f"{register}, [rbx + {offsets[name]}]" in source
    assert f"inc qword ptr [rbx + {offsets['exits']}]" in source
    assert f"inc qword ptr [rbx + {offsets['used']}]" in source


def test_native_code_runs_with_its_argument() -> None:
    code = NativeCode(bytes.fromhex("488b07 c3"))  # mov rax, [rdi]; ret
    value = ctypes.c_uint64(12345)
    try:
        assert code.call(ctypes.addressof(value)) == 12345
    finally:
        code.close()


def writable_and_executable() -> list[str]:
    maps = Path("/proc/self/maps").read_text()
    return [line for line in maps.splitlines() if "rwx" in line.split()[1]]


def test_native_code_is_never_writable_and_executable() -> None:
    before = writable_and_executable()  # other tests of this process may have made some
    code = NativeCode(bytes.fromhex("c3"))
    try:
        assert writable_and_executable() == before
    finally:
        code.close()
