"""The processes of a pool of warm workers, and a guest that runs until somebody ends it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.support.family import children_of, descendants_of, parent_of, title_of
from tests.support.real_mode import COM2, IDLE, say
from tests.support.runs import Images
from tests.support.waiting import Stream


class Beacon:
    """A guest that says on COM2 that it runs, and then idles, or does what `then` does; COM2 is a FIFO."""

    def __init__(self, images: Images, then: bytes = IDLE) -> None:
        self.fifo = images.directory / "com2"
        os.mkfifo(self.fifo)
        self.stream = Stream(os.open(self.fifo, os.O_RDWR), "COM2")
        self.options: dict[str, Any] = {
            "image": str(images.write(say(b"up", COM2), then)),
            "boot": "real",
            "serial": [f"COM2=file:{self.fifo}"],
        }

    def wait(self) -> None:
        """Until the guest runs."""
        self.stream.until(b"up")

    def close(self) -> None:
        """The FIFO."""
        os.close(self.stream.descriptor)


def template_of(program: int) -> int:
    """The template of the one pool of a program."""
    found = [pid for pid in children_of(program) if title_of(pid) == "kvmbox: template"]
    assert len(found) == 1
    return found[0]


def running_boot(program: int, path: Path) -> int:
    """The boot process that has opened `path`."""
    found = [pid for pid in children_of(template_of(program)) if str(path) in files_of(pid)]
    assert len(found) == 1
    return found[0]


def spawner_of(boot: int) -> int:
    """The spawner of a boot process: the child of a spawner template."""
    program = parent_of(parent_of(boot))
    found = [pid for pid in descendants_of(program) if title_of(pid) == f"kvmbox: spawner of {boot}"]
    assert len(found) == 1
    return found[0]


def files_of(pid: int) -> list[str]:
    """What the descriptors of a process are; none if there is no such process any more."""
    directory = f"/proc/{pid}/fd"
    with suppress(FileNotFoundError, ProcessLookupError):
        return [os.readlink(f"{directory}/{number}") for number in os.listdir(directory)]
    return []
