"""A completion that compiled code tells with the next access, where there is no process any more."""

from __future__ import annotations

import socket

import pytest

from kvmbox.base.errors import DeviceProcessError
from kvmbox.contract.bulk_data import QUIET_START, TO_GUEST, Window
from kvmbox.contract.device_spec import Medium
from kvmbox.host.disk.transfers import BytesStore
from kvmbox.parts.restart.recovery import AllOnes
from kvmbox.remote.channel.grants import Grants
from kvmbox.remote.process.crash_policy import ProcessControl
from kvmbox.remote.published.bulk_grants import Media
from kvmbox.remote.published.medium import MediumAccess
from kvmbox.remote.transport.interface import Link
from kvmbox.wire import protocol
from kvmbox.wire.effects import encode_effects_of
from kvmbox.wire.protocol import NO_DEADLINE, READ, WORDS, WRITE, request_word
from tests.support.halves import built_halves

pytestmark = pytest.mark.skipif(len(built_halves()) < 2, reason="compiled: not built")
SECTOR = 512


def test_write_behind_a_posted_completion_that_finds_the_process_dead_reads_as_all_ones() -> None:
    half = built_halves()[-1]
    vmm, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    window = half.window(0)
    disk = Medium("disk", 8 * SECTOR, writable=True, max_bytes=8 * SECTOR)
    media = Media({0: MediumAccess(disk, BytesStore(bytes(8 * SECTOR)), lambda *_order: True)}, window, None)
    window.line = lambda _level, _coalesced: None
    told: list[DeviceProcessError] = []
    channel = half.channel(
        "ide",
        Link(half.socket, (vmm.detach(),), ()),
        [Grants("disk", irq_lines=[window.line], media=media)],
        now=lambda: 5,
        survival=AllOnes(told.append, ProcessControl()),
    )
    word = request_word(WRITE, 0, 1)
    body = encode_effects_of(0, [Window(1, 0, 0, SECTOR, TO_GUEST | QUIET_START)])
    reply = WORDS.pack(word | protocol.REPLY | 1 << 24 | 1 << 32, NO_DEADLINE, 0, len(body) << 32)
    device.send(reply + body)
    channel.access(word, 3, 1, 0)
    device.close()

    assert channel.access(word, 3, 1, 0) == 0
    assert channel.access(request_word(READ, 0, 1), 3, 0, 0xFF) == 0xFF
    assert len(told) == 1
