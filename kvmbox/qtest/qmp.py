"""As much of QMP, QEMU's monitor protocol, as its test programs need to start and end a server.

A stream of JSON objects, one command each, one answer each. `qmp_capabilities` must come first. What is not
in the table is answered with the error CommandNotFound: nothing is pretended.

The greeting has a version of QEMU because clients insist on one: it says which dialect of qtest and QMP is
spoken, and `package` says by whom.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Final

from kvmbox import __version__
from kvmbox.qtest.machine import Machine

QEMU_DIALECT: Final = (10, 0, 0)
MAX_COMMAND: Final = 1 << 16
"""The longest command, in bytes; a longer one is answered with an error, and forgotten."""

_BLANK: Final = " \t\r\n"
_FIELDS: Final = {"execute", "arguments", "id"}


class QmpServer:
    """One QMP client: a `server.Handler`. `send` takes what goes to the client."""

    def __init__(
        self, machine: Machine, send: Callable[[bytes], None], *, wall_clock: Callable[[], float] = time.time
    ) -> None:
        """`wall_clock` gives seconds since 1970, for the time stamps of events."""
        self._machine = machine
        self._send = send
        self._wall_clock = wall_clock
        self._pending = b""
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
        self._pending += data
        while self._running:
            text = self._pending.decode("utf-8", "replace").lstrip(_BLANK)
            if not text:
                self._pending = b""
                break
            try:
                command, end = json.JSONDecoder().raw_decode(text)
            except ValueError as error:
                if not self._is_broken(text, error):
                    break
                self._error("GenericError", "JSON parse error", None)
                # Whatever stands on the next line may be a command again.
                self._pending = self._pending.partition(b"\n")[2]
                continue
            except RecursionError:
                self._error("GenericError", "JSON nesting is too deep", None)
                self._pending = b""
                break
            self._pending = text[end:].encode()
            self._execute(command)
        return self._running

    def _is_broken(self, text: str, error: ValueError) -> bool:
        """Whether no further bytes can make a command of `text`."""
        if len(self._pending) > MAX_COMMAND:
            return True
        # A command that ends with its line, or an error before the end of what is there.
        return "\n" in text and getattr(error, "pos", 0) < len(text.rstrip())

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
