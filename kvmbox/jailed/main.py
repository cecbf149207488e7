"""What a device process runs once it is jailed: the server's loop that fits its channel.

Imported by the spawner, so that both loops are there before the jail closes.
"""

from __future__ import annotations

from kvmbox.jailed.page_server import serve_page
from kvmbox.jailed.server import serve

TYPE_CHECKING = False
if TYPE_CHECKING:
    import mmap


def main(channel: int, replies: int | None = None, page: mmap.mmap | None = None) -> int:
    """Serve on a socket; or on two pipes; or in shared memory with two pipes as doorbells."""
    if page is not None and replies is not None:
        return serve_page(page, channel, replies)
    return serve(channel, replies)
