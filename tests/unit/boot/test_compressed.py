"""Compressed images: what comes out, what is refused, and that a bomb takes no more than it may."""

from __future__ import annotations

import bz2
import gzip
import importlib
import lzma
from collections.abc import Callable

import pytest

from kvmbox.base import layout
from kvmbox.base.errors import ImageError
from kvmbox.boot.compressed import MOST_MEMBERS, compression_of, decompressed
from kvmbox.boot.image import GuestImage
from tests.support.boot_images import elf

DATA = elf() + bytes(range(256)) * 4096


def _zstd(data: bytes) -> bytes:
    try:
        library = importlib.import_module("compression.zstd")
    except ImportError:
        library = importlib.import_module("backports.zstd")
    made: bytes = library.compress(data)
    return made


KINDS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("xz", lzma.compress),
    ("bzip2", bz2.compress),
    ("zstd", _zstd),
]


def refusal(data: bytes, max_size: int = layout.MIB * 64) -> str:
    with pytest.raises(ImageError) as caught:
        decompressed(GuestImage("kernel", data), max_size=max_size)
    assert caught.value.hint
    return str(caught.value)


@pytest.mark.parametrize(("name", "compress"), KINDS)
def test_what_was_compressed_comes_out_and_keeps_its_name(
    name: str, compress: Callable[[bytes], bytes]
) -> None:
    data = compress(DATA)

    assert compression_of(data) == name
    assert decompressed(GuestImage("/x/kernel", data)) == GuestImage("/x/kernel", DATA)


def test_image_that_is_not_compressed_stays_what_it_is() -> None:
    image = GuestImage("kernel", DATA)

    assert compression_of(DATA) is None
    assert decompressed(image) is image


@pytest.mark.parametrize(("name", "compress"), KINDS)
def test_file_cut_anywhere_is_refused(name: str, compress: Callable[[bytes], bytes]) -> None:
    data = compress(DATA)

    for size in (*range(7, 40), len(data) // 2, len(data) - 1):
        message = refusal(data[:size])
        assert f"it is {name}-compressed, and" in message
        assert "cut short" in message or "damaged" in message


@pytest.mark.parametrize(("name", "compress"), KINDS[:3])
def test_damaged_file_is_refused(name: str, compress: Callable[[bytes], bytes]) -> None:
    data = bytearray(compress(bytes(range(256))))
    data[-6] ^= 0xFF  # the length or the checksum

    assert f"{name}-compressed, and damaged" in refusal(bytes(data))


@pytest.mark.parametrize(("name", "compress"), KINDS)
def test_bomb_is_refused_at_its_bound(name: str, compress: Callable[[bytes], bytes]) -> None:
    data = compress(bytes(layout.MIB))

    assert len(decompressed(GuestImage("k", data), max_size=layout.MIB).data) == layout.MIB
    assert "more than the 1048575 bytes allowed" in refusal(data, layout.MIB - 1)


@pytest.mark.parametrize("padding", [b"", bytes(4), bytes(70_000)], ids=["", "4 zeros", "70,000 zeros"])
@pytest.mark.parametrize(("name", "compress"), KINDS)
def test_all_members_of_a_file_come_out(
    name: str, compress: Callable[[bytes], bytes], padding: bytes
) -> None:
    pieces = [DATA[:100], b"", DATA[100:200_000], DATA[200_000:]]
    data = b"".join(compress(piece) + padding for piece in pieces)

    assert decompressed(GuestImage("kernel", data)) == GuestImage("kernel", DATA)


def test_zstd_frames_that_are_to_be_skipped_are_skipped() -> None:
    skipped = b"\x5f\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"12345"
    data = skipped + _zstd(DATA[:100]) + skipped + _zstd(DATA[100:]) + skipped

    assert compression_of(data) == "zstd"
    assert decompressed(GuestImage("kernel", data)).data == DATA


@pytest.mark.parametrize("behind", [b"\0\0x", b"BZ", b"signature" * 20_000], ids=["x", "BZ", "much"])
@pytest.mark.parametrize(("name", "compress"), KINDS)
def test_what_is_behind_the_members_and_is_none_is_refused(
    name: str, compress: Callable[[bytes], bytes], behind: bytes
) -> None:
    message = refusal(compress(DATA[:5]) + compress(DATA[5:]) + behind)

    assert f"it is {name}-compressed, and the {len(behind.lstrip(bytes(1)))} bytes behind the end" in message


@pytest.mark.parametrize(("name", "compress"), KINDS)
def test_second_member_is_checked_and_counted_like_the_first(
    name: str, compress: Callable[[bytes], bytes]
) -> None:
    first, second = compress(b"first"), compress(bytes(layout.MIB))

    assert f"it is {name}-compressed, and" in refusal(first + second[:-1])
    assert "more than the 1048576 bytes allowed" in refusal(first + second, layout.MIB)


@pytest.mark.parametrize(("name", "compress"), KINDS)
def test_number_of_members_is_bounded(name: str, compress: Callable[[bytes], bytes]) -> None:
    data = compress(b"") * (MOST_MEMBERS + 1)

    assert f"it is {name}-compressed, in more than {MOST_MEMBERS} members" in refusal(data)


def test_missing_library_is_named_with_two_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    data = _zstd(DATA)
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ImageError, match="this Python has no zstd") as caught:
        decompressed(GuestImage("k", data))
    assert caught.value.hint == "pip install 'kvmbox[zstd]', or decompress it first, with unzstd"
