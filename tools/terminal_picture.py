"""Makes docs/kvmbox.svg: a terminal in which the commands below really ran.

    .venv/bin/python tools/terminal_picture.py [FILE]     # needs /dev/kvm and rich

Each command runs on a pseudo-terminal, so that its output is what a person would see, colours included. Long
output is cut, and the cut is shown.
"""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT: Final = Path(__file__).parents[1]
COLUMNS: Final = 100

SHOWN: Final = (
    ("kvmbox run hello32", 4),
    ("kvmbox run clock --cpus 2 --memory 64M", 4),
    ("kvmbox run triplefault 2>&1 | head -6", 6),
    ("kvmbox smoke hello32 hello64 irq64 triplefault -j2 -q 2>&1 | tail -1", 2),
    ("kvmbox audit --type uart --probe read-passwd --probe ptrace-sibling --probe memory", 5),
)
"""Commands, and how many lines of the output of each are shown."""

# As rich's own, without the fonts that it would have the reader's browser fetch.
_SVG: Final = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
  <style>
    .{unique_id}-matrix {{
        font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
        font-size: {char_height}px;
        line-height: {line_height}px;
        font-variant-east-asian: full-width;
    }}
    {styles}
  </style>
  <defs>
    <clipPath id="{unique_id}-clip-terminal">
      <rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
    </clipPath>
    {lines}
  </defs>
  {chrome}
  <g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
    {backgrounds}
    <g class="{unique_id}-matrix">
    {matrix}
    </g>
  </g>
</svg>
"""


def output_of(command: str, directory: str) -> str:
    """What `command` prints on a terminal of `COLUMNS` columns, in `directory`."""
    controller, terminal = pty.openpty()
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": str(COLUMNS),
        "TERM": "xterm-256color",
        "KVMBOX_CONFIG": "none",
    }
    with subprocess.Popen(  # noqa: S602 - the commands above
        command,
        shell=True,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
    ):
        os.close(terminal)
        text = b""
        try:
            while got := os.read(controller, 4096):
                text += got
        except OSError:  # EIO: nobody has the terminal open any more
            pass
    os.close(controller)
    if b"not found" in text:
        raise SystemExit(f"{command!r} did not run: {text.decode(errors='replace')}")
    return text.decode(errors="replace").replace("\r\n", "\n").rstrip("\n")


def picture(directory: str) -> str:
    """The terminal as SVG."""
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    for command, most in SHOWN:
        console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
        lines = output_of(command, directory).split("\n")
        for line in lines[:most]:
            console.print(Text.from_ansi(line), overflow="ellipsis", no_wrap=True)
        if len(lines) > most:
            console.print(Text(f"[{len(lines) - most} more lines]", "dim"))
    return console.export_svg(title="kvmbox", theme=MONOKAI, code_format=_SVG, unique_id="kvmbox")


def main() -> None:
    """Write the picture to the file that the command line names."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs/kvmbox.svg"
    with tempfile.TemporaryDirectory() as directory:
        text = picture(directory)
    target.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
