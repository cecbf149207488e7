"""What is kept of failures, in a folder: console, report with the crash, recording, core file.

The folder may be in a directory that somebody else has filled, as a repository is. So nothing that stands in
the folder is written through: the folder of a test is no symbolic link, a file is replaced by a new one, and
nobody knows beforehand the names of what a boot leaves.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from kvmbox.base.errors import HostOutputError, StartError
from kvmbox.host.files.path_below import DIRECTORY, open_beneath
from kvmbox.host.files.replacement_file import write_beside
from kvmbox.tools.smoke.report.safe_text import in_seconds, printable_lines
from kvmbox.tools.smoke.suite.command_line import making_of, run_arguments
from kvmbox.tools.smoke.suite.test_case import Boot, Judgement, Test, TestResult, Verdict
from kvmbox.tools.smoke.suite.verdict import boot_of, outranks

CONSOLE: Final = "console.log"
REPORT: Final = "report.txt"
NAMES: Final = {"record": "recording.kvmbox", "core": "guest.core"}
"""What a run itself leaves, by the field of `Boot` that says where."""
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._+-]+")
MOST_NAME: Final = 100
_NO_DIRECTORY: Final = "remove what stands there: it must be a directory, and no symbolic link"


class Artefacts:
    """A folder per failed test in `folder`, which is made. With `record`, boots are recorded; with `core`,
    guests that come to a bad end leave core files.

    Raises StartError if the folder cannot be made, later HostOutputError.
    """

    def __init__(self, folder: str, *, record: bool = False, core: bool = False) -> None:
        self.folder = folder
        self._wanted = [kind for kind, wanted in (("record", record), ("core", core)) if wanted]
        self._names: dict[str, str] = {}
        self._taken: set[str] = set()
        self._kept: dict[str, tuple[Boot, Verdict]] = {}
        self._count = 0
        self._secret = os.urandom(8).hex()
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise StartError(f"cannot make the folder '{folder}' of --logs: {error.strerror}") from error

    def next_files(self) -> dict[str, str]:
        """The files that the next boot leaves, by the field of `Boot`."""
        if not self._wanted:
            return {}
        self._count += 1
        stem = os.path.join(self.folder, f".{self._secret}.{self._count}")
        return {kind: f"{stem}.{kind}.tmp" for kind in self._wanted}

    def boot_ended(self, test: Test, boot: Boot, judgement: Judgement) -> None:
        """Keep the files of the boot that the result will tell of, of no other one."""
        kept, verdict = self._kept.get(test.key, (None, None))
        if not outranks(test, judgement.verdict, verdict):
            self.discard(boot)
            return
        self._kept[test.key] = (boot, judgement.verdict)
        if kept is not None:
            self.discard(kept)

    def discard(self, boot: Boot) -> None:
        """Remove the files of a boot that nobody judges."""
        for path, _ in _left_by(boot):
            with suppress(OSError):
                os.unlink(path)

    def keep(self, result: TestResult, boot: Boot) -> TestResult:
        """Write what there is of a failure; the result with the files."""
        kept, _ = self._kept.pop(result.test.key, (None, None))
        if not result.verdict.is_failure or result.decisive is None:
            if kept is not None:  # a failure that is tolerated, or a flaky test that may be
                self.discard(kept)
            return result
        seen = result.decisive.observation
        folder = os.path.join(self.folder, self._name(result.test))
        files = [os.path.join(folder, CONSOLE), os.path.join(folder, REPORT)]
        try:
            with self._opened(self._name(result.test)) as (root, directory):
                for path, name in _left_by(kept) if kept is not None else ():
                    final = os.path.join(folder, name)
                    with suppress(FileNotFoundError):  # no core file of a guest that has ended by itself
                        os.replace(os.path.basename(path), name, src_dir_fd=root, dst_dir_fd=directory)
                        files.append(final)
                        seen = seen.replaced(messages=seen.messages.replace(path, final))
                decisive = result.decisive.replaced(observation=seen)
                result = result.replaced(decisive=decisive, files=tuple(files))
                write_beside(CONSOLE, seen.output, directory=directory)
                report = _report(result, boot).encode("utf-8", "backslashreplace")
                write_beside(REPORT, report, directory=directory)
        except OSError as error:
            raise HostOutputError(
                f"cannot write to '{folder}' for --logs: {error.strerror}",
                hint=_NO_DIRECTORY if isinstance(error, NotADirectoryError) else None,
            ) from error
        return result

    @contextmanager
    def _opened(self, name: str) -> Iterator[tuple[int, int]]:
        """Descriptors of the folder and of the directory `name` in it, which is made. Raises OSError."""
        with ExitStack() as stack:
            root = os.open(self.folder, DIRECTORY)
            stack.callback(os.close, root)
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=root)
            directory = open_beneath(root, (name,), DIRECTORY)
            stack.callback(os.close, directory)
            yield root, directory

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


def _left_by(boot: Boot) -> list[tuple[str, str]]:
    """Where a boot has left its files, and how they are called in the folder of the test."""
    paths = {"record": boot.record, "core": boot.core}
    return [(path, NAMES[kind]) for kind, path in paths.items() if path is not None]


def _report(result: TestResult, boot: Boot) -> str:
    assert result.decisive is not None
    seen = result.decisive.observation
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
    return printable_lines("\n".join(lines)).rstrip("\n") + "\n"


def again(boot: Boot) -> str:
    """The command that boots the same guest alone; without the dialogue, which a person types.

    For a guest with a start there are two: the first makes the snapshot.
    """
    boot = boot.replaced(record=None, core=None)
    if boot.start is None:
        return shlex.join(["kvmbox", *run_arguments(boot)])
    path = f"{_UNSAFE.sub('_', boot.start.name)}.snap"
    boots = (making_of(boot.start, path), boot.replaced(start=None, snapshot=path))
    return " && ".join(shlex.join(["kvmbox", *run_arguments(one)]) for one in boots)


def command_of(timeout: float | None) -> Callable[[Test], str]:
    """What gives the command that boots a test alone, in a session with this `timeout`."""
    return lambda test: again(boot_of(test, timeout=timeout))
