"""The attack of a planted bug: a guest that uses it, run in several kinds of machine."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.planted.plant import BUGS, Plant
from tools.reach.machines import WITHOUT_OWN

GUESTS: Final = "guests"
COMMON: Final = ("start32.S", "runtime.c", "command_line.c")
FLAGS: Final = (
    *("-m32", "-march=i386", "-O2", "-ffreestanding", "-fno-pic", "-fno-pie", "-fno-stack-protector"),
    *("-fcf-protection=none", "-mgeneral-regs-only", "-nostdlib", "-static", "-Wl,--build-id=none"),
    *("-Wl,-z,noexecstack", "-Wl,-z,max-page-size=4096", "-Wl,-m,elf_i386"),
)
WILD: Final = 0x4141_4141_4141_4141
"""Where a guest sends the device that cannot know where anything is."""

WAYS: Final = {
    "one process": WITHOUT_OWN,
    "… confined": ("--sandbox", "none"),
    "default": (),
    "no filter": ("--seccomp", "off"),
    "restart": ("--on-device-crash", "restart"),
}
"""How kvmbox is run: as a hypervisor of one process, without and with what kvmbox itself takes; and in three
ways with device processes."""

LIMIT_S: Final = 60
PATIENCE_S: Final = 120
STUCK: Final = 1000
"""The status of a kvmbox that had to be killed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attack.

    `taken`: a shell has run for the guest. `status`: as subprocess has it, or `STUCK`.
    """

    status: int
    said: str
    error: str
    taken: bool

    def __str__(self) -> str:
        if self.taken:
            return "**a shell runs**"
        if self.status < 0:
            return f"kvmbox ends by {signal.Signals(-self.status).name}"
        if self.status == STUCK:
            return "kvmbox hangs"
        if self.status == 0:
            heard = [HEARD.get(line[:7], line) for line in self.said.splitlines() if line != "alive"]
            return "no shell" if "written" in heard else ", ".join(heard) or "nothing"
        return f"{what_ended(self.error)} ({self.status})"


HEARD: Final = {"pointer": "an address is read"}
_WHAT: Final = (
    (r"device process .* did not answer the replay", "no replay is like it"),
    (r"device process .* it called (\w+)\(", r"held at `\1`"),
    (r"device process .* killed by signal \d+ \((\w+)\)", r"the process ends by \1"),
    (r"device process .* is hung", "ended as hung"),
    (r"internal error: (\w+)", r"the VMM ends by \1"),
)
_AGAIN: Final = "; the same request had broken the 2 processes before it"


def what_ended(error: str) -> str:
    """The error of kvmbox in few words; of one that none of `_WHAT` is, the whole line."""
    line = next((one for one in error.splitlines() if "error: " in one), error.strip())
    for pattern, text in _WHAT:
        match = re.search(pattern, line)
        if match is not None:
            return match.expand(text) + (", three times" if _AGAIN in line else "")
    return line.removeprefix("kvmbox: error: ")


def function_distance() -> int:
    """From the function that the pointer names, to one that runs a command; modulo 2**64."""
    libc = ctypes.CDLL(None)
    places = [ctypes.cast(function, ctypes.c_void_p).value or 0 for function in (libc.system, libc.labs)]
    return (places[0] - places[1]) % (1 << 64)


def build(plant: Plant, top: Path) -> Path:
    """The guest, as an image for `kvmbox run`. CalledProcessError if it cannot be built."""
    guests, image = top / GUESTS, top / "attack.elf"
    sources = [BUGS / "attack.c", BUGS / f"{plant.name}.c", *(guests / "common" / one for one in COMMON)]
    defines = [f"-DSIZE={plant.size}", f"-DREADS={int(plant.reads)}", f"-DWRITES={int(plant.writes)}"]
    subprocess.run(
        ["cc", *FLAGS, *defines, f"-I{guests}", f"-I{guests}/common", f"-I{BUGS}", "-T",
         str(guests / "common/elf.ld"), "-o", str(image), *map(str, sources)],
        check=True,
    )  # fmt: skip
    return image


def attack(plant: Plant, top: Path, image: Path, way: tuple[str, ...]) -> Outcome:
    """Run the guest on the kvmbox of `top`."""
    place = top / "run"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    (place / "disk").write_bytes(bytes(1 << 16))
    pointer = function_distance() if plant.reads else WILD
    arguments = [one.replace("{disk}", str(place / "disk")) for one in plant.arguments]
    command = [
        *(sys.executable, "-m", "kvmbox", "run", str(image), "--append"),
        *(f"{pointer & 0xFFFF_FFFF} {pointer >> 32}", "--timeout", str(LIMIT_S), *arguments, *way),
    ]
    environment = os.environ | {"PYTHONPATH": str(top), "KVMBOX_PURE": "1", "KVMBOX_CONFIG": "none"}
    with subprocess.Popen(
        command,
        cwd=place,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        try:
            said, error = process.communicate(timeout=PATIENCE_S)
            status = process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            said, error = process.communicate()
            status = STUCK
    return Outcome(status, said, error, (place / "taken").exists())
