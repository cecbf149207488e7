"""`kvmbox run --screen live` on a terminal with graphics: what it draws there is what the guest shows."""

from __future__ import annotations

import fcntl
import shutil
import struct
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from kvmbox.parts.screen.picture import Picture
from tests.support.graphics_guests import PICTURES, assemble
from tests.support.real_mode import SHUTDOWN, say, show, wait_input
from tests.support.runs import Images, Run
from tests.support.terminal import COMMAND, Terminal
from tests.support.terminal_pictures import KittyScreen, sixel_pictures

pytestmark = pytest.mark.kvm

MODE_13, MODE_3 = bytes.fromhex("b81300 cd10"), bytes.fromhex("b80300 cd10")
FILL: Final = bytes.fromhex("b800a0 8ec0 31ff b004 b900fa fc f3aa")  # A000:0000, 64000 bytes of colour 4
RED: Final = Picture(640, 400, bytes((168, 0, 0)) * 640 * 400)
LARGE: Final = struct.pack("4H", 51, 100, 1000, 1020)

ROWS: Final = 31
"""Of blocks, two pixels each, in 100 columns."""


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    for name in ("TMUX", "STY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-kitty")
    terminal = Terminal()
    fcntl.ioctl(terminal.slave, termios.TIOCSWINSZ, LARGE)
    yield terminal
    terminal.close()


def run_live(terminal: Terminal, image: Path, way: str = "", *arguments: str) -> Run:
    options: dict[str, Any] = {"stdin": terminal.slave, "stdout": terminal.slave, "start_new_session": True}
    return Run("--screen", f"live{way}", "--debugcon", "null", *arguments, image, command=COMMAND, **options)


def images_on(terminal: Terminal) -> list[Picture]:
    shown = KittyScreen()
    shown.take(terminal.screen.seen)
    return list(shown.images.values())


def sector(images: Images, code: bytes) -> Path:
    return images.write(code.ljust(510, b"\0") + b"\x55\xaa")


@pytest.mark.skipif(shutil.which("cc") is None, reason="cc not found: boot sectors cannot be assembled")
def test_terminal_shows_the_picture_at_the_end(terminal: Terminal, tmp_path: Path) -> None:
    image = assemble("chained", tmp_path)
    with run_live(terminal, image) as run:
        terminal.screen.until(b"\r\n" * 20)  # below the picture
        assert run.status() == 0x55
        assert run.messages == ""
    (picture,) = images_on(terminal)
    assert (picture.width, picture.height, picture.sha256) == PICTURES["chained"]
    with run_live(terminal, image, ",as=sixel") as run:
        terminal.screen.until(b"\x1bP")
        terminal.screen.until(b"\r\n" * 20)
        assert run.status() == 0x55
    (seen,) = sixel_pictures(terminal.screen.seen[terminal.screen.seen.rindex(b"\x1bP") :])
    assert picture.difference(seen) < 0.005
    assert terminal.settings() == terminal.before


def test_text_takes_the_place_of_a_picture(images: Images, terminal: Terminal) -> None:
    code = MODE_13 + FILL + wait_input() + say(b"up\n") + wait_input() + MODE_3 + show(b"text")
    with run_live(terminal, sector(images, code + wait_input() + SHUTDOWN)) as run:
        while images_on(terminal) != [RED]:  # it may be seen half drawn
            assert terminal.screen.more()
        terminal.send(b"!")  # what is printed erases the picture, which is drawn again below
        terminal.screen.until(b"up\r\n")
        terminal.screen.until(b"a=T,")
        terminal.screen.until(b"\x1b8")
        assert images_on(terminal) == [RED]
        terminal.send(b"!")
        terminal.screen.until(b"text\x1b[K\x1b[?7h\x1b8")
        terminal.send(b"!")
        assert run.status() == 0
        terminal.screen.until(b"text\r\n")
    assert not images_on(terminal)


def test_escape_that_ends_the_run_leaves_the_picture_and_the_terminal_as_it_was(
    images: Images, terminal: Terminal
) -> None:
    with run_live(terminal, sector(images, MODE_13 + FILL + b"\xfb\xf4\xeb\xfd")) as run:
        terminal.screen.until(b"a=T,")
        terminal.send(b"\x01x")
        assert run.status() == 130
        terminal.screen.until(b"\x1b8" + b"\r\n" * 20)
    assert terminal.settings() == terminal.before


@pytest.mark.parametrize("way", ["", ",as=blocks"])
def test_terminal_whose_pixels_nobody_knows_gets_blocks(images: Images, terminal: Terminal, way: str) -> None:
    if not way:
        fcntl.ioctl(terminal.slave, termios.TIOCSWINSZ, struct.pack("4H", 51, 100, 0, 0))
    with run_live(terminal, sector(images, MODE_13 + FILL + wait_input() + SHUTDOWN), way) as run:
        terminal.screen.until("\x1b[38;2;168;0;0;48;2;168;0;0m▀".encode())
        terminal.send(b"!")
        for _ in range(ROWS):
            terminal.screen.until(b"\x1b[0m\r\n")  # for good
        assert run.status() == 0
    assert b"\x1b_G" not in terminal.screen.seen
