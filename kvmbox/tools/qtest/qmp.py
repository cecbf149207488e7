"""As much of QMP, QEMU's monitor protocol, as its test programs need to start and end a server.

A stream of JSON objects, one command each, one answer each. `qmp_capabilities` must come first. What is not
in the table is answered with the error CommandNotFound: nothing is pretended.

The greeting has a version of QEMU because clients insist on one: it says which dialect of qtest and QMP is
spoken, and `package` says by whom.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from kvmbox import __version__
from kvmbox.tools.qtest.bare_machine import BareMachine

QEMU_DIALECT: Final = (10, 0, 0)
MAX_COMMAND: Final = 1 << 16
"""The longest command, in bytes; a longer one is answered with an error, and forgotten."""

MAX_DEPTH: Final = 64
"""How deep the objects and arrays of a command may nest; beyond it is refused in the same way."""

_BLANK: Final = b" \t\r"
_LINE_FEED: Final = 0x0A
_QUOTE: Final = 0x22
_BACKSLASH: Final = 0x5C
_FIELDS: Final = {"execute", "arguments", "id"}


class JsonStream:
    """Cuts a stream of bytes into JSON objects, without looking into them, in bounded memory."""

    def __init__(self) -> None:
        self.pending = bytearray()
        """The object that has begun."""
        self._depth = 0
        self._in_string = self._escaped = False
        self._stray = False

    def feed(self, data: bytes) -> Iterator[bytes | None]:
        """The text of each object that ends in `data`, and None for whatever can be none."""
        for byte in data:
            if not self._depth:
                yield from self._between(byte)
                continue
            self.pending.append(byte)
            if self._in_string:
                self._string_byte(byte)
            elif byte == _QUOTE:
                self._in_string = True
            elif byte in b"{[":
                self._depth += 1
            elif byte in b"}]":
                self._depth -= 1
                if not self._depth:
                    yield bytes(self.pending)
                    self.pending.clear()
            broken = self._in_string and byte == _LINE_FEED
            if broken or len(self.pending) > MAX_COMMAND or self._depth > MAX_DEPTH:
                # What follows may be a command again: at once, or behind this line.
                self._stray = not broken
                self._depth = 0
                self._in_string = self._escaped = False
                self.pending.clear()
                if broken:
                    yield None

    def _between(self, byte: int) -> Iterator[None]:
        """A byte outside of all objects: what is not blank is stray, and told of once a line."""
        if byte in b"{[" and not self._stray:
            self._depth = 1
            self.pending.append(byte)
        elif byte == _LINE_FEED:
            if self._stray:
                yield None
            self._stray = False
        elif byte not in _BLANK:
            self._stray = True

    def _string_byte(self, byte: int) -> None:
        if self._escaped:
            self._escaped = False
        elif byte == _BACKSLASH:
            self._escaped = True
        elif byte == _QUOTE:
            self._in_string = False


class QmpServer:
    """One QMP client: a `server_loop.Handler`. `send` takes what goes to the client."""

    def __init__(
        self,
        machine: BareMachine,
        send: Callable[[bytes], None],
        *,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`wall_clock` gives seconds since 1970, for the time stamps of events."""
        self._machine = machine
        self._send = send
        self._wall_clock = wall_clock
        self._stream = JsonStream()
        self._negotiated = False
        self._running = True
        self._commands: dict[str, Callable[[], Any]] = {
            "qmp_capabilities": self._capabilities,
            "query-commands": lambda: [{"name": name} for name in self._commands],
            "query-status": lambda: {"running": True, "status": "running"},
            "query-version": _version,
            "quit": self._quit,
            "system_reset": self._system_reset,
        }

    def greet(self) -> None:
        """What a client is told first."""
        self._reply({"QMP": {"version": _version(), "capabilities": []}})

    def feed(self, data: bytes) -> bool:
        """See server.Handler: goes on until `quit`."""
        for text in self._stream.feed(data):
            try:
                if text is None:
                    raise ValueError
                command = json.loads(text)
            except ValueError:
                self._error("GenericError", "this is no JSON object", None)
                continue
            self._execute(command)
            if not self._running:
                break
        return self._running

    def _execute(self, command: Any) -> None:
        if not isinstance(command, dict):
            self._error("GenericError", "QMP input must be a JSON object", None)
            return
        identity = {"id": command["id"]} if "id" in command else None
        name = command.get("execute")
        if not isinstance(name, str) or set(command) - _FIELDS:
            self._error("GenericError", "QMP input wants 'execute', and knows 'arguments' and 'id'", identity)
        elif not self._negotiated and name != "qmp_capabilities":
            self._error(
                "CommandNotFound", "Expecting capabilities negotiation with 'qmp_capabilities'", identity
            )
        elif name not in self._commands or (self._negotiated and name == "qmp_capabilities"):
            self._error("CommandNotFound", f"The command {name} has not been found", identity)
        elif command.get("arguments") and name != "qmp_capabilities":
            self._error("GenericError", f"The command {name} takes no arguments", identity)
        else:
            self._reply({"return": self._commands[name](), **(identity or {})})
            if name == "quit":
                self._event("SHUTDOWN", {"guest": False, "reason": "host-qmp-quit"})
            elif name == "system_reset":
                self._event("RESET", {"guest": False, "reason": "host-qmp-system-reset"})

    def _capabilities(self) -> dict[str, Any]:
        self._negotiated = True
        return {}

    def _quit(self) -> dict[str, Any]:
        self._running = False
        return {}

    def _system_reset(self) -> dict[str, Any]:
        self._machine.reset()
        return {}

    def _error(self, kind: str, text: str, identity: dict[str, Any] | None) -> None:
        self._reply({"error": {"class": kind, "desc": text}, **(identity or {})})

    def _event(self, name: str, data: dict[str, Any]) -> None:
        microseconds = int(self._wall_clock() * 1_000_000)
        stamp = {"seconds": microseconds // 1_000_000, "microseconds": microseconds % 1_000_000}
        self._reply({"timestamp": stamp, "event": name, "data": data})

    def _reply(self, value: dict[str, Any]) -> None:
        self._send(json.dumps(value).encode() + b"\r\n")


def _version() -> dict[str, Any]:
    major, minor, micro = QEMU_DIALECT
    return {"qemu": {"micro": micro, "minor": minor, "major": major}, "package": f"kvmbox {__version__}"}
