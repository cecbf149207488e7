"""Shared fixtures and the rules about /dev/kvm and root."""

from __future__ import annotations

import gc
import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import settings

from kvmbox.base.compiled import why_not_built
from kvmbox.host.process.early_signals import END_SIGNALS

if TYPE_CHECKING:
    from tests.support.halves import Half

# Their assertions say what they have compared, as those of tests do.
pytest.register_assert_rewrite("tests.support")

# The host's speed is no part of any test: no deadlines, and a fixed number of examples. Everybody has the
# same ones each time, so that a finding is of the change and not of the day. `make explore` has others.
settings.register_profile("kvmbox", deadline=None, print_blob=True, derandomize=True)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.load_profile("kvmbox")

_CPUS: Final = os.sched_getaffinity(0)
MOST_AT_A_TIME: Final = 24
"""Each has all tests in its memory: 400 MB."""


@pytest.fixture(params=["pure", "compiled"])
def half(request: pytest.FixtureRequest) -> Half:
    """The hot path in pure Python, and the compiled one."""
    from tests.support.halves import half_of  # not before its assertions are rewritten

    found = half_of(request.param)
    if found is None:
        pytest.skip(f"compiled: {why_not_built()}")
    return found


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-kvm", action="store_true", help="fail instead of skipping where /dev/kvm cannot be used"
    )
    parser.addoption("--quick", action="store_true", help="run the tests of `make quick` alone")


def pytest_xdist_auto_num_workers() -> int:
    """With `-n auto`, three tests at a time for each CPU: most of them wait for processes."""
    return min(3 * len(_CPUS), MOST_AT_A_TIME)


def pytest_collection_finish() -> None:
    """All that stays for the whole run is no business of the garbage collector, nor of what is forked."""
    gc.collect()
    gc.freeze()


def pytest_configure(config: pytest.Config) -> None:
    """What this process ignores (nohup, a shell's background job), what it starts does not ignore.

    A handler that does nothing becomes the default in a program that is started; SIG_IGN would be inherited.
    """
    for number in END_SIGNALS:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda _number, _frame: None)
    from tests.support.took import Took  # as above

    config.pluginmanager.register(Took())


def _kvm_problem() -> str | None:
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"/dev/kvm cannot be used: {error.strerror}"
    return None


_ADDRESS: Final = re.compile(r"<.* at 0x[0-9a-f]+>")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `--quick`, files none of whose tests would run."""
    if not config.getoption("--quick") or collection_path.suffix != ".py":
        return None
    from tests.support.quick import changed_files, may_have_quick  # as above

    file = collection_path.relative_to(config.rootpath).as_posix()
    return None if may_have_quick(file, changed_files(str(config.rootpath))) else True


@pytest.hookimpl(trylast=True)  # others mark tests: hypothesis its own
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    unstable = [item.nodeid for item in items if _ADDRESS.search(item.nodeid)]
    if unstable:
        raise pytest.UsageError(f"the name of a test is another one in each process: {unstable[0]}")
    if config.getoption("--quick"):
        from tests.support.quick import keep_quick  # as above

        keep_quick(config, items)
    problem = _kvm_problem()
    for item in items:
        if problem and item.get_closest_marker("kvm") and not config.getoption("--require-kvm"):
            item.add_marker(pytest.mark.skip(reason=problem))
        if os.geteuid() != 0 and item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root: device processes are not dumpable"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    # Whatever ran in this process before may have bound it to one of them.
    if os.sched_getaffinity(0) != _CPUS:
        os.sched_setaffinity(0, _CPUS)
    problem = _kvm_problem() if item.get_closest_marker("kvm") else None
    if problem and item.config.getoption("--require-kvm"):
        pytest.fail(f"--require-kvm: {problem}")
