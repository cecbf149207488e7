"""`kvmbox replay`: drive fresh device processes with a recording, or read the recording."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from kvmbox.base.errors import UsageError
from kvmbox.cli.click_options import DEVICE, JSON, SANDBOX, UNTIL, takes
from kvmbox.cli.click_types import given
from kvmbox.cli.json_files import STDOUT, for_people, open_output, write_data
from kvmbox.host.files.descriptor_limit import allow_enough
from kvmbox.host.files.file_conflicts import refuse_shared
from kvmbox.run.options.definition import Option

if TYPE_CHECKING:
    from kvmbox.tools.replay.fresh_models import Backend
    from kvmbox.tools.replay.reader import RecordingReader
    from kvmbox.tools.replay.select import DeviceChoice, Until

DIFFERS = 12


class _DumpCommand(click.Command):
    """`--dump` stands for `--dump=text`: click would take the word behind it as its value."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, with the short form spelled out."""
        return super().parse_args(ctx, ["--dump=text" if word == "--dump" else word for word in args])


@click.command("replay", cls=_DumpCommand, short_help="replay a recording and compare the replies")
@click.argument("file")
@takes(
    UNTIL,
    DEVICE,
    Option(
        "dump",
        "Print the records as text or JSON lines instead of replaying them.",
        metavar="[=json]",
        choices=("text", "json"),
    ),
    SANDBOX,
    JSON,
)
def command(
    file: str, until: str | None, device: str | None, dump: str | None, sandbox: str, json_path: str | None
) -> int:
    """Replay FILE, a recording of 'kvmbox run --record FILE', and compare the replies.

    New device models get the recorded requests. Their replies are compared with the recorded replies.
    /dev/kvm is not needed.

    \b
    Exit status:
      0    all replies are equal
      2    usage error
      4    FILE cannot be read, or is not a recording
      12   a reply differs; the first difference is described
      14   kvmbox failed
    """
    if dump is not None and given("sandbox"):
        raise UsageError("--dump replays nothing: --sandbox means nothing beside it")
    if dump is not None and json_path is not None:
        raise UsageError(
            "--dump replays nothing: --json has no result", hint="--dump=json prints the records"
        )
    if json_path not in (None, STDOUT):
        refuse_shared([("--json", json_path)], [("the recording", file)])
    with recording(file, until, device) as (reader, bound, choice):
        if dump is None:
            return _replay(reader, bound, choice, sandbox, json_path)
        try:
            _dump(reader, bound, choice, as_json=dump == "json")
        except BrokenPipeError:
            # 'replay --dump FILE | head' has what it wants. What is still buffered goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


@contextmanager
def recording(
    file: str, until: str | None, device: str | None
) -> Iterator[tuple[RecordingReader, Until, DeviceChoice]]:
    """An open recording, and what of it is meant. What the person has to know of it is told on stderr."""
    from kvmbox.tools.replay.reader import RecordingReader
    from kvmbox.tools.replay.select import DeviceChoice, Until

    bound = Until() if until is None else Until.parse(until)
    with RecordingReader(file) as reader:
        choice = DeviceChoice.parse(device, reader.channels)
        for warning in reader.warnings():
            click.echo(f"kvmbox: {warning}", err=True)
        yield reader, bound, choice
        notice = reader.ending.notice() if reader.ending is not None else None
    if notice is not None:
        click.echo(f"kvmbox: {notice}", err=True)


def _dump(reader: RecordingReader, until: Until, choice: DeviceChoice, *, as_json: bool) -> None:
    from kvmbox.tools.replay.frames_as_text import record_data, record_line

    for record in until.take(reader.records()):
        if choice.concerns(record):
            channel = reader.channels[record.channel]
            line = json.dumps(record_data(channel, record)) if as_json else record_line(channel, record)
            sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _replay(
    reader: RecordingReader, until: Until, choice: DeviceChoice, sandbox: str, json_path: str | None
) -> int:
    from kvmbox.tools.replay.frames_as_text import seconds
    from kvmbox.tools.replay.replayer import replay

    json_file = open_output(json_path)
    backend = _backend(reader, choice, sandbox)
    try:
        started = time.monotonic()
        result = replay(until.take(reader.records()), reader.channels, choice, backend)
        elapsed = time.monotonic() - started
    finally:
        backend.close()
    difference = None if result.difference is None else result.difference.report()
    compared = f"{result.compared} replies are identical"
    if result.driven != result.compared:
        compared += f" (of {result.driven} requests)"
    with for_people(json_path):
        click.echo(difference or f"{compared}: {seconds(result.last)} of guest time in {elapsed:.2f} s")
    data = {"compared": result.compared, "requests": result.driven, "guest_time": result.last}
    write_data(json_path, json_file, {**data, "difference": difference})
    return 0 if difference is None else DIFFERS


def _backend(reader: RecordingReader, choice: DeviceChoice, sandbox: str) -> Backend:
    from kvmbox.tools.replay.fresh_models import InProcess, InProcesses

    if sandbox == "none":
        return InProcess(reader.channels)
    allow_enough()
    return InProcesses(reader.channels, [index is not None for index in choice.by_channel])
