"""Requests without end to real device processes: accesses, input, time, runs of writes, snapshots.

    python soak.py DIRECTORY_OF_KVMBOX SECCOMP IPC REQUESTS

Prints a line a device type, and ends with 0 if every process answered every request and was alive at the end.
It needs nothing but the standard library and kvmbox, so it runs on any Python that is there.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Any


def main(directory: str, seccomp: Any, ipc: str, requests: int) -> None:
    """Ask each device process so many times."""
    sys.path.append(directory)
    from kvmbox.contract.names import SERIAL_PORTS
    from kvmbox.devices.pc_board import BoardOptions, pc_board
    from kvmbox.remote.channel.grants import bind
    from kvmbox.remote.process.device_pool import Design, DevicePool

    class Counting:
        """A host that counts what a device does; see `kvmbox.remote.channel.grants.Host`."""

        def __init__(self) -> None:
            self.effects = 0

        def count(self, *_arguments: Any, **_named: Any) -> None:
            """One more."""
            self.effects += 1

        def source(self, _wired_to: Any) -> Callable[..., None]:
            """Whatever it is wired to, it is counted."""
            return self.count

        def replacing_source(self, _wired_to: Any) -> tuple[Callable[..., None], Callable[..., None]]:
            """The same for a line that may be taken."""
            return self.count, self.count

        replacing_irq_source = replacing_source
        irq_source = output = input_room = source
        ram: Any = None  # no request of the soak lets a device ask for it, nor for transfers
        transfers: Any = None
        medium: Any = None
        window: Any = None
        queues: Any = None
        buses: Any = None
        aperture: Any = None
        ask_for_reset = stop = panic = suspend = count
        bios_reports: Any = None

        def rise_of(self, _line: Any) -> None:
            """Announcements are not heard."""

        def late_writes(self, _device: Any, _grant: Any) -> Callable[..., None]:
            """Counted, too."""
            return self.count

    board = pc_board(BoardOptions(SERIAL_PORTS, 1_767_323_045, 128 << 20))
    hosts = {device.device_type: Counting() for device in board}
    pool = DevicePool(Design(seccomp=seccomp, ipc=ipc))
    clock = [0]
    try:
        pool.launch(board, b"", cpu=None, may_spin=ipc == "shm")
        pool.connect(
            {device.name: bind(device, hosts[device.device_type]) for device in board},
            now=lambda: clock[0],
            deadline_changed=lambda *_: None,
        )
        for member in pool.members.values():
            soak(pool.channel(member.device_type), member.devices, requests, clock)
            print(member.device_type, requests, "requests,", hosts[member.device_type].effects, "effects")
        problem = pool.check()
        if problem is not None:
            raise SystemExit(str(problem))
    finally:
        pool.close()


def soak(channel: Any, devices: Any, requests: int, clock: list[int]) -> None:
    """`requests` requests to one process, the same in every run."""
    from kvmbox.contract.device_spec import Input
    from kvmbox.wire import protocol
    from kvmbox.wire.protocol import MAX_PAYLOAD, request_word

    chance = random.Random(len(devices))
    registers = [sum(addresses.count for addresses in (*device.ports, *device.mmio)) for device in devices]
    states: dict[int, bytes] = {}
    for number in range(requests):
        clock[0] += chance.randrange(20_000)
        index = chance.randrange(len(devices))
        offset = chance.randrange(registers[index])
        what = chance.random()
        if what < 0.45:
            channel.access(request_word(protocol.READ, index, 1), offset, 0, 0xFF)
        elif what < 0.9:
            channel.access(request_word(protocol.WRITE, index, 1), offset, chance.randrange(256), 0)
        elif what < 0.93 and devices[index].coalesced:
            channel.access(request_word(protocol.INDEXED_READ, index, 1), offset, chance.randrange(256), 0xFF)
        elif what < 0.95:
            channel.request(protocol.ADVANCE)
        elif what < 0.96 and devices[index].coalesced:
            channel.transact(protocol.WRITE_RUN, index, offset, chance.randbytes(chance.randrange(1, 170)))
        elif what < 0.98 and devices[index].granted(Input):
            data = chance.randbytes(chance.randrange(1, 64))
            channel.request(protocol.RECEIVE, device=index, payload=data, limit=len(data))
        elif number % 50 == 0:
            channel.request(protocol.RESET)
        elif number % 2:
            state, part, total = b"", 0, 1
            while len(state) < total:
                total, piece = channel.request(protocol.SNAPSHOT, device=index, offset=part, limit=1 << 20)
                state += piece
                part += 1
            states[index] = state
        elif index in states:
            state = states[index]
            for part in range(-(-len(state) // MAX_PAYLOAD)):
                piece = state[part * MAX_PAYLOAD : (part + 1) * MAX_PAYLOAD]
                good, _ = channel.request(
                    protocol.RESTORE, device=index, offset=part, value=len(state), payload=piece, limit=1
                )
                assert good == 1


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
