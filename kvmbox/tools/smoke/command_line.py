"""A boot as arguments of `kvmbox run`. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from kvmbox.run.options import OPTIONS
from kvmbox.tools.smoke.model import DEFAULT_OUTPUT_LIMIT, Boot, Pattern, Start


def run_arguments(boot: Boot, json_path: str | None = None) -> list[str]:
    """The arguments: options first, then the image or --from. `json_path` is for --json."""
    options: Mapping[str, object] = {"serial_limit": DEFAULT_OUTPUT_LIMIT} | dict(boot.options)
    words = ["run", f"--timeout={boot.timeout:g}"]
    for name, value in options.items():
        spelling = OPTIONS[name].spelling
        if isinstance(value, tuple):
            words += [f"{spelling}={one}" for one in value]
        elif value is True:
            words.append(spelling)
        elif value is not False:
            words.append(f"{spelling}={value}")
    words += [f"--expect={one.text}" for one in expectations(boot)]
    words += [f"--fail-on={one.text}" for one in failures(boot)]
    if boot.record is not None:
        words.append(f"--record={boot.record}")
    if boot.core is not None:
        words.append(f"--core={boot.core}")
    if json_path is not None:
        words += [f"--json={json_path}", "--no-exit-samples"]
    return [*words, f"--from={boot.snapshot}"] if boot.snapshot is not None else [*words, "--", boot.image]


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
