"""Unix sockets that clients come to: for the user alone."""

from __future__ import annotations

import os
import socket


def listen_at(path: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """A socket that listens at `path`, with mode 0600 from the first moment on. Raises OSError."""
    listener = socket.socket(socket.AF_UNIX, kind)
    try:
        # Before it has a name: the mode of the socket is the mode of the file (unix(7)).
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(path)
        listener.listen(1)
    except BaseException:
        listener.close()
        raise
    return listener
