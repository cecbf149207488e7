"""The DMA probe on a qtest machine: memory and transfers at points that nothing but the requests decides."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kvmbox.base.errors import ProtocolError
from kvmbox.base.memory import GuestMemory
from kvmbox.host.disk.transfers import BytesStore
from kvmbox.tools.qtest.bare_machine import BareMachine
from kvmbox.tools.qtest.sandbox import open_sandbox
from tests.support.dma import (
    ADDRESS,
    BAD_ADDRESS,
    BEYOND_END,
    CHASE,
    COMMAND,
    DISK,
    DONE,
    GSI,
    LENGTH,
    LINK,
    LOAD,
    MEMORY_SIZE,
    OFFSET,
    READ,
    STATUS,
    STORE,
    SUM,
    TABLE,
    WRITE,
    probe,
)

IDLE, RESULT = 0, 2


class Rig:
    """A machine with the probe alone on it."""

    def __init__(
        self, machine: BareMachine, memory: GuestMemory, disk: bytearray, irqs: list[tuple[int, int]]
    ) -> None:
        self.machine = machine
        self.memory = memory
        self.disk = disk
        self.irqs = irqs

    def do(self, number: int, address: int, length: int, offset: int = 0) -> int:
        """A command; its status, once the one request that began it is done."""
        for port, value in ((ADDRESS, address), (LENGTH, length), (OFFSET, offset), (COMMAND, number)):
            self.machine.write_port(port, 4, value)
        status = self.machine.read_port(STATUS, 4) - RESULT
        assert self.irqs == [(GSI, 1)]
        self.machine.write_port(STATUS, 4, 0)
        assert self.irqs == [(GSI, 1), (GSI, 0)]
        self.irqs.clear()
        return status


@pytest.fixture(params=["none", "process"])
def sandbox(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def rig(sandbox: str) -> Iterator[Rig]:
    yield from rigs(sandbox, None)


def rigs(kind: str, way: bytes | None) -> Iterator[Rig]:
    with open_sandbox(kind) as sandbox:
        memory = GuestMemory(MEMORY_SIZE)
        board = [probe(way=way)]
        irqs: list[tuple[int, int]] = []
        disk = bytearray(DISK)
        stores = {"disk": BytesStore(disk), "rom": BytesStore(bytes(4096))}
        machine = BareMachine(board, memory, lambda line, level: irqs.append((line, level)), stores)
        sandbox.connect(machine, board)
        yield Rig(machine, memory, disk, irqs)
        memory.close()


def test_every_command_is_done_within_the_request_that_begins_it(rig: Rig) -> None:
    assert rig.do(WRITE, 0x100000, 4000, 5) == DONE
    assert rig.memory.read(0x100000, 4001) == TABLE[5:4005] + b"\0"
    assert rig.do(READ, 0x100000, 4000) == DONE
    assert rig.machine.read_port(SUM, 4) == sum(TABLE[5:4005])
    assert rig.do(LOAD, 0x200001, 9999, 3) == DONE
    assert rig.memory.read(0x200000, 10_001) == b"\0" + DISK[3:10_002] + b"\0"
    assert rig.do(STORE, 0x200001, 100, 50_000) == DONE
    assert rig.disk == DISK[:50_000] + DISK[3:103] + DISK[50_100:]


def test_chain_of_links_is_followed_within_one_request(rig: Rig) -> None:
    for address in range(0x1000, 0x1050, 0x10):
        rig.memory.write(address, (address + 0x10 if address < 0x1040 else 0).to_bytes(4, "little"))
    assert rig.do(CHASE, 0x1000, 0) == DONE
    assert rig.machine.read_port(LINK, 4) == 5


@pytest.mark.parametrize("number", [READ, WRITE, LOAD, STORE])
@pytest.mark.parametrize(("address", "length"), [(MEMORY_SIZE, 4), (MEMORY_SIZE - 2, 4), (0xFFFF_FFFE, 8)])
def test_range_that_is_no_memory_is_a_status(rig: Rig, number: int, address: int, length: int) -> None:
    assert rig.do(number, address, length) == BAD_ADDRESS
    assert rig.disk == DISK


def test_transfer_beyond_the_end_is_a_status(rig: Rig) -> None:
    assert rig.do(LOAD, 0x1000, 2, len(DISK) - 1) == BEYOND_END
    assert rig.memory.read(0x1000, 2) == b"\0\0"


@pytest.mark.parametrize("way", [b"too many bytes", b"endless legs", b"another resource"])
def test_device_that_asks_for_more_than_it_was_granted_is_named(sandbox: str, way: bytes) -> None:
    for rig in rigs(sandbox, way):
        with pytest.raises(ProtocolError, match=r"device process 'dma' broke the protocol: .*DMA"):
            rig.machine.write_port(COMMAND, 4, READ)


def test_reset_leaves_the_device_idle(rig: Rig) -> None:
    assert rig.do(LOAD, 0x1000, 4) == DONE
    rig.machine.reset()
    assert rig.machine.read_port(STATUS, 4) == IDLE
    assert rig.do(LOAD, 0x1000, 4) == DONE
