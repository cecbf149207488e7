"""`kvmbox trace`: what a recording tells about a run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from kvmbox.cli.options import DEVICE, UNTIL, takes
from kvmbox.cli.replay import recording
from kvmbox.errors import KvmboxError
from kvmbox.host.distinct import refuse_shared
from kvmbox.host.serial import open_for_writing, reason
from kvmbox.run.option import Option

if TYPE_CHECKING:
    from kvmbox.tools.replay.reader import RecordingReader
    from kvmbox.tools.replay.select import DeviceChoice, Until


@click.command("trace", short_help="summarise a recording, or export it to Perfetto")
@click.argument("file")
@takes(
    Option(
        "chrome_path",
        "Write a Chrome trace, for https://ui.perfetto.dev, instead of the summary.",
        flag="--chrome",
        metavar="FILE.json",
    ),
    UNTIL,
    DEVICE,
)
def command(file: str, chrome_path: str | None, until: str | None, device: str | None) -> int:
    """Summarise FILE, a recording of 'kvmbox run --record FILE', by device, register and guest time.

    \b
    Exit status:
      0    done
      2    usage error
      4    FILE cannot be read, or is not a recording
      14   kvmbox failed
    """
    from kvmbox.tools.replay.trace import format_summary, summarise

    if chrome_path is not None:
        refuse_shared([("--chrome", chrome_path)], [("the recording", file)])
    with recording(file, until, device) as (reader, bound, choice):
        if chrome_path is None:
            click.echo(format_summary(summarise(bound.take(reader.records()), reader.channels, choice)))
        else:
            count = _export(reader, bound, choice, chrome_path)
            click.echo(f"{count} records written to {chrome_path}: open it in ui.perfetto.dev")
    return 0


def _export(reader: RecordingReader, until: Until, choice: DeviceChoice, path: str) -> int:
    from kvmbox.tools.replay.chrome import export

    try:
        with os.fdopen(open_for_writing(path), "w", encoding="utf-8") as out:
            return export(until.take(reader.records()), reader.channels, choice, out)
    except OSError as error:
        raise KvmboxError(f"cannot write the trace '{path}': {reason(error)}") from error
