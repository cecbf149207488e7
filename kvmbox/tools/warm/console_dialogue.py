"""The dialogue of a boot: a thread that answers the guest when its console has shown what is waited for."""

from __future__ import annotations

import re
import threading
from typing import Final

from kvmbox.base.errors import ExpectError
from kvmbox.run.api.machine import Machine

LAST_WORDS_S: Final = 1.0
"""How long the dialogue may take to look at the last output."""


class Dialogue:
    """The dialogue of one boot."""

    def __init__(self, machine: Machine, steps: tuple[tuple[bytes, bytes], ...]) -> None:
        self.answered = 0
        self._machine = machine
        self._steps = [(re.compile(pattern), answer) for pattern, answer in steps]
        self._thread = threading.Thread(target=self._converse, name="kvmbox dialogue", daemon=True)

    def start(self) -> None:
        """The guest is about to run."""
        if self._steps:
            self._thread.start()

    def finish(self) -> int:
        """The guest has ended; returns how many patterns were seen."""
        if self._steps:
            self._thread.join(LAST_WORDS_S)
        return self.answered

    def _converse(self) -> None:
        for pattern, answer in self._steps:
            try:
                self._machine.expect(pattern)
            except ExpectError:
                return
            self.answered += 1
            self._machine.send(answer)
