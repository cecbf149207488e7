"""Attacks on the VMM itself, made upon its real channel; and upon a careless reader, as the control.

No layer stops these: the process is allowed to write to its channel. What stops them is that the VMM
checks every byte, once, in memory of its own.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Final

from kvmbox.base.errors import DeviceGoneError, DeviceProcessError
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.grants import Grants
from kvmbox.tools.audit.attack_result import Ended, Result
from kvmbox.tools.audit.attacked_device import PATIENCE_MS, SLICE_MS, Subject
from kvmbox.tools.audit.attacks.requests import BAD, FLOOD, GOOD, REPLY_VALUE_WORD
from kvmbox.tools.audit.forgeries import Victim
from kvmbox.tools.audit.forgery import Forgery
from kvmbox.wire import page_layout as layout
from kvmbox.wire import protocol
from kvmbox.wire.effect_texts import TEXTS
from kvmbox.wire.effects import decode_effects

EFFECTS_AT: Final = 3
"""Where in a reply the number of its effects is."""

LIMIT: Final = 0xFF
"""The highest value that a read of one byte may have."""

REQUESTS: Final = {"flood": 8, "rewrite-page": 300}
"""How many requests the VMM makes. The flood reads none of them: no more than fit into a pipe."""

ENOUGH: Final = (FLOOD - 1) * protocol.MAX_FRAME
"""How many bytes of the flood the careless reader takes: some may have come with what came before."""

CARELESS_NS: Final = 2_000_000_000
"""How long the careless reader looks before it gives up being caught."""


def provoke(subject: Subject, attack: str, *, careless: bool, forgery: Forgery | None = None) -> Result:
    """Let `attack`, which has begun, meet the VMM's channel, or with `careless` one that trusts it. A
    `forgery` is what it does there, as a disk.

    `Ended.REFUSED` tells that the channel held, `Ended.FINISHED` that the attack got its way.
    """
    # Nothing below waits with a time-out: a process that falls silent is killed, which ends the wait.
    over = threading.Event()
    threading.Thread(target=_end_the_silent, args=(subject, over), daemon=True).start()
    try:
        if forgery is not None:
            caught, evidence = (_careless_disk if careless else _disk)(subject, forgery)
        elif careless:
            caught, evidence = _CARELESS[attack](subject)
        else:
            channel = Channel("audit", subject.give_away_link(), [Grants("audit")], now=lambda: 0)
            try:
                caught, evidence = ask(channel, REQUESTS[attack], honest_replies=attack != "flood")
            finally:
                channel.close()
    except DeviceGoneError as error:  # it died, or was killed for its silence: that proves nothing
        return Result(Ended.SILENT, subject.process.layers, evidence=str(error).encode())
    finally:
        over.set()
    ended = Ended.FINISHED if caught else Ended.REFUSED
    return Result(ended, subject.process.layers, evidence=evidence.encode(), pid=subject.process.pid)


def _end_the_silent(subject: Subject, over: threading.Event) -> None:
    for _ in range(PATIENCE_MS // SLICE_MS):
        if over.wait(SLICE_MS / 1000):
            return
    subject.process.kill()


def ask(channel: Channel, requests: int, *, honest_replies: bool = True) -> tuple[bool, str]:
    """Make requests; whether the attack got its way, and in words what the channel did.

    It does if a value comes through that is not the good one; and, unless each request gets a reply
    (`honest_replies`), if more than the one reply is taken that there should be. Raises DeviceGoneError.
    """
    word = protocol.request_word(protocol.READ, 0, 1)
    accepted = 0
    refused: dict[str, int] = {}
    for _ in range(requests):
        try:
            value = channel.access(word, 0, 0, LIMIT)
        except DeviceGoneError:
            raise
        except DeviceProcessError as error:
            reason = str(error).removeprefix("device process 'audit' ")
            refused[reason] = refused.get(reason, 0) + 1
            channel.forget_failure()  # in a run this is the end of the process; here it may try again
            continue
        if value != GOOD:
            return True, f"value {value:#x} came through"
        accepted += 1
    if not honest_replies and accepted > 1:
        return True, f"{accepted} replies taken where there was one"
    if not refused:
        return False, f"{accepted} values read once, none of them changed"
    reason = max(refused, key=lambda one: refused[one])
    return False, f"{sum(refused.values())} of {requests} replies refused: it {reason}"


def _careless_flood(subject: Subject) -> tuple[bool, str]:
    """Take whatever comes."""
    descriptor = subject.link.vmm[-1]
    taken = 0
    while taken < ENOUGH:
        data = os.read(descriptor, protocol.MAX_FRAME)
        if not data:
            return False, f"{taken} bytes that nobody asked for"
        taken += len(data)
    return True, f"{taken} bytes that nobody asked for"


def _careless_page(subject: Subject) -> tuple[bool, str]:
    """Check the value in the shared page, and then use it: which is a second look."""
    assert subject.link.page is not None
    with memoryview(subject.link.page) as data, data.cast("Q") as words:
        words[layout.REQUEST_WORD] = protocol.request_word(protocol.READ, 0, 1) | 1 << 32
        deadline = time.monotonic_ns() + CARELESS_NS
        while time.monotonic_ns() < deadline:
            good = words[REPLY_VALUE_WORD] <= LIMIT
            os.sched_yield()  # where there is one CPU for both, the attacker needs a turn in between
            if good and words[REPLY_VALUE_WORD] == BAD:
                return True, "a value changed between check and use"
    return False, "no value changed between check and use"


def _disk(subject: Subject, forgery: Forgery) -> tuple[bool, str]:
    """Be a run's side of a disk, whose guest makes writes and notifies, and see what the effects do."""
    victim = Victim(forgery.device_type)
    channel = Channel("audit", subject.give_away_link(), victim.grants, now=lambda: 0, record=victim.record)
    refused = ""
    try:
        while victim.requests_seen < len(forgery.replies):
            channel.access(protocol.request_word(protocol.WRITE, 0, 1), 0, 0, 0)
            channel.serve(victim.notified)
    except DeviceGoneError:
        raise
    except DeviceProcessError as error:
        refused = str(error).removeprefix("device process 'audit' ")
    finally:
        channel.close()
    if victim.is_harmed or not (refused or victim.refusals):
        return True, forgery.text
    return (
        False,
        f"it {refused}" if refused else f"told that there is no such place (status {victim.refusals[0]})",
    )


def _careless_disk(subject: Subject, forgery: Forgery) -> tuple[bool, str]:
    """Look at the frames alone, and not at what was granted."""
    sent = protocol.Request(protocol.WRITE, 0, 1).encode()
    reply = b""
    for _ in forgery.replies:
        os.write(subject.link.vmm[0], sent)
        reply = os.read(subject.link.vmm[-1], protocol.MAX_FRAME)
    count, body = reply[EFFECTS_AT], reply[protocol.HEADER.size :]
    effect = decode_effects(count, body)[0][-1][1]
    return True, TEXTS[type(effect)](effect, str)


_CARELESS: Final = {"flood": _careless_flood, "rewrite-page": _careless_page}
