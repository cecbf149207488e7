"""`kvmbox smoke` with real guests: each kind of end has its verdict, and a signal leaves complete reports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from tests.support.family import children_of, pidfds_of
from tests.support.html_page import Page
from tests.support.junit_xml import read_junit
from tests.support.patience import far_enough, seconds
from tests.support.runs import KVMBOX
from tests.support.sessions import adoption
from tests.support.tap14 import read_tap
from tests.support.waiting import Stream, wait_readable

pytestmark = pytest.mark.kvm

EVERY_KIND = """
[defaults]
image = "hello32"
timeout = 60

[[test]]
name = "good"
expect = "protected mode"

[[test]]
name = "dialogue"
image = "echo"
dialogue = [{ when = "leaves", send = "hi\\r" }, { when = { regex = '^hi' }, send = "\\u0004" }]
expect = { regex = 'echo: bye$' }

[[test]]
name = "warm dialogue"
image = "echo"
dialogue = [{ when = "leaves\\n", send = "hi\\r\\u0004" }]
expect = "echo: bye"

[[test]]
name = "keyboard"
image = "keyboard"
dialogue = [{ when = { regex = 'leaves$' }, type = "Hi\\r" }, { when = "Hi\\n", type = "\\u0004" }]
expect = { regex = 'keyboard: bye$' }

[[test]]
name = "mouse"
image = "mouse"
dialogue = [{ when = "leaves", mouse = "move 5 -5" }, { when = "at 5 -5 ", mouse = "click middle" }]
expect = { regex = 'mouse: bye$' }

[[test]]
name = "warm mouse"
image = "mouse"
dialogue = [{ when = "leaves\\n", mouse = "move 5 5, click middle" }]
expect = "--m--\\nmouse: bye"

[[test]]
name = "warm keyboard"
image = "keyboard"
dialogue = [{ when = "leaves\\n", type = "Hi!\\u0004" }]
expect = "Hi!\\nkeyboard: bye"

[[test]]
name = "never ends"
image = "spin"
expect = { regex = 'looping for \\w+$' }

[[test]]
name = "missing text"
expect = "Goodbye"

[[test]]
name = "missing regex"
expect = { regex = 'Good\\w+' }

[[test]]
name = "fatal text"
fail_on = "Hello"

[[test]]
name = "wrong status"
status = 33

[[test]]
name = "no debug-exit"
convention = "kvm-unit-tests"

[[test]]
name = "crash"
image = "triplefault"

[[test]]
name = "halted"
image = "haltforever"

[[test]]
name = "too slow"
image = "spin"
timeout = 0.5

[[test]]
name = "flood"
image = "flood"
serial_limit = "64K"

[[test]]
name = "no image"
image = "gone.elf"

[[test]]
name = "unfinished dialogue"
dialogue = [{ when = "login:", send = "x" }]

[[test]]
name = "no verdict"
convention = "tap"

[[test]]
name = "tolerated"
status = 33
tolerate = "issue 7"

[[test]]
name = "skipped"
skip = "not now"
"""


def smoke(folder: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    environment.pop("GITHUB_ACTIONS", None)
    return subprocess.run(
        [*KVMBOX, "smoke", *arguments],
        cwd=folder,
        env=environment | options,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def results(path: Path) -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {line["name"]: line for line in lines if line["event"] == "result"}


def test_each_kind_of_end_has_its_verdict_in_every_report(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(EVERY_KIND)
    done = smoke(
        tmp_path,
        *(
            "s.toml",
            "-j",
            "2",
            "--tap",
            "o.tap",
            "--junit",
            "o.xml",
            "--jsonl",
            "o.jsonl",
            "--markdown",
            "o.md",
        ),
        *("--logs", "logs"),
    )
    assert done.returncode == 12, done.stderr
    assert done.stderr == ""
    found = results(tmp_path / "o.jsonl")
    assert {name: one["verdict"] for name, one in found.items()} == {
        "good": "pass",
        "dialogue": "pass",
        "warm dialogue": "pass",
        "keyboard": "pass",
        "mouse": "pass",
        "warm mouse": "pass",
        "warm keyboard": "pass",
        "never ends": "pass",
        "missing text": "fail",
        "missing regex": "fail",
        "fatal text": "fail",
        "wrong status": "fail",
        "no debug-exit": "fail",
        "crash": "crash",
        "halted": "crash",
        "too slow": "timeout",
        "flood": "fail",
        "no image": "error",
        "unfinished dialogue": "fail",
        "no verdict": "fail",
        "tolerated": "tolerated",
        "skipped": "skip",
    }
    assert "RIP" in found["crash"]["crash_report"]
    assert found["missing regex"]["console"] == "Hello from 32-bit protected mode!\n"
    assert "'login:' was not printed" in found["unfinished dialogue"]["reason"]
    document = read_tap((tmp_path / "o.tap").read_text())
    assert document.complete
    assert sum(point.ok for point in document.points) == 9
    root = read_junit((tmp_path / "o.xml").read_text())
    assert (root.attrib["failures"], root.attrib["errors"]) == ("10", "2")
    assert (tmp_path / "o.md").read_text().startswith("### kvmbox smoke: 8 passed, 12 failed")
    assert (tmp_path / "logs/s.fatal_text/console.log").read_bytes().startswith(b"Hello")
    # The failures come first next time, and the history has all that ran.
    listed = smoke(tmp_path, "s.toml", "--failed", "--list").stdout.splitlines()
    assert listed[0] == "missing text"
    assert listed[-1].startswith("skipped")


ON_THE_SCREEN = """
[defaults]
image = "screen"
timeout = 60

