"""Compressed images: what a file is made of comes out first, whatever kind of image that is.

Distributions compress kernels (`xen-4.20.gz`, `kernel.xz`). The result is bounded: a file that grows beyond
what an image may be is refused before it takes more of the host's memory. One layer is taken off; an image
compressed twice is somebody's mistake.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from kvmbox.boot.image import MAX_FILE_SIZE, GuestImage
from kvmbox.errors import ImageError
from kvmbox.layout import MIB

_STEP: Final = 4 * MIB
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

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """At most `max_length` bytes more."""
        ...


class _Gzip:
    """zlib's object in the same shape."""

    needs_input: bool = False

    def __init__(self) -> None:
        import zlib

        self._inner = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        pending = self._inner.unconsumed_tail + data
        made = self._inner.decompress(pending, max_length)
        self.needs_input = not made and not self._inner.unconsumed_tail
        return made


def _xz() -> Decompressor:
    import lzma

    # Of memory, so that a header cannot ask for more: xz -9 takes 65 MiB.
    return lzma.LZMADecompressor(memlimit=256 * MIB)


def _bzip2() -> Decompressor:
    import bz2

    return bz2.BZ2Decompressor()


def _zstd() -> Decompressor:
    from importlib import import_module

    last: ImportError | None = None
    for name in ("compression.zstd", "backports.zstd"):  # the first is Python 3.14's own
        try:
            made: Decompressor = import_module(name).ZstdDecompressor()
        except ImportError as error:
            last = error
        else:
            return made
    assert last is not None
    raise last


_KINDS: Final[tuple[tuple[bytes, str, str, Callable[[], Decompressor]], ...]] = (
    (b"\x1f\x8b", "gzip", "gunzip", _Gzip),  # RFC 1952
    (b"\xfd7zXZ\0", "xz", "unxz", _xz),  # .xz file format 1.2.1
    (b"\x28\xb5\x2f\xfd", "zstd", "unzstd", _zstd),  # RFC 8878
    (b"BZh", "bzip2", "bunzip2", _bzip2),
)


def compression_of(data: bytes) -> str | None:
    """The name of what `data` is compressed with, None if it is not, as far as kvmbox knows."""
    for magic, name, _, _ in _KINDS:
        if data.startswith(magic):
            return name
    return None


def decompressed(image: GuestImage, *, max_size: int = MAX_FILE_SIZE) -> GuestImage:
    """The image in a compressed file; any other image as it is.

    ImageError if the file is damaged, more than `max_size` bytes come out, or there is no library for zstd.
    """
    for magic, name, command, make in _KINDS:
        if image.data.startswith(magic):
            return GuestImage(image.path, _unpack(image, name, command, make, max_size))
    return image


def _unpack(
    image: GuestImage, name: str, command: str, make: Callable[[], Decompressor], max_size: int
) -> bytes:
    try:
        inner = make()
    except ImportError as error:
        raise image.error(
            f"it is {name}-compressed, and this Python has no {name}",
            hint=f"pip install 'kvmbox[{name}]', or decompress it first, with {command}",
        ) from error
    blocks: list[bytes] = []
    size = 0
    given = image.data
    try:
        while True:
            block = inner.decompress(given, _STEP)
            given = b""
            size += len(block)
            if size > max_size:
                raise image.error(
                    f"it is {name}-compressed, and more than the {max_size} bytes allowed come out",
                    hint="strip debug information from the image",
                )
            blocks.append(block)
            if inner.eof:
                break
            if not block and inner.needs_input:
                raise image.error(f"it is {name}-compressed, and cut short", hint=_AGAIN)
    except ImageError:
        raise
    except MemoryError as error:
        raise image.error(f"it is {name}-compressed, and takes more memory than there is") from error
    except Exception as error:  # each library has its own class for damaged data
        raise _damaged(image, name, error) from error
    return b"".join(blocks)


def _damaged(image: GuestImage, name: str, error: Any) -> ImageError:
    return image.error(f"it is {name}-compressed, and damaged: {error}", hint=_AGAIN)
