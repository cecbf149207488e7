"""What `--inject` says, read: `DEVICE:FAULT=VALUE[,FAULT=VALUE…][,seed=N][,after=N][,at=TIME]`. Pure.

A UsageError is one line that shows the text and the part that is wrong, with a hint.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Final

from kvmbox.base.errors import UsageError
from kvmbox.base.value_classes import Value
from kvmbox.contract.device_spec import DeviceSpec
from kvmbox.parts.inject import chance
from kvmbox.parts.inject.fault_table import CHANCE, DELAY, EACH, FAULTS, LATE, SPAN, Fault, faults_of
from kvmbox.run.options.values import guest_time

MOST_SPECS: Final = 64
"""How often `--inject` may be given."""

MOST_CHARACTERS: Final = 400
"""How long one may be."""

MOST_SEED: Final = (1 << 64) - 1
MOST_COUNT: Final = 10**12
MOST_TIME: Final = 10**18
"""In ns: thirty years."""

MOST_STEP: Final = 100 * 365 * 86_400
"""How far a clock may jump, in seconds: a hundred years."""

MOST_DELAY: Final = 2000
"""How long a read or a write of a disk may take, in ms: less than a reset of the machine waits for one."""

HELP_HINT: Final = "'kvmbox run --inject help' lists devices and faults"

_COUNT: Final = re.compile(r"[0-9]{1,20}")
_PROBABILITY: Final = re.compile(r"[0-9]{1,3}(\.[0-9]{1,18})?|\.[0-9]{1,18}")
_STEP: Final = re.compile(r"[+-][0-9]{1,12}")
_MODIFIERS: Final = ("seed", "after", "at")


class Wanted(Value):
    """A fault with its value.

    `threshold` is that of `chance.threshold`. The amount of a delay, a span or a step is in `accesses`, in
    `nanoseconds` or in `seconds`, and the other two are None; a span that lasts for ever has none of them.
    Of the events one in `each` is hit. `delay` is in ns of the host.
    """

    fault: Fault
    threshold: int = chance.CERTAIN
    accesses: int | None = None
    nanoseconds: int | None = None
    seconds: int | None = None
    each: int = 1
    delay: int | None = None


class Spec(Value):
    """One `--inject`. `device` is a name or a type of devices. The faults begin when the guest has made
    `after` accesses to the device, and when guest time is at least `at` ns.
    """

    text: str
    device: str
    wanted: tuple[Wanted, ...]
    seed: int = 0
    after: int = 0
    at: int = 0


def check_count(specs: Sequence[Spec]) -> None:
    """Refuse more of them than a run can have. Raises UsageError."""
    if len(specs) > MOST_SPECS:
        raise UsageError(
            f"--inject more than {MOST_SPECS} times", hint="a type, as 'uart', names several devices"
        )


def parse(text: str) -> Spec:
    """One `--inject`. Raises UsageError."""
    if len(text) > MOST_CHARACTERS:
        raise UsageError(
            f"--inject '{_shown(text)}' is longer than {MOST_CHARACTERS} characters", hint=HELP_HINT
        )
    device, colon, rest = text.partition(":")
    if not device or not colon or not rest:
        raise _wrong(text, "it is not DEVICE:FAULT=VALUE", "for example 'uart:drop-irq=0.01,seed=7'")
    wanted: list[Wanted] = []
    numbers: dict[str, int] = {}
    for item in rest.split(","):
        name, equals, value = item.partition("=")
        if not equals or not name or not value:
            raise _wrong(text, f"'{_shown(item)}' is not NAME=VALUE", "for example drop-irq=0.01")
        if name in numbers or any(one.fault.name == name for one in wanted):
            raise _wrong(text, f"'{name}' is there twice", "another --inject may have other values")
        if name in _MODIFIERS:
            numbers[name] = _modifier(text, name, value)
        elif name in FAULTS:
            wanted.append(_value(text, FAULTS[name], value))
        else:
            raise _wrong(text, f"'{_shown(name)}' is no fault", _closest(name, [*FAULTS, *_MODIFIERS]))
    if not wanted:
        raise _wrong(text, "it names no fault", HELP_HINT)
    return Spec(text, device, tuple(wanted), **numbers)


def select(spec: Spec, board: Sequence[DeviceSpec]) -> list[tuple[DeviceSpec, Wanted]]:
    """Which devices of `board` get which faults of `spec`. Raises UsageError."""
    meant = spec.device.casefold()
    devices = [device for device in board if device.name.casefold() == meant]
    devices = devices or [device for device in board if device.device_type.casefold() == meant]
    if not devices:
        known = [name for device in board for name in (device.name, device.device_type)]
        raise _wrong(
            spec.text, f"this machine has no device '{_shown(spec.device)}'", _closest(spec.device, known)
        )
    found = []
    for wanted in spec.wanted:
        fitting = [device for device in devices if wanted.fault.fits(device)]
        if not fitting:
            can = ", ".join(dict.fromkeys(name for device in devices for name in faults_of(device)))
            raise _wrong(
                spec.text, f"{spec.device} cannot have the fault '{wanted.fault.name}'", f"it can have {can}"
            )
        found += [(device, wanted) for device in fitting]
    return found


def _modifier(text: str, name: str, value: str) -> int:
    if name == "at":
        time = guest_time(value)
        if time is None or time > MOST_TIME:
            raise _wrong(
                text, f"at={_shown(value)} is no time", "a time has a unit: 1.5s, 200ms, 30us, 1000ns"
            )
        return time
    most = MOST_SEED if name == "seed" else MOST_COUNT
    if not _COUNT.fullmatch(value) or int(value) > most:
        raise _wrong(text, f"{name}={_shown(value)} is not a whole number from 0 to {most}", HELP_HINT)
    return int(value)


def _value(text: str, fault: Fault, value: str) -> Wanted:
    if fault.takes == CHANCE:
        return Wanted(fault, _chance(text, fault, value, value))
    if fault.takes == LATE:
        likely, at, amount = value.partition("@")
        if not at:
            raise _wrong(
                text,
                f"{fault.name}={_shown(value)} does not say by how much",
                f"{fault.name}=0.1@20 delays one in ten by 20 accesses, {fault.name}=0.1@2ms by 2 ms",
            )
        return Wanted(fault, _chance(text, fault, value, likely), **_amount(text, fault, value, amount))
    if fault.takes == SPAN:
        if value == "forever":
            return Wanted(fault)
        return Wanted(fault, **_amount(text, fault, value, value))
    if fault.takes == EACH:
        return Wanted(fault, each=_whole(text, fault, value, MOST_COUNT))
    if fault.takes == DELAY:
        return Wanted(fault, delay=_whole(text, fault, value, MOST_DELAY) * 1_000_000)
    if not _STEP.fullmatch(value) or not 0 < abs(int(value)) <= MOST_STEP:
        raise _wrong(
            text,
            f"{fault.name}={_shown(value)} is no number of seconds with its sign, up to {MOST_STEP}",
            f"for example {fault.name}=+3600 or {fault.name}=-86400",
        )
    return Wanted(fault, seconds=int(value))


def _chance(text: str, fault: Fault, value: str, likely: str) -> int:
    if not _PROBABILITY.fullmatch(likely) or float(likely) > 1:
        raise _wrong(
            text,
            f"{fault.name}={_shown(value)} is no probability from 0 to 1",
            f"for example {fault.name}=0.01" + ("@2ms" if fault.takes == LATE else ""),
        )
    return chance.threshold(float(likely))


def _whole(text: str, fault: Fault, value: str, most: int) -> int:
    if not _COUNT.fullmatch(value) or not 0 < int(value) <= most:
        raise _wrong(
            text,
            f"{fault.name}={_shown(value)} is not a whole number from 1 to {most}",
            f"for example {fault.example}",
        )
    return int(value)


def _amount(text: str, fault: Fault, value: str, amount: str) -> dict[str, int]:
    if _COUNT.fullmatch(amount) and 0 < int(amount) <= MOST_COUNT:
        return {"accesses": int(amount)}
    time = guest_time(amount)
    if time is not None and 0 < time <= MOST_TIME:
        return {"nanoseconds": time}
    raise _wrong(
        text,
        f"{fault.name}={_shown(value)}: '{_shown(amount)}' is neither a number of accesses nor a time",
        "20 is a number of accesses, 2ms is a time" + (", forever has no end" if fault.takes == SPAN else ""),
    )


def _closest(name: str, known: Collection[str]) -> str:
    from difflib import get_close_matches

    by_name = {one.casefold(): one for one in known}
    close = [by_name[one] for one in get_close_matches(name.casefold(), by_name, n=3)]
    return f"did you mean {' or '.join(close)}? {HELP_HINT}" if close else HELP_HINT


def _wrong(text: str, why: str, hint: str) -> UsageError:
    return UsageError(f"--inject '{_shown(text)}': {why}", hint=hint)


def _shown(text: str, limit: int = 80) -> str:
    """`text` for one line of a terminal, bounded."""
    shown = "".join(c if c.isprintable() else "?" for c in text[:limit])
    return shown + ("…" if len(text) > limit else "")
