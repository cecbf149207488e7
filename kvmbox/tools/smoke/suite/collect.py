"""From SUITE arguments to tests: suite files, unittests.cfg, folders and globs of images, single images."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Sequence
from typing import Final

from kvmbox.base.errors import UsageError
from kvmbox.base.regular_file import open_regular_file, read_regular_file
from kvmbox.base.value_classes import Value
from kvmbox.boot import bundled
from kvmbox.kvm.cpuid.cpu_models import parse_model
from kvmbox.tools.smoke.suite.suite_file import parse_suite, suite_name
from kvmbox.tools.smoke.suite.test_case import DEFAULT_TIMEOUT_S, Origin, Test
from kvmbox.tools.smoke.suite.unittests_cfg import parse_unittests_cfg

MOST_SUITE_BYTES: Final = 4 << 20
MOST_OUTPUT_BYTES: Final = 64 << 20
"""The highest serial_limit in a suite: the console of a boot is kept in memory."""
IMAGE_ENDINGS: Final = (".elf", ".bin", ".img", ".flat", ".bzimage", ".rom")
"""Files of a folder that are tests; and those without an ending that are ELF files."""
_ELF: Final = b"\x7fELF"


class Collected(Value):
    """What the arguments name: the tests, and the suite files that were read."""

    tests: tuple[Test, ...]
    files: tuple[str, ...]


def collect(suites: Sequence[str], *, convention: str | None = None) -> Collected:
    """The tests of all SUITE arguments, in order. `convention` is for images without a suite file.

    Raises UsageError.
    """
    tests: list[Test] = []
    files: list[str] = []
    for argument in suites:
        found, file = _one(argument, convention)
        tests += found
        files += [file] if file is not None else []
    seen: dict[str, Origin] = {}
    for test in tests:
        if test.key in seen:
            raise UsageError(
                f"two tests are called '{test.key}': from {seen[test.key]} and from {test.origin}",
                hint="suites are told apart by the name of their file: rename one, or run them apart",
            )
        seen[test.key] = test.origin
    return Collected(tuple(tests), tuple(files))


def _one(argument: str, convention: str | None) -> tuple[list[Test], str | None]:
    if os.path.isdir(argument):
        return _of_folder(argument, convention), None
    if argument.endswith(".cfg"):
        return _of_unittests_cfg(argument), argument
    if argument.endswith(".toml"):
        return parse_suite(_read(argument), argument, find_image=find_image, check=check_options), argument
    if os.path.exists(argument):
        return [_of_image(argument, os.path.dirname(argument) or ".", convention)], None
    if any(one in argument for one in "*?["):
        paths = sorted(path for path in glob.glob(argument, recursive=True) if os.path.isfile(path))
        if not paths:
            raise UsageError(
                f"'{argument}' matches no file", hint="quote the pattern: kvmbox reads it, or the shell does"
            )
        return [_of_image(path, argument, convention, whole=True) for path in paths], None
    if bundled.find(argument) is not None:
        return [_of_image(argument, "bundled", convention).replaced(suite="bundled")], None
    raise UsageError(
        f"SUITE '{argument}' does not exist",
        hint="it may be a .toml file, a unittests.cfg, a folder or glob of images, or a bundled guest",
    )


def _of_folder(folder: str, convention: str | None) -> list[Test]:
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise UsageError(f"cannot read the folder '{folder}': {error.strerror}") from error
    paths = [os.path.join(folder, name) for name in names if not name.startswith(".")]
    images = [path for path in paths if os.path.isfile(path) and _is_image(path)]
    if not images:
        raise UsageError(
            f"there is no image in the folder '{folder}'",
            hint=f"images are files named *{', *'.join(IMAGE_ENDINGS)}, and ELF files without an ending",
        )
    return [_of_image(path, folder, convention, whole=True) for path in images]


def _is_image(path: str) -> bool:
    ending = os.path.splitext(path)[1].lower()
    if ending:
        return ending in IMAGE_ENDINGS
    try:
        with open(open_regular_file(path), "rb") as file:
            return file.read(len(_ELF)) == _ELF
    except OSError:
        return False


def _of_image(path: str, origin: str, convention: str | None, *, whole: bool = False) -> Test:
    """A test of one image. `whole`: its name has the ending, since there are others beside it."""
    base = os.path.basename(path)
    suite = os.path.basename(os.path.normpath(origin if os.path.isdir(origin) else os.path.dirname(origin)))
    test = Test(
        name=base if whole else os.path.splitext(base)[0],
        suite=suite if suite not in ("", ".") else "images",
        image=path,
        origin=Origin(path),
        timeout=DEFAULT_TIMEOUT_S,
        convention=convention or "kvmbox",
    )
    if not base.isprintable():
        raise UsageError(f"the name of the image {base!r} cannot be shown", hint="rename it")
    return test


def _of_unittests_cfg(path: str) -> list[Test]:
    name = os.path.basename(os.path.dirname(os.path.abspath(path))) or suite_name(path)
    tests = parse_unittests_cfg(_read(path), path, name=name, now=int(time.time()), can_hide=_can_hide)
    return [_with_refusal(_with_file(test)) for test in tests]


def _with_file(test: Test) -> Test:
    """As the suite's own script: a test that was not built is skipped."""
    if test.skip is None and not os.path.isfile(test.image):
        return test.replaced(skip=f"there is no file '{test.image}'")
    return test


def _with_refusal(test: Test) -> Test:
    """What kvmbox refuses, such as too many CPUs, makes the test a skipped one."""
    try:
        check_options(test)
    except UsageError as error:
        return test.replaced(skip=test.skip or str(error))
    return test


def _can_hide(feature: str) -> bool:
    try:
        parse_model(f"host,-{feature}")
    except UsageError:
        return False
    return True


def find_image(folder: str, image: str) -> str:
    """An image that a suite in `folder` names: a file beside it goes before a bundled guest."""
    path = os.path.join(folder, image)
    return image if not os.path.exists(path) and bundled.find(image) is not None else path


def check_options(test: Test) -> None:
    """Refuse options that `kvmbox.Machine` refuses. Nothing is opened. Raises UsageError."""
    from kvmbox.run.api.machine import Machine
    from kvmbox.run.options.values import byte_count

    Machine(test.image, timeout=test.timeout, **test.options)  # type: ignore[arg-type] # as the suite has them
    limit = test.options.get("serial_limit")
    if limit is not None and byte_count(limit) > MOST_OUTPUT_BYTES:  # type: ignore[arg-type] # checked above
        raise UsageError(
            f"--serial-limit {limit} is more than a suite may keep, {MOST_OUTPUT_BYTES >> 20}M",
            hint="leave it out: the default is 1M",
        )


def _read(path: str) -> str:
    try:
        data = read_regular_file(path, MOST_SUITE_BYTES)
    except OSError as error:
        raise UsageError(f"cannot read the suite '{path}': {error.strerror}") from error
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"{path}:{line}: the suite is not UTF-8", hint="save the file in that encoding"
        ) from error
