"""How a run has to end, written from docs/command-line.md ("Which event decides") and not from the code.

A guest prints TEXT in one way, and then ends in one way. A cell of the matrix has two options, a way and an
end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any, Final, NamedTuple

TEXT: Final = b"<TOKEN BAD>"
TOKEN: Final = b"TOKEN"
TOKEN_END: Final = TEXT.index(TOKEN) + len(TOKEN)

COM1, PACED, DEBUGCON, SCREEN = WAYS = ("COM1", "paced COM1", "debug console", "screen")
EXIT, SHUTDOWN, CRASH, HALT, SPIN, RESET = ENDS = ("debug-exit", "shutdown", "crash", "halt", "spin", "reset")

EXIT_STATUS: Final = 43
TIMED_OUT: Final = 124
BOOTS: Final = 20
"""As good as any number: a guest that resets for ever prints more than any limit."""


class Options(NamedTuple):
    """The options of a run that may judge it."""

    expect: bytes | None = None
    fail_on: bytes | None = None
    success_status: int | None = None
    no_reboot: bool = False
    snapshot_when: bytes | None = None
    snapshot_stop: bool = False
    serial_limit: int | None = None
    screen: str = "auto"
    gdb: bool = False


OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "expect": {"expect": TOKEN},
    "expect never": {"expect": b"never"},
    "fail-on": {"fail_on": b"BAD"},
    "fail-on at the same byte": {"fail_on": b"KEN"},
    "success-status": {"success_status": EXIT_STATUS},
    "success-status of others": {"success_status": 99},
    "no-reboot": {"no_reboot": True},
    "snapshot-when": {"snapshot_when": TOKEN},
    "snapshot-when never": {"snapshot_when": b"never"},
    "snapshot-stop": {"snapshot_when": TOKEN, "snapshot_stop": True},
    "serial-limit before": {"serial_limit": TOKEN_END - 3},
    "serial-limit at the same byte": {"serial_limit": TOKEN_END - 1},
    "serial-limit behind": {"serial_limit": TOKEN_END},
    "screen": {"screen": "end"},
    "gdb": {"gdb": True},
}
"""By name; options of one family share the first word, or say the same in another way."""


class Cell(NamedTuple):
    """One run."""

    names: tuple[str, ...]
    way: str
    end: str

    @property
    def options(self) -> Options:
        """Its options."""
        merged: dict[str, Any] = {}
        for name in self.names:
            merged |= OPTIONS[name]
        return Options(**merged)

    def __str__(self) -> str:
        return f"{' + '.join(self.names)}, {self.way}, {self.end}"


class Ending(NamedTuple):
    """What has to come of a run; `snapshot`: whether it has left one, None where time decides that."""

    status: int
    snapshot: bool | None


def pairs() -> list[tuple[str, ...]]:
    """No option, each one, and each two that do not say the same thing twice."""
    two = [pair for pair in combinations(OPTIONS, 2) if not set(OPTIONS[pair[0]]) & set(OPTIONS[pair[1]])]
    return [(), *((name,) for name in OPTIONS), *two]


def cells() -> Iterator[Cell]:
    """The whole matrix."""
    for names in pairs():
        for way in WAYS:
            for end in ENDS:
                yield Cell(names, way, end)


def model(cell: Cell) -> Ending:
    """What the documentation says."""
    options, way, end = cell.options, cell.way, cell.end
    expected = wanted = False
    when = options.snapshot_when
    reboots = end == RESET and not options.no_reboot
    # What a screen shows is seen at once; what a port prints is seen byte by byte.
    steps = [TEXT] if way == SCREEN else [TEXT[: size + 1] for size in range(len(TEXT))]
    for boot in range(BOOTS if reboots else 1):
        for seen in steps:
            fatal = options.fail_on is not None and options.fail_on in seen
            if options.serial_limit is not None and way != SCREEN:
                fatal = fatal or boot * len(TEXT) + len(seen) > options.serial_limit
            expected = expected or (options.expect is not None and options.expect in seen)
            # Of a machine that has crashed meanwhile there is no snapshot.
            late = way in (PACED, SCREEN) and end == CRASH
            wanted = wanted or (when is not None and when in seen and not late)
            if fatal:
                unsure = way == SCREEN or (options.serial_limit is not None and len(seen) == TOKEN_END)
                return Ending(12, None if unsure else wanted)
            if (expected and options.success_status is None) or (options.snapshot_stop and wanted):
                return Ending(0 if wanted or when is None else 12, wanted)
    if end == SPIN or reboots:
        return Ending(TIMED_OUT, wanted)
    if end in (CRASH, HALT):
        return Ending(6, wanted)
    status = EXIT_STATUS if end == EXIT else 0
    if options.expect is not None and not expected:
        return Ending(12, wanted)
    if options.success_status is not None:
        status = 0 if status == options.success_status else 12
    return Ending(12 if when is not None and not wanted else status, wanted)
