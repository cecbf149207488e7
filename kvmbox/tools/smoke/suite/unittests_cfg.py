"""unittests.cfg of kvm-unit-tests, read as it is (facts: scripts/common.bash, scripts/runtime.bash, x86/run).

A section is a test. Its QEMU parameters are translated as far as kvmbox has what they ask for; a test
that asks for more is skipped, and says for what. The text is a shell's in places: `date +%s` is known,
nothing else is evaluated.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from kvmbox.base.errors import UsageError
from kvmbox.tools.smoke.suite.test_case import Origin, Test

ARCHITECTURE: Final = "x86_64"
ACCELERATOR: Final = "kvm"
DEFAULT_TIMEOUT_S: Final = 90.0
NO_TIMEOUT_S: Final = 24 * 3600.0
NO_DEFAULT: Final = "nodefault"
NOW: Final = "`date +%s`"

_SECTION: Final = re.compile(r"\[(.*)\]$")
_SETTING: Final = re.compile(r"(\w+) *= *(.*)$")
_SHELL: Final = re.compile(r"[`$]")
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}

_KNOWN: Final = frozenset(
    {"file", "smp", "test_args", "qemu_params", "extra_params", "groups", "arch", "machine", "check", "accel"}
    | {"timeout", "disabled_if", "kvmtool_params"}
)
_MODELS: Final = ("host", "max", "qemu64", "kvm64", "qemu32", "kvm32")
"""QEMU's CPU models that stand for "whatever there is" to these tests; others name a processor."""
_MACHINE_IGNORED: Final = frozenset({"accel=kvm", "pit=off", "pc", "kernel_irqchip=on"})
"""pit=off is for AVIC, which no test relies on: with a PIT it is merely not used."""
_CPU_IGNORED: Final = frozenset({"host-phys-bits", "host-phys-bits=on", "migratable=no", "enforce"})
_WITH_VALUE_IGNORED: Final = frozenset({"-overcommit", "-display", "-serial"})
_IGNORED: Final = frozenset({"-enable-kvm", "-no-reboot", "--no-reboot", "-nodefaults", "-nographic"})


class _Unsupported(Exception):
    """Why kvmbox cannot run the test as it is meant."""


@dataclass(slots=True)
class _Section:
    name: str
    line: int
    settings: dict[str, str] = field(default_factory=dict)


def parse_unittests_cfg(
    text: str,
    file: str,
    *,
    name: str,
    now: int,
    can_hide: Callable[[str], bool] = lambda _feature: True,
) -> list[Test]:
    """The tests of a configuration. Their files are in its folder.

    `now` is seconds since 1970, for `date +%s`. `can_hide` tells whether `--cpu host,-FEATURE` is known.
    Raises UsageError for what is neither section, setting nor comment.
    """
    folder = os.path.dirname(file)
    tests = []
    seen: dict[str, int] = {}
    for section in _sections(text, file):
        if section.name in seen:
            raise UsageError(
                f"{Origin(file, section.line)}: there is a test '{section.name}' already, in line"
                f" {seen[section.name]}",
                hint="give each section a name of its own",
            )
        seen[section.name] = section.line
        tests.append(_test(section, file, folder, name, now, can_hide))
    if not tests:
        raise UsageError(f"{file}: there is no test in it", hint="each test begins with [name]")
    return tests


def _sections(text: str, file: str) -> Iterator[_Section]:
    section: _Section | None = None
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if found := _SECTION.match(line.rstrip()):
            if section is not None:
                yield section
            if not found[1] or not found[1].isprintable():
                raise UsageError(f"{Origin(file, number)}: a section without a name", hint="write [name]")
            section = _Section(found[1], number)
        elif (setting := _SETTING.match(line.strip())) and section is not None:
            value = setting[2].strip()
            if value.startswith('"""'):
                value = _joined(value.removeprefix('"""'), lines, Origin(file, number))
            section.settings[setting[1]] = value
        else:
            where = (
                "before the first section" if section is None and setting else "neither section nor setting"
            )
            raise UsageError(
                f"{Origin(file, number)}: {where}: {line.strip()[:60]!r}",
                hint="a test is [name], then lines such as file = name.flat",
            )
    if section is not None:
        yield section


def _joined(value: str, lines: Iterator[tuple[int, str]], origin: Origin) -> str:
    """The rest of a value in triple quotes; a line break in it is a space to the shell."""
    parts: list[str] = []
    while '"""' not in value:
        parts.append(value.removesuffix("\\"))
        try:
            _, value = next(lines)
        except StopIteration:
            raise UsageError(f'{origin}: the quotes """ do not end', hint='end the value with """') from None
    parts.append(value.partition('"""')[0])
    return " ".join(parts)


