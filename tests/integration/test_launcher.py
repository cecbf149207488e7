"""The launcher: from exec to the handlers, nothing that happens to `kvmbox` ends in an odd status.

An odd status is a guest's verdict. Here no guest runs, so that each status must be even, and what cannot
start says why in one line without a traceback. The launcher under test is a copy with scripts of the tests.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from kvmbox.host.process.early_signals import END_SIGNALS, MASK_VARIABLE
from tests.support.real_mode import IDLE, say
from tests.support.runs import Images, error_lines

LAUNCHERS: Final = Path(__file__).parents[2] / "launcher"
FAULTS: Final = {signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS}
"""Among the signals that end a run, those that the launcher does not hold back."""
SHOW: Final = """
import os, sys
blocked = [line.split()[1] for line in open("/proc/self/status") if line.startswith("SigBlk")][0]
print(blocked, os.environ["KVMBOX_SIGMASK"], sys.flags.safe_path, sys.argv[1:])
"""


@pytest.fixture(scope="session")
def built() -> Path:
    subprocess.run(["make", "-s", "-C", str(LAUNCHERS)], check=True)
    return LAUNCHERS / "build" / "kvmbox"


@pytest.fixture
def kvmbox(built: Path, tmp_path: Path) -> Path:
    """A launcher as pip installs it, for this interpreter."""
    return install(built, tmp_path / "bin", (LAUNCHERS / "kvmbox-python").read_text())


def install(built: Path, directory: Path, script: str, first_line: str = f"#!{sys.executable}") -> Path:
    directory.mkdir()
    launcher = directory / "kvmbox"
    shutil.copy(built, launcher)
    path = directory / "kvmbox-python"
    path.write_text(f"{first_line}\n" + script.removeprefix("#!python\n"))
    path.chmod(0o755)
    return launcher


def environment(**variables: str) -> dict[str, str]:
    """What finds kvmbox, the variables, and nothing else of PYTHON*."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | variables


