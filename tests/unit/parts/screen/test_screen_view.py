"""The VMM's view of the text screen, with a device process that has not started."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from kvmbox.base import layout
from kvmbox.base.judge import Judge
from kvmbox.contract.names import VBE, VGA
from kvmbox.parts.screen.kitty import Kitty
from kvmbox.parts.screen.live_text import LiveText
from kvmbox.parts.screen.mode import MODE_3
from kvmbox.parts.screen.picture import Picture
from kvmbox.parts.screen.pixels import Window
from kvmbox.parts.screen.screen import Screen
from kvmbox.parts.screen.screen_view import ScreenView
from tests.support.terminal_pictures import KittyScreen


def a_machine(**parts: Any) -> Any:
    channel = SimpleNamespace(is_started=False)
    pool = SimpleNamespace(
        places=lambda: [("vga", index, SimpleNamespace(name=name)) for index, name in enumerate((VGA, VBE))],
        channel=lambda _device_type: channel,
    )
    usual: dict[str, Any] = {
        "config": SimpleNamespace(console=None, start=None),
        "memory": SimpleNamespace(read=lambda _address, size: bytes(size)),
        "devices": SimpleNamespace(pool=pool),
        "console": SimpleNamespace(),
        "judge": Judge(),
        "source": SimpleNamespace(has_bios=False),
        "loop": SimpleNamespace(watch=SimpleNamespace(flush_writes=lambda: None)),
        "say": print,
    }
    return SimpleNamespace(**usual | parts)


def test_look_delivers_the_writes_that_wait_before_it_asks() -> None:
    text = bytearray(layout.TEXT_SCREEN_SIZE)

    def deliver() -> None:
        text[:2] = b"$\x07"

    machine = a_machine(
        memory=SimpleNamespace(read=lambda _address, size: bytes(text[:size])),
        loop=SimpleNamespace(watch=SimpleNamespace(flush_writes=deliver)),
    )
    view = ScreenView(machine, "auto", None)

    screen = view.read()

    assert screen is not None
    assert screen.text == "$"


class Shown(ScreenView):
    """Of a guest that shows a picture, which a test may change."""

    picture = Picture(1, 1, b"\x01\x02\x03")

    def read(self, *, with_registers: bool = True) -> Screen | None:
        del with_registers
        return Screen(bytes(layout.TEXT_SCREEN_SIZE), MODE_3, self.picture)


def test_picture_in_pixels_waits_until_the_terminal_has_taken_the_last_one() -> None:
    frames: list[bytes] = []
    stream = SimpleNamespace(
        is_behind=False, is_drawn=True, draw=lambda frame, _erase: frames.append(frame(True))
    )
    now = [0.0]
    pixels = Kitty(lambda: Window(25, 80, 800, 500), print, lambda: now[0])
    view = Shown(a_machine(console=SimpleNamespace(drawing=stream)), "live", LiveText(25, 80, pixels))
    now[0] += 1
    view.look()
    assert len(frames) == 1
    now[0] += 1
    view.look()
    assert len(frames) == 1  # the same picture
    view.picture = Picture(1, 1, b"\x03\x02\x01")
    stream.is_behind = True
    now[0] += 1
    view.look()
    assert len(frames) == 1
    stream.is_behind = False
    now[0] += 1
    view.look()
    assert len(frames) == 2
    stream.is_behind = True
    view.end()  # whatever is behind: it is the last one
    shown = KittyScreen()
    shown.take(b"".join(frames))
    assert list(shown.images.values()) == [view.picture]
    assert len(frames) == 3
