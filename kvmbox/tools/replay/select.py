"""Which records of a recording are meant: up to a record or a time, of one device or device type."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from kvmbox.base.errors import UsageError
from kvmbox.base.value_classes import Value
from kvmbox.parts.record.format import ChannelHeader, Record
from kvmbox.run.options.values import guest_time
from kvmbox.tools.replay.frames_as_text import WHOLE_PROCESS


class Until(Value):
    """The last record that counts: by its number, or by its guest time in ns; None is no bound."""

    record: int | None = None
    time: int | None = None

    @classmethod
    def parse(cls, text: str) -> Until:
        """A record number ("4711") or a guest time with its unit ("1.5s", "200ms"). Raises UsageError."""
        if text.isascii() and text.isdigit() and len(text) <= 18:
            return cls(record=int(text))
        time = guest_time(text)
        if time is None:
            raise UsageError(
                f"--until '{text}' is neither a record nor a time",
                hint="give a number for a record, or a time with its unit: 1.5s, 200ms, 30us, 1000ns",
            )
        return cls(time=time)

    def take(self, records: Iterable[Record]) -> Iterator[Record]:
        """The records up to the bound. Records of different channels may be out of order by their times."""
        for record in records:
            if self.time is None or record.now <= self.time:
                yield record
            # The next one is not even read: it may be where a recording is damaged.
            if record.number == self.record:
                return


class DeviceChoice(Value):
    """By channel: None if nothing of it is meant, -1 for all of it, else the index of the device."""

    by_channel: tuple[int | None, ...]

    @classmethod
    def parse(cls, text: str | None, channels: Sequence[ChannelHeader]) -> DeviceChoice:
        """`text` is a device type, a device's name, or None for everything. Raises UsageError."""
        if text is None:
            return cls(tuple(-1 for _ in channels))
        wanted = text.casefold()
        choice: list[int | None] = []
        for channel in channels:
            names = [device.name.casefold() for device in channel.devices]
            if channel.device_type.casefold() == wanted:
                choice.append(-1)
            else:
                choice.append(names.index(wanted) if wanted in names else None)
        if all(index is None for index in choice):
            known = ", ".join(
                name
                for channel in channels
                for name in dict.fromkeys([channel.device_type, *(device.name for device in channel.devices)])
            )
            raise UsageError(f"--device '{text}' is not in the recording", hint=f"it has {known}")
        return cls(tuple(choice))

    def concerns(self, record: Record) -> bool:
        """Whether a record is of what was chosen; what goes to a whole process concerns all its devices."""
        index = self.by_channel[record.channel]
        if index is None or index < 0:
            return index is not None
        return record.request[1] == index or record.request[0] in WHOLE_PROCESS