def start_with(
    launcher: Path,
    variables: dict[str, str],
    *arguments: str,
    preparing: Callable[[], None] | None = None,
) -> subprocess.CompletedProcess[str]:
    """The launcher's end, with these variables; `preparing` is called between fork and exec."""
    return subprocess.run(
        [launcher, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=preparing,
        env=environment(**variables),
        cwd=launcher.parent,  # what a variable makes the interpreter write is not for this project's folder
    )


def start(
    launcher: Path, *arguments: str, preparing: Callable[[], None] | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """The same."""
    return start_with(launcher, variables, *arguments, preparing=preparing)


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert (done.returncode, done.stdout) == (4, "")
    (line,) = error_lines(done.stderr)
    for word in words:
        assert word in line
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr


# --- The interpreter -------------------------------------------------------------------------------------


def test_launcher_runs_the_command_with_its_arguments(kvmbox: Path) -> None:
    assert start(kvmbox, "--version").stdout.startswith("kvmbox, version ")
    assert start(kvmbox, "run", "--no-such-option").returncode == 2


def test_launcher_is_found_through_a_link(kvmbox: Path, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere"
    link.symlink_to(kvmbox)
    assert start(link, "--version").returncode == 0


def test_interpreter_path_may_have_blanks_and_be_long(built: Path, tmp_path: Path) -> None:
    directory = tmp_path / ("with blanks " + "x" * 200) / ("y" * 100)
    directory.mkdir(parents=True)
    python = directory / "python"
    python.symlink_to(sys.executable)
    launcher = install(built, tmp_path / "bin", SHOW, f"#!{python}")
    done = start(launcher, "a", "b c", PYTHONHOME="/nowhere")
    assert done.stdout.endswith("True ['a', 'b c']\n"), done.stderr


def test_blanks_before_the_interpreter_are_skipped_as_by_the_kernel(built: Path, tmp_path: Path) -> None:
    launcher = install(built, tmp_path / "bin", SHOW, f"#! \t{sys.executable}")
    assert "['a']" in start(launcher, "a").stdout


def test_script_that_the_shell_starts_is_started(built: Path, tmp_path: Path) -> None:
    # As uv and pip write it for a path that the kernel would not take.
    line = f"#!/bin/sh\n'''exec' '{sys.executable}' \"$0\" \"$@\"\n' '''"
    assert "['a', 'b c']" in start(install(built, tmp_path / "bin", SHOW, line), "a", "b c").stdout


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (None, "No such file or directory"),
        ("#!/no/such/python\n", "/no/such/python': No such file or directory"),
        ("#!/etc/passwd\n", "Permission denied"),
        ("print('no first line')\n", "names no interpreter"),
        ("", "names no interpreter"),
        ("#! \n", "names no interpreter"),
        ("#!/" + "x" * 5000 + "\n", "names no interpreter"),
    ],
    ids=["no script", "no interpreter", "no program", "no first line", "empty", "blank", "endless line"],
)
def test_interpreter_that_cannot_be_had_gives_4(
    built: Path, tmp_path: Path, script: str | None, words: str
) -> None:
    launcher = install(built, tmp_path / "bin", "")
    target = launcher.with_name("kvmbox-python")
    target.unlink() if script is None else target.write_text(script)
    assert_refused(start(launcher, "guests"), words)


def test_interpreter_that_the_user_may_not_run_is_not_taken_for_gone(built: Path, tmp_path: Path) -> None:
    done = start(install(built, tmp_path / "bin", "", "#!/etc/passwd"), "guests")
    assert_refused(done, "cannot start '/etc/passwd': Permission denied")
    assert "hint: this user may not run it" in done.stderr


def test_package_that_is_gone_gives_4(kvmbox: Path) -> None:
    done = start(kvmbox, "guests", PYTHONPATH="/nowhere", PYTHONSAFEPATH="1", PYTHONNOUSERSITE="1")
    if done.returncode:  # else kvmbox is installed for this interpreter, not only found by PYTHONPATH
        assert_refused(done, "cannot be loaded")


# --- Descriptors and limits ------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize(("path", "flags"), [("/", os.O_RDONLY), ("/dev/null", os.O_PATH)])
def test_descriptor_that_python_dies_of_gives_4(kvmbox: Path, number: int, path: str, flags: int) -> None:
    def replace() -> None:
        os.dup2(os.open(path, flags), number)

    done = start(kvmbox, "guests", preparing=replace)
    assert done.returncode == 4
    if number != 2:
        assert_refused(done, ("stdin", "stdout")[number])


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_descriptors_give_even_statuses(kvmbox: Path, closed: tuple[int, ...]) -> None:
    def close() -> None:
        for number in closed:
            os.close(number)

    done = start(kvmbox, "guests", preparing=close)
    assert done.returncode == (14 if 1 in closed else 0)


@pytest.mark.parametrize("name", ["AS", "DATA", "STACK", "NOFILE"])
def test_no_limit_gives_an_odd_status(kvmbox: Path, name: str) -> None:
    # From nothing to what suffices. Below some value the kernel cannot start a program: SIGKILL, SIGSEGV.
    limit = getattr(resource, f"RLIMIT_{name}")
    sizes = range(40) if name == "NOFILE" else [1 << power for power in range(12, 29)]
    seen = []
    for size in sizes:

        def lower(size: int = size) -> None:
            resource.setrlimit(limit, (size, size))

        done = start(kvmbox, "guests", preparing=lower)
        seen.append(done.returncode)
        assert done.returncode < 0 or done.returncode % 2 == 0, (size, done.stderr)
        assert "Traceback" not in done.stderr
    assert 4 in seen
    assert seen[-1] == 0


# --- Environment -----------------------------------------------------------------------------------------

VALUES: Final = ("", "0", "1", "2", "-1", "bogus", "/nowhere", "99999999999", "utf-8:bogus", " 1")


def known_variables() -> list[str]:
    """What the manual page's list of variables has, and what an interpreter's own strings have."""
    header = (LAUNCHERS / "environment.h").read_text()
    names = {word.strip('"').partition("=")[0] for word in header.replace(",", " ").split()}
    later = {
        *("PYTHONHOME", "PYTHONPLATLIBDIR", "PYTHONEXECUTABLE", "PYTHONDUMPREFS", "PYTHONINSPECT"),
        *("PYTHON_GIL", "PYTHON_CPU_COUNT", "PYTHON_FROZEN_MODULES", "PYTHON_PRESITE", "PYTHON_TLBC"),
        *("PYTHON_CONTEXT_AWARE_WARNINGS", "PYTHON_THREAD_INHERIT_CONTEXT", "__PYVENV_LAUNCHER__"),
    }
    return sorted({name for name in names if name.startswith("PYTHON") and name.isupper()} | later)


@pytest.mark.parametrize("name", [name for name in known_variables() if name != "PYTHONPATH"])
def test_no_variable_gives_an_odd_status(built: Path, tmp_path: Path, name: str) -> None:
    # The first line of ours is reached, or the launcher says why not.
    launcher = install(built, tmp_path / "bin", "import os; os._exit(0)\n")
    for value in VALUES:
        for devmode in ("", "1"):
            # Without bytecode, or PYTHONPYCACHEPREFIX=/nowhere would make that folder.
            variables = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONDEVMODE": devmode, name: value}
            done = start_with(launcher, variables)
            if done.returncode:
                assert_refused(done, f"{name}={value}")


@pytest.mark.parametrize(
    "variable",
    [
        "PYTHONMALLOC=bogus",
        "PYTHONHASHSEED=bogus",
        "PYTHONUTF8=2",
        "PYTHONIOENCODING=bogus",
        "PYTHONTRACEMALLOC=-1",
    ],
)
def test_variable_that_python_dies_of_gives_4(kvmbox: Path, variable: str) -> None:
    name, _, value = variable.partition("=")
    assert_refused(start_with(kvmbox, {name: value}, "guests"), variable)


def test_variables_that_are_useful_pass(built: Path, tmp_path: Path) -> None:
    code = "import os; print(*sorted(n for n in os.environ if n.startswith('PYTHON')))\n"
    useful = {
        "PYTHONDEVMODE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONFAULTHANDLER": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONIOENCODING": "utf-8:strict",
        "PYTHONMALLOC": "debug",
        "PYTHONPATH": "/x",
        "PYTHONUTF8": "1",
        "PYTHONWARNINGS": "error",
    }
    done = start_with(install(built, tmp_path / "bin", code), useful)
    assert done.stdout.split() == sorted(useful), done.stderr


def test_locale_whose_encoding_python_does_not_know_is_no_obstacle(kvmbox: Path, tmp_path: Path) -> None:
    localedef = shutil.which("localedef")
    made = localedef and subprocess.run(
        [localedef, "-f", "ARMSCII-8", "-i", "hy_AM", tmp_path / "hy_AM.ARMSCII-8"],
        capture_output=True,
        check=False,
    )
    if not made or made.returncode > 1:  # 1: with warnings
        pytest.skip("no localedef, or not the sources of hy_AM and ARMSCII-8 (Debian: locales)")
    for variable in ("LC_ALL", "LC_CTYPE", "LANG"):
        locale = {"LOCPATH": str(tmp_path), "LC_ALL": "", variable: "hy_AM.ARMSCII-8"}
        bare = subprocess.run(
            [sys.executable, "-X", "utf8=0", "-c", "open(0, encoding='locale')"],
            env=environment(**locale),
            stderr=subprocess.PIPE,
            check=False,
        )
        assert b"ARMSCII-8" in bare.stderr  # the control: it is in effect, and Python dies of it
        assert start_with(kvmbox, locale, "guests").returncode == 0


def test_mask_variable_is_the_launchers_alone(built: Path, tmp_path: Path) -> None:
    done = start(install(built, tmp_path / "bin", SHOW), KVMBOX_SIGMASK="bogus")
    assert done.stdout.split()[1] == "0" * 16


# --- Signals ---------------------------------------------------------------------------------------------


def bits(signals: set[int]) -> int:
    return sum(1 << (number - 1) for number in signals)


def test_signals_that_ask_for_an_end_are_held_and_ignored_ones_are_not(built: Path, tmp_path: Path) -> None:
    def prepare() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGUSR2})

    blocked, found, *_ = start(install(built, tmp_path / "bin", SHOW), preparing=prepare).stdout.split()
    expected = (set(END_SIGNALS) - FAULTS - {signal.SIGHUP}) | {signal.SIGCHLD}
    assert int(blocked, 16) == bits({int(number) for number in expected})
    assert int(found, 16) == bits({signal.SIGCHLD, signal.SIGUSR2})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
