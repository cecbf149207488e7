"""The parts of one run: which it has, and their stages (`part`).

The table of options names the part that obeys an option (`run.options.option_table`). A part is `PART` of the
module `kvmbox.parts.NAME.part`, imported by this name when one of its options is given. The run summons four
by itself: disks, when it boots from one, the screen, when the guest has used it, the crash report, when the
guest has come to a bad end, and the monitor, when a person wants it.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

from kvmbox.base.errors import KvmboxError, StartError
from kvmbox.base.outcome import GUEST_CRASHED, INTERRUPTED, TIMED_OUT, UNKNOWN_EXIT, Outcome
from kvmbox.run.display.text_memory import is_unused
from kvmbox.run.machine.start_state import Origin
from kvmbox.run.options.config import RunConfig
from kvmbox.run.options.option_table import PARAMETERS
from kvmbox.run.part import Finding, Lost, Opening, Part, Standing
from kvmbox.run.part_loader import load
from kvmbox.run.result.run_result import Draft

if TYPE_CHECKING:
    from kvmbox.run.display.vga_window_switch import Aperture
    from kvmbox.run.loop.main_loop import MainLoop
    from kvmbox.run.machine.device_set import Devices

DISK: Final = "disk"
SCREEN: Final = "screen"
CRASH_REPORT: Final = "crash_report"
MONITOR: Final = "monitor"

BAD_ENDS: Final = (GUEST_CRASHED, UNKNOWN_EXIT, TIMED_OUT, INTERRUPTED)
"""The ends after which the state of the guest says something."""

ORDER: Final = tuple(dict.fromkeys(option.part for option in PARAMETERS.values() if option.part))
"""The names of the parts, in the order in which they are told of each stage."""


def origin_of(config: RunConfig) -> Origin:
    """Where the run starts from. Raises StartError."""
    if config.start is None:
        return Origin()
    origin: Origin = load("snapshot.restore", "ORIGIN")(config.start, catch_up=config.rtc == "catch-up")
    return origin


def prepare_report() -> None:
    """Map the code that reports and profiles need, and that a confined VMM could not map any more."""
    # pyelftools needs zlib, and `inspect`, which needs _opcode from Python 3.13 on.
    for name in ("binascii", "math", "zlib", *["_opcode"][: sys.version_info >= (3, 13)]):
        __import__(name)
    from kvmbox.explain.capstone import mapped

    mapped()


def window_of(loop: MainLoop, devices: Devices) -> Aperture:
    """What has the window of a VGA (`vga_window_switch`): loaded for a guest with graphics, or with fonts."""
    from kvmbox.run.display import vga_window_switch

    return vga_window_switch.window_of(loop, devices)


class Parts:
    """The parts of one run, by name."""

    def __init__(self, config: RunConfig) -> None:
        """Make those that `config` wants. Raises UsageError, StartError."""
        self._parts: dict[str, Part] = {
            name: load(f"{name}.part", "PART")(**config.parts[name]) for name in ORDER if name in config.parts
        }
        self._cleanup: ExitStack | None = None
        self._machine: Standing | None = None
        self._problems: dict[str, str] = {}
        """Why parts are missing that the run wanted by itself, by name."""

    def equip(self, opening: Opening, cleanup: ExitStack) -> None:
        """See `Part`. `cleanup` closes each of them, also one that cannot be opened."""
        self._cleanup = cleanup
        if opening.source.disk is not None and DISK not in self._parts:
            self._parts[DISK] = load(f"{DISK}.part", "PART")()
        for part in self._parts.values():
            cleanup.callback(part.close)
            part.equip(opening)

    def open(self, opening: Opening) -> None:
        """See `Part`."""
        for part in self._parts.values():
            part.open(opening)

    def attach(self, machine: Standing) -> None:
        """See `Part`. Who looks at the screen comes last: by then it is known whether a text is searched."""
        self._machine = machine
        for name, part in list(self._parts.items()):
            if name != SCREEN:
                part.attach(machine)
        if SCREEN in self._parts:
            self._parts[SCREEN].attach(machine)
        elif machine.judge.searches:
            self.summon(SCREEN)
        for port in machine.console.inputs:
            if port.escapes is not None:
                port.escapes.summon = partial(self.summon, MONITOR)

    def summon(self, name: str) -> Part:
        """The part of a name: made and attached now, if the run does not have it. Raises StartError."""
        if name not in self._parts:
            part: Part = load(f"{name}.part", "PART")()
            assert self._machine is not None
            assert self._cleanup is not None
            self._cleanup.callback(part.close)
            part.attach(self._machine)
            self._parts[name] = part
        return self._parts[name]

    def _summon_if_there(self, name: str) -> None:
        """The same for the run itself: the end of the guest counts, and not what could be said about it."""
        try:
            self.summon(name)
        except StartError as error:
            self._problems[name] = str(error)

    def _in_order(self) -> list[Part]:
        """The parts in the order of the table, also those that the run has summoned."""
        return [self._parts[name] for name in ORDER if name in self._parts]

    @property
    def readable(self) -> list[str]:
        """What the confined VMM must still be able to read."""
        return [path for part in self._parts.values() for path in part.readable]

    @property
    def accepts(self) -> bool:
        """Whether a client may connect when the VMM is confined."""
        return any(part.accepts for part in self._parts.values())

    @property
    def has_disks(self) -> bool:
        """Whether the confined VMM reads and writes disks of the guest."""
        return DISK in self._parts

    def start(self) -> None:
        """See `Part`."""
        for part in self._parts.values():
            part.start()

    def guest_ends(self, outcome: Outcome) -> None:
        """The guest comes to its end, and has not been looked at yet."""
        if outcome.status in BAD_ENDS:
            self._summon_if_there(CRASH_REPORT)

    def show(self) -> None:
        """See `Part`. A guest that has used its screen, maybe before it was saved, has something to show."""
        machine = self._machine
        if machine is not None and (
            machine.config.start is not None or not is_unused(machine.memory, machine.devices)
        ):
            self._summon_if_there(SCREEN)
        for part in self._in_order():
            part.show()

    def ended(self, outcome: Outcome | None) -> list[Finding]:
        """See `Part`. One that fails does not keep the others from ending."""
        findings: list[Finding] = []
        bugs: list[Exception] = []
        for part in self._in_order():
            try:
                finding = part.ended(outcome)
            except KvmboxError as error:
                finding = Lost(str(error), hint=error.hint)
            except Exception as error:  # noqa: BLE001 - raised when the others have ended
                finding = None
                bugs.append(error)
            if finding is not None:
                findings.append(finding)
        if bugs:
            raise bugs[0]
        return findings

    def report(self, draft: Draft) -> None:
        """See `Part`."""
        for part in self._in_order():
            part.report(draft)
        for problem in self._problems.values():
            assert self._machine is not None
            self._machine.say(problem)
