"""What commands tell: lines for a person, on stderr, and exit statuses that are not of a guest."""

from __future__ import annotations

import os
import sys
import threading
from typing import Final

from kvmbox.host.process import early_signals

FAILED: Final = 14
INTERRUPTED: Final = 130
USAGE: Final = 2


def say(text: str) -> None:
    """A line for the person, on stderr. stderr may be gone: that must not change the exit status.

    Nor must it be why kvmbox does not end: where a signal ends nothing else any more, the third one ends a
    write to a pipe that nobody reads.
    """
    main_thread = threading.current_thread() is threading.main_thread()
    try:
        if main_thread:  # what another thread stored here could outlast the main thread's own write
            early_signals.breakable = True
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except OSError:
        return
    except KeyboardInterrupt:
        if early_signals.raising:
            raise
    finally:
        if main_thread:
            early_signals.breakable = False


def note(text: str) -> None:
    """What happens in a run, for the person. Names and values in it may be anybody's."""
    say(f"kvmbox: {_printable(text)}")


def report(message: str, hint: str | None = None) -> None:
    """The one line that says what failed, and the hint. Names and values in them may be anybody's."""
    message, hint = _printable(message), hint and _printable(hint)
    red, bold, plain = ("\x1b[1;31m", "\x1b[1m", "\x1b[0m") if _has_colours() else ("", "", "")
    say(f"kvmbox: {red}error:{plain} {message}" + (f"\n{bold}hint:{plain} {hint}" if hint else ""))


def _printable(text: str) -> str:
    """The text without what would move the cursor of a terminal, or worse. Lines stay."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def _has_colours() -> bool:
    """Whether stderr is a terminal whose user wants colours (https://no-color.org)."""
    is_dumb = os.environ.get("TERM", "dumb") == "dumb"
    return not is_dumb and not os.environ.get("NO_COLOR") and os.isatty(2)
