"""Captures what kvmbox does, and compares two captures: nothing may change where code is only moved.

python tools/behaviour.py capture CHECKOUT FILE      # boots guests: needs /dev/kvm
python tools/behaviour.py compare BEFORE AFTER       # status 1, and the differences, if there are any

A capture has the help of every command, and of some twenty runs the exit status, stdout, stderr, the data of
--json and the recording. What differs between two runs of the same code is left out: times, counts of exits,
paths of the checkout.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

FACTS: Final = (
    "status",
    "reason",
    "hint",
    "report",
    "cpus",
    "last_lines",
    "core",
    "screen",
    "format",
    "boots",
)
"""Keys of --json of which the numbers are the same in each run."""

VARYING: Final = ("ports", "sources")
"""Keys whose lists tell how far a guest has come that is ended at a text, or what was sampled."""

LIMIT_S: Final = 60

RUNS: Final[dict[str, tuple[str, ...]]] = {
    "plain": ("hello32",),
    "sandbox none": ("hello32", "--sandbox", "none"),
    "sandbox thread": ("hello32", "--sandbox", "thread"),
    "sandbox per-device": ("hello64", "--sandbox", "per-device"),
    "seccomp strict": ("hello64", "--seccomp", "strict"),
    "ipc socketpair": ("real16", "--ipc", "socketpair"),
    "ipc shm": ("irq64", "--ipc", "shm"),
    "statistics": ("hello32", "--stats"),
    "recording": ("hello32", "--record", "recording", "--rtc-base", "2026-01-01"),
    "recording of a page": ("hello64", "--ipc", "shm", "--record", "recording", "--rtc-base", "2026-01-01"),
    "guest's status": ("debugexit",),
    "success status": ("debugexit", "--success-status", "43"),
    "expectation": ("hello32", "--expect", "mode!"),
    "expectation missed": ("hello32", "--expect", "no such text"),
    "failure seen": ("hello32", "--fail-on", "protected"),
    "time-out": ("spin", "--timeout", "1"),
    "crash": ("triplefault",),
    "core file": ("triplefault", "--core", "core"),
    "halt for ever": ("haltforever",),
    "screen": ("screen", "--expect", "Hello from the text screen!"),
    "reset": ("reboot", "--no-reboot"),
    "snapshot": ("hello32", "--snapshot-when", "Hello=snapshot", "--snapshot-stop"),
    "injection": ("hello32", "--inject", "uart:drop-irq=0.5,seed=7"),
    "profile": ("hello32", "--profile", "profile"),
    "limit of output": ("flood", "--append", "65536", "--serial-limit", "1K"),
    "module and file": ("memmap", "--module", "words.txt,one two", "--fw-cfg", "opt/x=words.txt"),
    "no guest": ("no-such-guest",),
    "usage error": ("hello32", "--memory", "1.5G"),
    "contradiction": ("hello32", "--sandbox", "none", "--ipc", "shm"),
    "unknown option": ("hello32", "--no-such-option"),
    "nothing": (),
}
"""Arguments of `kvmbox run`, run one after the other in a folder of their own."""


def capture(checkout: Path) -> dict[str, Any]:
    """What the kvmbox of `checkout` does, with what varies left out."""
    kvmbox = str(checkout.resolve() / ".venv/bin/kvmbox")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "words.txt").write_text("words\n", encoding="utf-8")

        def steady_text(text: str) -> str:
            text = text.replace(str(checkout.resolve()), "CHECKOUT")
            return re.sub(r"\d+ (ms|samples)\b", r"# \1", text)

        def call(*arguments: str) -> dict[str, Any]:
            done = subprocess.run(
                [kvmbox, *arguments],
                cwd=folder,
                env=os.environ | {"KVMBOX_CONFIG": "none", "COLUMNS": "100"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=LIMIT_S,
                check=False,
            )
            texts = (stream.decode("utf-8", "backslashreplace") for stream in (done.stdout, done.stderr))
            out, err = map(steady_text, texts)
            return {"status": done.returncode, "stdout": out, "stderr": err}

        found["help"] = call("--help")
        for command in re.findall(r"^  ([a-z]+)  ", found["help"]["stdout"], re.MULTILINE):
            if command != "kvmbox":
                found[f"help: {command}"] = call(command, "--help")
        for name, arguments in RUNS.items():
            (result := Path(folder, "result")).unlink(missing_ok=True)
            made = call("run", *arguments, "--json", "result")
            if "--stats" in arguments:
                made["stderr"] = without_numbers(made["stderr"])
            if result.exists():
                made["json"] = steady(json.loads(steady_text(result.read_text(encoding="utf-8"))))
            if (recording := Path(folder, "recording")).exists():
                made["recording"] = described(call("replay", "--dump=json", "recording")["stdout"])
                recording.unlink()
            found[f"run: {name}"] = made
    return found


def steady(result: dict[str, Any]) -> dict[str, Any]:
    """The data of --json: `FACTS` as they are, everything else by its shape."""
    if result.get("screen"):
        del result["screen"]["cursor"]
    return {key: value if key in FACTS else shape({key: value})[key] for key, value in result.items()}


def shape(value: Any) -> Any:
    """Names and texts without numbers. Of a list, what different shapes its items have."""
    if isinstance(value, dict):
        return {key: "…" if key in VARYING else shape(one) for key, one in value.items()}
    if isinstance(value, list):
        return sorted({json.dumps(shape(one)) for one in value})
    if isinstance(value, str):
        return without_numbers(value)
    return type(value).__name__


def without_numbers(text: str) -> str:
    """Numbers, and the blanks that align them, become one sign each. Lines of places are dropped."""
    lines = (re.sub(r"[ ]+", " ", re.sub(r"\d[\d.,]*", "#", line)) for line in text.splitlines())
    return "\n".join(dict.fromkeys(line for line in lines if not re.match(r" +#", line)))


def described(dump: str) -> dict[str, list[str]]:
    """The requests of a recording by device, without times, and without those that only time makes."""
    found: dict[str, list[str]] = {}
    for line in dump.splitlines():
        request = json.loads(line)
        if request["request"] != "advance":
            found.setdefault(f"{request['type']} {request['device']}", []).append(
                json.dumps(timeless(request))
            )
    return found


def timeless(value: Any) -> Any:
    """Data of a request without times, and without numbers that count what happened before."""
    if isinstance(value, dict):
        varying = ("record", "time", "sequence", "deadline", "at", "coalesced")
        return {key: timeless(one) for key, one in value.items() if key not in varying}
    return [timeless(one) for one in value] if isinstance(value, list) else value


def differences(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """The lines in which two captures differ."""
    for name in sorted({*before, *after}):
        old, new = (list(lines(one.get(name, {}))) for one in (before, after))
        yield from difflib.unified_diff(old, new, f"{name}, before", f"{name}, after", lineterm="", n=1)


def lines(case: dict[str, Any]) -> Iterable[str]:
    """A case as lines: a text as it is, data as JSON."""
    for key, value in case.items():
        text = value if isinstance(value, str) else json.dumps(value, indent=1)
        yield from (f"{key}: {line}" for line in text.splitlines())


def main(arguments: list[str]) -> int:
    """The command."""
    match arguments:
        case ["capture", checkout, file]:
            found = capture(Path(checkout))
            Path(file).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            print(f"{len(found)} cases")
            return 0
        case ["compare", before, after]:
            old, new = (json.loads(Path(file).read_text(encoding="utf-8")) for file in (before, after))
            told = list(differences(old, new))
            print("\n".join(told) if told else f"{len(old)} cases are the same")
            return 1 if told else 0
        case _:
            print(__doc__)
            return 2


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
