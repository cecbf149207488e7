"""Compressed images: what a file is made of comes out first, whatever kind of image that is.

Distributions compress kernels (`xen-4.20.gz`, `kernel.xz`). The result is bounded: a file that grows beyond
what an image may be is refused before it takes more of the host's memory. One layer is taken off; an image
compressed twice is somebody's mistake.

Each format allows several members (streams, frames) one behind the other, which mean their contents in
sequence: parallel compressors make such files. Zeros may be behind a member. Anything else there is refused,
so that no byte of a file is passed over.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from kvmbox.base.errors import ImageError
from kvmbox.base.layout import KIB, MIB
from kvmbox.base.value_classes import Value
from kvmbox.boot.image import MAX_FILE_SIZE, GuestImage

_STEP: Final = 4 * MIB
_BITE: Final = 64 * KIB  # what is given at once: a member's end costs a copy of what is left of it
_ZEROS: Final = re.compile(rb"\0*")
MOST_MEMBERS: Final = 1 << 14
"""How many members a file may have: more than 512 MiB have in pieces of 64 KiB."""

_AGAIN: Final = "build or copy it again"


class Decompressor(Protocol):
    """What bz2, lzma and zstd have in common."""

    @property
    def eof(self) -> bool:
        """Whether the end of the compressed data was reached."""
        ...

    @property
    def needs_input(self) -> bool:
        """Whether there is no output left in what was given."""
        ...

    @property
    def unused_data(self) -> bytes:
        """At the end: what was given and is behind it."""
        ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """At most `max_length` bytes more."""
        ...


class _Gzip:
    """zlib's object in the same shape."""

    needs_input: bool = True

    def __init__(self) -> None:
        import zlib

        self._inner = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        pending = self._inner.unconsumed_tail + data
        made = self._inner.decompress(pending, max_length)
        self.needs_input = not made and not self._inner.unconsumed_tail
        return made


def _xz() -> Decompressor:
    import lzma

    # Of memory, so that a header cannot ask for more: xz -9 takes 65 MiB.
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=256 * MIB)


def _bzip2() -> Decompressor:
    import bz2

    return bz2.BZ2Decompressor()


def _zstd() -> Decompressor:
    from importlib import import_module

    # One name only: a module that is missing is looked for on disk anew, for each of many members.
    name = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    made: Decompressor = import_module(name).ZstdDecompressor()
    return made


class _Kind(Value):
    """A format: what a member starts with, its name, a command, and the decompressor of a member."""

    start: re.Pattern[bytes]
    name: str
    command: str
    make: Callable[[], Decompressor]


_KINDS: Final = (
    _Kind(re.compile(rb"\x1f\x8b"), "gzip", "gunzip", _Gzip),  # RFC 1952
    _Kind(re.compile(rb"\xfd7zXZ\0"), "xz", "unxz", _xz),  # .xz file format 1.2.1
    # RFC 8878: a frame, or one to skip, which parallel compressors put first.
    _Kind(re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"), "zstd", "unzstd", _zstd),
    _Kind(re.compile(rb"BZh"), "bzip2", "bunzip2", _bzip2),
)


def _kind_of(data: bytes) -> _Kind | None:
    return next((kind for kind in _KINDS if kind.start.match(data)), None)


def compression_of(data: bytes) -> str | None:
    """The name of what `data` is compressed with, None if it is not, as far as kvmbox knows."""
    kind = _kind_of(data)
    return None if kind is None else kind.name


def decompressed(image: GuestImage, *, max_size: int = MAX_FILE_SIZE) -> GuestImage:
    """The image in a compressed file; any other image as it is.

    ImageError if the file is damaged, more than `max_size` bytes come out, or there is no library for zstd.
    """
    kind = _kind_of(image.data)
    return image if kind is None else GuestImage(image.path, _unpack(image, kind, max_size))


def _unpack(image: GuestImage, kind: _Kind, max_size: int) -> bytes:
    what = f"it is {kind.name}-compressed, and"
    blocks: list[bytes] = []
    size = 0
    try:
        for block in _contents(image, kind):
            size += len(block)
            if size > max_size:
                raise image.error(
                    f"{what} more than the {max_size} bytes allowed come out",
                    hint="strip debug information from the image",
                )
            blocks.append(block)
    except ImageError:
        raise
    except ImportError as error:
        raise image.error(
            f"{what} this Python has no {kind.name}",
            hint=f"pip install 'kvmbox[{kind.name}]', or decompress it first, with {kind.command}",
        ) from error
    except EOFError as error:
        raise image.error(f"{what} cut short", hint=_AGAIN) from error
    except MemoryError as error:
        raise image.error(f"{what} takes more memory than there is") from error
    except Exception as error:  # each library has its own class for damaged data
        raise image.error(f"{what} damaged: {error}", hint=_AGAIN) from error
    return b"".join(blocks)


def _contents(image: GuestImage, kind: _Kind) -> Iterator[bytes]:
    """The contents of all members, in blocks.

    Raises ImageError, ImportError without the library, EOFError for what is cut short, and its own exception
    for damaged data.
    """
    data, position = image.data, 0
    for _ in range(MOST_MEMBERS):
        member = kind.make()
        while not member.eof:
            given = b""
            if member.needs_input:
                given = data[position : position + _BITE]
                if not given:
                    raise EOFError
                position += len(given)
            yield member.decompress(given, _STEP)
        position -= len(member.unused_data)
        position = _end_of_zeros(data, position)
        if position == len(data):
            return
        if not kind.start.match(data, position):
            raise image.error(
                f"it is {kind.name}-compressed, and the {len(data) - position} bytes behind the end of the"
                " compressed data are something else",
                hint=f"cut them off, or decompress it first, with {kind.command}",
            )
    raise image.error(
        f"it is {kind.name}-compressed, in more than {MOST_MEMBERS} members",
        hint=f"decompress it first, with {kind.command}",
    )


def _end_of_zeros(data: bytes, position: int) -> int:
    found = _ZEROS.match(data, position)
    assert found is not None
    return found.end()
