"""--screen, --picture, and looks for others: wanted at the end of a guest that has used its screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kvmbox.base.outcome import GUEST_CRASHED, TIMED_OUT, UNKNOWN_EXIT
from kvmbox.parts.screen.screen_view import ScreenView
from kvmbox.run.loop.vcpu_pause import Visitor
from kvmbox.run.options.choices import DEFAULT_SCREEN, ScreenChoice
from kvmbox.run.part import Finding, Opening, Part, Standing

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvmbox.base.outcome import Outcome
    from kvmbox.parts.screen.live_text import LiveText
    from kvmbox.parts.screen.picture import Picture
    from kvmbox.parts.screen.picture_conditions import WantedPicture, Watch
    from kvmbox.parts.screen.picture_file import PictureFile
    from kvmbox.parts.screen.screen import Screen
    from kvmbox.run.display.screen_protocol import TextScreen
    from kvmbox.run.result.run_result import Draft


_DOTS: Final = 720, 400
"""Of a text screen at power-on."""


class Looks(Part, Visitor):
    """Looks at the screen, and shows it."""

    def __init__(
        self,
        screen: ScreenChoice = DEFAULT_SCREEN,
        picture: str | None = None,
        expect_picture: WantedPicture | None = None,
    ) -> None:
        self._choice = screen
        self._path = picture
        self._wanted = expect_picture
        self._watches: list[Watch] = []
        self._file: PictureFile | None = None
        self._live: LiveText | None = None
        self._view: ScreenView | None = None
        self._say: Callable[[str], None] | None = None  # until there was something to say

    def open(self, opening: Opening) -> None:
        """See `Part`."""
        if self._choice.startswith("live"):
            from kvmbox.parts.screen.live_text import LiveText
            from kvmbox.parts.screen.terminal_graphics import pixels_on, window_of

            size, way = window_of(1), self._choice.partition(",as=")[2]
            self._live = LiveText(size.lines, size.columns, pixels_on(1, way, opening.say))
            opening.speak = self._live.beside(opening.speak)
        if self._path is not None:
            from kvmbox.parts.screen.picture_file import PictureFile

            self._file = PictureFile(self._path, opening)
        if self._wanted is not None:
            from kvmbox.parts.screen.picture_conditions import Watch

            self._watches.append(Watch(self._wanted))
            opening.judge.expects(self._watches[0].sign)

    def attach(self, machine: Standing) -> None:
        """See `Part`."""
        self._say = machine.say
        self._view = view = ScreenView(machine, self._choice, self._live, self._watches)
        if machine.judge.searches or self._live is not None:
            machine.loop.standstill.admit(self)
            view.begin()

    def slice(self) -> None:
        """See `Visitor`."""
        assert self._view is not None
        self._view.look()

    def read(self) -> Screen | None:
        """What is on the screen of a machine that stands still. Raises DeviceProcessError."""
        assert self._view is not None
        return self._view.read()

    def picture(self) -> Picture:
        """The same as pixels: black where there is nothing, or a text that nobody can draw. Raises
        DeviceProcessError.
        """
        from kvmbox.base.errors import UsageError
        from kvmbox.parts.screen.picture import Picture

        screen = self.read()
        try:
            if screen is not None:
                return screen.pixels()
        except UsageError as error:
            if self._say is not None:
                self._say(str(error))
                self._say = None
        return Picture(*_DOTS, bytes(3 * _DOTS[0] * _DOTS[1]))

    def text(self) -> str:
        """The same, in lines without control characters."""
        assert self._view is not None
        return self._view.text()

    def show(self) -> None:
        """See `Part`."""
        if self._view is not None:
            self._view.end(tells=self._file is None)

    def ended(self, outcome: Outcome | None) -> Finding | None:
        """See `Part`: why there is no picture, though one was wanted."""
        if self._file is None or self._view is None or outcome is None:
            return None
        return self._file.write(self._view.screen)

    def close(self) -> None:
        """See `Part`."""
        if self._file is not None:
            self._file.close()

    def report(self, draft: Draft) -> None:
        """See `Part`. The report of a bad end has the screen, if that was not shown."""
        if self._view is None:
            return
        screen: TextScreen | None = self._view.screen  # what the core calls a screen: mypy compares the two
        draft.facts["screen"] = screen
        if draft.status in (GUEST_CRASHED, UNKNOWN_EXIT, TIMED_OUT):
            draft.appendix += self._view.left


PART = Looks
