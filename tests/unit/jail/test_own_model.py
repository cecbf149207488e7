"""A model that comes as the text of its module, and where it is not taken."""

from __future__ import annotations

import pytest

from kvmbox.jail.server import DeviceServer
from kvmbox.wire import protocol
from kvmbox.wire.protocol import SOURCE, FrameError, Request

SOURCE_TEXT = b"""
from kvmbox.contract.port_model import PortModel

class Constant(PortModel):
    def __init__(self, *, value):
        super().__init__()
        self.value = value

    def _read_byte(self, offset):
        return self.value
"""


def greet(server: DeviceServer, name: str, **parameters: int | bytes) -> None:
    for part in protocol.hello_requests([(name, {SOURCE: SOURCE_TEXT, **parameters})]):
        server.handle(part.encode())


def test_model_that_comes_as_text_answers() -> None:
    server = DeviceServer()
    greet(server, "Constant", value=0x5A)
    assert server.handle(Request(protocol.READ, 0, 1).encode())[16] == 0x5A


@pytest.mark.parametrize(
    ("name", "parameters", "error"),
    [("Variable", {"value": 1}, KeyError), ("Constant", {}, TypeError), ("Constant", {SOURCE: 1}, TypeError)],
)
def test_model_that_the_text_cannot_make_raises(
    name: str, parameters: dict[str, int | bytes], error: type[Exception]
) -> None:
    with pytest.raises(error):
        greet(DeviceServer(), name, **parameters)


def test_server_that_takes_no_source_runs_none() -> None:
    with pytest.raises(FrameError, match="model Constant brings its own source"):
        greet(DeviceServer(takes_source=False), "Constant", value=1)
