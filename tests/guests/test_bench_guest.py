"""What whoever compares figures of the guests `bench` and `bench64` relies on, beside the runs in the table.

An iteration has the number of instructions that its source states, percentiles are exact, and QEMU runs the
same image. No test here looks at how long anything took.
"""

from __future__ import annotations

import ctypes
import math
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.patience import patience
from tests.support.shared import built_guests

SOURCES = Path(__file__).parents[2] / "guests"
QEMU = shutil.which("qemu-system-x86_64")
QEMU_STATUS_AT_THE_END = 33  # ((16 << 1) | 1): the image says 16 where there is no shutdown port
HANG_GUARD = patience(120)  # seconds

INSTRUCTIONS = {  # per iteration, with the two that count
    "bare": 2,
    "rdtsc_pair": 4,
    "inb_from_device": 3,
    "outb_to_device": 3,
    "inl_from_device": 3,
    "outl_to_device": 3,
    "insb_from_device": 9,
    "inb_unclaimed": 3,
    "outb_unclaimed": 3,
    "mov_from_device": 3,
    "mov_to_device": 3,
    "rtc_read": 5,
    "rtc_two_reads": 5,
    "pit_read": 3,
    "post": 3,
    "thr_polled": 9,
    "thr_only": 3,
    "debugcon": 3,
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_guests(tmp_path_factory) / "images"


def function(listing: str, name: str) -> list[tuple[int, str]]:
    """Address and text of each instruction of a function, from objdump's listing."""
    body = re.search(rf"^[0-9a-f]+ <{name}>:\n(.*?)\n\n", listing + "\n\n", re.MULTILINE | re.DOTALL)
    assert body, name
    lines = [line.split("\t", 1) for line in body[1].splitlines() if "\t" in line]
    return [(int(address.strip(" :"), 16), text) for address, text in lines]


def loop_length(code: list[tuple[int, str]]) -> int:
    """Instructions from the target of the first jump that closes a loop on DEC to that jump."""
    addresses = [address for address, _ in code]
    for index, (_, text) in enumerate(code):
        jump = re.match(r"jn[ez]\s+([0-9a-f]+)", text)
        if jump and code[index - 1][1].startswith("dec"):
            return index - addresses.index(int(jump[1], 16)) + 1
    raise AssertionError("no loop")


@pytest.mark.parametrize("guest", ["bench", "bench64"])
def test_bench_loops_have_the_stated_number_of_instructions(images: Path, guest: str) -> None:
    if shutil.which("objdump") is None:
        pytest.skip("objdump not found")
    listing = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", str(images / f"{guest}.elf")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = {name: loop_length(function(listing, f"bench_{name}")) for name in INSTRUCTIONS}
    assert found == INSTRUCTIONS


class Distribution(ctypes.Structure):
    """bench_samples.h: struct distribution."""

    _fields_ = [(name, ctypes.c_uint32) for name in ("min", "p50", "p90", "p99", "max")]


@pytest.fixture(scope="module")
def samples_library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """bench_samples.c, built for this machine instead of for a guest."""
    if shutil.which("cc") is None:
        pytest.skip("cc not found")
    library = tmp_path_factory.mktemp("samples") / "samples.so"
    source = SOURCES / "bench_samples.c"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.distribution_of.restype = Distribution
    loaded.distribution_of.argtypes = [ctypes.POINTER(ctypes.c_uint32), ctypes.c_uint32]
    return loaded


def nearest_rank(values: list[int]) -> tuple[int, int, int, int, int]:
    """The same by sorting."""
    values = sorted(values)
    p50, p90, p99 = (values[math.ceil(len(values) * percent / 100) - 1] for percent in (50, 90, 99))
    return values[0], p50, p90, p99, values[-1]


@pytest.mark.parametrize("spread", [1, 2, 7, 1000, 2**32])
def test_percentiles_of_samples_are_those_of_a_sort(samples_library: ctypes.CDLL, spread: int) -> None:
    generator = random.Random(spread)
    for count in [*range(1, 30), 99, 100, 101, 1000, 65536]:
        values = [generator.randrange(spread) for _ in range(count)]
        for order in (values, sorted(values), sorted(values, reverse=True)):
            array = (ctypes.c_uint32 * count)(*order)
            found = samples_library.distribution_of(array, count)
            assert (found.min, found.p50, found.p90, found.p99, found.max) == nearest_rank(values)
            assert sorted(array) == sorted(values)


@pytest.mark.kvm
@pytest.mark.skipif(QEMU is None, reason="qemu-system-x86_64 not found")
def test_bench_under_qemu_runs_the_same_image_to_its_end(images: Path) -> None:
    done = subprocess.run(
        [
            *(
                str(QEMU),
                "-accel",
                "kvm",
                "-nodefaults",
                "-display",
                "none",
                "-serial",
                "stdio",
                "-no-reboot",
            ),
            *("-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel", str(images / "bench.elf")),
            *("-append", "inb_from_device=100,dist mov_to_device=9 thr_polled=64 thr_irq=64 hlt_latency=3"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=HANG_GUARD,
    )
    assert done.returncode == QEMU_STATUS_AT_THE_END, done.stderr
    assert re.fullmatch(
        r"bench inb_from_device iterations=100 cycles=\d+\n"
        r"bench inb_from_device samples=100 min=\d+ p50=\d+ p90=\d+ p99=\d+ max=\d+\n"
        r"bench mov_to_device iterations=9 cycles=\d+\n"
        r"(\.{63}\n){2}bench thr_polled iterations=64 cycles=\d+\n"
        r"(\.{63}\n){2}bench thr_irq iterations=64 cycles=\d+\n"
        r"bench hlt_latency iterations=3 cycles=\d+ ticks=1193\n"
        r"bench hlt_latency samples=3 min=\d+ p50=\d+ p90=\d+ p99=\d+ max=\d+\n",
        done.stdout.decode(),
    ), done.stdout
