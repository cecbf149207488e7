"""Guest images and modules as bytes, and the one way in which they are read from the host.

An image is read once, whole, into private memory: what was checked is what is loaded, also after a
reboot of the guest, whatever happens to the file meanwhile.
"""

from __future__ import annotations

import os
import stat
from typing import Final

from kvmbox.base import layout
from kvmbox.base.errors import ImageError
from kvmbox.base.value_classes import Value

# Far above any kernel with debug information, far below what would hurt the host.
MAX_FILE_SIZE: Final = 512 * layout.MIB

MAX_WHOLE: Final = 64 * layout.MIB
"""The largest disk that is read as a whole."""
HEAD_SIZE: Final = layout.MIB
"""How much is read of a larger one."""

ACCEPTED: Final = (
    "accepted are x86 ELF32 and ELF64 executables, Multiboot, PVH and Linux kernels, CDs, boot sectors, and"
    " flat 16-bit images with --boot real"
)


def printable(text: str) -> str:
    """`text` fit for a one-line message: whatever would move a terminal's cursor becomes '?'."""
    return "".join(character if character.isprintable() else "?" for character in text)


class GuestImage(Value):
    """A guest's image file: the path it was named by, and its bytes.

    Of a large disk `data` has the beginning only, and `file_size` is the size of the file. `pieces` keeps
    what was read behind: a VMM that has confined itself opens no file when the guest boots again.
    """

    path: str
    data: bytes
    file_size: int = 0
    pieces: dict[tuple[int, int], bytes] | None = None

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return self.file_size or len(self.data)

    def read(self, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset`, also behind `data`. Raises ImageError."""
        if offset + size <= len(self.data) or self.pieces is None:
            return self.data[offset : offset + size]
        if (offset, size) not in self.pieces:
            try:
                with open(self.path, "rb") as file:
                    file.seek(offset)
                    self.pieces[offset, size] = file.read(size)
            except OSError as error:
                raise ImageError(f"cannot read '{printable(self.path)}': {error.strerror}") from error
        return self.pieces[offset, size]

    @property
    def name(self) -> str:
        """The file's name without its directories: all that a guest is told about the host's files."""
        return os.path.basename(self.path)

    def error(self, found: str, *, hint: str | None = None) -> ImageError:
        """The ImageError that says why this image cannot be booted; for the caller to raise."""
        return ImageError(f"cannot boot '{printable(self.path)}': {found}", hint=hint)


class Module(Value):
    """A Multiboot module: a name for its string, its bytes, and arguments that follow the name."""

    name: str
    data: bytes
    arguments: str = ""


def read_image(path: str, *, max_size: int = MAX_FILE_SIZE) -> GuestImage:
    """The image in the file at `path`, at most `max_size` bytes long; ImageError if it cannot be had."""
    return GuestImage(path, _read_file(path, max_size, is_guest=True))


def read_head(path: str) -> GuestImage | None:
    """The beginning of a file that is too large to be read as a whole, if it is one. Raises ImageError."""
    try:
        status = os.stat(path)
        if status.st_size <= MAX_WHOLE or not stat.S_ISREG(status.st_mode):
            return None
        with open(path, "rb", buffering=0) as file:
            return GuestImage(path, file.read(HEAD_SIZE), status.st_size, {})
    except (OSError, ValueError):
        return None  # whoever reads it as a whole says why that cannot be


def read_module(path: str, arguments: str = "", *, max_size: int = MAX_FILE_SIZE) -> Module:
    """The module in the file at `path`; ImageError if it cannot be had."""
    return Module(os.path.basename(path), _read_file(path, max_size), arguments)


def _unread(path: str, why: str, hint: str | None = None) -> ImageError:
    return ImageError(f"cannot read '{printable(path)}': {why}", hint=hint)


def _check_file(path: str, status: os.stat_result, max_size: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        from kvmbox.base.regular_file import refusal

        words = str(refusal(status))
        hint = "name a file in it" if "directory" in words else "copy it to a file first, and name that"
        raise _unread(path, words, hint)
    if status.st_size > max_size:
        why = f"its {status.st_size} bytes are more than the {max_size} allowed"
        raise _unread(path, why, "strip debug information from the image, or split the module")


def _read_file(path: str, max_size: int, *, is_guest: bool = False) -> bytes:
    """`is_guest`: the name could be that of a bundled guest."""
    try:
        # Opening a device may already do something (rewind a tape, arm a watchdog), so look first; the
        # descriptor is looked at again, because the name may mean something else by then. O_NONBLOCK
        # keeps a FIFO that slips in between from blocking the open.
        _check_file(path, os.stat(path), max_size)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with open(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            _check_file(path, status, max_size)
            return _read_exactly(path, file.fileno(), status.st_size)
    except FileNotFoundError as error:
        os.getcwd()  # where the working directory was removed, this says so
        from kvmbox.boot.unknown_guest import advice

        raise _unread(path, "no such file", advice(path) if is_guest else "check the path") from error
    except PermissionError as error:
        hint = "make the file readable and its directories searchable for this user"
        raise _unread(path, "permission denied", hint) from error
    except OSError as error:
        raise _unread(path, str(error.strerror)) from error
    except ValueError as error:  # a NUL in the path; nothing else here raises it
        raise _unread(path, "the path holds a NUL or cannot be encoded") from error


def _read_exactly(path: str, descriptor: int, size: int) -> bytes:
    """`size` bytes: a file that grows is cut there, one that shrinks is an error."""
    blocks: list[bytes] = []
    missing = size
    while missing:
        block = os.read(descriptor, missing)
        if not block:
            why = f"it shrank from {size} to {size - missing} bytes meanwhile"
            raise _unread(path, why, "wait until the build has finished writing it")
        blocks.append(block)
        missing -= len(block)
    return b"".join(blocks)
