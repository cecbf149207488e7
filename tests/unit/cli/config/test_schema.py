"""The schemas that `kvmbox config --schema` prints accept what kvmbox accepts, and refuse other keys."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from kvmbox.cli.config import command, schema

PROJECT = Path(__file__).resolve().parents[4]
SUITE = ("defaults", "start", "test")
EXAMPLES = [
    (f"{path.relative_to(PROJECT)}:{number}", tomllib.loads(text))
    for path in (*sorted((PROJECT / "docs").glob("*.md")), *sorted(PROJECT.glob("examples/*/suite.toml")))
    for number, text in enumerate(
        re.findall(r"^```toml\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)
        if path.suffix == ".md"
        else [path.read_text()]
    )
]


VALIDATORS = {
    "config": Draft202012Validator(schema.of_configuration()),
    "suite": Draft202012Validator(schema.of_suite()),
}


def refused(kind: str, text: str) -> list[str]:
    """What the schema has against a text in TOML."""
    return [error.message for error in VALIDATORS[kind].iter_errors(tomllib.loads(text))]


@pytest.mark.parametrize("kind", VALIDATORS)
def test_command_prints_the_schema(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.command.main(["--schema", kind], standalone_mode=False) == 0
    printed = json.loads(capsys.readouterr().out)
    Draft202012Validator.check_schema(printed)
    assert printed == VALIDATORS[kind].schema


@pytest.mark.parametrize(("name", "content"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_example_of_the_pages_is_valid(name: str, content: dict[str, Any]) -> None:
    kind = "suite" if content.keys() <= set(SUITE) else "config"
    VALIDATORS[kind].validate(content)


def test_pages_have_examples_of_both() -> None:
    kinds = [set(content) <= set(SUITE) for _, content in EXAMPLES]
    assert kinds.count(True) >= 5
    assert kinds.count(False) >= 1


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("config", "[run]\ncpu-count = 2"),
        ("config", "[run]\nsandbox = 'none'"),
        ("config", "[walk]\ncpus = 2"),
        ("config", "[run]\nexpect = 'one text'"),
        ("config", "[run]\nboot = 'never'"),
        ("config", "[run]\nuart-pace = 1"),
        ("suite", "[[test]]\nimage = 'a'\nmemroy = '1M'"),
        ("suite", "[[start]]\nname = 'a'\nexpect = 'x'\n[[test]]\nimage = 'a'"),
        ("suite", "[defaults]\nname = 'a'\n[[test]]\nimage = 'a'"),
        ("suite", "[defaults]\ntimeout = 1"),
        ("suite", "[[test]]\nimage = 'a'\ntimeout = 0"),
        ("suite", "[[test]]\nimage = 'a'\nexpect = { regexp = 'x' }"),
        ("suite", "[[test]]\nimage = 'a'\ndialogue = [{ say = 'x' }]"),
        ("suite", "[[test]]\nimage = 'a'\nboot = 'never'"),
    ],
)
def test_what_kvmbox_refuses_is_refused(kind: str, text: str) -> None:
    assert len(refused(kind, text)) == 1


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("config", "[run]\nmemory = '64M'\ncpus = 2\nexpect = ['a']\ntestdev = true\n[smoke]\njobs = 2"),
        ("suite", "[[test]]\nimage = 'a'\nmemory = 1048576\nexpect = [{ regex = 'x' }, 'y']\nstatus = 3"),
        ("suite", "[[start]]\nname = 's'\nwhen = 'x'\n[[test]]\nstart = 's'\ncheck = { '/a' = 'b' }"),
    ],
)
def test_what_kvmbox_accepts_is_valid(kind: str, text: str) -> None:
    assert refused(kind, text) == []


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("taplo", ("check",)),  # what editors use: it finds the schema by the first line of the suite
        ("check-jsonschema", ("--schemafile", "suite.schema.json")),
    ],
)
def test_other_programs_accept_and_refuse_what_kvmbox_does(
    program: str, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    path = shutil.which(program, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if path is None:
        pytest.skip(f"{program} is not installed")
    (tmp_path / "suite.schema.json").write_text(json.dumps(schema.of("suite")), encoding="utf-8")
    for key, status in (("memory", 0), ("memroy", 1)):
        text = f"#:schema suite.schema.json\n[[test]]\nimage = 'a'\n{key} = '1M'\n"
        (tmp_path / "suite.toml").write_text(text, encoding="utf-8")
        command = [path, *arguments, "suite.toml"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        assert ("memroy" in done.stdout + done.stderr) == (status == 1)
