"""`kvmbox policy`: what it prints where, and what it refuses."""

from __future__ import annotations

import json
import os
import re

import pytest

from kvmbox.base.errors import SandboxError
from kvmbox.cli.main import run_command
from kvmbox.sandbox import libseccomp

TYPES = [
    *("uart", "pit", "rtc", "i8042", "debug", "pm", "hpet", "fwcfg", "vga"),
    *("ide", "format", "vnc", "vblk", "vrng", "vcon", "vnet", "e1000", "pci"),
]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run_command(["policy", *arguments]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_policy_without_words_shows_every_process(capsys: pytest.CaptureFixture[str]) -> None:
    page = run(capsys)
    for name in (*TYPES, "spawner"):
        assert any(line.startswith(name) for line in page.splitlines()), name
    assert "COM1, COM2, COM3, COM4, MMIO" in page


def test_policy_shows_what_a_disk_adds_to_kvmbox_itself(capsys: pytest.CaptureFixture[str]) -> None:
    data = {one["process"]: one for one in json.loads(run(capsys, "--format", "json"))}
    calls = {name: {rule["call"] for rule in one["rules"]} for name, one in data.items() if "vmm" in name}
    assert calls["vmm-main-disk"] - calls["vmm-main"] == {"preadv2", "preadv", "pwrite64"}
    assert calls["vmm-vcpu-disk"] - calls["vmm-vcpu"] == {"preadv2"}


def test_policy_of_a_type_shows_that_one(capsys: pytest.CaptureFixture[str]) -> None:
    page = run(capsys, "rtc")
    assert page.startswith("rtc  device process: RTC\n")
    assert "uart" not in page
    assert "filters are inherited" not in page  # the spawner


def test_policy_ipc_pipe_replies_on_descriptor_4(capsys: pytest.CaptureFixture[str]) -> None:
    assert re.search(r"write +fd is 3", run(capsys, "uart", "--ipc", "socketpair"))
    assert re.search(r"write +fd is 4", run(capsys, "uart", "--ipc", "pipe"))


@pytest.mark.parametrize(("cpus", "holds"), [({3}, "two pipes"), ({3, 5}, "a page shared")])
def test_policy_shows_what_auto_means_here(
    cpus: set[int], holds: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: cpus)
    assert f"Holds: {holds}" in run(capsys, "uart")
    assert run(capsys, "uart", "--ipc", "auto") == run(capsys, "uart")


def test_policy_as_json_is_a_list_of_processes(capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads(run(capsys, "--format", "json"))
    assert [one["process"] for one in data][: len(TYPES) + 1] == [*TYPES, "spawner"]
    (one,) = json.loads(run(capsys, "uart", "--format", "json", "--seccomp", "strict"))
    assert [rule["call"] for rule in one["rules"]] == ["read", "write", "rt_sigreturn", "exit"]


def test_policy_as_pfc_has_one_filter_for_all_device_processes(capsys: pytest.CaptureFixture[str]) -> None:
    code = run(capsys, "--format", "pfc")
    assert code.startswith(f"# processes: {', '.join(TYPES)}\n")
    assert code.count("# processes: ") == 5  # theirs, and those of two threads of kvmbox, with disks or not
    assert '# filter for syscall "mmap" (9)' in code
    assert all(line.startswith("#") for line in code.splitlines()[:2])


@pytest.mark.parametrize(
    "arguments", [["spawner"], ["uart", "--seccomp", "strict"], ["uart", "--seccomp", "off"]]
)
def test_policy_as_pfc_without_a_filter_gives_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["policy", *arguments, "--format", "pfc"]) == 2
    assert "there is no filter to show as PFC" in capsys.readouterr().err


@pytest.fixture
def no_libseccomp(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise SandboxError("cannot load libseccomp: gone", hint=libseccomp.LIBSECCOMP_HINT)

    monkeypatch.setattr(libseccomp, "load_libseccomp", missing)


@pytest.mark.usefixtures("no_libseccomp")
def test_policy_as_pfc_without_libseccomp_gives_4_and_the_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["policy", "--format", "pfc"]) == 4
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "kvmbox: error: cannot load libseccomp: gone\nhint: install it, e.g. apt-get install libseccomp2\n"
    )


@pytest.mark.usefixtures("no_libseccomp")
def test_policy_without_libseccomp_shows_text_and_json_and_simulates(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "the next request" in run(capsys, "uart")
    assert json.loads(run(capsys, "uart", "--format", "json"))[0]["rules"]
    assert "refused: uart" in run(capsys, "uart", "--simulate", "openat")


@pytest.mark.parametrize(
    ("arguments", "first_lines"),
    [
        (["uart", "--simulate", "read", "3", "0", "1"], ["read(3, 0, 1)", "  allowed: uart"]),
        (["uart", "--simulate", "read", "channel"], ["read(3)", "  allowed: uart"]),
        (["--simulate", "read", "uart", "3"], ["read(3)", "  allowed: uart"]),
        (["uart", "--simulate", "0", "0"], ["read(0)", "  refused: uart"]),
        (["uart", "--simulate", "write", "stderr"], ["write(2)", "  refused: uart"]),
        (["uart", "--simulate", "execve"], ["execve()", "  refused: uart"]),
        (
            ["uart", "--simulate", "mmap", "0", "4096", "PROT_READ|PROT_WRITE", "0x22", "-1", "0"],
            ["mmap(0, 4096, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0)", "  allowed: uart"],
        ),
        (["uart", "--seccomp", "strict", "--simulate", "exit_group"], ["exit_group()", "  refused: uart"]),
        (["uart", "--seccomp", "off", "--simulate", "execve"], ["execve()", "  allowed: uart"]),
        (["uart", "--ipc", "shm", "--simulate", "write", "reply"], ["write(4)", "  allowed: uart"]),
    ],
)
def test_simulate_tells_the_verdict(
    arguments: list[str], first_lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, *arguments).splitlines()[:2] == first_lines


def test_simulate_without_process_asks_all(capsys: pytest.CaptureFixture[str]) -> None:
    answer = run(capsys, "--simulate", "execve")
    assert f"refused: {', '.join(TYPES)}" in " ".join(answer.split())
    assert "allowed: spawner" in answer


def test_simulate_as_json_has_the_verdict_of_each_process(capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads(run(capsys, "--simulate", "write", "1", "--format", "json"))
    assert (data["call"], data["number"], data["spelled"]) == ("write", 1, "write(1)")
    verdicts = {answer["process"]: answer["verdict"] for answer in data["answers"]}
    assert verdicts["uart"] == "notify"
    assert verdicts["spawner"] == "allow"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["floppy"], "there is no process 'floppy'"),
        (["uart", "pit"], "there is no process 'pit'"),
        (["--simulate", "opennat"], "did you mean openat"),
        (["--simulate", "read", "three"], "'three' is neither a number"),
        (["--simulate", "read", *"1234567"], "6 arguments at most, not 7"),
        (["--simulate", "read", "-1", "--format", "pfc"], "no answer in --format pfc"),
        (["--simulate"], "--simulate"),
        (["--no-such-option"], "No such option '--no-such-option'"),
        (["-x"], "No such option '-x'"),
        (["--format", "xml"], "'xml'"),
        (["--ipc", "carrier-pigeon"], "'carrier-pigeon'"),
        (["--seccomp", "perhaps"], "'perhaps'"),
    ],
)
def test_wrong_use_gives_2_and_names_the_fault(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["policy", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("kvmbox: error: ")
    assert words in captured.err
    assert "Traceback" not in captured.err
