"""The hint for an error that brings none: what helps against most errors of its kind."""

from __future__ import annotations

import errno
import os
import sys
from typing import Final

from kvmbox.base import errors

_OF_SYSTEM_CALLS: Final = {
    errno.ENOENT: "check the path",
    errno.EACCES: "check the permissions of the file and of the directories above it",
    errno.EPERM: "check the permissions of the file and of the directories above it",
    errno.EROFS: "the file system is read-only: choose another directory",
    errno.EEXIST: "choose another name, or remove what stands there",
    errno.EISDIR: "name a file, not a directory",
    errno.ENOTDIR: "check the path: a part of it is no directory",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.ENOSPC: "make room on the disk, or choose another directory",
    errno.EDQUOT: "make room on the disk, or choose another directory",
    errno.EFBIG: "raise the limit of the size of files: 'ulimit -f'",
    errno.EMFILE: "raise the limit of open files: 'ulimit -n'",
    errno.ENOMEM: "make memory free, or raise its limit: 'ulimit -v'",
    errno.ENXIO: "start its reader first",
    errno.EAGAIN: "the limit of processes may be reached: look at ulimit -u and at pids.max of the cgroup",
}
_OF_ALL_KINDS: Final = (errno.EMFILE, errno.ENOMEM, errno.EAGAIN)
"""Limits of this process, which no check of the host sees."""

_OF_KINDS: Final = (
    (errors.UsageError, "try '{} --help'"),
    (errors.RecordingError, "record the run again: 'kvmbox run GUEST --record FILE'"),
    (errors.SnapshotFileError, "take the snapshot again: 'kvmbox run GUEST --snapshot-when TEXT=FILE'"),
    ((errors.KvmError, errors.SandboxError), "'kvmbox doctor' checks this host"),
    (errors.StartError, "try '{} --help'"),
)


def advice(error: errors.KvmboxError) -> str | None:
    """What to do about it, if something helps."""
    cause = error.__cause__
    words = next((words for kind, words in _OF_KINDS if isinstance(error, kind)), None)
    of_host = isinstance(error, errors.KvmError | errors.SandboxError)
    if isinstance(cause, OSError) and (not of_host or cause.errno in _OF_ALL_KINDS):
        words = _OF_SYSTEM_CALLS.get(cause.errno or 0, words)
        if cause.errno == errno.ENOENT and not has_directory():
            return "the working directory was removed: cd to another one first"
    return words and words.format(" ".join(("kvmbox", *filter(str.isalpha, sys.argv[1:2]))))


def has_directory() -> bool:
    """Whether the working directory still exists: without one, no relative path means anything."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True
