"""Values of command-line options: sizes, addresses, times. Errors say what was given and what is accepted."""

from __future__ import annotations

import math
import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

from kvmbox import layout
from kvmbox.errors import UsageError
from kvmbox.machine.config import ModuleSpec

_UNITS: Final = {"": 1, "K": layout.KIB, "M": layout.MIB, "G": layout.GIB}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def parse_size(text: str) -> int | None:
    """Bytes from '4096', '64K', '128M', '1G', or None."""
    found = re.fullmatch(r"([0-9]{1,18})(?:([KMG])(?:i?B)?|B)?", text.strip(), re.ASCII | re.IGNORECASE)
    return int(found[1]) * _UNITS[(found[2] or "").upper()] if found else None


class _MemorySize(click.ParamType[int]):
    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        size = parse_size(str(value))
        if size is None:
            self.fail(f"'{value}' is not a size: give bytes, or a number with K, M or G", param, ctx)
        if size % layout.PAGE_SIZE:
            self.fail(f"'{value}' is not a multiple of the page size, {layout.PAGE_SIZE} bytes", param, ctx)
        if not layout.MIN_MEMORY <= size <= layout.MAX_MEMORY:
            self.fail(
                f"'{value}' is not between {layout.MIN_MEMORY // layout.MIB}M and "
                f"{layout.MAX_MEMORY // layout.GIB}G",
                param,
                ctx,
            )
        return size


class _PositiveBytes(click.ParamType[int]):
    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        size = value if isinstance(value, int) else parse_size(str(value))
        if not size:
            self.fail(f"'{value}' is not a positive number of bytes (K, M and G may follow)", param, ctx)
        return size


class _Address(click.ParamType[int]):
    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        number = _integer(str(value))
        if number is None:
            self.fail(f"'{value}' is not an address: give a number such as 0x7c00", param, ctx)
        return number


class _OptionalPort(click.ParamType[int | None]):
    name = "port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if isinstance(value, int):
            return value
        if value == "none":
            return None
        number = _integer(str(value))
        last = 0x10000 - layout.DEBUG_EXIT_PORT_COUNT
        if number is None or number > last:
            self.fail(f"'{value}' is neither none nor a port from 0 to {last:#x}", param, ctx)
        return number


class _Seconds(click.ParamType[float]):
    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not seconds > 0 or math.isinf(seconds):
            self.fail(f"'{value}' is not a positive number of seconds", param, ctx)
        return seconds


def given(*names: str) -> list[str]:
    """Which of these parameters of the command the command line names, as options are written, in order.

    For options that mean nothing beside another one: what is given in vain is a mistake, the default is none.
    """
    context = click.get_current_context()
    return [
        max(parameter.opts, key=len)
        for parameter in context.command.params
        if parameter.name in names
        and context.get_parameter_source(parameter.name) is click.core.ParameterSource.COMMANDLINE
    ]


MEMORY_SIZE: Final = _MemorySize()
POSITIVE_BYTES: Final = _PositiveBytes()
ADDRESS: Final = _Address()
OPTIONAL_PORT: Final = _OptionalPort()
SECONDS: Final = _Seconds()


def _integer(text: str) -> int | None:
    try:
        number = int(text, 0)
    except ValueError:
        return None
    return number if number >= 0 else None


def parse_module(text: str) -> ModuleSpec:
    """'FILE' or 'FILE,ARGUMENTS'."""
    path, _, arguments = text.partition(",")
    if not path:
        raise UsageError(f"--module '{text}' names no file")
    return ModuleSpec(path, arguments)


def parse_rtc_base(text: str, *, now: float | None = None) -> int:
    """The wall clock that the RTC shows at first, in seconds since 1970 as if that clock were UTC.

    'utc' and 'localtime' are the host's; an ISO 8601 date or date and time is shown as it is written.
    """
    moment = time.time() if now is None else now
    if text == "utc":
        return int(moment)
    if text == "localtime":
        return int(moment) + time.localtime(moment).tm_gmtoff
    try:
        given = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"--rtc-base '{text}' is neither utc, localtime nor an ISO date and time",
            hint="for example 2026-02-28T23:59:50",
        ) from error
    # The RTC shows a wall clock: what was written is what it shows, whatever the zone.
    return (given.replace(tzinfo=UTC) - _EPOCH) // timedelta(seconds=1)
