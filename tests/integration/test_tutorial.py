"""The tutorial, followed to the letter: its files are saved, its commands run, its output compared."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
import yaml

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
FILES: Final = {"c": "kernel.c", "make": "Makefile", "toml": "suite.toml", "yaml": "kernel.yml"}
STATUSES: Final = {"kvmbox run --source . kernel.elf": 6}
"""Of the commands that do not end with status 0."""

WORD_OF_PLACE: Final = re.compile(r"0x[0-9a-f]+")


def blocks() -> list[tuple[str, str]]:
    """Language and text of each block of code, in the order of the page."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def sessions(text: str) -> list[tuple[str, list[str], list[str]]]:
    """Each command of a console: what is typed, what is typed into gdb, and what is printed."""
    found: list[tuple[str, list[str], list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], [], []))
        elif line.startswith("(gdb) "):
            found[-1][1].append(line[6:])
        else:
            found[-1][2].append(line)
    return found


def follows(printed: str, promised: list[str]) -> bool:
    """Whether `printed` has the promised lines; `...` is any number of lines, addresses may differ."""
    lines = [re.escape(WORD_OF_PLACE.sub("@", line)).replace(r"\.\.\.", ".*") for line in promised]
    pattern = "\n".join(lines)
    return re.search(rf"^{pattern}", WORD_OF_PLACE.sub("@", printed), re.MULTILINE | re.DOTALL) is not None


def carry_out(command: str, typed: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    words = command.split() if "'" not in command else ["sh", "-c", command]
    if typed:
        words[1:1] = ["-nx", "-batch", *(word for one in typed for word in ("-ex", one))]
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "LC_ALL": "C"}
    return subprocess.run(
        words,
        cwd=folder,
        env={**env, "DEBUGINFOD_URLS": "", "HOME": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.kvm
def test_tutorial_does_what_it_says(tmp_path: Path) -> None:
    for program in ("cc", "make", "gdb"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    commands = 0
    for language, text in blocks():
        if language in FILES:
            (tmp_path / FILES[language]).write_text(text, encoding="utf-8")
            continue
        assert language == "console"
        for command, typed, promised in sessions(text):
            done = carry_out(command, typed, tmp_path)
            assert done.returncode == STATUSES.get(command, 0), done.stdout
            assert follows(done.stdout, promised), done.stdout
            commands += 1
    assert commands == 9


def test_tutorial_recipe_names_the_suite_and_the_action_of_this_repository() -> None:
    workflow = yaml.safe_load(dict(blocks())["yaml"])
    step = workflow["jobs"]["boot"]["steps"][-1]
    assert step["with"] == {"suites": FILES["toml"]}
    assert step["with"].keys() <= yaml.safe_load((ROOT / "action.yml").read_text())["inputs"].keys()
