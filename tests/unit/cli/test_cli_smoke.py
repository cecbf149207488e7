"""`kvmbox smoke` up to the first boot: options, lists, reports that cannot be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmbox.base.errors import KvmError
from kvmbox.cli.main import run_command
from kvmbox.tools.smoke.execute import host_requirements
from kvmbox.tools.smoke.report.outputs import default_history_path, read_history, write_history
from tests.support.smoke import a_result

SUITE = """
[defaults]
image = "hello32"
[[test]]
name = "one"
groups = "fast"
[[test]]
name = "two"
skip = "not now"
[[test]]
name = "three"
"""


@pytest.fixture(autouse=True)
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A suite `s.toml` in the working directory; the history is kept there, too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    path = tmp_path / "s.toml"
    path.write_text(SUITE)
    return path


def smoke(*arguments: str) -> int:
    return run_command(["smoke", *arguments])


def test_list_shows_names_and_boots_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    assert smoke("s.toml", "--list") == 0
    assert capfd.readouterr().out == "one\ntwo  (skipped: not now)\nthree\n"
    assert smoke("s.toml", "--list", "-g", "fast") == 0
    assert capfd.readouterr().out == "one\n"
    assert smoke("s.toml", "--list", "--filter", "t*", "--shard", "1/2") == 0
    first = capfd.readouterr().out
    assert smoke("s.toml", "--list", "--filter", "t*", "--shard", "2/2") == 0
    assert sorted((first + capfd.readouterr().out).splitlines()) == ["three", "two  (skipped: not now)"]


def test_list_needs_no_kvm(
    suite: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def no_kvm() -> bool:
        raise KvmError("cannot open /dev/kvm: Permission denied", hint="join the group kvm")

    monkeypatch.setattr(host_requirements, "has_hardware_virtualization", no_kvm)
    suite.write_text(SUITE + 'needs = "hardware-virtualization"\n')
    assert smoke("s.toml", "--list") == 0
    assert capfd.readouterr().out.splitlines()[-1] == (
        "three  (needs hardware-virtualization: cannot open /dev/kvm: Permission denied)"
    )


def test_list_cannot_steer_a_terminal(suite: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (suite.parent / "u.cfg").write_text("[t]\nfile = t.flat\narch = \x1b[31m\n")
    assert smoke("u.cfg", "--list") == 0
    assert capfd.readouterr().out == "t  (skipped: \\x1b[31m only)\n"


def test_failures_of_last_time_come_first(capfd: pytest.CaptureFixture[str]) -> None:
    from kvmbox.tools.smoke.report.history import History
    from kvmbox.tools.smoke.suite.test_case import Verdict

    failed = History().with_results([a_result("three", Verdict.FAIL, suite="s"), a_result("one", suite="s")])
    write_history("h.json", failed)
    assert smoke("s.toml", "--list", "--failed", "--history", "h.json") == 0
    assert capfd.readouterr().out.split()[0] == "three"


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        ((), "kvmbox smoke needs a SUITE", "hello32"),
        (("nothing",), "SUITE 'nothing' does not exist", ".toml"),
        (("s.toml", "-j", "0"), "'0' is neither auto nor a number from 1 to 1024", "--help"),
        (("s.toml", "-j", "many"), "'many' is neither auto nor a number", "--help"),
        (("s.toml", "-j", "9" * 5000), "is neither auto nor a number", "--help"),
        (("s.toml", "--shard", "1/" + "9" * 5000), "is not I/N", "1/4"),
        (("s.toml", "--shard", "3/2"), "--shard '3/2' is not I/N", "1/4"),
        (("s.toml", "-g", "slow"), "--group 'slow' has no test", "fast"),
        (("s.toml", "--filter", "x"), "--filter 'x' matches no test", "--list"),
        (("s.toml", "--timeout", "0"), "'0' is not a positive number of seconds", "--help"),
        (("s.toml", "--repeat", "0"), "0 is not in the range", "--help"),
        (("s.toml", "--convention", "x"), "--convention 'x' is none of kvmbox, kvm-unit-tests", "--help"),
        (("s.toml", "--convention", "pattern"), "--convention 'pattern' is none of", "--help"),
        (("s.toml", "--record"), "--record needs --logs", "folder"),
        (("s.toml", "--core"), "--core needs --logs", "folder"),
        (("s.toml", "--dask", "tcp://x", "--logs", "l", "--record"), "--record does not go", "the host"),
        (("s.toml", "--dask", "tcp://x", "--logs", "l", "--core"), "--core does not go", "the host"),
        (("s.toml", "--dask", "tcp://x", "-j", "2"), "--jobs does not go with --dask", "--nthreads"),
        (("s.toml", "--history", "s.toml"), "--history 's.toml': it is no history of kvmbox smoke", "remove"),
        (("s.toml", "--tap", "-", "--junit", "-"), "--tap and --junit are both on stdout", "a file"),
        (("s.toml", "--tap", "s.toml"), "--tap 's.toml' is also a suite", "own"),
        (("s.toml", "--tap", "x", "--junit", "x"), "--junit 'x' is also --tap", "own"),
    ],
)
def test_usage_error_is_one_line_and_a_hint(
    capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str, hint: str
) -> None:
    # Where there is no /dev/kvm the last ones come too late: this test needs none of it.
    if "--tap" in arguments and not Path("/dev/kvm").exists():
        pytest.skip("/dev/kvm is looked at before reports are opened")
    assert smoke(*arguments) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines[0].startswith("kvmbox: error: ")
    assert message in lines[0]
    assert len(lines) == 2
    assert lines[1].startswith("hint: ")
    assert hint in lines[1]


def test_suite_that_is_wrong_is_not_emptied_by_a_report(suite: Path) -> None:
    assert smoke("s.toml", "--junit", "s.toml") in (2, 4)
    assert suite.read_text() == SUITE


def test_default_history_is_in_the_cache_and_differs_by_suite() -> None:
    first = default_history_path(["a.toml"], {"HOME": "/home"})
    assert first is not None
    assert first.startswith("/home/.cache/kvmbox/smoke/")
    assert default_history_path(["a.toml"], {"HOME": "/home", "XDG_CACHE_HOME": "/c"}) == first.replace(
        "/home/.cache", "/c"
    )
    assert default_history_path(["b.toml"], {"HOME": "/home"}) != first
    assert default_history_path(["a.toml"], {"XDG_CACHE_HOME": "relative"}) is None
    assert default_history_path(["a.toml"], {}) is None


def test_history_is_replaced_as_a_whole(tmp_path: Path) -> None:
    from kvmbox.tools.smoke.report.history import History

    path = tmp_path / "new" / "h.json"
    write_history(str(path), History().with_results([a_result("a")]))
    write_history(str(path), History().with_results([a_result("b")]))
    assert set(read_history(str(path)).seconds) == {"suite/b"}
    assert [one.name for one in path.parent.iterdir()] == ["h.json"]
    assert read_history(str(tmp_path / "none.json")) == History()
