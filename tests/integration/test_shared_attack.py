"""A device process that rewrites the shared page in a tight loop while the VMM reads it.

Whatever it hits, the VMM uses what it has checked: a value within its limit, effects that were granted, each
as it was copied once; or it sees that the protocol is broken.
`tests/unit/remote/transport/test_shared_page.py` shows the same one access at a time; here a real process
does its worst on another CPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Final

import pytest

from kvmbox.base.errors import ProtocolError
from kvmbox.contract.model import HostOutput
from kvmbox.remote.channel.grants import Grants
from kvmbox.remote.transport.interface import Link
from kvmbox.remote.transport.shared_page import PageTransport
from kvmbox.wire import page_layout as layout
from kvmbox.wire import protocol
from kvmbox.wire.effects import decode_effects, encode_effects
from kvmbox.wire.protocol import HEADER, request_word
from tests.support.halves import Half

ACCESSES: Final = 5_000
PATIENCE: Final = 100
"""How many times that many accesses it may take until everything has happened that must."""

LIMIT: Final = 0xFF
READ: Final = request_word(protocol.READ, 0, 1)
SHORT, LONG = b"AAAA", b"BBBBBBBB"

ATTACKER: Final = """
import mmap, os, sys
memory, bell, reply, request, vmm_waits, reply_bit = map(int, sys.argv[1:7])
short, long = map(bytes.fromhex, sys.argv[7:9])
page = memoryview(mmap.mmap(memory, 3 * 4096))
words = page.cast("Q")
at, body = reply // 8, reply + 32
value, rest = at + 2, at + 3
def wake():
    if words[vmm_waits]:
        os.write(bell, b"!")
while True:
    plain = words[request // 8] | reply_bit
    one_effect = plain | 1 << 24
    # Good without effects, then with one, the longer and the shorter, and between them whatever comes of it.
    words[value] = 0x11; words[rest] = 0; words[at] = plain
    wake()
    words[value] = 0x10000
    page[body : body + len(short)] = short
    words[value] = 0x22; words[rest] = len(short) << 32; words[at] = one_effect
    wake()
    page[body : body + len(long)] = long
    words[rest] = len(long) << 32
    wake()
    words[rest] = 0xFFFFFFFF00000000
    wake()
    words[rest] = 0; words[value] = 0x33; words[at] = plain
"""


class Attack:
    """A channel to the attacker, and what it makes the VMM do."""

    def __init__(self, half: Half, cpus: list[int], *, recorded: bool) -> None:
        """Each side has a CPU, if nobody else wants them: what happens on one CPU happens in turns."""
        self.link: Link = half.page.connect([], None)
        requests, bell, memory = self.link.device
        places = (layout.REPLY, layout.REQUEST, layout.VMM_WAITS, protocol.REPLY)
        bodies = [encode_effects([(0, HostOutput(text))]).hex() for text in (SHORT, LONG)]
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", ATTACKER, str(memory), str(bell), *map(str, places), *bodies],
            pass_fds=(requests, bell, memory),
        )
        os.sched_setaffinity(self.process.pid, {cpus[-1]})
        os.sched_setaffinity(0, {cpus[0]})
        for descriptor in self.link.device:
            os.close(descriptor)
        self.outputs: list[bytes] = []
        self.frames: list[bytes] = []
        self.channel = half.channel(
            "uart",
            self.link,
            [Grants("COM1", output=self.outputs.append)],
            now=lambda: 5,
            record=(lambda _sent, frame: self.frames.append(frame)) if recorded else None,
        )
        assert isinstance(self.channel.transport, PageTransport)
        self.channel.transport.allow_spinning(True)

    def access(self) -> int | None:
        """One access; None if the attacker was caught at it."""
        try:
            return self.channel.access(READ, 5, 0, LIMIT)
        except ProtocolError:
            self.channel.forget_failure()
            return None

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.channel.close()


@pytest.fixture
def attack(request: pytest.FixtureRequest, half: Half) -> Iterator[Attack]:
    """The attack; with the parameter True its replies are recorded."""
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("on one CPU nothing changes while it is read")
    attack = Attack(half, sorted(allowed), recorded=getattr(request, "param", False))
    yield attack
    attack.close()
    os.sched_setaffinity(0, allowed)


def test_attacker_that_rewrites_its_reply_gets_nothing_past_the_checks(attack: Attack) -> None:
    results: list[int | None] = []
    good: list[int] = []
    # Replies that pass, replies that do not and output all happen, or this has shown nothing: on a busy host
    # the two sides may not run at the same time for long.
    for _ in range(PATIENCE):
        results += [attack.access() for _ in range(ACCESSES)]
        good = [result for result in results if result is not None]
        if 0 < len(good) < len(results) and attack.outputs:
            break
    assert 0 < len(good) < len(results)
    assert set(good) <= {0x11, 0x22, 0x33}
    assert attack.outputs
    for output in attack.outputs:
        assert len(output) in (len(SHORT), len(LONG))
        assert set(output) <= set(SHORT + LONG)


@pytest.mark.parametrize("attack", [True], indirect=True)
def test_effects_are_those_of_the_copy_that_was_checked(attack: Attack) -> None:
    frames = attack.frames
    for _ in range(ACCESSES):
        frames.clear()
        attack.outputs.clear()
        result = attack.access()
        if result is None:
            assert attack.outputs == []
            continue
        (frame,) = frames
        _, _, _, count, _, _, value, _, length = HEADER.unpack_from(frame)
        assert (result, len(frame)) == (value, HEADER.size + length)
        effects, rest = decode_effects(count, frame[HEADER.size :])
        assert [(0, HostOutput(output)) for output in attack.outputs] == effects
        assert rest == b""
