"""What the command line refuses: status 2, one line that names the fault, before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmbox.cli.main import run_command

WRONG = [
    ([], "Missing argument 'GUEST'"),
    (["a", "b"], "unexpected extra argument"),
    (["--disk", "a", "--boot", "linux"], "--boot linux has no meaning for a drive, which boots as 'bios'"),
    (["--cdrom", "a", "--boot", "bios"], "--boot bios has no meaning for a drive, which boots as 'iso'"),
    (["--no-such-option", "a"], "--no-such-option"),
    (["--memory", "0", "a"], "'0' is not between 1M and 64G"),
    (["--memory", "lots", "a"], "'lots' is not a size"),
    (["--memory", "", "a"], "'' is not a size"),
    (["--memory", "-1M", "a"], "'-1M' is not a size"),
    (["--memory", "1T", "a"], "'1T' is not a size"),
    (["--memory", "1.5G", "a"], "'1.5G' is not a size"),
    (["--memory", "1048577", "a"], "not a multiple of the page size"),
    (["--memory", "1020K", "a"], "'1020K' is not between"),
    (["--memory", "65G", "a"], "'65G' is not between"),
    (["--memory", "9" * 30, "a"], "is not a size"),
    (["--mode", "real", "a"], "No such option"),
    (["--json", "-", "a"], "--json '-': stdout belongs to the guest"),
    (["--record", "-", "a"], "--record '-': stdout belongs to the guest"),
    (["--core", "-", "a"], "--core '-': stdout belongs to the guest"),
    (["--debugcon", "file:-", "a"], "--debugcon file: '-': stdout belongs to the guest"),
    (["--load-address", "0x7c00", "a"], "--load-address needs --boot real"),
    (["--boot", "real", "--load-address", "here", "a"], "'here' is not an address"),
    (["--boot", "real", "--load-address", "-1", "a"], "'-1' is not an address"),
    (["--serial", "COM1", "a"], "'COM1'"),
    (["--serial", "COM5=null", "a"], "no such serial port 'COM5'"),
    (["--serial", "=null", "a"], "no such serial port ''"),
    (["--serial", "COM1=", "a"], "unknown backend ''"),
    (["--serial", "COM1=file:", "a"], "unknown backend 'file:'"),
    (["--serial", "COM1=file", "a"], "unknown backend 'file'"),
    (["--serial", "COM1=null:x", "a"], "unknown backend 'null:x'"),
    (["--serial", "COM1=tcp:1234", "a"], "unknown backend 'tcp:1234'"),
    (["--serial", "COM1=stdout", "a"], "unknown backend 'stdout'"),
    (["--serial", "COM2=null", "--serial", "com2=pty", "a"], "names COM2 twice"),
    (["--serial", "COM1=stdio", "--serial", "COM2=stdio", "a"], "COM1 and COM2 on stdio"),
    (["--debugcon", "tcp:1", "a"], "--debugcon: unknown backend 'tcp:1'"),
    (["--debugcon", "file:", "a"], "--debugcon: unknown backend 'file:'"),
    (["--debugcon", "file:a", "--json", "a", "b"], "is also"),
    (["--debugcon", "file:a", "a"], "is also the guest's image"),
    (["--debugcon", "file:c", "--serial", "COM1=file:./c", "a"], "is also"),
    (["--virtio-console", "file:c", "--serial", "COM1=file:./c", "a"], "is also --serial COM1=file:"),
    (["--virtio-console", "file:a", "a"], "is also the guest's image"),
    (["--virtio-console", "file:c", "--disk", "c", "a"], "--virtio-console file: 'c' is also --disk"),
    (["--virtio-console", "file:c", "--disk", "c,write", "a"], "--virtio-console file: 'c' is also --disk"),
    (["--debugcon", "file:c", "--disk", "d,format=qcow2,backing=c", "a"], "is also --disk …,backing="),
    (["--vnc", "unix:c", "--picture", "./c", "a"], "--vnc unix: 'c' is also --picture"),
    (["--gdb", "unix:c,nowait", "--vnc", "unix:./c", "a"], "is also --gdb unix:"),
    (["--net", "socket:unix:c,listen", "--json", "c", "a"], "--net socket: 'c' is also --json"),
    (["--disk", "c,write", "--disk", "./c,write", "a"], "--disk './c' is named twice"),
    (["--disk", "c,wrote", "a"], "for example --disk disk.img,write"),
    (["--disk", "c,\n", "a"], "'?' is none of"),
    (["--cdrom", "", "a"], "for example --cdrom install.iso"),
    (["--serial-overflow", "block", "a"], "'block'"),
    (["--serial-limit", "0", "a"], "'0' is not a positive number of bytes"),
    (["--serial-limit", "-5", "a"], "'-5' is not a positive number of bytes"),
    (["--serial-limit", "much", "a"], "'much' is not a positive number of bytes"),
    (["--rtc-base", "yesterday", "a"], "'yesterday' is neither utc, localtime nor an ISO date"),
    (["--rtc-base", "2023-02-29", "a"], "'2023-02-29' is neither"),
    (["--rtc-base", "", "a"], "'' is neither"),
    (["--timeout", "0", "a"], "'0' is not a positive number of seconds"),
    (["--timeout", "-1", "a"], "'-1' is not a positive number of seconds"),
    (["--timeout", "nan", "a"], "'nan' is not a positive number of seconds"),
    (["--timeout", "inf", "a"], "'inf' is not a positive number of seconds"),
    (["--timeout", "soon", "a"], "'soon' is not a positive number of seconds"),
    (["--expect", "", "a"], "a text that is not empty"),
    (["--fail-on", "", "a"], "a text that is not empty"),
    (["--success-status", "0", "a"], "0"),
    (["--success-status", "2", "a"], "2 is even"),
    (["--success-status", "124", "a"], "124 is even"),
    (["--success-status", "257", "a"], "257"),
    (["--success-status", "good", "a"], "'good'"),
    (["--success-status", "3", "--debug-exit", "none", "a"], "--success-status needs the debug-exit port"),
    (["--without", "seccomp", "--seccomp", "strict", "a"], "--without seccomp contradicts --seccomp strict"),
    (["--without", "seccomp", "--seccomp", "filter", "a"], "--without seccomp contradicts --seccomp filter"),
    (["--require", "seccomp", "--seccomp", "off", "a"], "--require seccomp contradicts --seccomp off"),
    (["--without", "landlock", "--sandbox", "none", "a"], "--without landlock needs device processes"),
    (["--without", "pid-namespace", "--sandbox", "thread", "a"], "needs device processes"),
    (["--debug-exit", "0x10000", "a"], "'0x10000' is neither none nor a port"),
    (["--debug-exit", "0xfffd", "a"], "'0xfffd' is neither none nor a port"),
    (["--debug-exit", "-1", "a"], "'-1' is neither none nor a port"),
    (["--debug-exit", "off", "a"], "'off' is neither none nor a port"),
    (["--on-device-crash", "ignore", "a"], "'ignore'"),
    (["--require", "wishes", "a"], "unknown sandbox layer 'wishes'"),
    (["--pin", "everywhere", "a"], "'everywhere' is neither auto, none nor a CPU number"),
    (["--pin", "-1", "a"], "'-1'"),
    (["--pin", "99999", "a"], "may not run on CPU 99999"),
    (["--module", "", "a"], "names no file"),
    (["--module", ",words", "a"], "names no file"),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=lambda value: str(value)[:40])
def test_wrong_run_option_gives_2_and_names_the_fault(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["run", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    first = captured.err.splitlines()[0]
    assert first.startswith("kvmbox: error: ")
    assert words in captured.err
    assert len([line for line in captured.err.splitlines() if line.startswith("kvmbox: error:")]) == 1
    assert "Traceback" not in captured.err


IN_VAIN = [
    (["audit", "--control", "--seccomp", "filter"], "--seccomp means nothing beside it"),
    (
        ["audit", "--without", "seccomp", "--seccomp", "strict"],
        "--without seccomp contradicts --seccomp strict",
    ),
    (["replay", "--dump", "--sandbox", "process", "file"], "--sandbox means nothing beside it"),
    (["replay", "--dump=json", "--sandbox", "none", "file"], "--sandbox means nothing beside it"),
]


@pytest.mark.parametrize(("arguments", "words"), IN_VAIN, ids=lambda value: str(value)[:40])
def test_option_that_another_one_makes_meaningless_gives_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(arguments) == 2
    captured = capsys.readouterr()
    assert (captured.out, words in captured.err) == ("", True)


def test_unknown_command_gives_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["walk"]) == 2
    assert "No such command 'walk'" in capsys.readouterr().err


def test_no_command_prints_help_on_stderr_and_gives_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Usage: kvmbox" in captured.err


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["run", "--help"], ["run", "-h", "--memory", "x"]])
def test_help_gives_0_on_stdout(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(arguments) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("Usage: kvmbox")
    assert captured.err == ""


def test_version_gives_0(capsys: pytest.CaptureFixture[str]) -> None:
    from kvmbox import __version__

    assert run_command(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


def test_help_of_every_command_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    from kvmbox.cli.main import COMMANDS

    for name in COMMANDS:
        assert run_command([name, "--help"]) == 0
        assert f"Usage: kvmbox {name}" in capsys.readouterr().out


def test_help_of_run_tells_every_status(capsys: pytest.CaptureFixture[str]) -> None:
    run_command(["run", "--help"])
    text = capsys.readouterr().out
    for status in ("0 ", "2 ", "4 ", "6 ", "8 ", "10 ", "12 ", "14 ", "124 ", "130 ", "odd"):
        assert f" {status}" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["smoke", "hello32"],
        ["run", "own.elf"],
        ["run", "hello32", "--json", "r"],
        ["inspect", "hello32", "--json", "r"],
    ],
    ids=" ".join,
)
def test_removed_working_directory_gives_4_and_is_named(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    assert run_command(arguments) == 4
    assert capfd.readouterr().err == (
        "kvmbox: error: the working directory was removed\nhint: cd to another directory first\n"
    )
