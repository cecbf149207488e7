"""The entry point of a jailed device process: run the serving loop on the port for its link.

The spawner imports this module, so that all code is loaded before the jail closes.
"""

from __future__ import annotations

from kvmbox.jail.page_port import PagePort
from kvmbox.jail.serving_loop import serve
from kvmbox.jail.stream_port import StreamPort

TYPE_CHECKING = False
if TYPE_CHECKING:
    import mmap


def main(channel: int, replies: int | None = None, page: mmap.mmap | None = None) -> int:
    """Serve on a socket; or on two pipes; or in shared memory with two pipes as doorbells."""
    if page is not None and replies is not None:
        return serve(PagePort(page, channel, replies))
    return serve(StreamPort(channel, channel if replies is None else replies))
