"""The state of a model, taken and given in parts."""

from __future__ import annotations

from typing import Any

import pytest

from kvmbox.base.errors import DeviceProcessError
from kvmbox.contract.device_spec import DeviceSpec
from kvmbox.jail.server import DeviceServer
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.grants import Grants
from kvmbox.remote.channel.hello import greet
from kvmbox.remote.channel.model_state import give_state, take_state
from kvmbox.wire import protocol
from kvmbox.wire.protocol import MAX_PAYLOAD
from tests.support.calling import CallingTransport
from tests.support.fake_model import FakeModel

SPECS = [DeviceSpec("X", "x", "fake"), DeviceSpec("Y", "x", "fake")]
SIZES = [0, 1, MAX_PAYLOAD - 1, MAX_PAYLOAD, MAX_PAYLOAD + 1, 3 * MAX_PAYLOAD]


class Bench:
    """A channel to two models, whose process may be another one from some request on."""

    def __init__(self) -> None:
        self.models = [FakeModel(), FakeModel()]
        self.server = self.new_server()
        self.asked: list[int] = []
        self.replaced_at: list[int] = []
        transport = CallingTransport(self.answer)
        self.channel = Channel("x", transport, [Grants("X"), Grants("Y")], now=lambda: 7)
        assert greet(self.channel, SPECS) == protocol.VERSION

    def new_server(self) -> DeviceServer:
        models: list[Any] = list(self.models)
        return DeviceServer(build=lambda _name, _parameters: models.pop(0))

    def answer(self, frame: bytes) -> bytes:
        self.asked.append(frame[0])
        if self.replaced_at and self.replaced_at[0] == len(self.asked):
            self.replaced_at.pop(0)
            self.server = self.new_server()
            for hello in protocol.hello_requests([("fake", {}), ("fake", {})]):
                self.server.handle(hello.encode())
        return self.server.handle(frame)


@pytest.mark.parametrize("size", SIZES)
def test_state_of_any_size_is_taken_and_given(size: int) -> None:
    bench = Bench()
    bench.models[1].state = bytes(index % 251 for index in range(size))
    state = take_state(bench.channel, 1)
    assert state == bench.models[1].state
    assert give_state(bench.channel, 1, state)
    assert bench.models[1].calls[-1] == ("restore", size)
    assert bench.models[0].calls == []


def test_state_that_the_model_refuses_is_told() -> None:
    assert not give_state(Bench().channel, 0, b"bad")


def test_parts_are_of_one_process() -> None:
    bench = Bench()
    bench.models[0].state = bytes(3 * MAX_PAYLOAD)
    bench.replaced_at = [len(bench.asked) + 2]  # between the first part and the second
    assert take_state(bench.channel, 0) == bench.models[0].state


def test_process_whose_parts_never_fit_is_given_up() -> None:
    bench = Bench()
    bench.models[0].state = bytes(3 * MAX_PAYLOAD)
    bench.replaced_at = [len(bench.asked) + 2 * count for count in range(1, 10)]
    with pytest.raises(DeviceProcessError, match="do not fit together"):
        take_state(bench.channel, 0)
