"""The server of the Remote Framebuffer protocol, without a client."""

from __future__ import annotations

import random

import pytest

from kvmbox.contract.model import HostOutput, SnapshotError
from kvmbox.devices.rfb import model as rfb
from kvmbox.devices.rfb.model import RfbServer

SIZE = (640).to_bytes(2, "big") + (480).to_bytes(2, "big")
START = (b"RFB 003.008\n", b"\x01", b"\x01")


def said(model: RfbServer, kind: int, content: bytes) -> list[tuple[str, bytes]]:
    assert model.receive(0, bytes((kind,)) + content) == 1 + len(content)
    found = []
    for effect in model.take_effects():
        assert isinstance(effect, HostOutput)
        assert int.from_bytes(effect.data[1:3], "big") == len(effect.data) - 3
        found.append((chr(effect.data[0]), effect.data[3:]))
    return found


def connected(version: bytes = START[0]) -> RfbServer:
    model = RfbServer()
    said(model, rfb.CONNECT, SIZE)
    for data in (version, *START[1:]):
        said(model, rfb.CLIENT, data)
    return model


def test_handshake_of_each_version() -> None:
    for minor, security, result in ((8, b"\x01\x01", [("S", bytes(4))]), (7, b"\x01\x01", [])):
        model = RfbServer()
        assert said(model, rfb.CONNECT, SIZE) == [("S", b"RFB 003.008\n")]
        assert said(model, rfb.CLIENT, b"RFB 003.00%d\n" % minor) == [("S", security)]
        assert said(model, rfb.CLIENT, b"\x01") == result
        assert said(model, rfb.CLIENT, b"\0") == [("S", SIZE + rfb.FORMAT + b"\0\0\0\x06kvmbox")]
    model = RfbServer()
    said(model, rfb.CONNECT, SIZE)
    assert said(model, rfb.CLIENT, b"RFB 003.003\n") == [("S", b"\0\0\0\x01")]
    assert said(model, rfb.CLIENT, b"\x01")[0][1].endswith(b"kvmbox")


@pytest.mark.parametrize("data", [b"GET / HTTP/1", b"RFB 003.00x\n", b"RFB 004.008\n"])
def test_who_speaks_another_protocol_is_turned_away(data: bytes) -> None:
    model = RfbServer()
    said(model, rfb.CONNECT, SIZE)
    assert said(model, rfb.CLIENT, data) == [("X", b"")]
    assert said(model, rfb.CLIENT, START[0]) == []


@pytest.mark.parametrize(
    ("data", "answers"),
    [
        (b"\x04\x01\0\0\0\0\xff\x0d", [("K", b"\x01\0\0\xff\x0d")]),
        (b"\x05\x03\0\x05\0\x07", [("P", b"\x03\0\x05\0\x07")]),
        (b"\x03\x01" + bytes(8), [("W", b"\x01")]),
        (b"\x02\0\0\x01" + (rfb.DESKTOP_SIZE & 0xFFFF_FFFF).to_bytes(4, "big"), [("R", b"")]),
        (b"\x02\0\0\0", []),
        (b"\x06\0\0\0\0\0\0\x03abc\x05\0\0\0\0\0", [("P", bytes(5))]),
        (b"\x01", [("X", b"")]),
        (b"\x02\0\xff\xff", [("X", b"")]),
        (b"\0\0\0\0" + rfb.FORMAT[:3] + b"\0" + rfb.FORMAT[4:], [("X", b"")]),  # a palette
        (b"\0\0\0\0\x18" + rfb.FORMAT[1:], [("X", b"")]),  # 24 bits
    ],
)
def test_message_of_a_client_in_one_piece_and_in_many(data: bytes, answers: list[tuple[str, bytes]]) -> None:
    assert said(connected(), rfb.CLIENT, data) == answers
    model = connected()
    found = [answer for at in range(len(data)) for answer in said(model, rfb.CLIENT, data[at : at + 1])]
    assert found == answers


@pytest.mark.parametrize(
    ("bits", "big", "maxima", "shifts", "pixel"),
    [
        (32, 0, (255, 255, 255), (16, 8, 0), "04c8ff00"),
        (32, 1, (255, 255, 255), (16, 8, 0), "00ffc804"),
        (32, 0, (255, 255, 255), (0, 8, 16), "ffc80400"),
        (16, 0, (31, 63, 31), (11, 5, 0), "20fe"),
        (16, 1, (31, 63, 31), (11, 5, 0), "fe20"),
        (8, 0, (7, 7, 3), (0, 3, 6), "2f"),
    ],
)
def test_pixels_have_the_format_of_the_client(
    bits: int, big: int, maxima: tuple[int, ...], shifts: tuple[int, ...], pixel: str
) -> None:
    model = connected()
    form = bytes((bits, 24, big, 1)) + b"".join(most.to_bytes(2, "big") for most in maxima) + bytes(shifts)
    assert said(model, rfb.CLIENT, bytes(4) + form + bytes(3)) == []
    rect = bytes.fromhex("0001 0002 0001 0001")
    assert said(model, rfb.RECT, rect + b"\xff\xc8\x04") == [("S", rect + bytes(4) + bytes.fromhex(pixel))]
    assert said(model, rfb.RECT, rect + b"\xff\xc8") == []


def test_update_and_resize_are_told() -> None:
    model = connected()
    assert said(model, rfb.UPDATE, b"\0\x05") == [("S", b"\0\0\0\x05")]
    assert said(model, rfb.RESIZE, SIZE) == [("S", b"\0\0\0\x01" + bytes(4) + SIZE + b"\xff\xff\xff\x21")]


def test_hostile_bytes_are_survived_and_bounded_and_a_snapshot_goes_on() -> None:
    rng = random.Random(6143)
    for _ in range(300):
        model = connected()
        for _ in range(20):
            copy = RfbServer()
            copy.restore(model.snapshot())
            data = bytes((rng.choice((0, 2, 3, 4, 5, 6, rng.randrange(256))),)) + rng.randbytes(
                rng.randrange(90)
            )
            assert said(copy, rfb.CLIENT, data) == said(model, rfb.CLIENT, data)
            assert copy.snapshot() == model.snapshot()
            assert len(model.snapshot()) < 2 * rfb.MOST_KEPT


def test_state_of_nobody_is_refused() -> None:
    state = bytearray(connected().snapshot())
    for position, value in ((0, 0), (4, 9), (5, 9), (10, 0)):
        with pytest.raises(SnapshotError):
            RfbServer().restore(
                bytes(state[:position]) + bytes((value,)) + bytes(state[position + 1 :]) + b"x"
            )
    with pytest.raises(SnapshotError):
        RfbServer().restore(b"RFB")
