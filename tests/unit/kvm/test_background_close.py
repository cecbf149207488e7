"""What is abandoned ends, as what is closed does; the caller does not wait for that."""

from __future__ import annotations

import os
import resource
import select

from kvmbox.kvm.background_close import abandon


def _descriptors() -> set[int]:
    return {number for number in range(4096) if _is_open(number)}


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_abandoned_descriptor_ends_and_no_other_is_left() -> None:
    before = _descriptors()
    reader, writer = os.pipe()

    abandon(writer)

    assert _descriptors() == before | {reader}
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    assert poll.poll(10_000) == [(reader, select.POLLHUP)]  # the kernel has found the loop
    os.close(reader)


def test_other_holders_of_an_abandoned_file_keep_it() -> None:
    reader, writer = os.pipe()
    other = os.dup(writer)

    abandon(writer)

    os.write(other, b"still here")
    assert os.read(reader, 100) == b"still here"
    os.close(reader)
    os.close(other)


def test_without_a_free_descriptor_it_is_closed() -> None:
    reader, writer = os.pipe()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        abandon(writer)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    assert os.read(reader, 1) == b""  # at once
    os.close(reader)
