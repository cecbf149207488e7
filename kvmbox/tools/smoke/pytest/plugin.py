"""The plugin for pytest: the fixture `kvmbox`, the marker `guest`, and suites `*.guest.toml`.

    def test_login(kvmbox):
        vm = kvmbox.boot("kernel.elf", memory="64M")
        vm.expect("login:")
        vm.send(b"root\\n")
        assert vm.wait().status == 33

pytest loads it by its entry point. Whatever a guest needs is imported when a test boots one: a run of pytest
without guests pays for this module alone.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from kvmbox.run.api.machine import Machine
    from kvmbox.tools.smoke.execute.executor import Executor

DEFAULT_TIMEOUT_S: Final = 60.0
GUEST_FILES: Final = ".guest.toml"
FIXTURE: Final = "kvmbox"

_EXECUTOR: Final = pytest.StashKey["Executor"]()
_PACKAGE: Final = Path(__file__).parents[3]
_GUESTS: Final = pytest.StashKey["Guests"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options, which `pytest --help` shows."""
    group = parser.getgroup("kvmbox", "guests on /dev/kvm")
    group.addoption(
        "--kvmbox-timeout",
        type=float,
        metavar="SECONDS",
        help="time limit of each guest, in place of those that tests and suites name",
    )
    group.addoption(
        "--kvmbox-require",
        action="store_true",
        help="fail tests with guests instead of skipping them where /dev/kvm cannot be used",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        "guest(image, **options): what the fixture `kvmbox` boots by default: parameters of kvmbox.Machine",
    )
    timeout = config.getoption("--kvmbox-timeout")
    if timeout is not None and not timeout > 0:
        raise pytest.UsageError(f"--kvmbox-timeout {timeout:g} is not a positive number of seconds")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Suites are collected by their name."""
    if not file_path.name.endswith(GUEST_FILES):
        return None
    from kvmbox.tools.smoke.pytest.items import GuestFile

    config = parent.config
    return GuestFile.make(parent, file_path, lambda: _executor(config), config.getoption("--kvmbox-timeout"))


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what boots the tests of suites."""
    executor = config.stash.get(_EXECUTOR, None)
    if executor is not None:
        del config.stash[_EXECUTOR]
        executor.__exit__(None, None, None)


def _executor(config: pytest.Config) -> Executor:
    """What boots the tests of suites: one for all of this process, made when it is needed."""
    _need_kvm(config)
    found = config.stash.get(_EXECUTOR, None)
    if found is None:
        from kvmbox.tools.smoke.execute.local import LocalExecutor
        from kvmbox.tools.smoke.execute.starts import ForkingExecutor

        # pytest runs one test at a time; with pytest-xdist each worker is a process with an executor.
        found = ForkingExecutor(LocalExecutor(1)).__enter__()
        config.stash[_EXECUTOR] = found
    return found


def _need_kvm(config: pytest.Config) -> None:
    from kvmbox.base.errors import KvmError
    from kvmbox.tools.smoke.execute.host_requirements import check_kvm

    try:
        check_kvm()
    except KvmError as error:
        if config.getoption("--kvmbox-require"):
            pytest.fail(f"--kvmbox-require: {error}", pytrace=False)
        pytest.skip(str(error))


class Guests:
    """The guests of one test: the value of the fixture `kvmbox`."""

    def __init__(self, defaults: dict[str, Any], timeout: float | None = None) -> None:
        """`defaults` are parameters of `kvmbox.Machine`, "image" among them where the marker names one.

        `timeout` (seconds) replaces whatever time limit a test names.
        """
        self._defaults = defaults
        self._timeout = timeout
        self._machines: list[Machine] = []

    def boot(self, image: str | Path | None = None, **options: Any) -> Machine:
        """Boot a guest, and wait until it runs: a `kvmbox.Machine` that is stopped when the test ends.

        The image and the options that are not given are those of the marker `guest`. Raises KvmboxError.
        """
        from kvmbox.base.errors import UsageError
        from kvmbox.run.api.machine import Machine

        wanted = self._defaults | options
        if self._timeout is not None:
            wanted["timeout"] = self._timeout
        named = wanted.pop("image", None)
        image = named if image is None else image
        if image is None:
            raise UsageError(
                "kvmbox.boot() has no image", hint="name one, here or with @pytest.mark.guest('kernel.elf')"
            )
        machine = Machine(image, **wanted)
        self._machines.append(machine)
        return machine.start()

    @property
    def machines(self) -> tuple[Machine, ...]:
        """All guests so far, in the order of their boots."""
        return tuple(self._machines)

    def stop(self) -> None:
        """Stop all of them. Idempotent."""
        for machine in self._machines:
            machine.stop()


@pytest.fixture
def kvmbox(request: pytest.FixtureRequest) -> Iterator[Guests]:
    """Boots guests: `vm = kvmbox.boot("kernel.elf")`. What still runs when the test ends is stopped."""
    _need_kvm(request.config)
    guests = Guests(_defaults_of(request), request.config.getoption("--kvmbox-timeout"))
    request.node.stash[_GUESTS] = guests
    try:
        yield guests
    finally:
        guests.stop()


def _defaults_of(request: pytest.FixtureRequest) -> dict[str, Any]:
    defaults: dict[str, Any] = {"timeout": DEFAULT_TIMEOUT_S}
    # The marker of the class first, that of the function last.
    for marker in reversed(list(request.node.iter_markers("guest"))):
        if len(marker.args) > 1:
            raise pytest.UsageError(f"@pytest.mark.guest takes one image, and options by name: {marker.args}")
        defaults |= dict(zip(("image",), marker.args, strict=False)) | marker.kwargs
    return defaults


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows the test's own lines, what the guests printed, and why they crashed."""
    guests = item.stash.get(_GUESTS, None)
    if guests is not None and call.when == "call" and call.excinfo is not None:
        for entry in call.excinfo.traceback:
            if _PACKAGE in Path(entry.path).parents:
                entry.frame.f_globals["__tracebackhide__"] = True  # pytest leaves its frames out
        for number, machine in enumerate(guests.machines, 1):
            for what, text in _sections(machine):
                item.add_report_section("call", f"{what} of guest {number}, {machine.config.guest}", text)
    return (yield)


def _sections(machine: Machine) -> Iterator[tuple[str, str]]:
    from kvmbox.tools.smoke.report.safe_text import TAIL_LINES, tail

    machine.stop()
    if machine.console is not None:
        yield "console", "\n".join(tail(machine.output, 5 * TAIL_LINES)) or "(nothing was printed)"
    if machine.messages:
        yield "messages", "\n".join(machine.messages)
    result = machine.result
    if result is not None:
        yield (
            "end",
            f"status {result.status}: {result.reason}" + (f"\nhint: {result.hint}" if result.hint else ""),
        )
        if result.summary:
            yield "crash report", result.summary
