"""The map of a qcow2 image: what is answered, what is refused, and that no image makes it raise."""

from __future__ import annotations

import random
import struct

import pytest

from kvmbox.contract.model import SnapshotError
from kvmbox.devices.qcow2.model import (
    DATA,
    MAP,
    MAP_FRAME,
    MAPPED,
    MOST_WANTED,
    MOST_WANTS,
    MOST_WORDS,
    OPEN,
    OPEN_FRAME,
    OPENED,
    OPENED_FRAME,
    RANGE,
    REFUSED,
    UNALLOCATED,
    WANT,
    WANT_FRAME,
    ZEROS,
    Qcow2,
)
from tests.support.qcow2_images import ZERO_CLUSTER, Asked, qcow2

CLUSTER = 512
SIZE = 300 * CLUSTER  # five L2 tables of 64 entries


def dialogue(asked: Asked, image: bytes, frame: bytes) -> bytes:
    """The answer to a question about `image`."""
    answer = asked(frame)
    for _ in range(MOST_WANTS):
        if answer[0] != WANT:
            break
        _, place, size = WANT_FRAME.unpack(answer)
        assert 0 < size <= MOST_WANTED
        answer = asked(bytes((DATA,)) + image[place : place + size].ljust(size, b"\0"))
    assert answer[0] in (OPENED, MAPPED, REFUSED)
    return answer


def opening(image: bytes, asked: Asked | None = None) -> bytes:
    return dialogue(asked or Asked(), image, OPEN_FRAME.pack(OPEN, len(image)))


def ranges(image: bytes, offset: int, size: int) -> list[tuple[int, int]]:
    asked = Asked()
    assert opening(image, asked)[0] == OPENED
    answer = dialogue(asked, image, MAP_FRAME.pack(MAP, offset, size))
    assert answer[0] == MAPPED, answer
    return list(RANGE.iter_unpack(answer[1:]))


def refusal(answer: bytes) -> str:
    assert answer[0] == REFUSED, answer
    assert len(answer) <= 1 + MOST_WORDS
    return answer[1:].decode("ascii")


@pytest.mark.parametrize(("version", "backing"), [(2, 0), (3, 0), (3, 200)])
def test_header_is_answered_with_size_and_clusters(version: int, backing: int) -> None:
    answer = opening(qcow2({}, size=SIZE, version=version, backing=backing))
    assert OPENED_FRAME.unpack(answer) == (OPENED, SIZE, 9, int(backing != 0))


def test_disk_without_an_l2_table_is_unallocated_up_to_the_end_of_the_table() -> None:
    assert ranges(qcow2({}, size=SIZE), 1000, 10 * CLUSTER) == [(UNALLOCATED, 10 * CLUSTER)]
    assert ranges(qcow2({}, size=SIZE), 63 * CLUSTER, 10 * CLUSTER) == [(UNALLOCATED, CLUSTER)]


def test_clusters_are_places_in_the_file_and_neighbours_are_joined() -> None:
    image = qcow2({0: b"a", 1: b"b", 3: ZERO_CLUSTER, 4: ZERO_CLUSTER, 5: b"c"}, size=SIZE)
    first = image.index(b"a" + bytes(511))
    assert ranges(image, 0, 7 * CLUSTER) == [
        (first, 2 * CLUSTER),
        (UNALLOCATED, CLUSTER),
        (ZEROS, 2 * CLUSTER),
        (first + 2 * CLUSTER, CLUSTER),
        (UNALLOCATED, CLUSTER),
    ]


def test_question_may_begin_and_end_within_clusters() -> None:
    image = qcow2({0: b"a", 1: b"b"}, size=SIZE)
    first = image.index(b"a" + bytes(511))
    assert ranges(image, 100, 500) == [(first + 100, 500)]
    assert ranges(image, 1000, 48) == [(first + 1000, 24), (UNALLOCATED, 24)]


def test_last_cluster_of_the_disk_is_in_the_last_table() -> None:
    image = qcow2({299: b"z"}, size=SIZE)
    assert ranges(image, 299 * CLUSTER, CLUSTER) == [(image.index(b"z" + bytes(511)), CLUSTER)]


def test_long_question_is_answered_in_part() -> None:
    image = qcow2({number: bytes((number,)) for number in range(0, 250, 2)}, size=4 << 20, bits=12)
    found = ranges(image, 0, 4 << 20)
    assert sum(size for _, size in found) == MOST_WANTED // 8 * 4096


