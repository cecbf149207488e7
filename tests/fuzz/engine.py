"""A coverage-guided fuzzer: inputs that take a branch which none before has taken are kept, and changed.

A target is called with `Dice`, which read an input. Whatever it raises is a finding, and so is an input that
takes longer than `MOST_SECONDS` of CPU time. Without counted branches (`branches`) all inputs are random.
"""

from __future__ import annotations

import random
import signal
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

from tests.fuzz.branches import CONSTANTS, HITS
from tests.support.dice import Dice

Target = Callable[[Dice], None]

MOST_SECONDS: Final = 20.0
MOST_BYTES: Final = 1500
"""Of an input."""
SIZES: Final = (4, 12, 40, 120, 400)
_LENGTH: Final = struct.Struct("<H")


class Found(AssertionError):
    """An input that a target does not bear. `data` is the input."""

    def __init__(self, data: bytes, error: BaseException) -> None:
        super().__init__(f"{type(error).__name__}: {error}, with the input {data.hex()}")
        self.data = data


class Entry(NamedTuple):
    """An input that is kept, and the outcomes that it takes: bits by place, eight for each."""

    data: bytes
    taken: int


def _took_too_long(_signal: int, _frame: object) -> None:
    raise TimeoutError(f"more than {MOST_SECONDS:.0f} s of CPU time")


@contextmanager
def bounded() -> Iterator[None]:
    """Let no input take longer than `MOST_SECONDS` of CPU time: see `run_one`."""
    before = signal.signal(signal.SIGVTALRM, _took_too_long)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def run_one(target: Target, data: bytes) -> int:
    """Give an input to a target; which outcomes it takes. Raises Found."""
    HITS[:] = bytes(len(HITS))
    signal.setitimer(signal.ITIMER_VIRTUAL, MOST_SECONDS)
    try:
        target(Dice(data))
    except Exception as error:
        raise Found(data, error) from error
    return int.from_bytes(HITS, "little")


def count(taken: int) -> int:
    """How many outcomes these are."""
    return taken.bit_count()


# --- Inputs -----------------------------------------------------------------------------------------------


def constants() -> list[bytes]:
    """The constants of the counted modules as an input may hold them, in a fixed order."""
    found: set[bytes] = set()
    for one in CONSTANTS:
        if isinstance(one, bytes):
            found.add(one)
            continue
        for size in (1, 2, 4, 8):
            if one < 1 << 8 * size:
                found |= {one.to_bytes(size, "little"), one.to_bytes(size, "big")}
                break
    return sorted(found)


class Mutator:
    """Makes inputs of others."""

    def __init__(self, source: random.Random, words: Sequence[bytes], sizes: Sequence[int] = SIZES) -> None:
        self._source = source
        self._sizes = sizes
        self._words = words or [b"\xff"]

    def fresh(self) -> bytes:
        """An input that depends on none."""
        return self._source.randbytes(self._source.choice(self._sizes))

    def changed(self, data: bytes, other: bytes) -> bytes:
        """An input like `data`, in places like `other`."""
        made = bytearray(data)
        for _ in range(1 << self._source.randrange(5)):
            self._change(made, other)
        return bytes(made[:MOST_BYTES])

    def _change(self, made: bytearray, other: bytes) -> None:
        source = self._source
        at = source.randrange(len(made) + 1)
        size = min(1 << source.randrange(6), source.randrange(40) + 1)
        match source.randrange(9):
            case 0 if at < len(made):
                made[at] ^= 1 << source.randrange(8)
            case 1 if at < len(made):
                made[at] = source.randrange(256)
            case 2 if at < len(made):
                made[at] = made[at] + source.choice((-1, 1, 7, 16, -16)) & 0xFF
            case 3:
                made[at:at] = source.randbytes(size)
            case 4:
                del made[at : at + size]
            case 5:
                word = source.choice(self._words)
                made[at : at + len(word) * source.randrange(2)] = word
            case 6:
                start = source.randrange(len(other) + 1)
                made[at : at + size * source.randrange(2)] = other[start : start + size]
            case 7:
                start = source.randrange(len(made) + 1)
                made[at:at] = made[start : start + size]
            case _:
                made[at : at + size] = bytes((source.choice((0, 1, 0x7F, 0x80, 0xFF)),)) * size


class Campaign:
    """The inputs of one target that are kept, and what they take together."""

    def __init__(self, target: Target, seed: int) -> None:
        self._target = target
        self._source = random.Random(seed)
        self._mutator = Mutator(self._source, constants())
        self.taken = int.from_bytes(HITS, "little")
        """What was taken while the modules were loaded, and since."""
        self.entries: list[Entry] = []
        self.executions = 0

    def begin(self, corpus: Sequence[bytes]) -> None:
        """Run the inputs that were kept before. Raises Found."""
        for data in corpus:
            self.run(data)

    def run(self, data: bytes) -> None:
        """Run an input, and keep it if it takes what none before has taken. Raises Found."""
        taken = run_one(self._target, data)
        self.executions += 1
        if taken & ~self.taken:
            self.taken |= taken
            self.entries.append(Entry(data, taken))

    def next(self) -> bytes:
        """The next input: of one that was kept, more often of a late one."""
        source, entries = self._source, self.entries
        if not entries or source.random() < 0.05:
            return self._mutator.fresh()
        chosen = entries[-1 - int(len(entries) * source.random() ** 2)]
        return self._mutator.changed(chosen.data, source.choice(entries).data)

    def fuzz(self, seconds: float, most: int = 1 << 62) -> None:
        """Run inputs for so many seconds of CPU time, and so many inputs at most. Raises Found."""
        end = time.process_time() + seconds
        while time.process_time() < end and self.executions < most:
            self.run(self.next())

    def minimised(self) -> list[bytes]:
        """Few and short inputs that take the same, the shortest first."""
        kept: list[bytes] = []
        taken = 0
        # Late ones take much of what those before them take.
        for entry in sorted(self.entries, key=lambda one: (-count(one.taken), len(one.data))):
            new = entry.taken & ~taken
            if new:
                kept.append(self._shortened(entry.data, new))
                taken |= run_one(self._target, kept[-1])
        return sorted(kept, key=len)

    def _takes(self, data: bytes, wanted: int) -> bool:
        try:
            return not wanted & ~run_one(self._target, data)
        except Found:
            return False

    def _shortened(self, data: bytes, wanted: int) -> bytes:
        """A shorter input that takes all of `wanted`."""
        size = len(data) // 2
        while size:
            at = 0
            while at < len(data):
                shorter = data[:at] + data[at + size :]
                if self._takes(shorter, wanted):
                    data = shorter
                else:
                    at += size
            size //= 2
        return data


def try_blindly(target: Target, inputs: int, seed: int, sizes: Sequence[int] = SIZES) -> None:
    """Give a target random inputs of these sizes, as where no branches are counted. Raises Found."""
    mutator = Mutator(random.Random(seed), (), sizes)
    with bounded():
        for _ in range(inputs):
            run_one(target, mutator.fresh())


# --- Files ------------------------------------------------------------------------------------------------


def pack(inputs: Sequence[bytes]) -> bytes:
    """Inputs as the file of a corpus has them."""
    return zlib.compress(b"".join(_LENGTH.pack(len(one)) + one for one in inputs), 9)


def unpack(data: bytes) -> list[bytes]:
    """The inputs in such a file."""
    left, found = zlib.decompress(data), []
    while left:
        (length,) = _LENGTH.unpack_from(left)
        found.append(left[_LENGTH.size : _LENGTH.size + length])
        left = left[_LENGTH.size + length :]
    return found
