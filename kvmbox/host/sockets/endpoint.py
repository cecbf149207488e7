"""Where --gdb or --vnc meets its client: stdin and stdout, a Unix socket, or a TCP port of this host."""

from __future__ import annotations

from typing import Final

from kvmbox.base.errors import UsageError
from kvmbox.base.value_classes import Value

PIPE: Final = "-"
NOWAIT: Final = ",nowait"
LOOPBACK: Final = {"": "127.0.0.1", "127.0.0.1": "127.0.0.1", "localhost": "127.0.0.1", "[::1]": "::1"}
LONGEST_PATH: Final = 107  # sun_path of <sys/un.h>, with its 0
EXAMPLES: Final = {
    "--gdb": "for example --gdb - or --gdb unix:gdb.sock or --gdb :1234",
    "--vnc": "for example --vnc unix:vnc.sock or --vnc :5900",
}


class Endpoint(Value):
    """One of: `path` of a Unix socket; `host` and `port`; neither for stdin and stdout. With `waits`, the
    guest stands at its entry until a client lets it go on.
    """

    path: str | None = None
    host: str = ""
    port: int = 0
    waits: bool = True

    @property
    def is_pipe(self) -> bool:
        """Whether the client is at the other end of stdin and stdout."""
        return self.path is None and not self.port

    def __str__(self) -> str:
        if self.path is not None:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_vnc(text: str) -> Endpoint:
    """The endpoint of --vnc. Raises UsageError."""
    if text == PIPE or text.endswith(NOWAIT):
        raise UsageError(f"--vnc '{text}' is no endpoint", hint=EXAMPLES["--vnc"])
    return parse(text, "--vnc")


def parse(text: str, option: str = "--gdb") -> Endpoint:
    """'-', 'unix:PATH', a path with a slash, ':PORT', 'PORT' or '127.0.0.1:PORT', each with or without
    ',nowait'. Raises UsageError.
    """
    place, waits = text, True
    if text.endswith(NOWAIT):
        place, waits = text[: -len(NOWAIT)], False
    if place == PIPE:
        if not waits:
            raise UsageError(
                f"--gdb '{text}': the client is there from the start", hint="--gdb - stops at the entry"
            )
        return Endpoint()
    if place.startswith("unix:") or "/" in place:
        path = place.removeprefix("unix:")
        if not path or "\0" in path:
            raise UsageError(f"{option} '{text}' names no socket", hint=EXAMPLES[option])
        if len(path.encode("utf-8", "surrogateescape")) > LONGEST_PATH:
            raise UsageError(
                f"{option}: the path of a socket has at most {LONGEST_PATH} bytes", hint=EXAMPLES[option]
            )
        return Endpoint(path, waits=waits)
    host, _, digits = place.rpartition(":")
    if not digits.isascii() or not digits.isdigit() or not 1 <= int(digits) <= 65535:
        raise UsageError(f"{option} '{text}' is no endpoint", hint=EXAMPLES[option])
    if host not in LOOPBACK:
        raise UsageError(
            f"{option} '{text}': only this host may connect, and '{host}' is not 127.0.0.1",
            hint="whoever connects controls the guest; from another host, use ssh -L or a Unix socket",
        )
    return Endpoint(None, LOOPBACK[host], int(digits), waits)
