"""The device process's side: requests in, replies out, and how it ends."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from types import ModuleType
from typing import Final

import pytest

from kvmbox.contract.model import Effect, HostOutput, IrqLine, Reset, Stop
from kvmbox.jail import page_port, server, serving_loop, stream_port
from kvmbox.jail.server import MAX_ERROR_TEXT, MAX_SNAPSHOT, DeviceServer, error_frame
from kvmbox.jail.serving_loop import serve
from kvmbox.jail.stream_port import StreamPort
from kvmbox.wire import protocol
from kvmbox.wire.effects import decode_effects
from kvmbox.wire.protocol import HEADER, MAX_PAYLOAD, NO_DEADLINE, FrameError, Request
from tests.support.fake_model import FakeModel
from tests.support.halves import Half


class Rig:
    """A server with fake models, its replies taken apart."""

    def __init__(self, *models: FakeModel) -> None:
        """The server is greeted, and gets `models` for the catalogue's; without any it waits for HELLO."""
        self.sequence = 0
        self.server = DeviceServer()
        if models:
            waiting = list(models)
            self.server = DeviceServer(build=lambda _name, _parameters: waiting.pop(0))
            (hello,) = protocol.hello_requests([("fake", {})] * len(models))
            self.server.handle(hello.encode())

    def hello(self, board: list[tuple[str, dict[str, int | bytes]]]) -> list[int]:
        """Greet the server; returns the values of the replies."""
        return [
            self.ask(part.kind, value=part.value, offset=part.offset, payload=part.payload)[0]
            for part in protocol.hello_requests(board)
        ]

    def ask(
        self, kind: int, *, device: int = 0, size: int = 0, now: int = 0, value: int = 0, offset: int = 0,
        payload: bytes = b"",
    ) -> tuple[int, int | None, list[tuple[int, Effect]], bytes]:  # fmt: skip
        """(value, deadline, effects, payload) of the reply, its header checked against the request."""
        self.sequence += 7
        request = Request(kind, device, size, self.sequence, now, value, offset, payload)
        reply = self.server.handle(request.encode())
        got = HEADER.unpack_from(reply)
        assert got[:3] == (kind | protocol.REPLY, device, size)
        assert (got[4], got[7], got[8]) == (self.sequence, 0, len(reply) - HEADER.size)
        effects, rest = decode_effects(got[3], reply[HEADER.size :])
        return got[6], None if got[5] == NO_DEADLINE else got[5], effects, rest


def test_read_asks_the_right_model() -> None:
    one, two = FakeModel(), FakeModel()
    two.value = 0x1234
    rig = Rig(one, two)
    assert rig.ask(protocol.READ, device=1, size=2, now=99, offset=5) == (0x1234, None, [], b"")
    assert (one.calls, two.calls) == ([], [("read", 99, 5, 2)])


def test_write_passes_the_value_and_answers_zero() -> None:
    model = FakeModel()
    assert Rig(model).ask(protocol.WRITE, size=4, now=9, offset=1, value=0xDEADBEEF) == (0, None, [], b"")
    assert model.calls == [("write", 9, 1, 4, 0xDEADBEEF)]


def test_indexed_read_writes_the_index_then_reads() -> None:
    one, two = FakeModel(), FakeModel()
    two.value = 0x5A
    rig = Rig(one, two)
    answer = rig.ask(protocol.INDEXED_READ, device=1, size=1, now=7, offset=1, value=3 << 32 | 0x8C)
    assert answer == (0x5A, None, [], b"")
    assert two.calls == [("write", 7, 3, 1, 0x8C), ("read", 7, 1, 1)]
    assert one.calls == []


def test_run_of_writes_is_written_byte_by_byte_and_answered_once() -> None:
    one, two = FakeModel(), FakeModel()
    rig = Rig(one, two)
    two.effects = [HostOutput(b"a"), HostOutput(b"b"), IrqLine(0, 1), HostOutput(b"c"), HostOutput(b"")]
    two.deadline = 90
    answer = rig.ask(protocol.WRITE_RUN, device=1, now=5, offset=4, payload=b"xyz")
    # A run of output is one effect, and does not move across others.
    effects = [(1, HostOutput(b"ab")), (1, IrqLine(0, 1)), (1, HostOutput(b"c"))]
    assert one.calls == []
    assert answer == (0, 90, effects, b"")
    assert two.calls == [("write", 5, 4, 1, byte) for byte in b"xyz"]