[[test]]
name = "text"
expect = "Hello from the text screen!"

[[test]]
name = "regex"
append = "3"
status = 7
expect = { regex = '^Hello .* screen!$' }

[[test]]
name = "fatal text"
fail_on = "screen!"
append = "3"
status = 7

[[test]]
name = "fatal regex"
fail_on = { regex = "screen!$" }
append = "3"
status = 7

[[test]]
name = "missing"
expect = { regex = "Good bye" }
"""


def test_patterns_are_searched_on_the_screen_and_reports_show_it(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(ON_THE_SCREEN)
    done = smoke(tmp_path, "s.toml", "--jsonl", "o.jsonl")
    assert done.returncode == 12, done.stderr
    found = results(tmp_path / "o.jsonl")
    assert {name: one["verdict"] for name, one in found.items()} == {
        "text": "pass",
        "regex": "pass",
        "fatal text": "fail",
        "fatal regex": "fail",
        "missing": "crash",
    }
    assert found["missing"]["console"].startswith("Hello from the text screen!\n\n  ┌───┐ ☺ ←[31m\n")


WITH_CORES = """
[[start]]
name = "booted"
image = "echo"
when = "leaves"
[[test]]
name = "warm"
image = "triplefault"
[[test]]
name = "run"
image = "triplefault"
expect = { regex = "never" }
[[test]]
name = "forked"
start = "booted"
timeout = SECONDS
[[test]]
name = "fails"
image = "hello32"
status = 3
[[test]]
name = "good"
image = "hello32"
"""


PICTURES = """
[defaults]
timeout = 60

[[test]]
name = "warm"
image = "vbe"
append = "320 200 16"

[[test]]
name = "cold"
image = "vbe"
append = "320 200 16"
expect = { regex = "the picture is th?ere" }

[[test]]
name = "text"
image = "screen"
expect = "Hello from the text screen!"

[[test]]
name = "no screen"
image = "hello32"
"""


def test_page_shows_what_was_on_each_screen(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(PICTURES)
    done = smoke(tmp_path, "s.toml", "--html", "o.html")
    assert done.returncode == 0, done.stderr
    page = Page((tmp_path / "o.html").read_text(encoding="utf-8"))
    page.assert_policy_holds()
    page.assert_accessible()
    warm, cold, *others = page.of("img")
    assert warm == cold
    assert warm["alt"] == "a picture of 320 x 200 pixels"
    assert page.texts.count("Screen") == 3
    assert "Hello from the text screen!" in (
        others[0]["alt"] or "" if others else page.text
    )  # no kvmbox[screen]


def test_core_files_of_failures_are_kept(tmp_path: Path) -> None:
    def done_in(scale: int) -> subprocess.CompletedProcess[str]:
        (tmp_path / "s.toml").write_text(WITH_CORES.replace("SECONDS", seconds(scale)))
        return smoke(tmp_path, "s.toml", "--core", "--logs", "logs", "--jsonl", "o.jsonl")

    # Of a guest that has not begun when its time is over there is no core file.
    done = far_enough(done_in, lambda _: results(tmp_path / "o.jsonl")["forked"]["files"])
    assert done.returncode == 12, done.stderr
    found = results(tmp_path / "o.jsonl")
    cores = {"warm": True, "run": True, "forked": True, "fails": False, "good": False}
    assert {name: any("guest.core" in one for one in found[name]["files"]) for name in cores} == cores
    for name in ("warm", "run", "forked"):
        with (tmp_path / f"logs/s.{name}/guest.core").open("rb") as stream:
            assert ELFFile(stream)["e_type"] == "ET_CORE"
        assert f"core file 'logs/s.{name}/guest.core' written" in found[name]["messages"]
    assert not [path for path in (tmp_path / "logs").iterdir() if path.is_file()]


def test_boots_of_one_guest_many_times_agree(tmp_path: Path) -> None:
    done = smoke(tmp_path, "hello32", "--repeat", "20", "-j", "2", "--jsonl", "o.jsonl", "-q")
    assert done.returncode == 0, done.stdout + done.stderr
    (result,) = results(tmp_path / "o.jsonl").values()
    assert (result["boots"], result["passed"], result["verdict"]) == (20, 20, "pass")
    assert result["console"] == "Hello from 32-bit protected mode!\n"


STARTS = """
[[start]]
name = "typing"
image = "echo"
memory = "32M"
when = "leaves"

