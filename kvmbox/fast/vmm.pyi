from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

from kvmbox.base.memory import MemoryRegion
from kvmbox.remote.bus.proxy import DeviceProxy
from kvmbox.remote.channel.effect_calls import FollowUp, Posted
from kvmbox.remote.transport.interface import Words

class Lock:
    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...
    def release(self) -> None: ...
    def locked(self) -> bool: ...
    def __enter__(self) -> bool: ...
    def __exit__(self, *exception: object) -> None: ...

class Clock:
    _base: int
    _limit: int
    _held_at: int | None

class End:
    def taken_payload(self) -> bytes | None: ...

LATE: int
NOT_RUNG: int
ASLEEP: int
CAME: int
WOKEN: int

class PageEnd(End):
    _seen: int
    _may_spin: bool
    bell_of_device: int
    doorbell: int
    _slow: int
    left: int
    slept: bool
    def map(self, page: Any) -> None: ...
    def unmap(self) -> None: ...
    def exchanged(self, sent: bytes) -> Words | bool | None: ...

class StreamEnd(End):
    requests: int
    replies: int
    def received(self) -> bytes: ...

class DirectEnd(End): ...

class JournalCore:
    count: int
    listed: int
    def __new__(cls, limit: int) -> JournalCore: ...
    def add(self, asked: Words, reply: Words) -> bool: ...
    def take(self) -> list[tuple[Words, bytes, Words, bytes]]: ...
    def drop(self) -> None: ...

def learn_follow_ups(
    follow_up: type[FollowUp],
    posted: type[Posted],
    most: int,
    slices: int,
    frame: Callable[..., bytes],
    failures: tuple[type[Exception], ...],
) -> None: ...

class SteadyCore:
    changes: int
    moves: int

class ChannelCore:
    deadline: int
    waiting: int
    waiter: int
    _sequence: int
    _failure: Any
    _record: Any
    _journal: Any
    _outputs: list[Any]
    _lines: list[Any]
    _media: list[Any]
    _wait_for_output: Any
    def set_up(self, lock: Lock, now: Callable[[], int], counts: SteadyCore) -> None: ...
    def keeps(self, kept: JournalCore | None) -> None: ...
    def leads_to(self, transport: object) -> None: ...
    def access(self, word: int, offset: int, value: int, limit: int) -> int: ...
    # What the other half has: `access` in pure Python, and the rest of one that was begun here.
    def pure_access(self, word: int, offset: int, value: int, limit: int) -> int: ...
    def finish_access(self, asked: Words, words: Words | None, limit: int) -> int: ...

class WindowCore:
    use: int
    position: int
    end: int
    def guarded_by(self, lock: object) -> None: ...
    _opening: Any
    def look_at(self, data: bytearray) -> None: ...
    def filled(self, descriptor: int, offset: int, size: int) -> bytearray | None: ...

class WindowAccessCore:
    def set_up(self, core: ChannelCore, view: WindowCore, register: int, complete: int) -> None: ...
    # What the other half has.
    def pure_access(self, word: int, offset: int, value: int, limit: int) -> int: ...

def learn_queues(
    media: object, effects: object, walker: object, shape: object, chains: object, interrupts: object
) -> None: ...

class VirtqueueCore: ...

class QueuesCore:
    _last: int
    def set_up(self, regions: list[MemoryRegion] | None) -> None: ...
    def ring_at(self, ring: object) -> Any: ...
    def send_from(self, index: int, ring: Any, connection: Any, most: int) -> int: ...
    def put_into(self, index: int, ring: Any, connection: Any, packet: bytes) -> int | None: ...
    # What the other half has.
    def send_from_python(self, index: int, ring: Any, connection: Any, most: int) -> int: ...
    def put_into_python(self, index: int, ring: Any, connection: Any, packet: bytes) -> int | None: ...

class QueueAccessCore:
    def set_up(
        self,
        core: ChannelCore,
        rings: QueuesCore,
        device: int,
        media: Mapping[int, object],
        register: int,
        places: range,
    ) -> None: ...
    # What the other half has.
    def pure_access(self, word: int, offset: int, value: int, limit: int) -> int: ...

class RingCore:
    writes: int
    owing: tuple[DeviceProxy, int, int] | None
    _failure: Any
    def set_up(
        self,
        lock: Lock,
        zones: Mapping[int, tuple[DeviceProxy, int]],
        pairs: Container[int],
        carries: bool,
        *,
        entries: int,
        entry_size: int,
        byte_to_port: int,
        most_posted: int,
    ) -> None: ...
    def latch(self, port: int, word: int) -> None: ...
    def let_post(self, port: int, allowed: int) -> None: ...
    def take_carried(self) -> list[tuple[DeviceProxy, int]]: ...

class LineCore:
    raised: int
    coalesced: int
    asserted: int
    heard: int
    replacing: int
    announced: list[Any]
    is_high: bool

class SourceCore:
    at: int
    gsi: int
    lowers: bool
    passes: bool
    ready: bool
    fired: bool
    level: int
    ahead: int
    bit: int
    state: Any
    _router: Any
    def guarded_by(self, lock: object) -> None: ...
    def __call__(self, level: int, coalesced: int) -> None: ...

class RouterCore:
    _set_line: Callable[[int, int], None] | None
    _controllers: int
    def set_up(self, clock: Clock, lines: Lock, irq_line: int) -> None: ...
    def change(self, source: Any, level: int, coalesced: int) -> None: ...
    def watch(self, sources: Sequence[object], timer: int, cpu: int) -> None: ...
    def unwatch(self) -> None: ...
    def rearm(self) -> None: ...
    def step_aside(self) -> None: ...
    def stop(self) -> None: ...
    def raise_lines(self) -> None: ...

class AttentionCore:
    bits: int

class LoopCore:
    stale: int
    def set_up(
        self,
        page: memoryview,
        descriptor: int,
        run_request: int,
        fake_enter: Callable[[], int] | None,
        *,
        attention: object,
        ring_word: int,
        ring: object,
        mmio_data: int,
        io_exit: int,
        mmio_exit: int,
        nobody: Callable[[int, int, int, int], int],
        most_recent: int,
        sync_rip: int,
    ) -> None: ...
    def remember(self, made: tuple[Any, int | None]) -> None: ...
    def remembered(self) -> list[tuple[Any, int | None]]: ...
    def learn(self, key: int, kind: int | None, route: list[Any]) -> None: ...
    def forget_all(self) -> None: ...
    def count_of(self, key: int, kind: int | None) -> int: ...
    def more_of(self, key: int, kind: int | None) -> int: ...
    def steady_of(self, key: int, kind: int | None) -> int: ...
    def enter_compiled(self) -> int: ...

class ReplayCore(LoopCore):
    def replays(self, script: object, times: int, ended: Callable[[], object]) -> None: ...
