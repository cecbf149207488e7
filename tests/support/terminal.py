"""A pseudo-terminal of a test, and a run that leads a session on it, and so is in the foreground."""

from __future__ import annotations

import os
import sys
import termios
from typing import Any

from tests.support.real_mode import say
from tests.support.runs import ENTRY, Images, Run
from tests.support.waiting import Stream

# A session leader that opens a terminal gets it as its controlling one.
LEAD = "import os; os.close(os.open(os.ttyname(0), os.O_RDWR)); "
COMMAND = (sys.executable, "-c", LEAD + ENTRY)
LOCAL_FLAGS = termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN
READY = say(b"ready\n")


class Terminal:
    """A pseudo-terminal: what a person types is `send`, what they see is `screen`."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        self.screen = Stream(self.master, "the screen")
        self.before = self.settings()

    def settings(self) -> list[Any]:
        return termios.tcgetattr(self.slave)

    @property
    def is_raw(self) -> bool:
        return not self.settings()[3] & LOCAL_FLAGS

    def send(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def start(self, images: Images, code: bytes, *arguments: str) -> Run:
        """A run on this terminal, stderr apart, whose guest will say that it is ready."""
        return images.run(
            READY + code,
            *arguments,
            command=COMMAND,
            stdin=self.slave,
            stdout=self.slave,
            start_new_session=True,
        )

    def run(self, images: Images, code: bytes, *arguments: str) -> Run:
        """The same; it has said it."""
        run = self.start(images, code, *arguments)
        self.screen.until(b"ready\r\n")
        return run

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)
