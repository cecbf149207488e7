"""The entry point of a jailed device process whose serving loop is compiled: see `serving`."""

from __future__ import annotations

from kvmbox.fast.serving import PagePort, StreamPort, serve
from kvmbox.jail.server import DeviceServer

TYPE_CHECKING = False
if TYPE_CHECKING:
    import mmap


def main(
    channel: int, replies: int | None = None, page: mmap.mmap | None = None, *, alone: bool = True
) -> int:
    """As `main.main`. `alone`: no other thread of this process needs the GIL while this one waits."""
    if page is not None and replies is not None:
        return serve(PagePort(page, channel, replies, alone), DeviceServer())
    return serve(StreamPort(channel, channel if replies is None else replies, alone), DeviceServer())
