"""Which queues are walked when, and a state that can be restored whenever it is taken."""

from __future__ import annotations

from kvmbox.remote.published.queue_walks import QueueWalks


def test_walk_without_room_waits_for_a_chain_that_goes_back() -> None:
    walks = QueueWalks(2)
    walks.want(1, 4)
    assert walks.notified(1)
    assert walks.next([0, 8], 8) is None
    walks.given_back(1)
    assert walks.next([0, 7], 8) == (1, 1)


def test_state_of_a_queue_that_waits_and_was_notified_again_can_be_restored() -> None:
    walks = QueueWalks(2)
    walks.want(0, 4)
    walks.notified(0)
    assert walks.next([8, 0], 8) is None  # no room
    walks.notified(0)

    other = QueueWalks(2)
    other.restore(walks.state())
    assert other.next([0, 0], 8) == (0, 4)
