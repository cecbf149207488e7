"""The value of --net: BACKEND[,on=virtio|e1000][,mac=ADDRESS][,pcap=FILE][,forward=…][,listen].

A comma in a path is doubled, as in --disk. An address that nobody has chosen is random where other machines
may be behind the backend. A port of the host that nobody has chosen is one that is free now.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any, Final

from kvmbox.base.errors import UsageError
from kvmbox.base.value_classes import Value
from kvmbox.run.options.disk_value import joined, split

NONE: Final = "none"
LOOP: Final = "loop"
USER: Final = "user"
SOCKET: Final = "socket"
SWITCH: Final = "switch"
TAP: Final = "tap"
DESCRIPTOR: Final = "fd"
PCAP: Final = "pcap"
UNIX: Final = "unix:"

VIRTIO: Final = "virtio"
ON: Final = (VIRTIO, "e1000")

TCP: Final = "tcp"

_ALONE: Final = (NONE, LOOP, USER)
_WITH_TARGET: Final = {SOCKET: "unix:PATH", SWITCH: "NAME", TAP: "NAME", DESCRIPTOR: "N", PCAP: "FILE"}
_BACKENDS: Final = (*_ALONE, *(f"{kind}:{target}" for kind, target in _WITH_TARGET.items()))
_SHARED: Final = (SOCKET, SWITCH, TAP, DESCRIPTOR)
"""What may have other machines behind it: an address has to be its own there."""
_WORDS: Final = ("on=", "mac=", "pcap=", "forward=", "listen")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_INTERFACE: Final = re.compile(r"[^/\s:]{1,15}")
_MAC: Final = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
_FORWARD: Final = re.compile(r"(tcp|udp):(?:([0-9]{1,5}):)?([0-9]{1,5})")
_FIRST_FREE: Final = 3
"""The first descriptor that has no meaning of its own."""
_LOCAL: Final = bytes.fromhex("026b")
"""How addresses of kvmbox begin: locally administered, unicast."""


class Forward(Value):
    """A port of the host's loopback interface that leads to one of the guest."""

    protocol: str
    host: int
    guest: int

    def __str__(self) -> str:
        return f"{self.protocol}:{self.host}:{self.guest}"


class NetRequest(Value):
    """One --net. `target` is what stands behind the colon of the backend. `mac` is empty where the number of
    the interface decides it.
    """

    backend: str
    target: str = ""
    on: str = VIRTIO
    mac: bytes = b""
    pcap: str = ""
    forwards: tuple[Forward, ...] = ()
    listen: bool = False

    def address(self, number: int) -> bytes:
        """The address of interface `number`."""
        return self.mac or _LOCAL + b"v" + number.to_bytes(3, "big")

    def __str__(self) -> str:
        """The text that asks for the same."""
        target = f":{self.target.replace(',', ',,')}" if self.target else ""
        words = [f"{self.backend}{target}", f"on={self.on}"]
        words += [f"mac={self.mac.hex(':')}"] if self.mac else []
        words += [f"pcap={self.pcap.replace(',', ',,')}"] if self.pcap else []
        words += [f"forward={one}" for one in self.forwards]
        return ",".join(words + ["listen"] * self.listen)


def net(value: Any) -> NetRequest:
    """What --net asks for. Raises UsageError."""
    if isinstance(value, NetRequest):
        return value
    if not isinstance(value, str):
        raise UsageError(f"--net: {value!r} is neither text nor a NetRequest")
    backend, *words = split(value)
    kind, colon, target = backend.partition(":")
    if kind not in (*_ALONE, *_WITH_TARGET) or bool(colon) != (kind in _WITH_TARGET):
        raise _wrong(value, f"'{backend}' is no backend", f"known: {', '.join(_BACKENDS)}")
    given: dict[str, Any] = {"pcap": target} if kind == PCAP else {}
    forwards: list[Forward] = []
    for word in words:
        key, equals, text = word.partition("=")
        if key == "forward" and equals:
            forwards.append(_forward(value, kind, text))
            continue
        if key in given:
            raise _wrong(value, f"it says {key} twice", "each word but forward= is said once")
        given[key] = _meaning(value, kind, word, key, text if equals else None)
    _check_target(value, kind, target)
    kind, target = (NONE, "") if kind == PCAP else (kind, target)
    if kind in _SHARED and "mac" not in given:
        given["mac"] = _LOCAL + os.urandom(4)
    return NetRequest(kind, target, forwards=tuple(forwards), **given)


