"""After files: read, write, list, look, delete; files that exist in memory only; descriptors left open."""

from __future__ import annotations

import os

from kvmbox.tools.audit.attacks import syscalls
from kvmbox.tools.audit.payload_frames import Stopped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

FIRST_BYTES: Final = 1024
LISTING: Final = 4096
STAT_SIZE: Final = 144
STAT_LENGTH_OFFSET: Final = 48
DESCRIPTORS: Final = range(64)
EBADF: Final = 9


def read_file(given: dict[str, str]) -> bytes:
    """The first bytes of a file."""
    return syscalls.read_some(syscalls.open_file(given["path"]), FIRST_BYTES)


def read_by_handle(given: dict[str, str]) -> bytes:
    """The same by its file handle, which leads to any file of a file system, whatever the root directory."""
    syscalls.tried("chdir", syscalls.text(given["directory"]))  # to that file system, if that is possible
    return syscalls.read_some(syscalls.open_handle(syscalls.AT_FDCWD, given["handle"]), FIRST_BYTES)


def open_device(given: dict[str, str]) -> None:
    """Open a device for reading and writing, and leave it alone."""
    syscalls.open_file(given["path"], os.O_RDWR)


def create_file(given: dict[str, str]) -> None:
    """A new file with a text in it."""
    descriptor = syscalls.open_file(given["path"], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    syscalls.write_all(descriptor, given["text"].encode())


def list_directory(given: dict[str, str]) -> bytes:
    """The names in a directory."""
    descriptor = syscalls.open_file(given["path"], os.O_DIRECTORY)
    buffer = syscalls.space(LISTING)
    # SAFETY: the kernel writes at most LISTING bytes into a buffer of that size.
    length = syscalls.attempt("getdents64", descriptor, buffer, LISTING)
    return b"found" if given["name"].encode() in buffer.raw[:length] else b""


def look_at_file(given: dict[str, str]) -> bytes:
    """The size of a file, which takes no right to read it."""
    status = syscalls.space(STAT_SIZE)
    # SAFETY: a C string and a buffer of sizeof(struct stat).
    syscalls.attempt("newfstatat", syscalls.AT_FDCWD, syscalls.text(given["path"]), status, 0)
    return b"%d" % int.from_bytes(status.raw[STAT_LENGTH_OFFSET : STAT_LENGTH_OFFSET + 8], "little")


def delete_file(given: dict[str, str]) -> None:
    """Unlink a file."""
    syscalls.attempt("unlink", syscalls.text(given["path"]))


def memory_file(_given: dict[str, str]) -> None:
    """A file in memory, and something in it."""
    syscalls.write_all(syscalls.attempt("memfd_create", syscalls.text("audit"), 0), b"!")


def other_descriptors(given: dict[str, str]) -> bytes:
    """Write to every descriptor that is not the channel's; how many of them took it is the evidence."""
    kept = {int(number) for number in given["channel"].split(",")}
    taken = 0
    last = EBADF
    for descriptor in DESCRIPTORS:
        if descriptor in kept:
            continue
        try:
            syscalls.write_all(descriptor, b"!")
            taken += 1
        except Stopped as stopped:
            last = stopped.number
    if not taken:
        raise Stopped("write", last)
    return b"%d" % taken
