"""The queue of a pool: order, cancellation, the end."""

from __future__ import annotations

import math

import pytest

from kvmbox.tools.warm.pool import bounded
from kvmbox.tools.warm.waiting_orders import Job, JobQueue


def _queue(*orders: bytes) -> tuple[JobQueue, list[Job]]:
    queue = JobQueue()
    jobs = [Job(order, None, spawns=order != b"none") for order in orders]
    for job in jobs:
        queue.put(job)
    return queue, jobs


def test_jobs_are_taken_in_order_and_run_from_then_on() -> None:
    queue, jobs = _queue(b"1", b"2")

    assert queue.take() is jobs[0]
    assert jobs[0].future.running()
    assert not jobs[1].future.running()
    assert queue.take() is jobs[1]
    assert queue.take() is None


def test_cancelled_job_is_not_taken() -> None:
    queue, jobs = _queue(b"1", b"2")

    assert jobs[0].future.cancel()

    assert queue.take() is jobs[1]


def test_upcoming_tells_what_the_next_jobs_want() -> None:
    queue, _ = _queue(b"1", b"none", b"2")

    assert [job.spawns for job in queue.upcoming(2)] == [True, False]
    assert [job.spawns for job in queue.upcoming(9)] == [True, False, True]


def test_job_that_does_not_fit_stays_the_next_one() -> None:
    queue, jobs = _queue(b"1", b"2")

    assert queue.take(lambda job: job.order == b"2") is None
    assert not jobs[0].future.running()
    jobs[0].future.cancel()
    assert queue.take(lambda job: job.order == b"2") is jobs[1]


def test_job_that_is_given_back_is_the_next_one_and_runs_on() -> None:
    queue, jobs = _queue(b"1", b"2")
    job = queue.take()
    assert job is jobs[0]

    queue.give_back(job)

    assert job.future.running()
    assert queue.take() is job
    assert queue.take() is jobs[1]


@pytest.mark.parametrize("closes_first", [False, True])
def test_job_that_is_given_back_ends_with_the_pool(closes_first: bool) -> None:
    queue, _ = _queue(b"1")
    job = queue.take()
    assert job is not None

    if closes_first:
        queue.close(cancel=True)
    queue.give_back(job)
    if not closes_first:
        queue.close(cancel=True)

    assert queue.is_over
    assert job.future.result(timeout=0).lost


def test_job_is_likely_to_come_again_if_the_last_two_were_alike() -> None:
    queue, jobs = _queue(b"1", b"2", b"2")

    assert queue.likely is jobs[2]
    queue.put(Job(b"1", None, spawns=True))
    assert queue.likely is None


def test_no_job_is_likely_when_there_will_be_no_more() -> None:
    queue, _ = _queue(b"1", b"1")

    queue.close(cancel=False)

    assert queue.likely is None


def test_closed_queue_takes_none_and_is_over_when_it_is_empty() -> None:
    queue, jobs = _queue(b"1")

    queue.close(cancel=False)

    assert queue.is_closed
    assert not queue.is_over
    with pytest.raises(RuntimeError, match="the pool is closed"):
        queue.put(Job(b"2", None, spawns=True))
    assert queue.take() is jobs[0]
    assert queue.is_over


def test_cancelling_close_cancels_what_waits() -> None:
    queue, jobs = _queue(b"1", b"2")
    jobs[1].future.cancel()

    queue.close(cancel=True)

    assert queue.cancelled
    assert queue.is_over
    assert all(job.future.cancelled() for job in jobs)


def test_failed_jobs_say_why() -> None:
    queue, jobs = _queue(b"1", b"2")

    queue.fail_all("no reason", "a hint")

    for job in jobs:
        result = job.future.result(timeout=0)
        assert (result.status, result.reason, result.hint, result.lost) == (14, "no reason", "a hint", True)


@pytest.mark.parametrize(
    ("timeout", "minded"),
    [
        (5, 5),
        (0.5, 0.5),
        (1e300, None),
        (math.inf, None),
        (math.nan, None),
        (-1, None),
        ("5", None),
        (None, None),
    ],
)
def test_pool_minds_a_time_out_that_can_come(timeout: object, minded: float | None) -> None:
    assert bounded(timeout) == minded
