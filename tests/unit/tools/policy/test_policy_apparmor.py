"""The profiles for AppArmor: which there are, and what none of them lets through."""

from __future__ import annotations

import re

import pytest

from kvmbox.tools.policy.labels import as_policy
from kvmbox.tools.policy.process_policies import confinements

PROFILE = re.compile(r"^profile (\S+) \{\n(.*?)^\}$", re.MULTILINE | re.DOTALL)


def profiles() -> dict[str, list[str]]:
    """The rules of each profile, without their comments."""
    text = as_policy("apparmor", confinements({"uart": "device process: COM1", "pit": "device process: PIT"}))
    return {
        name: [line.partition("#")[0].strip() for line in body.splitlines()]
        for name, body in PROFILE.findall(text)
    }


def test_each_process_has_one_profile_and_types_without_a_name_another() -> None:
    assert list(profiles()) == ["kvmbox-uart", "kvmbox-pit", "kvmbox-device", "kvmbox-spawner", "kvmbox-vmm"]


@pytest.mark.parametrize("process", ["uart", "pit", "device"])
def test_device_process_may_talk_on_its_channel_and_die(process: str) -> None:
    assert profiles()[f"kvmbox-{process}"] == [
        "unix type=seqpacket,",
        "signal (receive),",
    ]


def test_nobody_may_write_a_file_run_a_program_or_mount() -> None:
    for name, rules in profiles().items():
        files = [rule for rule in rules if rule.startswith("/")]
        assert files == (["/** r,", "/dev/kvm rw,"] if name == "kvmbox-vmm" else [])
        assert not [
            rule for rule in rules if rule.startswith(("mount", "pivot_root", "file", "ptrace (trace"))
        ]


def test_one_process_alone_has_its_profile_alone() -> None:
    uart = [one for one in confinements({"uart": "device process: COM1"}) if one.process == "uart"]
    assert [name for name, _ in PROFILE.findall(as_policy("apparmor", uart))] == ["kvmbox-uart"]