def forwarded(requests: Sequence[NetRequest], port: int, protocol: str) -> int:
    """The port of the host that leads to a port of the guest. UsageError if there is none."""
    for request in requests:
        for forward in request.forwards:
            if (forward.protocol, forward.guest) == (protocol, port):
                return forward.host
    raise UsageError(
        f"no port of the host leads to {protocol} port {port} of the guest",
        hint=f"for example nets='user,forward={protocol}:{port}'",
    )


def with_paths(text: str, place: Callable[[str], str]) -> str:
    """The same value with other paths: what `place` makes of each. Any other text stays as wrong as it is."""
    parts = []
    for number, word in enumerate(split(text)):
        key = next((one for one in ("pcap=", "pcap:", "socket:unix:") if word.startswith(one)), "")
        is_path = key and (number > 0) == key.endswith("=") and len(word) > len(key)
        parts.append(f"{key}{place(word[len(key) :])}" if is_path else word)
    return joined(parts)


def _meaning(whole: str, kind: str, word: str, key: str, text: str | None) -> Any:
    if key == "listen" and text is None:
        if kind != SOCKET:
            raise _wrong(whole, "only a socket listens", "for example socket:unix:net.sock,listen")
        return True
    if key == "on" and text in ON:
        return text
    if key == "mac" and text is not None:
        address = bytes.fromhex(text.replace(":", "")) if _MAC.fullmatch(text) else b"\1"
        if address[0] & 1 or not any(address):
            raise _wrong(
                whole, f"'{text}' is no address of an interface", "for example mac=02:00:00:00:00:01"
            )
        return address
    if key == "pcap" and text:
        return text
    if key == "on" and text is not None:
        raise _wrong(whole, f"there is no interface '{text}'", f"known: {', '.join(ON)}")
    close = get_close_matches(word, _WORDS, 1)
    meant = f"did you mean '{close[0]}'? " if close else ""
    raise _wrong(whole, f"'{word}' means nothing there", f"{meant}known: {', '.join(_WORDS)}")


def _forward(whole: str, kind: str, text: str) -> Forward:
    found = _FORWARD.fullmatch(text)
    if kind != USER:
        raise _wrong(whole, "only the backend 'user' forwards ports", "for example user,forward=tcp:8080:80")
    if found is None or not (int(found[2] or 0) < 1 << 16 > int(found[3]) > 0):
        raise _wrong(
            whole,
            f"'{text}' forwards nothing",
            "for example forward=tcp:8080:80; forward=tcp:80 takes any free port of the host",
        )
    return Forward(found[1], int(found[2] or 0) or _free_port(found[1]), int(found[3]))


def _free_port(protocol: str) -> int:
    """A port of the host's loopback interface that nobody has now."""
    import socket

    kind = socket.SOCK_STREAM if protocol == TCP else socket.SOCK_DGRAM
    try:
        with socket.socket(socket.AF_INET, kind) as one:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
    except OSError as error:
        raise UsageError(f"--net user: the host has no free port: {error.strerror}") from error
    return port


def _check_target(whole: str, kind: str, target: str) -> None:
    if kind == SOCKET and not (target.startswith(UNIX) and target != UNIX and "\0" not in target):
        raise _wrong(whole, "it names no socket", "for example socket:unix:net.sock")
    if kind == PCAP and not target:
        raise _wrong(whole, "it names no file", "for example pcap:net.pcap")
    if kind == SWITCH and not _NAME.fullmatch(target):
        raise _wrong(whole, f"'{target}' is no name of a switch", "32 letters, digits, '_', '.', '-' at most")
    if kind == TAP and not _INTERFACE.fullmatch(target):
        raise _wrong(whole, f"'{target}' is no name of an interface", "15 characters at most")
    if kind == DESCRIPTOR and not (target.isascii() and target.isdigit() and len(target) < 7):
        raise _wrong(whole, f"'{target}' is no descriptor", "for example fd:3")
    if kind == DESCRIPTOR and int(target) < _FIRST_FREE:
        raise _wrong(whole, f"descriptor {target} is stdin, stdout or stderr", "for example fd:3")


def _wrong(text: str, why: str, hint: str) -> UsageError:
    shown = "".join(one if one.isprintable() else "?" for one in text[:80])
    return UsageError(f"--net '{shown}': {why}", hint=hint)
