"""`kvmbox.AsyncMachine`: what waits is awaited, and whoever is cancelled leaves nothing behind."""

from __future__ import annotations

import asyncio
import threading

import pytest

from kvmbox import AsyncMachine, ExpectError, ImageError, Machine
from tests.support.patience import patience

pytestmark = pytest.mark.kvm

PATIENCE_S = patience(30.0)


def test_calls_are_awaited_and_several_machines_run_at_a_time() -> None:
    async def talk(word: str) -> bytes:
        async with AsyncMachine(Machine("echo", timeout=PATIENCE_S)) as vm:
            vm.machine.send(f"{word}\n")
            match = await vm.expect(word, PATIENCE_S)
            vm.machine.send(b"\x04")
            assert (await vm.wait(PATIENCE_S)).status == 0
            assert (await vm.screen()).is_blank
            return match.group()

    async def all_of_them() -> list[bytes]:
        return await asyncio.gather(*map(talk, ("one", "two", "three")))

    before = threading.enumerate()
    assert asyncio.run(all_of_them()) == [b"one", b"two", b"three"]
    assert threading.enumerate() == before


def test_calls_may_wait_side_by_side() -> None:
    async def both() -> tuple[int, bytes]:
        async with AsyncMachine(Machine("hello32", timeout=PATIENCE_S)) as vm:
            result, match = await asyncio.gather(vm.wait(PATIENCE_S), vm.expect("mode!", PATIENCE_S))
            return result.status, match.group()

    assert asyncio.run(both()) == (0, b"mode!")


def test_task_that_is_cancelled_stops_the_machine() -> None:
    machine = Machine("echo", timeout=PATIENCE_S)
    before = threading.enumerate()

    async def give_up() -> None:
        async with AsyncMachine(machine) as vm:
            await vm.expect("leaves", PATIENCE_S)
            waiting = asyncio.create_task(vm.expect("never"))
            await asyncio.sleep(0)  # it waits now
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert not machine.running
            assert threading.enumerate() == before

    asyncio.run(give_up())
    assert machine.result is not None
    assert machine.result.status == 130


def test_errors_are_those_of_the_machine() -> None:
    async def fail() -> None:
        async with AsyncMachine(Machine("hello32", timeout=PATIENCE_S)) as vm:
            with pytest.raises(ExpectError):
                await vm.expect("never", PATIENCE_S)
        with pytest.raises(ImageError):
            async with AsyncMachine(Machine("/no/such/file")):
                pass

    asyncio.run(fail())


def test_repr_is_short() -> None:
    machine = Machine("hello32", timeout=PATIENCE_S)
    assert repr(machine).endswith("hello32.elf': not started>")
    with machine as vm:
        result = vm.wait()
    assert repr(AsyncMachine(vm)).endswith("hello32.elf': has ended>>")
    assert repr(result) == f"RunResult(status=0, reason={result.reason!r}, …)"
    assert repr(vm.console) == "<Capture: 34 bytes>"
    assert len(repr(result.statistics)) < 100
    assert len(repr(vm.config)) < 300
