"""Sizes, ports and times that a person writes: what is accepted, by the Python API and the command line.

Each function takes what a program has (a number) or what a person types (text), and gives the number. A
ValueError says what was given and what is accepted; whoever calls adds the option's name.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from operator import index
from typing import Any, Final, TypeAlias, TypeVar

from kvmbox.base import layout
from kvmbox.base.errors import UsageError
from kvmbox.base.value_classes import Value

_One = TypeVar("_One")
Several: TypeAlias = _One | Sequence[_One]
"""What a program gives for an option that may be repeated: see `several`."""

MOST_CPUS: Final = 32
"""How many vCPUs a machine may have."""

MOST_SAMPLES: Final = 1000
"""How many samples a second a profile may have."""

_UNITS: Final = {"": 1, "K": layout.KIB, "M": layout.MIB, "G": layout.GIB}
_TIME_UNITS: Final = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_TIME: Final = r"([0-9]{1,15})(?:\.([0-9]{1,9}))?(ns|us|µs|ms|s)"


def several(option: str, wanted: Any) -> tuple[Any, ...]:
    """The values of an option that may be repeated: one, or a sequence of them. UsageError for anything else.

    Text, bytes and paths, which are sequences as well, are one value.
    """
    if isinstance(wanted, str | bytes | os.PathLike | Value):
        return (wanted,)
    if isinstance(wanted, Iterable):
        return tuple(wanted)
    raise UsageError(f"{option}: {wanted!r} is neither one value nor a sequence of values")


def parse_size(text: str) -> int | None:
    """Bytes from '4096', '64K', '128M', '1G', or None."""
    import re

    found = re.fullmatch(r"([0-9]{1,18})(?:([KMG])(?:i?B)?|B)?", text.strip(), re.ASCII | re.IGNORECASE)
    return int(found[1]) * _UNITS[(found[2] or "").upper()] if found else None


def guest_time(text: str) -> int | None:
    """Nanoseconds from '1.5s', '200ms', '30us' or '1000ns', or None."""
    import re  # a plain run has no use for it, nor for datetime below

    found = re.fullmatch(_TIME, text)
    if found is None:
        return None
    unit, fraction = _TIME_UNITS[found[3]], found[2] or "0"
    return int(found[1]) * unit + int(int(fraction) * unit // 10 ** len(fraction))


def memory_size(value: int | str) -> int:
    """Guest memory in bytes. ValueError."""
    size = parse_size(value) if isinstance(value, str) else index(value)
    if size is None:
        raise ValueError(f"'{value}' is not a size: give bytes, or a number with K, M or G")
    if isinstance(value, str) and value.isdecimal() and 0 < size < layout.PAGE_SIZE:
        raise ValueError(f"'{value}' is in bytes, which is too little: {value}M is in MiB")
    if size % layout.PAGE_SIZE:
        raise ValueError(f"'{value}' is not a multiple of the page size, {layout.PAGE_SIZE} bytes")
    if not layout.MIN_MEMORY <= size <= layout.MAX_MEMORY:
        raise ValueError(
            f"'{value}' is not between {layout.MIN_MEMORY // layout.MIB}M and "
            f"{layout.MAX_MEMORY // layout.GIB}G"
        )
    return size


def byte_count(value: int | str) -> int:
    """A positive number of bytes. ValueError."""
    size = parse_size(value) if isinstance(value, str) else index(value)
    if not size or size < 0:
        raise ValueError(f"'{value}' is not a positive number of bytes (K, M and G may follow)")
    return size


def address(value: int | str) -> int:
    """A guest address. ValueError."""
    number = _integer(value)
    if number is None:
        raise ValueError(f"'{value}' is not an address: give a number such as 0x7c00")
    return number


def far_address(value: tuple[int, int] | str) -> tuple[int, int]:
    """A real-mode address CS:IP, such as '1000:0', in hexadecimal. ValueError."""
    if isinstance(value, str):
        import re

        found = re.fullmatch(r"(?:0x)?([0-9a-fA-F]{1,4}):(?:0x)?([0-9a-fA-F]{1,4})", value.strip())
        if found is None:
            raise ValueError(f"'{value}' is not CS:IP, two hexadecimal numbers such as 07c0:0000")
        return int(found[1], 16), int(found[2], 16)
    selector, offset = value
    if not 0 <= selector <= 0xFFFF or not 0 <= offset <= 0xFFFF:
        raise ValueError(f"{value} is not (CS, IP), two numbers of 16 bits")
    return selector, offset


def cpu_count(value: int | str) -> int:
    """A number of vCPUs. ValueError."""
    return _positive(value, MOST_CPUS)


def sample_rate(value: int | str) -> int:
    """A number of samples a second. ValueError."""
    return _positive(value, MOST_SAMPLES)


def _positive(value: int | str, most: int) -> int:
    number = _integer(value)
    if number is None or isinstance(value, bool) or not 1 <= number <= most:
        raise ValueError(f"'{value}' is not a whole number from 1 to {most}")
    return number


def optional_port(value: int | str | None) -> int | None:
    """The first port of the debug-exit device, or None for None and 'none': no such device. ValueError."""
    if value is None or value == "none":
        return None
    number = _integer(value)
    last = 0x10000 - layout.DEBUG_EXIT_PORT_COUNT
    if number is None or number > last:
        raise ValueError(f"'{value}' is neither none nor a port from 0 to {last:#x}")
    return number


def seconds(value: float | str) -> float:
    """A positive time in seconds. ValueError."""
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise ValueError(f"'{value}' is not a positive number of seconds")
    return number


def _integer(value: int | str) -> int | None:
    try:
        number = int(value, 0) if isinstance(value, str) else index(value)
    except (ValueError, TypeError):
        return None
    return number if number >= 0 else None


def parse_rtc_base(text: str, *, now: float | None = None) -> int:
    """The wall clock that the RTC shows at first, in seconds since 1970 as if that clock were UTC.

    'utc' and 'localtime' are the host's; an ISO 8601 date or date and time is shown as it is written.
    Raises UsageError.
    """
    moment = time.time() if now is None else now
    if text == "utc":
        return int(moment)
    if text == "localtime":
        return int(moment) + time.localtime(moment).tm_gmtoff
    from datetime import UTC, datetime, timedelta

    try:
        given = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"--rtc-base '{text}' is neither utc, localtime nor an ISO date and time",
            hint="for example 2026-02-28T23:59:50",
        ) from error
    # The RTC shows a wall clock: what was written is what it shows, whatever the zone.
    return (given.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)


def rtc_base(value: int | str) -> int:
    """The same of a number, which it is already, or of a text. Raises UsageError."""
    return parse_rtc_base(value) if isinstance(value, str) else index(value)
