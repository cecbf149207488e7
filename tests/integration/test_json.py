"""What the --json of each command writes, against the schema that kvmbox publishes of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest

from kvmbox.cli.config import schema
from kvmbox.cli.config.json_documents import DOCUMENTS
from kvmbox.cli.main import COMMANDS

WITHOUT: Final = {"completion", "qtest"}
"""Commands whose output is for another program as it is."""


def kvmbox(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kvmbox", *arguments], capture_output=True, text=True, timeout=300, check=False
    )


def checked(command: str, text: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(text)
    jsonschema.validate(data, schema.of("configured" if command == "config" else command))
    assert data["schema"] in (1, "kvmbox-bench/2")
    return data


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a recording and a profile of a guest."""
    arguments = ["--record", str(tmp_path / "recording"), "--json", str(tmp_path / "run.json")]
    assert kvmbox("run", "triplefault", *arguments).returncode == 6
    assert kvmbox("run", "hello64", "--profile", tmp_path / "profile").returncode == 0
    return tmp_path


def test_commands_all_have_a_document() -> None:
    assert set(DOCUMENTS) - {"configured"} == set(COMMANDS) - WITHOUT - {"config"}


@pytest.mark.kvm
def test_json_of_commands_that_read_fits_its_schema(files: Path) -> None:
    ran = checked("run", (files / "run.json").read_text(encoding="utf-8"))
    assert ran["status"] == 6
    recording, profile = str(files / "recording"), str(files / "profile")
    for command, *arguments in (
        ["replay", recording, "--sandbox", "none"],
        ["trace", recording],
        ["profile", profile],
        ["inspect", "hello64"],
        ["guests"],
        ["doctor"],
        ["policy", "uart"],
        ["config"],
    ):
        done = kvmbox(command, *arguments, "--json", "-")
        assert done.returncode == 0
        checked(command, done.stdout)
        assert done.stderr.strip()  # what people read is on stderr then


@pytest.mark.kvm
def test_json_of_commands_that_boot_fits_its_schema(tmp_path: Path) -> None:
    for command, *arguments in (
        ["smoke", "hello32", "--history", "none"],
        ["audit", "--type", "rtc", "--probe", "memory"],
        ["bench", "--quick", "--only", "post", "--repeat", "1"],
    ):
        path = tmp_path / f"{command}.json"
        done = kvmbox(command, *arguments, "--json", path)
        assert done.returncode == 0, done.stderr
        checked(command, path.read_text(encoding="utf-8"))


def test_json_of_a_run_that_cannot_start_fits_its_schema(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    assert kvmbox("run", tmp_path / "nothing", "--json", path).returncode == 4
    assert checked("run", path.read_text(encoding="utf-8"))["status"] == 4


def test_schema_refuses_what_has_lost_a_field() -> None:
    with pytest.raises(jsonschema.ValidationError, match="'works' is a required property"):
        checked("doctor", '{"schema": 1, "findings": []}')
    with pytest.raises(jsonschema.ValidationError):
        checked(
            "run", '{"schema": 1, "status": 0, "reason": "", "exits": 7}'
        )  # and nothing else of a machine
