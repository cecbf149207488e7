"""The VMM's view of the text screen, with a device process that has not started."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from kvmbox import layout
from kvmbox.board import VBE, VGA
from kvmbox.judge import Judge
from kvmbox.parts.screen.screen_view import ScreenView


def test_look_delivers_the_writes_that_wait_before_it_asks() -> None:
    text = bytearray(layout.TEXT_SCREEN_SIZE)

    def deliver() -> None:
        text[:2] = b"$\x07"

    channel = SimpleNamespace(is_started=False)
    pool = SimpleNamespace(
        places=lambda: [("vga", index, SimpleNamespace(name=name)) for index, name in enumerate((VGA, VBE))],
        channel=lambda _device_type: channel,
    )
    machine: Any = SimpleNamespace(
        config=SimpleNamespace(console=None, start=None),
        memory=SimpleNamespace(read=lambda _address, size: bytes(text[:size])),
        devices=SimpleNamespace(pool=pool),
        console=SimpleNamespace(),
        judge=Judge(),
        source=SimpleNamespace(has_bios=False),
        loop=SimpleNamespace(watch=SimpleNamespace(flush_writes=deliver)),
        say=print,
    )
    view = ScreenView(machine, "auto", None)

    screen = view.read()

    assert screen is not None
    assert screen.text == "$"