@pytest.mark.parametrize("arguments", [("guests",), ("doctor",), ("--version",), ("run", "hello32")])
def test_signal_that_waits_since_before_exec_gives_130(
    kvmbox: Path, number: signal.Signals, arguments: tuple[str, ...]
) -> None:
    # Blocked and sent before exec, it is pending at the program's first instruction. The launcher takes the
    # mask for what it found and would go back to it, so a shim gives it the mask that it should have found.
    script = kvmbox.with_name("kvmbox-python")
    text = script.read_text()
    line = f"import os; os.environ['{MASK_VARIABLE}'] = '0' * 16\n"
    script.write_text(text.replace("\n", f"\n{line}", 1))

    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {number})
        os.kill(os.getpid(), number)

    done = start(kvmbox, *arguments, preparing=prepare)
    assert (done.returncode, done.stderr) == (130, "")
    assert done.stdout == ""


@pytest.mark.kvm
@pytest.mark.thorough
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_at_any_moment_gives_130_or_none_at_all(
    kvmbox: Path, images: Images, number: signal.Signals
) -> None:
    # Later and later moments of the start; before the launcher's first instructions a signal just kills.
    # Which moment a delay hits is the host's affair: what is asserted holds for all of them.
    image = images.write(say(b"Hello\n") + IDLE)
    statuses = set()
    for step in range(60):
        with subprocess.Popen(
            [kvmbox, "run", "--boot", "real", image],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment(),
        ) as process:
            assert process.stderr is not None
            signal.sigtimedwait([], step * 0.002)  # a wait for nothing: only the moment differs
            process.send_signal(number)
            _, messages = process.communicate()
        statuses.add(process.returncode)
        assert b"Traceback" not in messages
        assert error_lines(messages.decode()) == []
    assert statuses - {-number, 130} == set()
    assert 130 in statuses


def test_mask_that_was_found_is_the_one_of_the_command(kvmbox: Path, tmp_path: Path) -> None:
    # The command is replaced by one that shows its mask once the handlers stand.
    script = kvmbox.with_name("kvmbox-python")
    script.write_text(
        f"#!{sys.executable}\nimport signal\nfrom kvmbox.host.process import early_signals\n"
        "early_signals.listen()\n"
        "print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())))\n"
        f"import os; print('{MASK_VARIABLE}' in os.environ)\n"
    )

    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})

    done = start(kvmbox, preparing=prepare)
    assert done.stdout == f"[{signal.SIGUSR2!r}]\nFalse\n", done.stderr


def test_python_m_kvmbox_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kvmbox", "--version"], capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("kvmbox, version ")
