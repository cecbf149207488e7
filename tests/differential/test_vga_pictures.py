"""The pictures of boot sectors that draw: pixel by pixel those of QEMU's `screendump`."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from kvmbox import Machine
from tests.support.graphics_guests import NAMES, assemble
from tests.support.patience import patience
from tests.support.qemu import EMULATED

QEMU: Final = "qemu-system-x86_64"

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.kvm,
    pytest.mark.skipif(shutil.which(QEMU) is None, reason=f"{QEMU} is not installed"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="cc not found: boot sectors cannot be assembled"),
]


def ppm(path: Path) -> tuple[int, int, bytes]:
    """Width, height and pixels of a binary PPM file."""
    magic, width, height, most, pixels = path.read_bytes().split(maxsplit=4)
    assert (magic, most) == (b"P6", b"255")
    size = 3 * int(width) * int(height)
    return int(width), int(height), pixels[-size:] if len(pixels) > size else pixels


def screendump(image: Path, folder: Path) -> tuple[int, int, bytes]:
    """What QEMU shows when the guest has said that it has drawn."""
    dump, door = folder / "dump.ppm", folder / "qmp"
    command = [QEMU, *EMULATED, "-display", "none", "-vga", "std", "-no-reboot", "-debugcon", "stdio"]
    drive = ["-drive", f"format=raw,file={image},if=ide,snapshot=on"]
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(door))
        listening.listen()
        listening.settimeout(patience(60))
        process = subprocess.Popen(
            [*command, *drive, "-qmp", f"unix:{door}"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        try:
            connection, _ = listening.accept()
            connection.settimeout(patience(60))
            assert process.stdout is not None
            while (byte := process.stdout.read(1)) != b"D":
                assert byte, "QEMU has ended"
            with connection, connection.makefile("rw") as stream:

                def order(name: str, **arguments: Any) -> None:
                    stream.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
                    stream.flush()
                    while "return" not in json.loads(stream.readline()):
                        pass

                stream.readline()
                order("qmp_capabilities")
                order("screendump", filename=str(dump))
        finally:
            process.kill()
            process.wait()
            with contextlib.suppress(AttributeError):
                process.stdout.close()  # type: ignore[union-attr]  # or there is none
    return ppm(dump)


@pytest.mark.parametrize("name", NAMES)
def test_picture_is_that_of_qemu(name: str, tmp_path: Path) -> None:
    image = assemble(name, tmp_path)
    with Machine(image, timeout=patience(60)) as vm:
        result = vm.wait()
    assert result.status == 0x55
    picture = vm.screen.picture
    assert picture is not None
    width, height, pixels = screendump(image, tmp_path)
    assert (picture.width, picture.height) == (width, height)
    assert picture.rgb == pixels
