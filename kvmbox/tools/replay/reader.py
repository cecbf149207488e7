"""Reads a recording, record by record: memory stays bounded whatever the file's size or claims."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from kvmbox.base.errors import RecordingError
from kvmbox.base.regular_file import open_regular_file
from kvmbox.parts.record import format as fmt
from kvmbox.parts.record.format import ChannelHeader, End, EndReason, Record, RequestCheck

READ_SIZE: Final = 1 << 16
INFLATE_SIZE: Final = 1 << 20
"""The most bytes that one step of decompression may give: a short file can hold a long run of zeros."""


@dataclass(slots=True)
class RecordingEnd:
    """How the recording ended, once it was read to its end: `end` is None if it was cut.

    `checked` is whether the checksum behind all of it was there, and right.
    """

    records: int
    end: End | None
    checked: bool = True

    def notice(self) -> str | None:
        """A line for the person if not all of the run was recorded, or None."""
        if self.end is None:
            return f"the recording was cut short: its {self.records} whole records are used"
        if self.end.reason is EndReason.LIMIT:
            return f"the recording stops after {self.records} records: --record-limit was reached"
        if not self.checked:
            return f"the recording was cut behind its {self.records} records: they could not be checked"
        return None


class RecordingReader:
    """A recording that is open: `channels` is its header; go over `records()` once, then see `ending`."""

    def __init__(self, path: str) -> None:
        """Open `path` and read its header. Raises RecordingError, whose text names the file."""
        self.path = path
        self.ending: RecordingEnd | None = None
        self.inject: tuple[str, ...] = ()
        """The faults between the devices and the guest, as `kvmbox run --inject` had them."""
        self._checked = True
        try:
            self._file: BinaryIO = os.fdopen(open_regular_file(path), "rb")
        except OSError as error:
            raise RecordingError(f"cannot read the recording '{path}': {error.strerror}") from error
        try:
            self.channels = self._read_header()
        except RecordingError as error:
            self.close()
            raise self._named(error) from error
        except OSError as error:
            self.close()
            raise RecordingError(f"cannot read the recording '{path}': {error.strerror}") from error

    def _read_header(self) -> tuple[ChannelHeader, ...]:
        length = fmt.header_length(self._file.read(fmt.PREAMBLE.size))
        text = self._file.read(length)
        if len(text) < length:
            raise RecordingError("it is cut within its header: nothing of it is usable")
        channels = fmt.decode_header(text)
        self.inject = fmt.decode_inject(text)
        return channels

    def warnings(self) -> list[str]:
        """What whoever looks at the answers has to know."""
        return [f"recorded with --inject {fault}: the guest saw other answers" for fault in self.inject]

    def records(self) -> Iterator[Record]:
        """All records in order. Raises RecordingError where the file is damaged, after what precedes it."""
        number = 0
        try:
            for record in self._parse():
                yield record
                number = record.number + 1
        except RecordingError as error:
            hint = f"--until {number - 1} uses what precedes the damage" if number else None
            raise self._named(error, f" behind record {number - 1}" if number else "", hint) from error
        except OSError as error:
            raise RecordingError(f"cannot read the recording '{self.path}': {error.strerror}") from error

    def _parse(self) -> Iterator[Record]:
        unpack, header_size = fmt.RECORD.unpack_from, fmt.RECORD.size
        checks = [RequestCheck(channel) for channel in self.channels]
        number = 0
        rest = b""
        end: End | None = None
        for piece in self._inflate():
            data = rest + piece
            position, available = 0, len(data)
            while available - position >= header_size:
                channel, kind, request_length, reply_length = unpack(data, position)
                start = position + header_size
                middle = start + request_length
                stop = middle + reply_length
                if reply_length > fmt.MAX_REPLY:
                    raise RecordingError(f"a reply of {reply_length} bytes")
                if stop > available:
                    break
                if end is not None:
                    raise RecordingError("records behind its end mark")
                position = stop
                request = data[start:middle]
                if kind == fmt.END:
                    end = fmt.decode_end(request, reply_length)
                    if end.count != number:
                        raise RecordingError(f"its end mark counts {end.count} records, there are {number}")
                    continue
                if kind != fmt.EXCHANGE or channel >= len(checks):
                    raise RecordingError(f"a record of kind {kind} and channel {channel}")
                problem = checks[channel].problem(request)
                if problem is not None:
                    raise RecordingError(problem)
                yield Record(number, channel, request, data[middle:stop])
                number += 1
            rest = data[position:]
        if rest and end is not None:
            raise RecordingError("bytes behind its end mark")
        self.ending = RecordingEnd(number, end, self._checked)

    def _inflate(self) -> Iterator[bytes]:
        stream = zlib.decompressobj()
        while not stream.eof:
            data = stream.unconsumed_tail or self._file.read(READ_SIZE)
            if not data:
                self._checked = False
                return
            try:
                piece = stream.decompress(data, INFLATE_SIZE)
            except zlib.error as error:
                raise RecordingError(f"its compressed data is damaged ({error})") from error
            if piece:
                yield piece
        if stream.unused_data or self._file.read(1):
            raise RecordingError("bytes behind its end")

    def _named(self, error: RecordingError, where: str = "", hint: str | None = None) -> RecordingError:
        message = f"the recording '{self.path}' cannot be used{where}: {error}"
        return RecordingError(message, hint=error.hint or hint)

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._file.close()

    def __enter__(self) -> RecordingReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
