"""The VMM's view of the guest's text screen: at the end of a run, and in between where somebody looks.

The text is memory of the guest, which is read as it is at the moment. What of it is shown, the registers of
the VGA say: its process is asked for its state (SNAPSHOT), if it has started, and a model of the VMM's own
checks the answer. A run whose guest has written nothing there loads nothing of this but this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from kvmbox.base import layout
from kvmbox.base.errors import DeviceProcessError, ProtocolError
from kvmbox.base.outcome import DEVICE_FAILED
from kvmbox.contract.names import BIOS_TEXT, VBE, VGA
from kvmbox.run.display.text_memory import UNUSED, place_of
from kvmbox.run.options.choices import ScreenChoice

if TYPE_CHECKING:
    from kvmbox.devices.vga.dispi import VbeDispi
    from kvmbox.devices.vga.model import VgaText
    from kvmbox.parts.screen.live_text import LiveText
    from kvmbox.parts.screen.mode import TextMode
    from kvmbox.parts.screen.picture import Picture
    from kvmbox.parts.screen.picture_conditions import Watch
    from kvmbox.parts.screen.screen import Screen
    from kvmbox.run.part import Standing

_Model = TypeVar("_Model", "VgaText", "VbeDispi")

_GRAPHICS: Final = "the guest has switched its VGA to a mode that is neither text nor graphics"
_PICTURE: Final = "a picture of {} x {} pixels: '--screen live', '--vnc :5900' or '--picture FILE' shows it"
_COLORS: Final = "the screen has colours and no text; '--picture FILE' writes it to a file"


class ScreenView:
    """Looks at the screen of one machine. Belongs to the thread of the main loop."""

    def __init__(
        self, machine: Standing, choice: ScreenChoice, live: LiveText | None, watches: Sequence[Watch] = ()
    ) -> None:
        """`choice` is that of --screen. `live` draws the screen while it changes, if that is wanted.
        `watches` look for pictures.
        """
        self._live = live
        self._watches = watches
        self._choice = choice
        self._capture = machine.config.console
        self._memory = machine.memory
        self._console = machine.console
        self._judge = machine.judge
        self._has_bios = machine.source.has_bios
        self._is_saved = machine.config.start is not None
        self._say = machine.say
        self._flush_writes = machine.loop.watch.flush_writes
        self._last: Screen | None = None
        self._left: list[str] = []  # the rows that nobody was shown
        self.screen: Screen | None = None
        """What was on the screen at the end, if anything was."""
        self._places = {name: place_of(machine.devices.pool, name) for name in (VGA, VBE)}

    # --- While the guest runs -----------------------------------------------------------------------------

    def look(self) -> None:
        """Draw the screen if it has changed, and let the judge look at it.

        Raises DeviceProcessError.
        """
        screen = self.read()
        if self._live is not None:
            self._draw(self._live, screen)
        if screen == self._last:
            return
        self._last = screen
        if self._judge.searches:
            picture = None if screen is None else screen.picture
            signs = [watch.sign for watch in self._watches if watch.shows(picture)]
            self._judge.look(_searched(screen), signs)

    def _draw(self, live: LiveText, screen: Screen | None, *, is_last: bool = False) -> None:
        """Draw the screen if it has changed, or if what was drawn is gone."""
        stream = self._console.drawing
        shown = [] if screen is None or screen.is_blank else _drawn(screen, live)
        if stream is None or not (shown or live.drawn):
            return
        is_drawn = shown == live.drawn and stream.is_drawn and not live.is_hidden
        if is_drawn and not is_last:
            return
        if isinstance(shown, list):
            frame = partial(live.frame, shown)
        elif live.pixels is None or (stream.is_behind and not is_last):
            return
        elif (drawing := live.pixels.drawing(shown, is_last=is_last)) is not None:
            frame = partial(live.picture, drawing, is_drawn=is_drawn)
        else:
            return
        stream.draw(
            lambda at_line_start: frame(at_line_start=at_line_start, is_last=is_last),
            b"" if is_last else live.erase,
        )

    def begin(self) -> None:
        """If the guest goes on where it was saved: what is on the screen already is not news."""
        if self._is_saved and self._judge.searches:
            self._last = self.read()
            self._judge.ignore(_searched(self._last))

    def read(self, *, with_registers: bool = True) -> Screen | None:
        """What is on the screen now; None if the guest has not used it. Raises DeviceProcessError."""
        self._flush_writes()
        memory = self._memory.read(layout.TEXT_SCREEN, layout.TEXT_SCREEN_SIZE)
        if memory in UNUSED and not any(channel.is_started for channel, _ in self._places.values()):
            return None
        from kvmbox.devices.vga.dispi import VbeDispi
        from kvmbox.devices.vga.model import VgaText
        from kvmbox.parts.screen.picture_inputs import Look
        from kvmbox.parts.screen.picture_sources import picture_of
        from kvmbox.parts.screen.screen import Screen

        vga = self._registers(VGA, VgaText()) if with_registers else None
        dispi = self._registers(VBE, VbeDispi()) if with_registers else None
        if memory in UNUSED and with_registers and _is_as_at_power_on(vga) and _is_as_at_power_on(dispi):
            return None  # `--sandbox none` has its models from the beginning
        mode = self._mode(vga)
        picture = picture_of(Look(self._memory, vga, dispi))
        if picture is not None:
            memory = UNUSED[0]  # what is left there is no text
        elif vga is not None and vga.window.plain is None:
            memory = vga.window.text
        elif mode.base != layout.TEXT_SCREEN:
            memory = self._memory.read(mode.base, layout.TEXT_SCREEN_SIZE)
        return Screen(memory, mode, picture)

    def text(self) -> str:
        """What is on the screen of a machine that stands still, in lines without control characters."""
        screen = self._read_anyway()
        if screen is None or screen.is_blank:
            return "the screen is blank\n"
        if screen.picture is not None:
            return f"{_PICTURE.format(screen.picture.width, screen.picture.height)}\n"
        return f"{screen.text}\n" if screen.text else "the screen has colours and no text\n"

    def _read_anyway(self) -> Screen | None:
        """The same if the device process fails, which is told: no run ends by that."""
        try:
            return self.read()
        except DeviceProcessError as error:
            if self._judge.outcome is None or self._judge.outcome.status != DEVICE_FAILED:
                self._say(f"the screen is that of a VGA at power-on: {error}")
            return self.read(with_registers=False)

    def _registers(self, name: str, fresh: _Model) -> _Model | None:
        """The device `name` as its process tells it; None if that has not started. Raises DeviceProcessError.

        `fresh` is a model as at power-on.
        """
        from kvmbox.contract.model import SnapshotError
        from kvmbox.remote.channel.model_state import take_state

        channel, index = self._places[name]
        if not channel.is_started:
            return None
        state = take_state(channel, index)
        try:
            if state:  # the ports of a device that is lost read as ones
                fresh.restore(state)
        except SnapshotError as error:
            process = channel.device_type
            raise channel.fail(ProtocolError(process, f"broke the protocol: {error}")) from error
        return fresh

    def _mode(self, vga: VgaText | None) -> TextMode:
        from kvmbox.parts.screen.mode import MODE_3, mode_of, mode_of_bios

        mode = MODE_3 if vga is None else mode_of(vga)
        if mode == MODE_3 and self._has_bios:
            area = self._memory.read(layout.BIOS_DATA_AREA, layout.BIOS_DATA_AREA_SIZE)
            mode = mode_of_bios(area)
        return mode

    # --- At the end ---------------------------------------------------------------------------------------

    def end(self, *, tells: bool = True) -> None:
        """The guest has ended: keep its screen, and show it if that is wanted. `tells`: nobody else does
        anything with a picture.
        """
        screen = self._read_anyway()
        if screen is None:
            return
        if screen.picture is not None or not screen.is_blank:
            self.screen = screen
        if self._choice != "never":
            if screen.picture is not None:
                if tells and self._live is None:
                    self._say(_PICTURE.format(screen.picture.width, screen.picture.height))
            elif screen.has_graphics:
                self._say(_GRAPHICS)
            if self._live is None:
                self._show(screen)
            else:
                self._draw(self._live, screen, is_last=True)

    def _show(self, screen: Screen) -> None:
        rows = screen.text.split("\n")
        if self._choice != "end" and self._console.bios_text:
            from kvmbox.parts.screen.repeated_frames import without_repeated

            rows = without_repeated(rows, self._console.bios_text, screen.columns)
        printed = any(count for port, count in self._console.bytes_out.items() if port != BIOS_TEXT)
        shown = self._choice == "end" or not printed
        if not any(rows):
            if shown and not screen.text and screen.has_colors:
                self._say(_COLORS)
        elif not shown:
            self._left = rows
        else:
            self._console.show_screen("".join(f"{row}\n" for row in rows).encode(), self._capture)

    @property
    def left(self) -> list[str]:
        """The lines of a report with the screen, if that was not shown."""
        if self.screen is not None and self.screen.picture is not None:
            picture = self.screen.picture
            return [f"Screen: a picture of {picture.width} x {picture.height} pixels"]
        return ["Screen:", *(f"  {row}".rstrip() for row in self._left)] if self._left else []


def _drawn(screen: Screen, live: LiveText) -> list[str] | Picture:
    """The rows of text, or of blocks of colour, that a terminal shows; or the picture, in pixels."""
    if screen.picture is None:
        return screen.text.split("\n")
    if live.pixels is not None:
        return screen.picture
    from kvmbox.parts.screen.color_blocks import rows_of

    return rows_of(screen.picture, live.columns, live.room)


def _is_as_at_power_on(device: VgaText | VbeDispi | None) -> bool:
    return device is None or device.snapshot() == type(device)().snapshot()


def _searched(screen: Screen | None) -> bytes:
    """The text that is searched. No text is found across the zero byte."""
    return b"" if screen is None or screen.is_blank else "\0".join(screen.forms).encode()