@pytest.mark.parametrize("size", [2, 3, 4, 8])
def test_wide_access_is_made_byte_by_byte_at_one_time(size: int) -> None:
    model = FakeModel()
    model.value, model.deadline = 0x5A, 700
    rig = Rig(model)
    ones = int.from_bytes(b"\x5a" * size, "little")
    assert rig.ask(protocol.READ_WIDE, size=size, now=9, offset=2) == (ones, 700, [], b"")
    written = int.from_bytes(range(1, size + 1), "little")
    assert rig.ask(protocol.WRITE_WIDE, size=size, now=9, offset=2, value=written) == (0, 700, [], b"")
    assert model.calls == [
        *(("read", 9, 2 + number, 1) for number in range(size)),
        *(("write", 9, 2 + number, 1, number + 1) for number in range(size)),
    ]


def test_string_is_made_access_by_access_at_one_register() -> None:
    model = FakeModel()
    model.value = 0x1234
    rig = Rig(model)
    assert rig.ask(protocol.READ_STRING, size=2, now=9, value=3, offset=2) == (0, None, [], b"\x34\x12" * 3)
    assert rig.ask(protocol.WRITE_STRING, size=2, now=9, offset=2, payload=b"\1\0\2\0") == (0, None, [], b"")
    assert model.calls == [*[("read", 9, 2, 2)] * 3, ("write", 9, 2, 2, 1), ("write", 9, 2, 2, 2)]


class Talking(FakeModel):
    """Reads 0x11, 0x22, … and has the effects of the test's list, one element for each access."""

    def __init__(self, *effects: list[Effect]) -> None:
        super().__init__()
        self.waiting = list(effects)

    def read(self, now: int, offset: int, size: int) -> int:
        super().read(now, offset, size)
        self.effects = self.waiting.pop(0)
        return 0x11 * len(self.calls)

    def write(self, now: int, offset: int, size: int, value: int) -> None:
        super().write(now, offset, size, value)
        self.effects = self.waiting.pop(0)


class Asking(Talking):
    """The same, and it may ask for guest memory."""

    def memory(self, now: int, tag: int, data: bytes | None) -> None:
        raise AssertionError("never asked")


def test_block_goes_on_behind_simple_effects_and_joins_output() -> None:
    model = Talking([], [HostOutput(b"a")], [HostOutput(b"b"), IrqLine(0, 1)], [HostOutput(b"c")])
    effects: list[tuple[int, Effect]] = [(0, HostOutput(b"ab")), (0, IrqLine(0, 1)), (0, HostOutput(b"c"))]
    assert Rig(model).ask(protocol.READ_WIDE, size=4) == (0, None, effects, b"\x11\x22\x33\x44")


def test_block_of_a_model_that_may_ask_ends_behind_the_first_effect() -> None:
    model = Asking([], [IrqLine(0, 1)], [], [])
    assert Rig(model).ask(protocol.READ_WIDE, size=4) == (0, None, [(0, IrqLine(0, 1))], b"\x11\x22")
    model = Asking([IrqLine(0, 1)], [])
    answer = Rig(model).ask(protocol.WRITE_STRING, size=1, payload=b"xy")
    assert answer == (0, None, [(0, IrqLine(0, 1))], b"\1\0\0\0")


def test_stop_ends_a_block() -> None:
    model = Talking([HostOutput(b"a")], [Stop()], [])
    effects: list[tuple[int, Effect]] = [(0, HostOutput(b"a")), (0, Stop())]
    assert Rig(model).ask(protocol.WRITE_WIDE, size=4) == (0, None, effects, b"\2\0\0\0")


@pytest.mark.parametrize("value", [0x100, -1, 1 << 64])
@pytest.mark.parametrize("request_", [(protocol.READ_WIDE, 2, 0), (protocol.READ_STRING, 1, 2)])
def test_value_that_does_not_fit_into_a_block_is_refused(value: int, request_: tuple[int, int, int]) -> None:
    model = FakeModel()
    model.value = value
    kind, size, count = request_
    with pytest.raises(FrameError, match="does not fit in 1 bytes"):
        Rig(model).ask(kind, size=size, value=count)


def test_effects_that_do_not_fit_beside_what_was_read_are_refused() -> None:
    with pytest.raises(FrameError, match="do not fit in a reply"):
        Rig(Talking([HostOutput(b"x" * 4050)])).ask(protocol.READ_STRING, size=8, value=1)


