"""The console of a run, as its configuration wants it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kvmbox.host.console.serial_ports import Console

if TYPE_CHECKING:
    from kvmbox.base.judge import Judge
    from kvmbox.run.frontend import Caller
    from kvmbox.run.options.config import RunConfig


def console_of(
    config: RunConfig,
    judge: Judge,
    caller: Caller,
    *,
    has_bios: bool,
    say: Callable[[str], None],
    wake: Callable[[], None],
) -> Console:
    """The console, whose output nobody writes yet. `wake` wakes the main loop. Raises StartError."""
    screen, virtio = config.of_part("screen"), config.of_part("virtio_console")
    recent: Callable[[], Any] | None = None
    if config.of_part("transcript"):
        from kvmbox.host.console.last_lines import Tail

        recent = Tail
    return Console(
        config.serial if virtio is None else {**config.serial, virtio.port: virtio},
        judge,
        debugcon=config.debugcon,
        keyboard=config.keyboard,
        overflow=config.serial_overflow,
        limit=config.serial_limit,
        bios=has_bios,
        keep_bios_text=screen not in ("end", "never"),
        draws=screen.startswith("live"),
        recent=recent,
        say=say,
        wake=wake,
        terminal=caller.terminal,
    )