@pytest.mark.parametrize(
    ("version", "encryption", "features", "words"),
    [
        (4, 0, 0, "version 4"),
        (3, 1, 0, "it is encrypted"),
        (2, 2, 0, "it is encrypted"),
        (3, 0, 2, "corrupt"),
        (3, 0, 4, "external file"),
        (3, 0, 16, "subclusters"),
        (3, 0, 1 << 40, "incompatible features 0x10000000000"),
    ],
)
def test_image_that_needs_more_is_refused_by_name(
    version: int, encryption: int, features: int, words: str
) -> None:
    image = qcow2({}, size=SIZE, version=version, encryption=encryption, features=features)
    assert words in refusal(opening(image))


@pytest.mark.parametrize("features", [1, 8, 9])
def test_dirty_bit_and_compression_type_are_no_reason_to_refuse(features: int) -> None:
    assert opening(qcow2({}, size=SIZE, features=features))[0] == OPENED


def patched(offset: int, data: bytes) -> bytes:
    image = bytearray(qcow2({0: b"a", 1: b"b"}, size=SIZE))
    image[offset : offset + len(data)] = data
    return bytes(image)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (b"", "no qcow2"),
        (b"QFI\xfa" + bytes(1000), "no qcow2"),
        (patched(20, struct.pack(">I", 8)), "1 << 8"),
        (patched(20, struct.pack(">I", 22)), "1 << 22"),
        (patched(20, struct.pack(">I", 0xFFFF_FFFF)), "1 << 4294967295"),
        (patched(24, struct.pack(">Q", 0)), "0 bytes"),
        (patched(24, struct.pack(">Q", SIZE + 1)), "bytes"),
        (patched(24, struct.pack(">Q", 1 << 63)), "bytes"),
        (patched(36, struct.pack(">I", 4)), "4 entries, too few"),
        (patched(40, struct.pack(">Q", 0)), "L1 table is at 0x0"),
        (patched(40, struct.pack(">Q", 513)), "L1 table is at 0x201"),
        (patched(40, struct.pack(">Q", 1 << 62)), "L1 table is at"),
    ],
)
def test_header_that_lies_is_refused(image: bytes, words: str) -> None:
    assert words in refusal(opening(image))


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (1 << 62 | 512, "compressed clusters"),
        (1 << 63 | 1 << 40, "damaged"),
        (1 << 63 | 512 | 2, "damaged"),
        (1 << 63 | 512 | 1 << 56, "damaged"),
    ],
)
def test_cluster_that_is_nowhere_is_refused_and_those_before_it_are_not(entry: int, words: str) -> None:
    image = qcow2({0: b"a"}, size=SIZE, entries={1: entry})
    first = image.index(b"a" + bytes(511))
    assert ranges(image, 0, 3 * CLUSTER) == [(first, CLUSTER)]
    asked = Asked()
    opening(image, asked)
    text = refusal(dialogue(asked, image, MAP_FRAME.pack(MAP, CLUSTER, CLUSTER)))
    assert words in text
    assert "at byte 512" in text


def test_zero_flag_of_an_old_image_is_damage() -> None:
    image = qcow2({0: ZERO_CLUSTER}, size=SIZE, version=2)
    asked = Asked()
    opening(image, asked)
    assert "damaged" in refusal(dialogue(asked, image, MAP_FRAME.pack(MAP, 0, CLUSTER)))


@pytest.mark.parametrize("entry", [1, 1 << 40, 1 << 56, 1 << 62])
def test_l1_entry_that_is_nowhere_is_refused(entry: int) -> None:
    image = patched(512, struct.pack(">Q", entry))
    asked = Asked()
    opening(image, asked)
    assert "L1 table is damaged" in refusal(dialogue(asked, image, MAP_FRAME.pack(MAP, 0, CLUSTER)))


@pytest.mark.parametrize(("offset", "size"), [(0, 0), (SIZE, 1), (SIZE - 1, 2), ((1 << 64) - 1, 1)])
def test_bytes_beyond_the_disk_are_refused(offset: int, size: int) -> None:
    image = qcow2({}, size=SIZE)
    asked = Asked()
    opening(image, asked)
    assert "no such bytes" in refusal(dialogue(asked, image, MAP_FRAME.pack(MAP, offset, size)))


