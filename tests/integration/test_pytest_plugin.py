"""The plugin for pytest, used by projects of their own: folders with tests, run by another pytest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.support.patience import LATE, far_enough, seconds
from tests.support.sessions import adoption
from tests.support.waiting import Stream

PROJECT: Final = Path(__file__).parents[2]


class Project:
    """A folder with tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "pytest.ini").write_text(
            "[pytest]\naddopts = --strict-markers -ra\nfilterwarnings = error\n"
        )

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(textwrap.dedent(text))

    def command(self, *arguments: str, plugins: Sequence[str] = ()) -> list[str]:
        chosen = [word for name in ("kvmbox.tools.smoke.pytest.plugin", *plugins) for word in ("-p", name)]
        return [sys.executable, "-m", "pytest", *chosen, "-p", "no:cacheprovider", *arguments]

    @property
    def environment(self) -> dict[str, str]:
        # The plugin is named: whether this kvmbox is installed is another question.
        return {
            **os.environ,
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": str(PROJECT),
            "COLUMNS": "200",
        }

    def run(self, *arguments: str, plugins: Sequence[str] = ()) -> tuple[int, str]:
        """The exit status and the output."""
        done = subprocess.run(
            self.command(*arguments, plugins=plugins),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_entry_point_names_the_plugin() -> None:
    table = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    assert table["project"]["entry-points"]["pytest11"] == {"kvmbox": "kvmbox.tools.smoke.pytest.plugin"}


@pytest.mark.kvm
def test_failure_shows_the_line_of_the_test_and_no_line_of_kvmbox(project: Project) -> None:
    project.write(
        "test_guest.py",
        """
        def test_login(kvmbox):
            vm = kvmbox.boot("hello64")
            vm.expect("login:", timeout=60)
        """,
    )
    status, text = project.run()
    assert status == 1
    assert '>       vm.expect("login:", timeout=60)' in text
    assert "E       kvmbox.base.errors.ExpectError: " in text
    assert "capture.py" not in text


@pytest.mark.kvm
def test_booted_guest_is_a_context(project: Project) -> None:
    project.write(
        "test_guest.py",
        """
        def test_two(kvmbox):
            for number in range(2):
                with kvmbox.boot("echo") as vm:
                    assert vm.running
                assert not vm.running
            assert len(kvmbox.machines) == 2
        """,
    )
    assert project.run()[0] == 0


def test_help_has_the_options_and_the_marker(project: Project) -> None:
    _, text = project.run("--help")
    assert "--kvmbox-timeout=SECONDS" in text
    assert "--kvmbox-require" in text
    _, text = project.run("--markers")
    assert "@pytest.mark.guest(image, **options)" in text


def test_pytest_without_guests_loads_nothing_of_them(project: Project) -> None:
    project.write(
        "test_it.py",
        """
        import sys

        def test_it():
            loaded = {name for name in sys.modules if name.startswith("kvmbox")}
            packages = {"kvmbox", "kvmbox.tools", "kvmbox.tools.smoke", "kvmbox.tools.smoke.pytest"}  # empty
            assert loaded == {*packages, "kvmbox.tools.smoke.pytest.plugin"}
        """,
    )
    status, text = project.run()
    assert status == 0, text


@pytest.mark.kvm
def test_fixture_boots_talks_and_waits(project: Project) -> None:
    project.write(
        "test_it.py",
        """
        import pytest

        def test_dialogue(kvmbox):
            vm = kvmbox.boot("echo")
            vm.expect("leaves")
            vm.send(b"hi\\r\\x04")
            assert vm.wait().status == 0
            assert b"echo: bye" in vm.output

        @pytest.mark.guest("hello32", memory="64M")
        class TestMarked:
            def test_default(self, kvmbox):
                vm = kvmbox.boot()
                assert vm.wait().status == 0
                assert vm.config.memory_size == 64 << 20
                assert vm.config.timeout == 60

            @pytest.mark.guest(memory="32M", timeout=59)
            def test_nearer_marker_wins(self, kvmbox):
                vm = kvmbox.boot(cpus=2)
                assert (vm.config.memory_size, vm.config.timeout, vm.config.cpus) == (32 << 20, 59, 2)

        def test_two_guests(kvmbox):
            assert [kvmbox.boot(name).wait().status for name in ("hello32", "hello64")] == [0, 0]
            assert len(kvmbox.machines) == 2

        def test_no_image(kvmbox):
            with pytest.raises(Exception, match="has no image"):
                kvmbox.boot()
        """,
    )
    status, text = project.run()
    assert status == 0, text
    assert "5 passed" in text


@pytest.mark.kvm
def test_screen_is_looked_at_and_shown_by_a_failure(project: Project) -> None:
    project.write(
        "test_it.py",
        """
        def test_good(kvmbox):
            vm = kvmbox.boot("screen")
            vm.expect_screen("text screen!", timeout=60)
            assert vm.screen.attributes[0][0] == 0x1F

        def test_bad(kvmbox):
            kvmbox.boot("screen").expect_screen("no such text")
        """,
    )
    status, text = project.run()
    assert status == 1
    assert "1 failed, 1 passed" in text
    assert "'no such text' was not seen on the screen before the guest ended; it shows 'Hello" in text
    assert "console of guest 1" in text
    assert "\nHello from the text screen!\n" in text


@pytest.mark.kvm
def test_failure_shows_console_end_and_crash_report_and_stops_guests(project: Project) -> None:
    project.write(
        "test_it.py",
        """
        import threading

        def test_crash(kvmbox):
            assert kvmbox.boot("triplefault").wait().status == 0

        def test_still_running(kvmbox):
            vm = kvmbox.boot("spin")
            vm.expect("looping")
            assert False

        def test_nothing_is_left():
            assert [one.name for one in threading.enumerate() if one.name.startswith("kvmbox")] == []
        """,
    )
    status, text = project.run()
    assert status == 1
    assert "2 failed, 1 passed" in text
    assert "console of guest 1, " in text
    assert "triplefault: about to fault without an IDT" in text
    assert "status 6: the guest crashed: triple fault" in text
    assert "crash report of guest 1" in text
    assert "RIP=" in text
    assert "spin: looping" in text


SUITE: Final = """
[defaults]
image = "hello32"
[[test]]
name = "good"
expect = "protected mode"
groups = ["fast"]
[[test]]
name = "bad"
expect = "Goodbye"
[[test]]
name = "crash"
image = "triplefault"
[[test]]
name = "known"
status = 33
tolerate = "issue 7"
[[test]]
name = "off"
skip = "not now"
"""


@pytest.mark.kvm
def test_suites_are_collected_and_judged(project: Project) -> None:
    project.write("kernel.guest.toml", SUITE)
    project.write("other.toml", "this is no suite")
    status, text = project.run()
    assert status == 1
    assert "2 failed, 1 passed, 1 skipped, 1 xfailed" in text
    assert "FAIL       bad" in text
    assert "the guest shut down, but had not printed 'Goodbye'" in text
    assert "RIP=" in text
    assert ": not now" in text
    assert "XFAIL kernel.guest.toml::known - issue 7" in text
    assert "Traceback" not in text
    assert "FAILED kernel.guest.toml::crash" in text
    status, text = project.run("-k", "fast", "-m", "guest", "-q")
    assert status == 0, text
    assert "1 passed" in text


def test_suite_that_is_wrong_is_an_error_with_its_line(project: Project) -> None:
    project.write("x.guest.toml", "[[test]]\nimage = 'hello32'\ntiemout = 3\n")
    status, text = project.run()
    assert status == 2
    assert "x.guest.toml:3: 'tiemout' is no key of [[test]]" in text
    assert "hint: did you mean 'timeout'?" in text
    assert "Traceback" not in text


@pytest.mark.kvm
def test_time_limit_of_the_command_line(project: Project) -> None:
    project.write("slow.guest.toml", '[[test]]\nimage = "spin"\n')
    project.write(
        "test_it.py",
        "def test_it(kvmbox):\n    assert kvmbox.boot('spin', timeout=600).wait().status == 124\n",
    )
    status, text = far_enough(
        lambda scale: project.run("--kvmbox-timeout", seconds(scale)), lambda end: LATE not in end[1]
    )
    assert "TIMEOUT    spin" in text
    assert "1 failed, 1 passed" in text
    assert status == 1
    status, text = project.run("--kvmbox-timeout", "-1")
    assert status == 4
    assert "--kvmbox-timeout -1 is not a positive number of seconds" in text


@pytest.mark.kvm
def test_xdist_runs_suites_and_fixtures_in_its_workers(project: Project) -> None:
    pytest.importorskip("xdist")
    project.write("kernel.guest.toml", SUITE)
    project.write(
        "test_it.py", "def test_it(kvmbox):\n    assert kvmbox.boot('hello32').wait().status == 0\n"
    )
    status, text = project.run("-n", "2", plugins=["xdist"])
    assert status == 1
    assert "2 failed, 2 passed, 1 skipped, 1 xfailed" in text
    assert "RIP=" in text


@pytest.mark.kvm
@pytest.mark.parametrize("kind", ["fixture", "suite"])
def test_interrupt_leaves_nothing_behind(project: Project, kind: str) -> None:
    if kind == "fixture":
        project.write(
            "test_it.py",
            """
            def test_it(kvmbox):
                vm = kvmbox.boot("spin")
                vm.expect("looping")
                print("the guest runs", flush=True)
                vm.wait()
            """,
        )
    else:
        project.write("slow.guest.toml", '[[test]]\nimage = "spin"\n')
        project.write(
            "conftest.py", 'def pytest_runtest_call(item):\n    print("the guest runs", flush=True)\n'
        )
    with (
        adoption() as left,
        subprocess.Popen(
            project.command("-s"),
            cwd=project.folder,
            env=project.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            bufsize=0,
        ) as process,
    ):
        assert process.stdout is not None
        stream = Stream(process.stdout.fileno(), "stdout")
        stream.until(b"the guest runs")
        process.send_signal(signal.SIGINT)
        text = stream.rest().decode()
        assert process.wait() == 2, text
    assert "KeyboardInterrupt" in text
    assert left == []


def test_without_kvm_tests_are_skipped_or_fail_as_one_likes(project: Project) -> None:
    project.write(
        "conftest.py",
        """
        import pytest
        from kvmbox.base.errors import KvmError
        from kvmbox.tools.smoke.execute import host_requirements as host

        @pytest.fixture(autouse=True)
        def no_kvm(monkeypatch):
            def refuse():
                raise KvmError("cannot open /dev/kvm: Permission denied")

            monkeypatch.setattr(host, "check_kvm", refuse)
        """,
    )
    project.write("test_it.py", "def test_it(kvmbox):\n    assert False\n")
    project.write("x.guest.toml", '[[test]]\nimage = "hello32"\n')
    status, text = project.run("test_it.py")
    assert status == 0, text
    assert "1 skipped" in text
    assert "cannot open /dev/kvm: Permission denied" in text
    status, text = project.run("test_it.py", "--kvmbox-require")
    assert status == 1
    assert "--kvmbox-require: cannot open /dev/kvm: Permission denied" in text
