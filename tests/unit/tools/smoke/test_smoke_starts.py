"""Forks: one snapshot for all tests that share a start, and what becomes of them where there is none."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest

from kvmbox.tools.smoke.execute.engine import Engine
from kvmbox.tools.smoke.execute.starts import ForkingExecutor
from kvmbox.tools.smoke.report.artefacts import again
from kvmbox.tools.smoke.report.progress import Progress
from kvmbox.tools.smoke.report.reporter import Plan
from kvmbox.tools.smoke.report.summary import Summary
from kvmbox.tools.smoke.suite.test_case import Boot, Observation, Start, Step, Test, Verdict
from kvmbox.tools.smoke.suite.verdict import boot_of
from tests.support.smoke import Answer, FakeExecutor, a_start, a_test, literal, seen

STEPS = (Step(None, b"root\n"),)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def snapshot_wanted(boot: Boot) -> str | None:
    """The file of the snapshot that the boot is to make."""
    wanted = boot.options.get("snapshot_when")
    if wanted is None:
        return None
    assert isinstance(wanted, tuple)
    (one,) = wanted
    assert isinstance(one, str)
    return one.removeprefix("login=")


def a_guest(boot: Boot) -> Observation:
    """Makes the snapshot, or is started from one that is there."""
    path = snapshot_wanted(boot)
    if path is not None:
        Path(path).touch()
    else:
        assert boot.snapshot is not None
        assert os.path.exists(boot.snapshot)
    return seen(steps_done=1)


def forked(*names: str, start: Start | None = None) -> list[Test]:
    return [a_test(name, start=start or a_start(), dialogue=STEPS) for name in names]


def run(tests: Sequence[Test], answer: Answer, *, repeat: int = 1) -> tuple[Summary, list[Boot]]:
    inner = FakeExecutor(answer, slots=2)
    with ForkingExecutor(inner) as executor:
        session = Progress(tests, repeat=repeat)
        summary = Engine(session, executor, [], plan=Plan(tuple(tests), repeat, executor.slots)).run()
    assert inner.exited
    return summary, inner.boots


def test_tests_of_one_start_are_forked_from_one_snapshot_that_is_removed(folder: Path) -> None:
    start = a_start(options={"memory": "64M"}, timeout=30.0)
    summary, (making, *forks) = run(forked("a", "b", "c", start=start), a_guest)
    assert [result.verdict for result in summary.results] == [Verdict.PASS] * 3
    path = snapshot_wanted(making)
    assert path is not None
    wanted = {"memory": "64M", "snapshot_when": (f"login={path}",), "snapshot_stop": True}
    assert making == Boot("booted.elf", wanted, 30.0)
    assert [(fork.image, fork.snapshot, fork.start, fork.dialogue) for fork in forks] == [
        (f"{name}.elf", path, None, STEPS) for name in "abc"
    ]
    assert list(folder.iterdir()) == []


def test_each_start_is_made_once_and_only_if_it_is_needed() -> None:
    tests = forked("a", start=a_start("one", 1)) + forked("b", start=a_start("two", 2))
    tests += [a_test("c", start=a_start("three", 3), skip="not now")]
    _, boots = run(tests, a_guest, repeat=5)
    assert [boot.image for boot in boots if snapshot_wanted(boot) is not None] == ["one.elf", "two.elf"]
    assert len(boots) == 2 + 10
    assert len({boot.snapshot for boot in boots if boot.snapshot is not None}) == 2


def test_boot_without_a_start_is_the_inner_ones() -> None:
    _, boots = run([a_test("a", options={"memory": "8M"})], lambda boot: seen())
    assert boots == [Boot("a.elf", {"memory": "8M"})]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (seen(4, reason="cannot read 'x'"), "cannot read 'x'"),
        (seen(12, b"ok", reason="the guest shut down, before"), "the guest shut down, before"),
        (seen(124, b"ok", reason="--timeout 60 s ran out"), "--timeout 60 s ran out"),
        (seen(33, b"ok", reason="debug-exit"), "debug-exit"),
        (seen(0, b"ok"), "no snapshot was written"),
    ],
)
def test_start_that_cannot_be_made_is_an_error_of_each_of_its_tests(answer: Observation, reason: str) -> None:
    tests = [a_test(name, start=a_start(), expect=literal("ok"), retries=1) for name in "ab"]
    summary, boots = run(tests, lambda boot: answer)
    assert len(boots) == 1, "a start is tried once"
    for result in summary.results:
        assert result.verdict is Verdict.ERROR
        assert result.reason == f"the start 'booted' (suite.toml:1) cannot be made: {reason}"
    assert summary.status == 12


def test_folder_that_cannot_be_made_or_named_is_an_error_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a=b").mkdir()
    for name, words in (("gone", "No such file or directory"), ("a=b", "'='")):
        monkeypatch.setattr(tempfile, "tempdir", str(folder / name))
        summary, boots = run(forked("a"), a_guest)
        assert boots == []
        assert summary.results[0].verdict is Verdict.ERROR
        assert words in summary.results[0].reason
    assert list((folder / "a=b").iterdir()) == []


def test_failure_of_the_inner_executor_is_told_to_all_that_wait() -> None:
    inner = FakeExecutor(lambda boot: None)
    with ForkingExecutor(inner) as executor:
        futures = [executor.submit(boot_of(test)) for test in forked("a", "b")]
        inner.pending.pop().set_exception(OSError("broken"))
        for future in futures:
            with pytest.raises(OSError, match="broken"):
                future.result(timeout=0)


def test_start_that_the_inner_executor_does_not_take_lets_nobody_wait() -> None:
    class Broken(FakeExecutor):
        def submit(self, boot: Boot) -> Future[Observation]:
            raise OSError("broken")

    with ForkingExecutor(Broken(lambda boot: None)) as executor:
        with pytest.raises(OSError, match="broken"):
            executor.submit(boot_of(forked("a")[0]))
        with pytest.raises(OSError, match="broken"):
            executor.submit(boot_of(forked("b")[0])).result(timeout=0)


@pytest.mark.parametrize("made", [False, True])
def test_cancelled_session_ends_what_waits_and_leaves_nothing(folder: Path, made: bool) -> None:
    def answer(boot: Boot) -> Observation | None:
        return a_guest(boot) if made and boot.snapshot is None else None

    inner = FakeExecutor(answer, slots=2)
    with ForkingExecutor(inner) as executor:
        assert executor.slots == 2
        futures: list[Future[Observation]] = [executor.submit(boot_of(one)) for one in forked("a", "b")]
        assert not any(future.done() for future in futures)
        executor.cancel()
        assert [future.result(timeout=0).status for future in futures] == [130, 130]
        late = executor.submit(boot_of(a_test("c")))
        assert late.result(timeout=0).status == 130
    assert list(folder.iterdir()) == []


def test_snapshot_that_comes_behind_the_end_of_the_session_forks_nothing() -> None:
    class Late(FakeExecutor):
        def cancel(self) -> None:
            self.cancelled = True

    inner = Late(lambda boot: None)
    with ForkingExecutor(inner) as executor:
        future = executor.submit(boot_of(forked("a")[0]))
        executor.cancel()
        a_guest(inner.boots[0])
        inner.pending.pop().set_result(seen())
        assert future.result(timeout=0).status == 130
    assert len(inner.boots) == 1


def test_command_to_try_it_again_makes_the_snapshot_first() -> None:
    test = a_test("a", start=a_start("all set", options={"memory": "8M"}), expect=literal("x"))
    assert again(boot_of(test)) == (
        "kvmbox run --timeout=60 --serial-limit=1048576 --memory=8M --snapshot-when=login=all_set.snap "
        "--snapshot-stop -- 'all set.elf' && "
        "kvmbox run --timeout=60 --serial-limit=1048576 --expect=x --from=all_set.snap"
    )
