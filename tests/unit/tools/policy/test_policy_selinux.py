"""The policy module for SELinux: which types there are, and what none of them lets through."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kvmbox.cli.policy import device_types
from kvmbox.tools.policy.labels import as_policy
from kvmbox.tools.policy.process_policies import confinements
from tests.lab.selinux import base

RULE = re.compile(r"\(allow (\S+) (\S+) \((\S+) \(([^()]*)\)\)\)")
APART = re.compile(r"\(mlsconstrain \((\S+) \(([^()]*)\)\) \(or \(dom h1 h2\)")
WHOLE = as_policy("selinux", confinements(device_types()))


def allowed(source: str) -> dict[str, set[str]]:
    """By class: the permissions of `source`, towards whatever."""
    found: dict[str, set[str]] = {}
    for subject, _, name, permissions in RULE.findall(WHOLE):
        if subject == source:
            found.setdefault(name, set()).update(permissions.split())
    return found


def test_each_process_has_one_type_and_types_without_a_name_another() -> None:
    types = re.findall(r"^\(type (\S+)\)$", WHOLE, re.MULTILINE)
    named = {f"kvmbox_{process.replace('-', '_')}_t" for process in device_types()}
    assert len(types) == len(set(types))
    assert set(types) == {*named, "kvmbox_device_t", "kvmbox_spawner_t", "kvmbox_vmm_t"}


def test_device_process_may_use_its_channel_and_die_and_open_nothing() -> None:
    assert allowed("kvmbox_device") == {
        "fd": {"use"},
        "unix_stream_socket": {"read", "write", "getattr"},
        "fifo_file": {"read", "write"},
        "process": {"getrlimit", "setrlimit", "setsched"},
    }
    assert not [source for source, *_ in RULE.findall(WHOLE) if source == "kvmbox_uart_t"]


def test_nobody_but_the_spawner_may_change_its_type_and_it_only_to_those_of_devices() -> None:
    changes = [
        (source, target)
        for source, target, name, permissions in RULE.findall(WHOLE)
        if name == "process" and {"dyntransition", "setcurrent"} & set(permissions.split())
    ]
    assert changes == [("kvmbox_spawner_t", "self"), ("kvmbox_spawner_t", "kvmbox_device")]


@pytest.mark.parametrize("source", ["kvmbox_device", "kvmbox_spawner_t", "kvmbox_vmm_t"])
def test_nobody_may_run_a_program_make_a_file_or_connect(source: str) -> None:
    permissions = set().union(*allowed(source).values())
    assert not permissions & {"execute", "execmem", "execmod", "entrypoint", "transition", "ptrace"}
    assert not permissions & {"add_name", "unlink", "mounton", "connect", "connectto", "name_connect", "bind"}
    made = {name for name, words in allowed(source).items() if "create" in words}
    assert made <= {"unix_stream_socket", "user_namespace"}


def test_processes_of_two_machines_are_kept_apart_whatever_the_rules_say() -> None:
    constrained = dict(APART.findall(WHOLE))
    assert {"sigkill", "signal", "ptrace", "dyntransition"} <= set(constrained["process"].split())
    assert set(constrained) == {"process", "file", "fifo_file", "unix_stream_socket"}


def test_one_process_alone_has_its_type_alone() -> None:
    uart = [one for one in confinements({"uart": "device process: COM1"}) if one.process == "uart"]
    assert re.findall(r"^\(type (\S+)\)$", as_policy("selinux", uart), re.MULTILINE) == ["kvmbox_uart_t"]


@pytest.mark.parametrize("process", ["uart", "spawner", "vmm-main", None])
def test_secilc_compiles_it(process: str | None, tmp_path: Path) -> None:
    secilc = shutil.which("secilc")
    if secilc is None:
        pytest.skip("there is no secilc (Debian's package secilc)")
    chosen = [one for one in confinements(device_types()) if process in (None, one.process)]
    sources = {"base.cil": base(), "kvmbox.cil": as_policy("selinux", chosen)}
    for name, text in sources.items():
        (tmp_path / name).write_text(text)
    command = [secilc, "-o", "policy", "-f", os.devnull, *sources]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert b"kvmbox" in (tmp_path / "policy").read_bytes()