def _test(
    section: _Section, file: str, folder: str, suite: str, now: int, can_hide: Callable[[str], bool]
) -> Test:
    settings = section.settings
    groups = tuple(settings.get("groups", "").split())
    options: dict[str, Any] = {"testdev": True, "no_reboot": True}
    skip: str | None = None
    try:
        _translate(settings, options, now, can_hide)
    except _Unsupported as error:
        skip = str(error)
    return Test(
        name=section.name,
        suite=suite,
        image=os.path.join(folder, settings.get("file", "")),
        origin=Origin(file, section.line),
        options=options,
        timeout=_seconds(settings.get("timeout", "")),
        convention="kvm-unit-tests",
        groups=groups,
        skip=skip,
        manual="marked as a manual run (group nodefault)" if NO_DEFAULT in groups else None,
        checks=tuple(
            (path, value)
            for path, _, value in (part.partition("=") for part in settings.get("check", "").split())
        ),
    )


def _translate(
    settings: dict[str, str], options: dict[str, Any], now: int, can_hide: Callable[[str], bool]
) -> None:
    """Fill in the options of the machine. Raises _Unsupported."""
    unknown = sorted(set(settings) - _KNOWN)
    if unknown:
        raise _Unsupported(f"'{unknown[0]}' is not supported")
    if not settings.get("file"):
        raise _Unsupported("it names no file")
    architecture = settings.get("arch", "")
    if architecture not in ("", ARCHITECTURE):
        raise _Unsupported(f"{architecture} only")
    accelerator = settings.get("accel", "")
    if accelerator and not re.match(rf"{re.escape(accelerator)}(,|$)", ACCELERATOR):
        raise _Unsupported(f"{accelerator} only")
    if settings.get("disabled_if"):
        raise _Unsupported(f"disabled_if needs a shell: {settings['disabled_if']}")
    if settings.get("machine", "pc") != "pc":
        raise _Unsupported(f"machine {settings['machine']} only")
    cpus = settings.get("smp", "1")
    if not re.fullmatch(r"[0-9]{1,4}", cpus):
        raise _Unsupported(f"smp = {cpus} is no number")
    options["cpus"] = int(cpus)
    if not re.fullmatch(r"\d+[smhd]?|", settings.get("timeout", "")):
        raise _Unsupported(f"timeout = {settings['timeout']} is no time")
    arguments = settings.get("test_args", "").replace(NOW, str(now))
    if arguments:
        options["append"] = " ".join(_words("test_args", arguments))
    _translate_qemu(settings.get("qemu_params", settings.get("extra_params", "")), options, can_hide)


def _translate_qemu(text: str, options: dict[str, Any], can_hide: Callable[[str], bool]) -> None:
    words = iter(_words("qemu_params", text))
    for word in words:
        if word in _IGNORED:
            continue
        value = next(words, "")
        if word == "-m":
            options["memory"] = _memory(value)
        elif word == "-cpu":
            model = _cpu(value, can_hide)
            if model is not None:
                options["cpu"] = model
        elif word in ("-machine", "-M"):
            wanted = [one for one in value.split(",") if one not in _MACHINE_IGNORED]
            if wanted:
                raise _Unsupported(f"needs {word} {value}")
        elif word not in _WITH_VALUE_IGNORED:
            raise _Unsupported(f"needs {word} {value}".rstrip())


def _cpu(value: str, can_hide: Callable[[str], bool]) -> str | None:
    """`--cpu` for QEMU's -cpu, or None for the default, which shows all that this host runs."""
    model, *features = value.split(",")
    if model not in _MODELS:
        raise _Unsupported(f"needs -cpu {model}")
    hidden = []
    for feature in features:
        name = feature.removeprefix("-").removesuffix("=off")
        if feature in _CPU_IGNORED or feature.startswith("+") or feature.endswith("=on"):
            continue  # what this host runs is shown; what it does not run, QEMU leaves out with a warning
        if not (feature.startswith("-") or feature.endswith("=off")) or not can_hide(name):
            raise _Unsupported(f"needs -cpu {model},{feature}")
        hidden.append(f"-{name}")
    return ",".join(["host", *hidden]) if hidden else None


def _memory(value: str) -> str:
    found = re.fullmatch(r"(\d+)([kKmMgG]?)", value)
    if found is None:
        raise _Unsupported(f"needs -m {value}")
    return found[1] + (found[2].upper() or "M")


def _seconds(value: str) -> float:
    found = re.fullmatch(r"(\d+)([smhd]?)", value)
    if found is None:
        return DEFAULT_TIMEOUT_S
    return min(float(found[1]) * _UNITS[found[2]], NO_TIMEOUT_S) or NO_TIMEOUT_S


def _words(key: str, text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise _Unsupported(f"{key}: {error}") from error
    if any(_SHELL.search(word) for word in words):
        raise _Unsupported(f"{key} needs a shell: {text}")
    return words
