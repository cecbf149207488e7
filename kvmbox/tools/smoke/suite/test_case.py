"""The words of a suite: tests, what they expect, boots, what was observed, and verdicts. Values, no rules."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, Final

from kvmbox.base.outcome import INTERRUPTED
from kvmbox.base.value_classes import Value
from kvmbox.run.result.run_result import Ending

DEFAULT_TIMEOUT_S: Final = 60.0
"""The time limit of a boot, where neither the suite nor the command line says another one."""

NO_OPTIONS: Final[Mapping[str, object]] = MappingProxyType({})

DEFAULT_OUTPUT_LIMIT: Final = 1 << 20
"""How many bytes a guest may print, unless the suite says otherwise: a flood is a failure."""


class Verdict(Enum):
    """What became of a test. The value is the word that reports use."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    CRASH = "crash"
    """The guest crashed: kvmbox's status 6."""
    TIMEOUT = "timeout"
    ERROR = "error"
    """It tells nothing of the guest: it could not start, a device process failed, KVM refused to go on."""
    FLAKY = "flaky"
    """Some boots passed and some did not."""
    TOLERATED = "tolerated"
    """It failed, and the suite says that it may."""
    SKIP = "skip"
    NOT_RUN = "not-run"
    """The session ended before: a signal, or --fail-fast."""

    @property
    def is_failure(self) -> bool:
        """Whether it fails the session."""
        return self in FAILURES

    @property
    def has_run(self) -> bool:
        """Whether a guest was booted for it and had its say."""
        return self not in (Verdict.SKIP, Verdict.NOT_RUN)


FAILURES: Final = frozenset({Verdict.FAIL, Verdict.CRASH, Verdict.TIMEOUT, Verdict.ERROR, Verdict.FLAKY})


class Pattern(Value):
    """What the console is searched for: a literal text, or a regular expression."""

    text: str
    is_regex: bool = False

    @property
    def regex(self) -> re.Pattern[bytes]:
        """The same for `re`, on bytes: text is matched as UTF-8, ^ and $ at each line."""
        source = self.text.encode("utf-8", "surrogateescape")
        return re.compile(source if self.is_regex else re.escape(source), re.MULTILINE)

    def __str__(self) -> str:
        return f"/{self.text}/" if self.is_regex else repr(self.text)


class Step(Value):
    """A step of a dialogue: once `when` has been printed (None: at once), `send` is typed on the console.

    `on_keyboard` tells that the console has to be that of the keyboard (`--keyboard console`).
    """

    when: Pattern | None
    send: bytes
    on_keyboard: bool = False


class Origin(Value):
    """Where a test comes from: a file, and the line in it (0: the file as a whole)."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class Start(Value):
    """A machine that tests are forked from. It is booted once, up to `when`, and a snapshot is taken there.

    `when` is that of `kvmbox run --snapshot-when`: a text of the console, port:NUMBER or time:SECONDS. It
    must come within `timeout` seconds. `options` are parameters of `kvmbox.Machine`, as those of a test.
    """

    name: str
    image: str
    origin: Origin
    when: str
    options: Mapping[str, object] = NO_OPTIONS
    timeout: float = DEFAULT_TIMEOUT_S


class Test(Value):
    """One test of a suite.

    `options` are parameters of `kvmbox.Machine` apart from the image, the time limit and the expectations.
    `statuses` are the exit statuses that mean success, empty where the convention decides. `verdict_lines`
    are the patterns of the convention "pattern": pass, fail and skip. `checks` are files of the host and what
    they must contain. `manual` is why the test is run only if a group or a filter selects it. A test with a
    `start` is forked from it: `image` is that of the start, and `options` has nothing that it decides.
    """

    __test__ = False  # pytest: no class of tests

    name: str
    suite: str
    image: str
    origin: Origin
    options: Mapping[str, object] = NO_OPTIONS
    timeout: float = DEFAULT_TIMEOUT_S
    convention: str = "kvmbox"
    statuses: tuple[int, ...] = ()
    expect: tuple[Pattern, ...] = ()
    fail_on: tuple[Pattern, ...] = ()
    verdict_lines: tuple[tuple[str, Pattern], ...] = ()
    dialogue: tuple[Step, ...] = ()
    groups: tuple[str, ...] = ()
    skip: str | None = None
    manual: str | None = None
    needs: tuple[str, ...] = ()
    checks: tuple[tuple[str, str], ...] = ()
    tolerate: str | None = None
    retries: int = 0
    allow_flaky: bool = False
    start: Start | None = None

    @property
    def key(self) -> str:
        """What names the test among all of a session, and in the history."""
        return f"{self.suite}/{self.name}"


class Boot(Value):
    """One boot, as an executor gets it: values that travel to another process or another machine.

    The run ends as soon as all of `stop_all` or any of `stop_any` has been printed: nothing that the guest
    does later changes the verdict. An executor may ignore both; it only takes longer then.
    """

    image: str
    options: Mapping[str, object] = NO_OPTIONS
    timeout: float = DEFAULT_TIMEOUT_S
    dialogue: tuple[Step, ...] = ()
    stop_all: tuple[Pattern, ...] = ()
    stop_any: tuple[Pattern, ...] = ()
    record: str | None = None
    """Where to record the requests to devices, or None."""
    core: str | None = None
    """Where to leave a core file of a guest that comes to a bad end, or None."""
    start: Start | None = None
    """What the machine is forked from, or None. Only `starts` sees it, and makes a `snapshot` of it."""
    snapshot: str | None = None
    """The file of a snapshot that the machine starts from, in place of `image`, or None."""


class Observation(Ending):
    """How a boot ended.

    `stopped` tells that the executor ended it, because all that matters had been printed; then `status` means
    nothing. `start_failed` tells that the guest of the test was never there: it is its start that all this
    tells of. `steps_done` is how many steps of the dialogue were made. `seconds` is the wall time. `screen`
    is what was on the screen, as JSON (docs/screen.md).
    """

    seconds: float
    output: bytes = b""
    messages: str = ""
    stopped: bool = False
    steps_done: int = 0
    start_failed: bool = False
    screen: Mapping[str, Any] | None = None


def no_result(status: int, reason: str, hint: str | None = None) -> Observation:
    """What is told of a boot that was not made, or has left no result."""
    return Observation(status, reason, hint, "", "", 0.0)


NOT_BEGUN: Final = no_result(INTERRUPTED, "not begun: the session ended")


class Judgement(Value):
    """A verdict, and why in a few words (empty where there is nothing to say)."""

    verdict: Verdict
    reason: str = ""


class Attempt(Value):
    """One boot of a test, judged."""

    observation: Observation
    judgement: Judgement


class TestResult(Value):
    """What became of a test. `decisive` is the boot that the verdict is of."""

    __test__ = False

    test: Test
    verdict: Verdict
    reason: str = ""
    decisive: Attempt | None = None
    boots: int = 0
    passed: int = 0
    seconds: float = 0.0
    """The wall time of all boots together."""
    files: tuple[str, ...] = ()
    """What is kept of the decisive boot: console, crash report, recording, core file."""
