"""What a channel has to make of a reply, written apart from the code that is judged.

The requests that the channel of the test makes, what the devices behind it are granted, and the definition of
a good reply to each request.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from kvmbox.contract.device_spec import Resource
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.grants import Grants
from kvmbox.remote.published.guest_memory import TransferAccess
from kvmbox.wire.protocol import MAX_STEADY, request_word
from tests.support.log import Calls

NOW: Final = 1_000
HEADER: Final = struct.Struct("<4BI2Q2I")
EFFECT: Final = struct.Struct("<4BI")
NO_DEADLINE: Final = (1 << 64) - 1
MAX_FRAME: Final = 4096

HELLO, READ, WRITE, ADVANCE, RECEIVE, RESET, SNAPSHOT, RESTORE = range(1, 9)
WRITE_RUN, INDEXED = 10, 11
ACCESSES: Final = (READ, WRITE, INDEXED)
WITHOUT_EFFECTS: Final = (HELLO, SNAPSHOT, RESTORE)

# What the devices of the fuzzed process are granted. Device 0: two interrupt lines, output, and transfers
# from a resource of at most two ranges and TRANSFER_SIZE bytes. Device 1: input room, reset, stop. Device 2:
# nothing.
TRANSFER_SIZE: Final = 64
DEVICES: Final = 3


class Ask(NamedTuple):
    """A request of the VMM, and the largest value of a reply to it."""

    kind: int
    device: int
    size: int
    limit: int


ASKS: Final = (
    *(Ask(READ, device, size, (1 << 8 * size) - 1) for device in range(DEVICES) for size in (1, 2, 4, 8)),
    *(Ask(WRITE, device, size, 0) for device in range(DEVICES) for size in (1, 2, 4, 8)),
    Ask(INDEXED, 0, 1, 0xFF),
    Ask(ADVANCE, 0, 0, 0),
    Ask(RECEIVE, 1, 0, 5),
    Ask(RESET, 0, 0, 0),
    Ask(WRITE_RUN, 0, 0, 0),
    Ask(SNAPSHOT, 1, 0, 100),
    Ask(HELLO, 0, 0, 0xFFFF_FFFF),
    Ask(RESTORE, 0, 0, 1),
)


class Verdict(NamedTuple):
    """What has to come of a reply. `log` is what is applied; `error` how a refusal has to begin."""

    value: int
    payload: bytes
    log: Calls
    error: str = ""


GONE: Final = "is gone: "
FAILED: Final = "failed: "
BROKEN: Final = "broke the protocol: "


def refuse(how: str) -> Verdict:
    return Verdict(0, b"", [], how)


def judge(ask: Ask, sequence: int, frame: bytes) -> Verdict:
    """The definition of a good reply, and of whom to blame for another one."""
    if not frame:
        return refuse(GONE)
    if not HEADER.size <= len(frame) <= MAX_FRAME:
        return refuse(BROKEN)
    kind, device, size, count, number, deadline, value, steady, length = HEADER.unpack_from(frame)
    body = frame[HEADER.size :]
    if length != len(body):
        return refuse(BROKEN)
    if (kind, device, size, number) != (ask.kind + 128, ask.device, ask.size, sequence):
        return refuse(FAILED if kind == 0xFF else BROKEN)
    if steady and (steady > MAX_STEADY or count or ask.kind not in (READ, INDEXED)):
        return refuse(BROKEN)
    if value > ask.limit or (ask.kind == ADVANCE and deadline <= NOW):
        return refuse(BROKEN)
    if count and ask.kind in WITHOUT_EFFECTS:
        return refuse(BROKEN)
    applied: Calls = []
    for _ in range(count):
        if len(body) < EFFECT.size:
            return refuse(BROKEN)
        tag, index, pin, level, argument = EFFECT.unpack_from(body)
        body = body[EFFECT.size :]
        may_stop = (ask.kind, ask.device, index) == (WRITE, 1, 1)
        if tag == 1 and index == 0 and pin < 2 and (level == 1 or (level == 0 and argument == 0)):
            applied.append(("irq", pin, level, argument))
        elif tag == 2 and index == 0 and not pin | level and argument <= len(body):
            applied.append(("output", body[:argument]))
            body = body[argument:]
        elif tag == 3 and index == 1 and not pin | level:
            applied.append(("room", argument))
        elif tag == 4 and may_stop and not pin | level and not argument:
            applied.append(("reset",))
        elif tag == 8 and index == 0 and level == 1 and pin < 3 and len(body) >= 16 + 12 * pin:
            resource, offset = struct.unpack_from("<QQ", body)
            ranges = [struct.unpack_from("<QI", body, 16 + 12 * number) for number in range(pin)]
            if resource or sum(size for _, size in ranges) > TRANSFER_SIZE:
                return refuse(BROKEN)
            applied.append(("transfer", argument, offset, ranges, True))
            body = body[16 + 12 * pin :]
        elif tag == 5 and may_stop and not pin | level and not argument:
            applied.append(("stop", 3, ask.size, 0x55))
        else:
            return refuse(BROKEN)
    if body and ask.kind != SNAPSHOT:
        return refuse(BROKEN)
    return Verdict(value, body, applied)


def grants(log: Calls) -> list[Grants]:
    """What the process may do: see above. All that is done is noted."""

    def submit(*order: object) -> bool:
        log.append(("transfer", *order))
        return True

    return [
        Grants(
            "a",
            irq_lines=[
                lambda level, coalesced: log.append(("irq", 0, level, coalesced)),
                lambda level, coalesced: log.append(("irq", 1, level, coalesced)),
            ],
            output=lambda data: log.append(("output", data)),
            resources=[
                TransferAccess(
                    Resource("disk", 512, max_bytes=TRANSFER_SIZE, max_ranges=2),
                    submit,
                )
            ],
        ),
        Grants(
            "b",
            input_room=lambda count: log.append(("room", count)),
            reset=lambda: log.append(("reset",)),
            stop=lambda *arguments: log.append(("stop", *arguments)),
        ),
        Grants("c"),
    ]


def send(channel: Channel, ask: Ask) -> tuple[int, bytes]:
    """Make the request, by whom it would be made; value and payload of what was accepted."""
    if ask.kind in ACCESSES:
        return channel.access(request_word(ask.kind, ask.device, ask.size), 3, 0x55, ask.limit), b""
    return channel.request(ask.kind, device=ask.device, limit=ask.limit, offset=3, value=0x55)
