"""What guests print, made fit to be shown: no escape sequence reaches a terminal. Pure."""

from __future__ import annotations

from typing import Final

TAIL_LINES: Final = 20
MOST_LINE: Final = 200
KEPT_OUTPUT: Final = 1 << 15
"""How many bytes of a console a report keeps in memory: the end of it."""


def printable(text: str) -> str:
    """One line of printable characters; others, such as U+202E, as \\x1b, \\u202e and the like."""
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape", "surrogatepass").decode() for one in text
    )


def printable_lines(text: str) -> str:
    """Lines of printable characters and tabs: no control, and nothing that turns the direction of text."""
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


def decode(output: bytes) -> str:
    """A console as text: UTF-8 where it is, and \\n at line ends."""
    return output.decode("utf-8", "backslashreplace").replace("\r\n", "\n")


def lines_of(output: bytes) -> list[str]:
    """The lines of a console, printable."""
    return [printable(line) for line in decode(output).rstrip("\n").split("\n")] if output.strip() else []


def tail(output: bytes, count: int = TAIL_LINES) -> list[str]:
    """The last lines of a console, printable, not too long, and a line that says if some are left out."""
    lines = lines_of(output)
    shown = [line if len(line) <= MOST_LINE else line[:MOST_LINE] + "..." for line in lines[-count:]]
    left_out = len(lines) - len(shown)
    return [f"... ({left_out} lines before)", *shown] if left_out else shown


def in_seconds(seconds: float) -> str:
    """A time for people: "0.08 s", "12.3 s", "2 min 5 s"."""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"
