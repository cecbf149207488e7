"""After files: read, write, list, look, delete; files that exist in memory only; descriptors left open."""

from __future__ import annotations

from kvmbox.jail import linux
from kvmbox.tools.audit.attacks.syscalls import (
    AT_FDCWD,
    NUMBERS,
    O_CREAT,
    O_DIRECTORY,
    O_EXCL,
    O_RDWR,
    O_WRONLY,
    address,
    attempt,
    filled,
    open_file,
    open_handle,
    read_some,
    space,
    text,
    write_all,
)
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
    return read_some(open_file(given["path"]), FIRST_BYTES)


def read_by_handle(given: dict[str, str]) -> bytes:
    """The same by its file handle, which leads to any file of a file system, whatever the root directory."""
    directory = text(given["directory"])
    linux.raw_syscall(NUMBERS["chdir"], address(directory))  # to that file system, if that is possible
    return read_some(open_handle(AT_FDCWD, given["handle"]), FIRST_BYTES)


def open_device(given: dict[str, str]) -> None:
    """Open a device for reading and writing, and leave it alone."""
    open_file(given["path"], O_RDWR)


def create_file(given: dict[str, str]) -> None:
    """A new file with a text in it."""
    descriptor = open_file(given["path"], O_WRONLY | O_CREAT | O_EXCL, 0o600)
    write_all(descriptor, given["text"].encode())


def list_directory(given: dict[str, str]) -> bytes:
    """The names in a directory."""
    descriptor = open_file(given["path"], O_DIRECTORY)
    buffer = space(LISTING)
    # SAFETY: the kernel writes at most LISTING bytes into a buffer of that size.
    length = attempt("getdents64", descriptor, address(buffer), LISTING)
    return b"found" if given["name"].encode() in buffer.raw[:length] else b""


def look_at_file(given: dict[str, str]) -> bytes:
    """The size of a file, which takes no right to read it."""
    path, status = text(given["path"]), space(STAT_SIZE)
    # SAFETY: a C string and a buffer of sizeof(struct stat), both alive during the call.
    attempt("newfstatat", AT_FDCWD, address(path), address(status), 0)
    return b"%d" % int.from_bytes(status.raw[STAT_LENGTH_OFFSET : STAT_LENGTH_OFFSET + 8], "little")


def delete_file(given: dict[str, str]) -> None:
    """Unlink a file."""
    path = text(given["path"])
    # SAFETY: the kernel reads a C string that outlives the call.
    attempt("unlink", address(path))


def memory_file(_given: dict[str, str]) -> None:
    """A file in memory, and something in it."""
    name = text("audit")
    # SAFETY: as above.
    write_all(attempt("memfd_create", address(name), 0), b"!")


def other_descriptors(given: dict[str, str]) -> bytes:
    """Write to every descriptor that is not the channel's; how many of them took it is the evidence."""
    kept = {int(number) for number in given["channel"].split(",")}
    byte = filled(b"!")
    taken = 0
    last = EBADF
    for descriptor in DESCRIPTORS:
        if descriptor in kept:
            continue
        try:
            # SAFETY: the kernel reads one byte of a buffer that outlives the call.
            attempt("write", descriptor, address(byte), 1)
            taken += 1
        except Stopped as stopped:
            last = stopped.number
    if not taken:
        raise Stopped("write", last)
    return b"%d" % taken