@pytest.mark.parametrize("kind", [protocol.READ, protocol.WRITE, protocol.INDEXED_READ])
def test_access_carries_the_effects_of_its_model_in_order(kind: int) -> None:
    one, two = FakeModel(), FakeModel()
    rig = Rig(one, two)
    one.effects = [IrqLine(0, 1)]
    two.effects = [HostOutput(b"a"), IrqLine(0, 1, 3), Reset()]
    _, _, effects, rest = rig.ask(kind, device=1, size=1)
    assert effects == [(1, HostOutput(b"a")), (1, IrqLine(0, 1, 3)), (1, Reset())]
    assert rest == b""
    assert one.effects == [IrqLine(0, 1)]


def test_deadline_is_the_earliest_of_all_models() -> None:
    one, two = FakeModel(), FakeModel()
    rig = Rig(one, two)
    one.deadline = 500
    assert rig.ask(protocol.READ, size=1)[1] == 500
    two.deadline = 300
    assert rig.ask(protocol.WRITE, device=1, size=1)[1] == 300
    one.deadline = 900
    assert rig.ask(protocol.READ, size=1)[1] == 300
    two.deadline = None
    assert rig.ask(protocol.READ, device=1, size=1)[1] == 900
    one.deadline = None
    assert rig.ask(protocol.READ, size=1)[1] is None


def test_advance_tells_every_model_and_collects_every_effect() -> None:
    one, two = FakeModel(), FakeModel()
    rig = Rig(one, two)
    one.effects, two.effects = [IrqLine(0, 1)], [IrqLine(1, 0)]
    one.deadline, two.deadline = 700, 600
    assert rig.ask(protocol.ADVANCE, now=50) == (0, 600, [(0, IrqLine(0, 1)), (1, IrqLine(1, 0))], b"")
    assert one.calls == two.calls == [("advance", 50)]
    # What an access then says of the deadline knows of both.
    one.deadline = None
    assert rig.ask(protocol.READ, size=1)[1] == 600


def test_reset_reaches_every_model() -> None:
    one, two = FakeModel(), FakeModel()
    Rig(one, two).ask(protocol.RESET, now=8)
    assert one.calls == two.calls == [("reset", 8)]


def test_receive_offers_the_payload_to_one_model() -> None:
    one, two = FakeModel(), FakeModel()
    assert Rig(one, two).ask(protocol.RECEIVE, device=1, now=4, payload=b"abc")[0] == 2
    assert (one.calls, two.calls) == ([], [("receive", 4, b"abc")])


def test_snapshot_comes_in_parts_of_one_moment() -> None:
    model = FakeModel()
    state = bytes(range(256)) * 40
    model.state = state
    rig = Rig(FakeModel(), model)
    parts = []
    for number in range(4):
        total, _, _, part = rig.ask(protocol.SNAPSHOT, device=1, offset=number)
        assert total == len(state)
        parts.append(part)
        model.state = b"another moment"
    assert b"".join(parts) == state
    assert [len(part) for part in parts] == [MAX_PAYLOAD, MAX_PAYLOAD, len(state) - 2 * MAX_PAYLOAD, 0]
    assert model.calls == [("snapshot",)]


