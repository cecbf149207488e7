"""Where --gdb meets its client."""

from __future__ import annotations

import pytest

from kvmbox.base.errors import UsageError
from kvmbox.host.sockets.endpoint import Endpoint, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-", Endpoint()),
        ("unix:gdb.sock", Endpoint("gdb.sock")),
        ("/tmp/gdb.sock,nowait", Endpoint("/tmp/gdb.sock", waits=False)),
        (":1234", Endpoint(None, "127.0.0.1", 1234)),
        ("1234", Endpoint(None, "127.0.0.1", 1234)),
        ("localhost:65535,nowait", Endpoint(None, "127.0.0.1", 65535, waits=False)),
        ("[::1]:1234", Endpoint(None, "::1", 1234)),
    ],
)
def test_endpoint_is_a_pipe_a_socket_or_a_port(text: str, expected: Endpoint) -> None:
    assert parse(text) == expected
    assert parse(text).is_pipe == (text == "-")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is no endpoint"),
        ("gdb.sock", "is no endpoint"),
        (":0", "is no endpoint"),
        (":65536", "is no endpoint"),
        (":-1", "is no endpoint"),
        (":١٢٣٤", "is no endpoint"),
        ("unix:", "names no socket"),
        ("unix:" + "a" * 108, "at most 107 bytes"),
        ("0.0.0.0:1234", "only this host may connect"),
        ("example.org:1234", "only this host may connect"),
        ("-,nowait", "the client is there from the start"),
    ],
)
def test_what_is_none_is_refused_with_a_hint(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        parse(text)
    assert caught.value.hint


def test_endpoint_is_shown_as_a_client_is_told() -> None:
    for text in ("gdb.sock", "127.0.0.1:1234", "[::1]:1234"):
        assert str(parse(text if ":" in text else f"unix:{text}")) == text
