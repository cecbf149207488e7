"""Boots and observations on their way to another machine and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.run.result.validation import MOST_CHARACTERS
from kvmbox.tools.smoke.execute.remote_values import (
    boot_data,
    boot_from,
    is_key,
    observation_data,
    observation_from,
    with_files,
)
from kvmbox.tools.smoke.suite.test_case import Boot, Step
from tests.support.smoke import literal, regex, seen

FULL = Boot(
    "kernel.elf",
    {
        "modules": ("a.bin,one two", "b.bin"),
        "fw_cfg": ("opt/x=c.bin",),
        "initrd": "d.bin",
        "bios": "e.bin",
        "memory": "64M",
        "testdev": True,
        "require": ("seccomp",),
        "inject": ("uart:busy=1",),
    },
    5.0,
    dialogue=(Step(None, b"\x00\xff"), Step(regex("^x$")[0], b"y"), Step(None, b"z", on_keyboard=True)),
    stop_all=literal("a", "b"),
    stop_any=regex("c+"),
)


def test_boot_survives_json() -> None:
    assert boot_from(json.loads(json.dumps(boot_data(FULL)))) == FULL


@given(output=st.binary(), reason=st.text(), stopped=st.booleans(), hint=st.none() | st.text())
def test_observation_survives_json(output: bytes, reason: str, stopped: bool, hint: str | None) -> None:
    one = seen(33, output, reason, stopped=stopped, hint=hint, steps_done=2)
    assert observation_from(json.loads(json.dumps(observation_data(one)))) == one


def test_every_file_is_moved_and_nothing_else() -> None:
    moved = with_files(FULL, lambda path: f"/there/{path}")
    assert moved.image == "/there/kernel.elf"
    assert moved.options == {
        **FULL.options,
        "modules": ("/there/a.bin,one two", "/there/b.bin"),
        "fw_cfg": ("opt/x=/there/c.bin",),
        "initrd": "/there/d.bin",
        "bios": "/there/e.bin",
    }
    builtin = Boot("k", {"bios": "builtin"})
    assert with_files(builtin, lambda path: f"/{path}").options == {"bios": "builtin"}


@pytest.mark.parametrize(
    "change",
    [
        {"status": True},
        {"status": "0"},
        {"output": b"bytes"},
        {"output": "\u20ac"},
        {"seconds": float("nan")},
        {"seconds": float("inf")},
        {"seconds": 10**400},
        {"seconds": 1.1e7},
        {"seconds": -1},
        {"status": 256},
        {"status": -(10**400)},
        {"steps_done": 10**5000},
        {"reason": "x" * (MOST_CHARACTERS + 1)},
        {"steps_done": -1},
        {"hint": 3},
        {"another": 1},
    ],
)
def test_what_is_no_observation_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        observation_from({**observation_data(seen()), **change})


@pytest.mark.parametrize("data", [None, [], {}, seen(), {"status": 0}])
def test_other_things_are_refused(data: object) -> None:
    with pytest.raises(ValueError):
        observation_from(data)


def test_keys() -> None:
    good = "0" * 64
    assert is_key(f"{good}/kernel.elf")
    assert is_key(f"{good}/..kernel")
    for name in ("", ".", "..", "a/b", "a\0b", "../x"):
        assert not is_key(f"{good}/{name}")
    for text in ("kernel.elf", f"{good[1:]}/a", f"../{good}/a", str(Path("/etc/passwd"))):
        assert not is_key(text)