def test_place_at_the_end_of_all_numbers_is_wanted_as_any_other() -> None:
    image = bytearray(qcow2({}, size=4 << 20))
    image[40:48] = struct.pack(">Q", (1 << 64) - 512)
    asked = Asked()
    if dialogue(asked, bytes(image), OPEN_FRAME.pack(OPEN, (1 << 64) - 1))[0] == OPENED:
        dialogue(asked, bytes(image), MAP_FRAME.pack(MAP, (4 << 20) - 512, 512))


def test_map_before_an_image_is_open_is_refused() -> None:
    assert "no such bytes" in refusal(Asked()(MAP_FRAME.pack(MAP, 0, 512)))


@pytest.mark.parametrize(
    "frame", [b"", b"\0", bytes((OPEN,)), bytes((MAP, 1)), bytes((DATA,)) + b"x" * 8, b"\xff"]
)
def test_nonsense_is_dropped(frame: bytes) -> None:
    assert Asked()(frame) == b""


def test_question_ends_the_one_before() -> None:
    image = qcow2({0: b"a"}, size=SIZE)
    asked = Asked()
    opening(image, asked)
    asked(MAP_FRAME.pack(MAP, 0, 512))
    assert dialogue(asked, image, MAP_FRAME.pack(MAP, CLUSTER, 512))[0] == MAPPED
    assert asked(bytes((DATA,)) + bytes(8)) == b""


def test_state_is_kept_between_any_two_frames() -> None:
    image = qcow2({0: b"a", 70: b"b"}, size=SIZE)
    questions = [OPEN_FRAME.pack(OPEN, len(image)), MAP_FRAME.pack(MAP, 70 * CLUSTER, 3000)]
    plain, moved = Asked(), Asked()
    for question in questions:
        frame = question
        while True:
            answer = plain(frame)
            other = Qcow2()
            other.restore(moved.model.snapshot())
            moved.model = other
            assert moved(frame) == answer
            if answer[0] != WANT:
                break
            _, place, size = WANT_FRAME.unpack(answer)
            frame = bytes((DATA,)) + image[place : place + size].ljust(size, b"\0")
    assert moved.model.snapshot() == plain.model.snapshot()


def test_reset_leaves_the_image_open() -> None:
    asked = Asked()
    opening(qcow2({}, size=SIZE), asked)
    before = asked.model.snapshot()
    asked.model.reset(5)
    assert asked.model.snapshot() == before


def test_snapshot_of_something_else_is_refused() -> None:
    chance = random.Random(4)
    model = Qcow2()
    good = model.snapshot()
    for state in (b"", good[:-1], good + b"x", b"XXXX" + good[4:]):
        with pytest.raises(SnapshotError):
            model.restore(state)
    refused = 0
    for _ in range(3000):
        changed = bytearray(good)
        for _ in range(3):
            changed[4 + chance.randrange(len(good) - 4)] = chance.randrange(256)
        try:
            model.restore(bytes(changed))
        except SnapshotError:
            refused += 1
            continue
        for frame in (bytes((DATA,)) + chance.randbytes(8), MAP_FRAME.pack(MAP, chance.getrandbits(9), 512)):
            model.receive(0, frame)
    assert 100 < refused < 3000


def test_hostile_images_are_answered_or_refused_within_two_wants() -> None:
    chance = random.Random(5)
    seed = qcow2({0: b"a", 1: ZERO_CLUSTER, 70: b"b", 299: b"c"}, size=SIZE)
    numbers = (0, 1, 2, 9, 21, 511, 512, 513, 1 << 31, 1 << 62, 1 << 63, (1 << 64) - 1)
    answered = 0
    for _ in range(5000):
        image = bytearray(seed)
        for _ in range(chance.randrange(1, 4)):
            width = chance.choice((1, 4, 8))
            place = chance.choice((0, 4, 20, 24, 32, 36, 40, 72, 512, 520, 552, 2048)) + chance.choice(
                (0, 0, 1)
            )
            value = chance.choice(numbers) & (1 << 8 * width) - 1
            image[place : place + width] = value.to_bytes(width, "big")
        asked = Asked()
        if opening(bytes(image), asked)[0] != OPENED:
            continue
        offset = chance.randrange(SIZE)
        answer = dialogue(asked, bytes(image), MAP_FRAME.pack(MAP, offset, chance.randrange(1, 0xFFFF)))
        if answer[0] == MAPPED:
            answered += 1
            for place, size in RANGE.iter_unpack(answer[1:]):
                assert size
                assert place in (ZEROS, UNALLOCATED) or place < len(image)
        else:
            assert refusal(answer).isprintable()
    assert answered > 500
