"""Where QEMU 10.0 departs from the data sheets: the table departures.toml has a proof for each.

Random programs avoid a departure, or mask the bits that differ; nothing else is excused. Each entry has a
witness: lines on which both servers differ as the entry says. If QEMU mends its ways, or kvmbox takes them
over, the witness fails, and the entry has to go.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

Said = tuple[str, ...]
"""What a server sends: interrupt messages and answers, each a line."""


@dataclass(frozen=True, slots=True)
class Departure:
    """One departure. `mask` are the bits that still count in answers that show it.

    `lines` are sent to both servers, after `irq_intercept_in`; `ours` and `theirs` is what comes for the
    last of them.
    """

    key: str
    subject: str
    datasheet: str
    qemu: str
    lines: Said
    ours: Said
    theirs: Said
    mask: int = 0xFF

    @property
    def chip(self) -> str:
        """uart, pit, rtc, pm, hpet, kbd or ide."""
        return self.key.partition("-")[0]


PM_ON: Final = ("outl 0xcf8 0x80000b40", "outl 0xcfc 0x601", "outl 0xcf8 0x80000b80", "outb 0xcfc 1")
"""QEMU's PIIX4 has its PM block where firmware puts it, by PCI configuration: 0x600. kvmbox has no PCI."""

_FOLDER: Final = Path(__file__).parent


def _table(name: str) -> tuple[Departure, ...]:
    table = tomllib.loads((_FOLDER / name).read_text(encoding="utf-8"))["departure"]
    return tuple(
        Departure(**entry | {key: tuple(entry[key].split("; ")) for key in ("lines", "ours", "theirs")})
        for entry in table
    )


DEPARTURES: Final = _table("departures.toml")
IDE_DEPARTURES: Final = _table("ide_departures.toml")
"""Their witnesses want drives, and lines that test_ide.py adds to the protocol."""

_BY_KEY: Final = {entry.key: entry for entry in DEPARTURES + IDE_DEPARTURES}


def departure(key: str) -> Departure:
    """The entry of that name."""
    return _BY_KEY[key]
