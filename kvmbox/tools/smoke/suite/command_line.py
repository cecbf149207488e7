"""A boot as parameters of `kvmbox.Machine`, and as arguments of `kvmbox run`. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from kvmbox.run.options import disk_value
from kvmbox.run.options.option_table import OPTIONS
from kvmbox.tools.smoke.suite.test_case import DEFAULT_OUTPUT_LIMIT, Boot, Pattern, Start


def machine_options(boot: Boot) -> dict[str, Any]:
    """What `WarmPool.submit` takes: parameters of `kvmbox.Machine`, or of `Machine.from_snapshot`."""
    found: dict[str, Any] = {"timeout": boot.timeout, "serial_limit": DEFAULT_OUTPUT_LIMIT, **boot.options}
    found |= {"from_snapshot": boot.snapshot} if boot.snapshot is not None else {"image": boot.image}
    found |= {"expect": tuple(one.text for one in expectations(boot))}
    found |= {"fail_on": tuple(one.text for one in failures(boot))}
    files = {"record": boot.record, "core": boot.core}
    return found | {name: path for name, path in files.items() if path is not None}


def run_arguments(boot: Boot, json_path: str | None = None) -> list[str]:
    """The arguments: options first, then the image or --from. `json_path` is for --json."""
    options = machine_options(boot)
    image, snapshot = options.pop("image", None), options.pop("from_snapshot", None)
    words = ["run"]
    for name, value in options.items():
        spelling = OPTIONS[name].spelling
        if isinstance(value, tuple):
            words += [f"{spelling}={one}" for one in value]
        elif value is True:
            words.append(spelling)
        elif value is not False:
            words.append(f"{spelling}={value:g}" if isinstance(value, float) else f"{spelling}={value}")
    if json_path is not None:
        words += [f"--json={json_path}", "--no-exit-samples"]
    return [*words, f"--from={snapshot}"] if image is None else [*words, "--", image]


def with_paths(options: Mapping[str, Any], place: Callable[[str], str]) -> dict[str, Any]:
    """The same options with another path for each file that they name: what `place` makes of the path."""
    found = dict(options)
    for name in _FILES & options.keys():
        value = options[name]
        moved = tuple(_moved(name, one, place) for one in (value if isinstance(value, tuple) else (value,)))
        found[name] = moved if isinstance(value, tuple) else moved[0]
    return found


_FILES: Final = {"initrd", "bios", "modules", "fw_cfg", "disks", "cdroms", "nets", "expect_picture"}
"""The options of a suite that name files."""


def _moved(option: str, text: str, place: Callable[[str], str]) -> str:
    if option == "disks":
        return disk_value.with_paths(text, place)
    if option == "nets":
        from kvmbox.parts.net import net_option

        return net_option.with_paths(text, place)
    if option in ("modules", "expect_picture"):
        path, comma, arguments = text.partition(",")
        return (path if path.startswith("sha256:") else place(path)) + comma + arguments
    if option == "fw_cfg":
        name, equals, path = text.partition("=")
        return name + equals + (place(path) if path else "")
    return text if option == "bios" and text in ("builtin", "none") else place(text)


def making_of(start: Start, path: str) -> Boot:
    """The boot that makes a snapshot of `start` in the file `path`; status 0 says that it has."""
    wanted = {"snapshot_when": (f"{start.when}={path}",), "snapshot_stop": True}
    return Boot(start.image, {**start.options, **wanted}, start.timeout)


def expectations(boot: Boot) -> tuple[Pattern, ...]:
    """What `--expect` looks for: all of `stop_all`, or nothing, since the run ends when all are seen."""
    return boot.stop_all if all(map(is_for_run, boot.stop_all)) else ()


def failures(boot: Boot) -> tuple[Pattern, ...]:
    """What `--fail-on` looks for: the run ends when any is seen."""
    return tuple(filter(is_for_run, boot.stop_any))


def is_for_run(pattern: Pattern) -> bool:
    """Whether `kvmbox run` finds it itself: it looks for bytes, and a line end may have two of them."""
    return not pattern.is_regex and "\n" not in pattern.text
