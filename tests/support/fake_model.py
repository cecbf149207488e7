"""A device model that does what a test says."""

from __future__ import annotations

from kvmbox.contract.model import Effect, SnapshotError


class FakeModel:
    """A model that notes its calls, and has what effects and deadline the test gives it."""

    def __init__(self, name: str = "fake") -> None:
        self.name = name
        self.calls: list[tuple[object, ...]] = []
        self.effects: list[Effect] = []
        self.deadline: int | None = None
        self.value = 0
        self.state = b"state"

    def read(self, now: int, offset: int, size: int) -> int:
        self.calls.append(("read", now, offset, size))
        return self.value

    def write(self, now: int, offset: int, size: int, value: int) -> None:
        self.calls.append(("write", now, offset, size, value))

    def advance(self, now: int) -> None:
        self.calls.append(("advance", now))

    def next_deadline(self) -> int | None:
        return self.deadline

    def receive(self, now: int, data: bytes) -> int:
        self.calls.append(("receive", now, data))
        return len(data) - 1

    def reset(self, now: int) -> None:
        self.calls.append(("reset", now))

    def take_effects(self) -> list[Effect]:
        effects, self.effects = self.effects, []
        return effects

    def snapshot(self) -> bytes:
        self.calls.append(("snapshot",))
        return self.state

    def restore(self, state: bytes) -> None:
        self.calls.append(("restore", len(state)))
        if state == b"bad":
            raise SnapshotError("not mine")
        self.state = state
