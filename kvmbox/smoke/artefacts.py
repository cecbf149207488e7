"""What is kept of failures, in a folder: the console, a report with the crash, the recording."""

from __future__ import annotations

import os
import re
import shlex
from contextlib import suppress
from dataclasses import replace
from typing import Final

from kvmbox.errors import HostOutputError, StartError
from kvmbox.smoke.command_line import making_of, run_arguments
from kvmbox.smoke.model import Boot, Judgement, Test, TestResult
from kvmbox.smoke.text import in_seconds

CONSOLE: Final = "console.log"
REPORT: Final = "report.txt"
RECORDING: Final = "recording.kvmbox"
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._+-]+")
MOST_NAME: Final = 100


class Artefacts:
    """A folder per failed test in `folder`, which is made. With `record`, boots are recorded.

    Raises StartError if the folder cannot be made, later HostOutputError.
    """

    def __init__(self, folder: str, *, record: bool = False) -> None:
        self.folder = folder
        self._record = record
        self._names: dict[str, str] = {}
        self._taken: set[str] = set()
        self._recordings: dict[str, str] = {}
        self._count = 0
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise StartError(f"cannot make the folder '{folder}' of --logs: {error.strerror}") from error

    def recording_for(self, test: Test) -> str | None:
        """Where the next boot of `test` is recorded, or None."""
        if not self._record:
            return None
        self._count += 1
        return os.path.join(self.folder, f"{self._name(test)}.{self._count}.tmp")

    def boot_ended(self, test: Test, boot: Boot, judgement: Judgement) -> None:
        """Keep the recording of the first boot that failed, no other one."""
        if boot.record is None:
            return
        if judgement.verdict.is_failure and test.key not in self._recordings:
            self._recordings[test.key] = boot.record
        else:
            self.discard(boot)

    def discard(self, boot: Boot) -> None:
        """The recording of a boot that nobody judges."""
        if boot.record is not None:
            with suppress(OSError):
                os.unlink(boot.record)

    def keep(self, result: TestResult, boot: Boot) -> TestResult:
        """Write what there is of a failure; the result with the files."""
        recording = self._recordings.pop(result.test.key, None)
        if not result.verdict.is_failure or result.told is None:
            if recording is not None:  # a failure that is tolerated, or a flaky test that may be
                with suppress(OSError):
                    os.unlink(recording)
            return result
        seen = result.told.observation
        folder = os.path.join(self.folder, self._name(result.test))
        files = [os.path.join(folder, CONSOLE), os.path.join(folder, REPORT)]
        try:
            os.makedirs(folder, exist_ok=True)
            with open(files[0], "wb") as file:
                file.write(seen.output)
            with open(files[1], "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(_report(result, boot))
            if recording is not None and os.path.exists(recording):
                files.append(os.path.join(folder, RECORDING))
                os.replace(recording, files[-1])
        except OSError as error:
            raise HostOutputError(f"cannot write '{error.filename}' for --logs: {error.strerror}") from error
        return replace(result, files=tuple(files))

    def _name(self, test: Test) -> str:
        """A folder's name for a test: safe for every file system, and no other test's."""
        if test.key not in self._names:
            parts = [
                _UNSAFE.sub("_", part)[:MOST_NAME].lstrip(".") or "_" for part in (test.suite, test.name)
            ]
            base = name = ".".join(parts)
            number = 1
            while name in self._taken:
                number += 1
                name = f"{base}-{number}"
            self._taken.add(name)
            self._names[test.key] = name
        return self._names[test.key]


def _report(result: TestResult, boot: Boot) -> str:
    assert result.told is not None
    seen = result.told.observation
    lines = [
        f"test     {result.test.key}",
        f"from     {result.test.origin}",
        f"verdict  {result.verdict.value}: {result.reason}",
        f"status   {seen.status}: {seen.reason}",
        f"time     {in_seconds(seen.seconds)}",
        f"again    {again(boot)}",
    ]
    if seen.hint:
        lines.append(f"hint     {seen.hint}")
    if seen.crash_report:
        lines += ["", seen.crash_report]
    if seen.messages:
        lines += ["", "stderr of kvmbox run:", seen.messages]
    return "\n".join(lines).rstrip("\n") + "\n"


def again(boot: Boot) -> str:
    """The command that boots the same guest alone; without the dialogue, which a person types.

    For a guest with a start there are two: the first makes the snapshot.
    """
    boot = replace(boot, record=None)
    if boot.start is None:
        return shlex.join(["kvmbox", *run_arguments(boot)])
    path = f"{_UNSAFE.sub('_', boot.start.name)}.snap"
    boots = (making_of(boot.start, path), replace(boot, start=None, snapshot=path))
    return " && ".join(shlex.join(["kvmbox", *run_arguments(one)]) for one in boots)
