"""What the core knows of a text screen: for type checkers alone, as no part is imported here."""

from __future__ import annotations

from typing import Any, Protocol


class TextScreen(Protocol):
    """What is on the text screen of a guest. See `parts.screen.screen.Screen`."""

    @property
    def columns(self) -> int:
        """How many characters a row has."""

    @property
    def rows(self) -> tuple[str, ...]:
        """Each row as text, without the blanks at its end."""

    @property
    def text(self) -> str:
        """The rows, one a line, without the empty ones at the end."""

    @property
    def forms(self) -> tuple[str, str]:
        """The text in the two forms in which a text is searched for: without blanks at the ends, and with."""

    @property
    def codes(self) -> tuple[bytes, ...]:
        """The characters of each row in code page 437."""

    @property
    def attributes(self) -> tuple[bytes, ...]:
        """The attribute of each character of each row."""

    @property
    def is_blank(self) -> bool:
        """Whether nothing is to be seen: neither text nor colours."""

    @property
    def has_colors(self) -> bool:
        """Whether the background of a character is not black."""

    @property
    def has_graphics(self) -> bool:
        """Whether the guest has switched to graphics: a monitor shows `picture`."""

    @property
    def picture(self) -> Any:
        """The pixels of graphics (`parts.screen.picture.Picture`); None for text."""

    @property
    def cursor(self) -> Place | None:
        """Where the cursor is; None if it is off, or not on the screen."""

    def as_json(self) -> dict[str, Any]:
        """The screen as data for JSON."""

    def png(self) -> bytes:
        """The screen as a picture. UsageError without kvmbox[screen]."""


class Place(Protocol):
    """A place on the screen, counted from 0."""

    @property
    def row(self) -> int:
        """Which row."""

    @property
    def column(self) -> int:
        """Which column."""
