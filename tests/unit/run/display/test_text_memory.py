"""Whether a guest has used its text screen: who has, and who has not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kvmbox.base import layout
from kvmbox.contract.names import VBE, VGA
from kvmbox.run.display.text_memory import is_unused

BLANK_BY_THE_BIOS = b" \x07" * (layout.TEXT_SCREEN_SIZE // 2)
ZEROS = bytes(layout.TEXT_SCREEN_SIZE)


def unused(
    text: bytes, *, has_processes: bool = True, is_started: bool = False, reads: int = 0, writes: int = 0
) -> bool:
    channel = SimpleNamespace(is_started=is_started)
    pool = SimpleNamespace(
        design=SimpleNamespace(has_processes=has_processes),
        places=lambda: [
            ("rtc", 0, SimpleNamespace(name="RTC")),
            ("vga", 0, SimpleNamespace(name=VGA)),
            ("vga", 1, SimpleNamespace(name=VBE)),
        ],
        channel={"vga": channel}.__getitem__,
    )
    proxies = [
        SimpleNamespace(name="RTC", reads=9, writes=9),
        SimpleNamespace(name=VGA, reads=reads, writes=writes),
    ]
    devices: Any = SimpleNamespace(pool=pool, proxies=proxies)
    memory: Any = SimpleNamespace(
        read=lambda address, size: text if (address, size) == (layout.TEXT_SCREEN, len(ZEROS)) else b""
    )
    return is_unused(memory, devices)


@pytest.mark.parametrize("text", [ZEROS, BLANK_BY_THE_BIOS], ids=["zeros", "BIOS"])
@pytest.mark.parametrize("has_processes", [True, False])
def test_guest_that_has_written_nothing_has_not_used_it(text: bytes, has_processes: bool) -> None:
    # Without processes all models are there from the beginning.
    assert unused(text, has_processes=has_processes, is_started=not has_processes)


@pytest.mark.parametrize("has_processes", [True, False])
def test_guest_that_has_written_a_text_has_used_it(has_processes: bool) -> None:
    assert not unused(b"$" + ZEROS[1:], has_processes=has_processes)


def test_guest_that_has_used_the_vga_may_have_text_elsewhere() -> None:
    assert not unused(ZEROS, is_started=True)
    assert not unused(ZEROS, has_processes=False, reads=1)
    assert not unused(ZEROS, has_processes=False, writes=1)