@pytest.mark.parametrize("size", [0, 1, MAX_PAYLOAD, MAX_PAYLOAD + 1, 3 * MAX_PAYLOAD])
def test_restore_takes_all_parts_then_restores_once(size: int) -> None:
    model = FakeModel()
    rig = Rig(model)
    state = bytes(index & 0xFF for index in range(size))
    for number in range(max(1, -(-size // MAX_PAYLOAD))):
        part = state[number * MAX_PAYLOAD : (number + 1) * MAX_PAYLOAD]
        assert rig.ask(protocol.RESTORE, value=size, offset=number, payload=part)[0] == 1
    assert model.state == state
    assert model.calls == [("restore", size)]


def test_restore_of_what_is_no_snapshot_answers_zero_and_can_be_tried_again() -> None:
    model = FakeModel()
    rig = Rig(model)
    assert rig.ask(protocol.RESTORE, value=3, payload=b"bad")[0] == 0
    assert model.state == b"state"
    assert rig.ask(protocol.RESTORE, value=4, payload=b"good")[0] == 1
    assert model.state == b"good"


def test_restore_begun_anew_forgets_the_former_parts() -> None:
    model = FakeModel()
    rig = Rig(model)
    rig.ask(protocol.RESTORE, value=MAX_PAYLOAD + 1, payload=bytes(MAX_PAYLOAD))
    assert rig.ask(protocol.RESTORE, value=3, payload=b"new")[0] == 1
    assert model.state == b"new"


@pytest.mark.parametrize(("offset", "total"), [(1, 3), (2, 3), (0, MAX_SNAPSHOT + 1), (0xFFFF_FFFF, 3)])
def test_restore_part_out_of_order_or_too_long_raises(offset: int, total: int) -> None:
    with pytest.raises(FrameError, match="out of order"):
        Rig(FakeModel()).ask(protocol.RESTORE, value=total, offset=offset, payload=b"abc")


def test_shutdown_is_answered_and_ends_the_loop() -> None:
    rig = Rig(FakeModel())
    assert rig.ask(protocol.SHUTDOWN) == (0, None, [], b"")
    assert not rig.server.running


def test_hello_builds_the_board() -> None:
    rig = Rig()
    assert rig.hello(BOARD) == [protocol.VERSION]
    assert [type(model).__name__ for model in rig.server.models] == ["PostPort", "Uart16550A"]
    assert rig.ask(protocol.READ, device=1, size=1, offset=5)[0] == 0x60
    with pytest.raises(FrameError, match="a second hello"):
        rig.hello(BOARD)


BOARD: Final[list[tuple[str, dict[str, int | bytes]]]] = [("post", {}), ("uart_16550a", {"pace_transmit": 1})]


def test_hello_of_another_version_raises() -> None:
    with pytest.raises(FrameError, match=f"protocol version 1, this side speaks {protocol.VERSION}"):
        Rig().ask(protocol.HELLO, value=1)


@pytest.mark.parametrize("device", [("no_such_model", {}), ("post", {"no_such_parameter": 1})])
def test_hello_of_a_device_that_cannot_be_built_raises(device: tuple[str, dict[str, int | bytes]]) -> None:
    with pytest.raises((KeyError, TypeError)):
        Rig().hello([device])


def test_hello_of_bytes_that_describe_no_board_raises() -> None:
    with pytest.raises(FrameError, match="ends within a device"):
        Rig().ask(protocol.HELLO, value=protocol.VERSION | 4 << 32, payload=b"post")


TABLE: Final = bytes(range(256)) * 40  # three parts


def test_hello_in_parts_builds_the_board_with_the_last_and_hands_bytes_to_the_model() -> None:
    built: list[tuple[str, object]] = []

    def build(name: str, parameters: object) -> FakeModel:
        built.append((name, parameters))
        return FakeModel()

    rig = Rig()
    rig.server = DeviceServer(build=build)
    parts = protocol.hello_requests([("a", {"table": TABLE, "count": -3}), ("b", {"none": b""})])
    assert len(parts) == 3
    for part in parts:
        assert built == []
        assert rig.ask(protocol.HELLO, value=part.value, offset=part.offset, payload=part.payload)[0] == (
            protocol.VERSION
        )
    assert built == [("a", {"table": TABLE, "count": -3}), ("b", {"none": b""})]


@pytest.mark.parametrize(
    ("offset", "total", "payload"),
    [
        (1, 5000, bytes(936)),
        (0, 5000, bytes(4063)),
        (0, 10, bytes(11)),
        (0, protocol.MAX_BOARD + 1, bytes(protocol.MAX_PAYLOAD)),
    ],
    ids=["the second first", "a part that is too short", "one too long", "more than may be"],
)
def test_hello_part_out_of_order_raises(offset: int, total: int, payload: bytes) -> None:
    with pytest.raises(FrameError, match="out of order"):
        Rig().ask(protocol.HELLO, value=protocol.VERSION | total << 32, offset=offset, payload=payload)


@pytest.mark.parametrize("kind", [0, max(protocol.KIND_NAMES) + 1, 0x7F])
def test_unknown_request_raises(kind: int) -> None:
    with pytest.raises(FrameError, match=f"unknown request {kind}"):
        Rig(FakeModel()).ask(kind)


# --- The loop --------------------------------------------------------------------------------------------


class Wire:
    """Requests that wait, and replies that were written."""

    def __init__(self, half: Half, *frames: bytes) -> None:
        self.half = half
        self.frames = list(frames)
        self.replies: list[bytes] = []

    def read(self, descriptor: int, size: int) -> bytes:
        assert (descriptor, size) == (33, protocol.MAX_FRAME)
        return self.frames.pop(0) if self.frames else b""

    def write(self, descriptor: int, data: bytes) -> int:
        assert descriptor == 33
        self.replies.append(data)
        return len(data)

    def serve(self, *models: FakeModel) -> int:
        server = Rig(*models).server
        if self.half.is_compiled:
            return self._serve_really(server)
        return serve(StreamPort(33, 33, read=self.read, write=self.write), server)

    def _serve_really(self, server: DeviceServer) -> int:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            for frame in self.frames:
                ours.send(frame)
            ours.shutdown(socket.SHUT_WR)
            status = self.half.serve(self.half.stream_port(theirs.fileno(), theirs.fileno()), server)
            self.frames = list(iter(lambda: theirs.recv(8192), b""))
            theirs.shutdown(socket.SHUT_WR)
            self.replies = list(iter(lambda: ours.recv(8192), b""))
        return status


def request(kind: int, sequence: int = 5) -> bytes:
    return Request(kind, sequence=sequence).encode()


def test_serve_answers_each_request_until_the_end_of_the_channel(half: Half) -> None:
    wire = Wire(half, request(protocol.ADVANCE, 1), request(protocol.RESET, 2))
    assert wire.serve(FakeModel()) == 0
    assert [HEADER.unpack(reply)[4] for reply in wire.replies] == [1, 2]


def test_serve_leaves_after_shutdown_with_requests_unread(half: Half) -> None:
    wire = Wire(half, request(protocol.SHUTDOWN), request(protocol.RESET))
    assert wire.serve(FakeModel()) == 0
    assert len(wire.replies) == len(wire.frames) == 1


def raising(error: Exception) -> Callable[..., int]:
    def read(*_arguments: int) -> int:
        raise error

    return read


def test_serve_model_that_raises_sends_one_error_frame_and_ends(half: Half) -> None:
    model = FakeModel()
    model.read = raising(ZeroDivisionError("by zero"))  # type: ignore[method-assign]  # a model with a bug
    wire = Wire(half, Request(protocol.READ, size=1, sequence=77).encode(), request(protocol.RESET))
    assert wire.serve(model) == 1
    (reply,) = wire.replies
    kind, _, _, count, sequence, _, _, _, length = HEADER.unpack_from(reply)
    assert (kind, count, sequence, length) == (protocol.ERROR, 0, 77, len(reply) - HEADER.size)
    assert reply[HEADER.size :].startswith(b"ZeroDivisionError: by zero at test_server.py:")


@pytest.mark.parametrize("frame", [b"x", bytes(31), request(protocol.READ)[:-1], request(99), bytes(40)])
def test_serve_frame_that_is_none_sends_an_error_frame_and_ends(half: Half, frame: bytes) -> None:
    wire = Wire(half, frame)
    assert wire.serve(FakeModel()) == 1
    assert wire.replies[0][0] == protocol.ERROR


@pytest.mark.parametrize(("device", "size"), [(1, 1), (0xFF, 1), (0, 0), (0, 3), (0, 16)])
def test_serve_access_that_cannot_be_sends_an_error_frame_and_ends(
    half: Half, device: int, size: int
) -> None:
    wire = Wire(half, Request(protocol.READ, device, size).encode())
    model = FakeModel()
    assert wire.serve(model) == 1
    assert b"FrameError: an access of" in wire.replies[0]
    assert model.calls == []


def test_serve_run_of_writes_to_a_device_that_is_none_sends_an_error_frame_and_ends(half: Half) -> None:
    wire = Wire(half, Request(protocol.WRITE_RUN, device=1, payload=b"x").encode())
    assert wire.serve(FakeModel()) == 1
    assert b"IndexError" in wire.replies[0]


def test_serve_over_a_real_pipe() -> None:
    requests, vmm = os.pipe()
    os.write(vmm, request(protocol.SHUTDOWN))
    replies: list[bytes] = []

    def write(_descriptor: int, data: bytes) -> int:
        replies.append(data)
        return len(data)

    assert serve(StreamPort(requests, requests, write=write)) == 0
    assert HEADER.unpack(replies[0])[0] == protocol.SHUTDOWN | protocol.REPLY
    os.close(requests)
    os.close(vmm)


@pytest.mark.parametrize("text", ["x" * 5000, "ä" * 5000, "\ud800"])
def test_error_frame_is_bounded_whatever_the_text(text: str) -> None:
    frame = error_frame(9, ValueError(text))
    assert len(frame) <= HEADER.size + MAX_ERROR_TEXT
    kind, _, _, _, sequence, deadline, value, zero, length = HEADER.unpack_from(frame)
    assert (kind, sequence, deadline, value, zero) == (protocol.ERROR, 9, NO_DEADLINE, 0, 0)
    assert length == len(frame) - HEADER.size


@pytest.mark.parametrize(
    ("module", "used"), [(server, set()), (serving_loop, set()), (stream_port, {"os"}), (page_port, {"os"})]
)
def test_only_ports_do_input_and_output(module: ModuleType, used: set[str]) -> None:
    assert {name for name in vars(module) if name in ("os", "socket", "select")} == used