[[start]]
name = "never"
image = "hello32"
when = "leaves"
"""
FORKED = """
[[test]]
name = "{0}"
start = "typing"
dialogue = [{{ send = "{0}\\r" }}, {{ when = {1}, send = "\\u0004" }}]
"""
WITHOUT = """
[[test]]
name = "without"
start = "never"
expect = "Hello"
"""


def test_tests_with_one_start_are_forked_each_with_its_own_dialogue(tmp_path: Path) -> None:
    names = ["one", "two", "three", "four", "five"]
    tests = [FORKED.format(name, f'"{name}\\n"') for name in names[:-1]]
    tests.append(FORKED.format("five", "{ regex = '^five$' }"))  # by `kvmbox run`, not in a warm worker
    (tmp_path / "s.toml").write_text("".join([STARTS, *tests, WITHOUT]))
    folder = tmp_path / "temporary"
    folder.mkdir()
    arguments = ("s.toml", "-j", "2", "--jsonl", "o.jsonl", "--repeat", "2")
    done = smoke(tmp_path, *arguments, TMPDIR=str(folder))
    assert done.returncode == 12, done.stdout + done.stderr
    found = results(tmp_path / "o.jsonl")
    for name in names:
        assert (found[name]["verdict"], found[name]["passed"]) == ("pass", 2), found[name]
        # Neither what the start has printed nor what another test has typed is there.
        assert found[name]["console"].split() == [name, "echo:", "bye"]
    assert found["without"]["verdict"] == "error"
    assert found["without"]["reason"].startswith("the start 'never' (s.toml:8) cannot be made: ")
    assert list(folder.iterdir()) == []
    selected = smoke(tmp_path, *arguments, "--filter", "t*", TMPDIR=str(folder))
    assert selected.returncode == 0, selected.stdout + selected.stderr
    assert results(tmp_path / "o.jsonl").keys() == {"two", "three"}


def test_nothing_proven_and_reports_on_stdout(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text('[[test]]\nimage = "hello32"\nskip = "x"\n')
    done = smoke(tmp_path, "s.toml", "--tap", "-")
    assert done.returncode == 16
    assert read_tap(done.stdout).points[0].directive == "SKIP"
    assert "nothing is proven" in done.stderr


def test_configuration_of_the_directory_is_not_that_of_the_guests(tmp_path: Path) -> None:
    (tmp_path / "kvmbox.toml").write_text('[run]\nexpect = "never"\n')
    (tmp_path / "s.toml").write_text("[[test]]\nimage = 'hello32'\nexpect = { regex = 'mode!$' }\n")
    assert smoke(tmp_path, "s.toml").returncode == 0


def test_annotations_and_summary_in_actions(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text("[[test]]\nimage = 'hello32'\nstatus = 33\n")
    page = tmp_path / "page.md"
    page.write_text("before\n")
    done = smoke(tmp_path, "s.toml", GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(page))
    assert done.returncode == 12
    assert "::error file=s.toml,line=1,title=hello32%3A fail::" in done.stdout
    assert page.read_text().startswith("before\n### kvmbox smoke: 1 failed\n")


def test_report_on_stdout_has_no_workflow_command(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text("[[test]]\nimage = 'hello32'\nskip = 'no'\n")
    first, *report, last = smoke(
        tmp_path, "s.toml", "--jsonl", "-", GITHUB_ACTIONS="true"
    ).stdout.splitlines()
    token = first.removeprefix("::stop-commands::")
    assert (len(token), last) == (32, f"::{token}::")
    assert json.loads(report[-1])["event"] == "end"
    # A file is not read by the runner.
    with (tmp_path / "o").open("w+") as file:
        environment = {**os.environ, "GITHUB_ACTIONS": "true", "XDG_CACHE_HOME": str(tmp_path)}
        command = [*KVMBOX, "smoke", "s.toml", "--jsonl", "-"]
        assert (
            subprocess.run(command, cwd=tmp_path, env=environment, stdout=file, check=False).returncode == 16
        )
        file.seek(0)
        assert [json.loads(line)["event"] for line in file] == ["begin", "result", "end"]


def test_signal_while_a_start_is_made_leaves_no_folder(tmp_path: Path) -> None:
    never = "[[start]]\nname = 'never'\nimage = 'spin'\nwhen = 'leaves'\n"
    (tmp_path / "s.toml").write_text(never + "[[test]]\nname = 'a'\nstart = 'never'\n")
    folder = tmp_path / "temporary"
    folder.mkdir()
    with (
        adoption() as left,
        subprocess.Popen(
            [*KVMBOX, "smoke", "s.toml", "--history", "none", "--jsonl", "-"],
            cwd=tmp_path,
            env={**os.environ, "TMPDIR": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        ) as process,
    ):
        assert process.stdout is not None
        stream = Stream(process.stdout.fileno(), "stdout")
        stream.until(b'"event": "boot"')
        process.send_signal(signal.SIGINT)
        rest = stream.rest()
        assert process.wait() == 130
    assert b'"verdict": "not-run"' in rest
    assert left == []
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("moment", ["begin", "boot", "result"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_leaves_complete_reports_and_no_process(tmp_path: Path, moment: str, number: int) -> None:
    tests = ["[[test]]\nname = 'first'\nimage = 'hello32'\n"]
    tests += [f"[[test]]\nname = '{name}'\nimage = 'spin'\n" for name in ("warm", "more")]
    tests += ["[[test]]\nname = 'cold'\nimage = 'spin'\nexpect = { regex = 'never' }\n"]
    (tmp_path / "s.toml").write_text("\n".join(tests))
    command = [*KVMBOX, "smoke", "s.toml", "-j", "3", "--tap", "o.tap", "--junit", "o.xml", "--jsonl", "-"]
    with (
        adoption() as left,
        subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        ) as process,
    ):
        assert process.stdout is not None
        stream = Stream(process.stdout.fileno(), "stdout")
        stream.until(f'"event": "{moment}"'.encode())
        process.send_signal(number)
        rest = stream.rest()
        assert process.wait() == 130
    lines = [json.loads(line) for line in rest.decode().splitlines()]
    assert lines[-1]["event"] == "end"
    assert lines[-1]["stopped"] == "interrupted"
    assert sum(lines[-1]["counts"].values()) == 4
    document = read_tap((tmp_path / "o.tap").read_text())
    assert document.bail_out == "interrupted"
    root = read_junit((tmp_path / "o.xml").read_text())
    assert root.attrib["tests"] == "4"
    assert left == []


def test_killed_session_leaves_no_guest(tmp_path: Path) -> None:
    # A guest that prints nothing: one that prints is ended by the pipe that nobody reads.
    (tmp_path / "silent.bin").write_bytes(b"\xeb\xfe")  # jmp $
    (tmp_path / "s.toml").write_text(
        "[[test]]\nimage = 'silent.bin'\nboot = 'real'\nexpect = { regex = 'never' }\n"
    )
    with (
        adoption() as left,
        subprocess.Popen(
            [*KVMBOX, "smoke", "s.toml", "--history", "none", "--plain"],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process,
    ):
        while not (descriptors := pidfds_of(children_of(process.pid))):
            assert process.poll() is None, "the session ended before it booted anything"
        process.kill()
        try:
            for descriptor in descriptors:
                wait_readable(descriptor, "the end of kvmbox run")
        finally:
            for descriptor in descriptors:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)  # nothing, where it has ended
                os.close(descriptor)
    assert left == []
