"""Chance that is the same in every run."""

from __future__ import annotations

from kvmbox.parts.inject import chance


def test_number_is_that_of_splitmix64() -> None:
    # The first numbers for the seed 1234567, as the authors' reference implementation gives them.
    assert [chance.number(1234567, index) for index in range(3)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_key_tells_seeds_devices_and_faults_apart() -> None:
    keys = {
        chance.key_of(seed, device, fault)
        for seed in (0, 1, (1 << 64) - 1)
        for device in ("COM1", "COM2", "RTC")
        for fault in ("drop-irq", "delay-irq", "all-ones")
    }
    assert len(keys) == 27


def test_events_are_hit_as_often_as_was_asked() -> None:
    for probability in (0.0, 0.01, 0.25, 1.0):
        key, limit = chance.key_of(7, "COM1", "drop-irq"), chance.threshold(probability)
        hits = sum(chance.number(key, index) < limit for index in range(20_000))
        assert abs(hits - 20_000 * probability) <= 200
    assert chance.threshold(1.0) == chance.CERTAIN
