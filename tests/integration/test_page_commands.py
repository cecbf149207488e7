"""Each command of the pages, carried out in a folder that has the files of which the pages speak."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Final

import click
import pytest

import kvmbox
from kvmbox.cli.main import COMMANDS, cli
from tests.support.patience import patience
from tests.support.real_mode import SHUTDOWN, say
from tests.support.runs import command_in

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.kvm,
    pytest.mark.skipif(shutil.which("bash") is None, reason="bash not found"),
]

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = sorted(
    str(page.relative_to(ROOT))
    for folder in ("", "docs/", "guests/", "examples/*/")
    for page in ROOT.glob(f"{folder}*.md")
)
BLOCK: Final = re.compile(r"^```\w*\n(.*?)^```$|((?:^ {4}[^\n]*\n)+)", re.MULTILINE | re.DOTALL)
START: Final = re.compile(r"(?:^|^printf .*[|] )(?:env/bin/)?kvmbox ([a-z]+)(?= |$)")
"""Where a command begins. One that another program gets as an argument is none."""

ELSEWHERE: Final = {
    "docs/tutorial.md": "test_tutorial.py",
    "docs/writing-a-device.md": "test_own_device.py",
}
"""Pages whose commands another test carries out."""

ONLY_READ: Final = {
    "bench": "minutes",
    "--net user": "passt, which not every host has",
    "--require": "a layer, which not every host has",
    "--dask": "a cluster",
}
"""Why a command that has this word is parsed and not carried out."""

WRONG: Final = {2, 4, 8, 14, 124}
"""Statuses that mean that the page is wrong: usage, start, a process, kvmbox itself, no end."""

SUITE: Final = "".join(f'[[test]]\nname = "{name}"\nimage = "kernel.elf"\n' for name in ("hello", "echo"))


def commands_of(page: str) -> list[str]:
    """The commands of kvmbox in the blocks of code of a page, without comments."""
    found = []
    for block in BLOCK.finditer((ROOT / page).read_text(encoding="utf-8")):
        text = re.sub(r"\\\n *", "", block[1] or re.sub(r"^ {4}", "", block[2], flags=re.MULTILINE))
        for line in text.splitlines():
            command = re.sub(r"(?: +#| *…|; echo \$\?).*", "", line.removeprefix("$ "))
            start = START.search(command)
            if start and start[1] in COMMANDS:
                found.append(command)
    return found


COMMANDS_OF: Final = {page: found for page in PAGES if (found := commands_of(page))}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with images, a suite and the command `kvmbox`, and a limit of time for whatever runs."""
    hello = Path(kvmbox.__file__).with_name("guest_images") / "hello64.elf"
    sector = (say(b"login: ") + SHUTDOWN).ljust(510, b"\0") + b"\x55\xaa"
    for name in ("kernel.elf", "own.elf", "path/to/own.elf", "guest.elf", "bzImage"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(hello, tmp_path / name)
    for name in ("kernel.bin", "naive.bin", "driver.bin"):
        (tmp_path / name).write_bytes(sector)
    for name in ("disk.img", "fs.img", "game.img", "os.iso", "install.iso"):
        (tmp_path / name).write_bytes(sector.ljust(1 << 20, b"\0"))
    (tmp_path / "System.map").write_text("0000000000100000 T _start\n", encoding="utf-8")
    (tmp_path / "suite.toml").write_text(SUITE, encoding="utf-8")
    (tmp_path / "kvmbox.toml").write_text(f"[run]\ntimeout = {patience(60):g}\n", encoding="utf-8")
    command_in(tmp_path / "env/bin")
    return tmp_path


@pytest.mark.parametrize("page", [page for page in COMMANDS_OF if page not in ELSEWHERE])
def test_commands_of_a_page_are_right(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    if page == "docs/snapshots.md":  # its kernel asks for a login, on the only port that a sector needs
        shutil.copy(folder / "kernel.bin", folder / "kernel.elf")
    for command in COMMANDS_OF[page]:
        if any(word in command for word in ONLY_READ):
            start = START.search(command)
            assert start is not None
            # Not without the group's settings: a command keeps the names of its help option.
            group = click.Context(cli, **cli.context_settings)
            parsed = cli.get_command(group, start[1])
            assert parsed is not None
            words, *_redirections = re.split(" [<>]", command[start.end() :])
            parsed.make_context(start[1], shlex.split(words), parent=group)
            continue
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            env=os.environ | {"PATH": f"{folder}/env/bin:{os.environ['PATH']}", "HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode not in WRONG, (command, done.stderr)


def test_pages_have_commands_and_what_is_not_carried_out_is_there() -> None:
    everything = [command for found in COMMANDS_OF.values() for command in found]
    assert len(everything) > 50
    assert set(ELSEWHERE) <= set(COMMANDS_OF)
    for word in ONLY_READ:
        assert any(word in command for command in everything), word
