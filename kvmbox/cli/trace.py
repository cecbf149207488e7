"""`kvmbox trace`: what a recording tells about a run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from kvmbox.cli.options import DEVICE, JSON, UNTIL, takes
from kvmbox.cli.output_files import STDOUT, for_people, open_json, write_data
from kvmbox.cli.replay import recording
from kvmbox.errors import KvmboxError, UsageError
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
    JSON,
)
def command(
    file: str, chrome_path: str | None, until: str | None, device: str | None, json_path: str | None
) -> int:
    """Summarise FILE, a recording of 'kvmbox run --record FILE', by device, register and guest time.

    \b
    Exit status:
      0    done
      2    usage error
      4    FILE cannot be read, or is not a recording
      14   kvmbox failed
    """
    from kvmbox.tools.replay.trace import as_data, format_summary, summarise

    if chrome_path is not None and json_path is not None:
        raise UsageError("--chrome writes a trace instead of the summary, which --json has")
    written = [(option, path) for option, path in (("--chrome", chrome_path), ("--json", json_path)) if path]
    refuse_shared([one for one in written if one != ("--json", STDOUT)], [("the recording", file)])
    json_file = open_json(json_path)
    with recording(file, until, device) as (reader, bound, choice):
        if chrome_path is None:
            summary = summarise(bound.take(reader.records()), reader.channels, choice)
            with for_people(json_path):
                click.echo(format_summary(summary))
            write_data(json_path, json_file, as_data(summary))
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
