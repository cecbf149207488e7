"""`kvmbox trace`: what a recording tells about a run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from kvmbox.base.errors import HostOutputError, UsageError
from kvmbox.cli.click_options import DEVICE, JSON, UNTIL, output, takes
from kvmbox.cli.json_files import STDOUT, for_people, open_output, write_data, write_output
from kvmbox.cli.replay import recording
from kvmbox.host.files.file_conflicts import refuse_shared
from kvmbox.run.options.definition import Option

if TYPE_CHECKING:
    from kvmbox.tools.replay.reader import RecordingReader
    from kvmbox.tools.replay.select import DeviceChoice, Until
    from kvmbox.tools.replay.trace_summary import Summary


@click.command("trace", short_help="summarise a recording, or export it to Perfetto")
@click.argument("file")
@takes(
    Option(
        "chrome_path",
        "Write a Chrome trace, for https://ui.perfetto.dev, instead of the summary.",
        flag="--chrome",
        metavar="FILE.json",
    ),
    output("html", "a page that draws it"),
    UNTIL,
    DEVICE,
    JSON,
)
def command(
    file: str,
    chrome_path: str | None,
    html: str | None,
    until: str | None,
    device: str | None,
    json_path: str | None,
) -> int:
    """Summarise FILE, a recording of 'kvmbox run --record FILE', by device, register and guest time.

    \b
    Exit status:
      0    done
      2    usage error
      4    FILE cannot be read or is not a recording, or an output file cannot be opened
      14   kvmbox failed
    """
    from kvmbox.tools.replay.chrome import export
    from kvmbox.tools.replay.trace_summary import as_data, format_summary, headline

    if chrome_path is not None and (html or json_path) is not None:
        raise UsageError("--chrome writes a trace instead of the summary, which --json and --html have")
    if html == json_path == STDOUT:
        raise UsageError("--html and --json are both on stdout", hint="name a file for one")
    paths = (("--json", json_path), ("--html", html), ("--chrome", chrome_path))
    written = [(option, path) for option, path in paths if path and path != STDOUT]
    refuse_shared(written, [("the recording", file)])
    with recording(file, until, device) as (reader, bound, choice):
        json_file, page_file, chrome_file = (open_output(path, option) for option, path in paths)
        if chrome_file is not None:
            try:
                with chrome_file:
                    count = export(bound.take(reader.records()), reader.channels, choice, chrome_file)
            except OSError as error:
                raise HostOutputError(f"cannot write --chrome '{chrome_path}': {error.strerror}") from error
            with for_people(chrome_path):
                click.echo(f"{count} records written to {chrome_path}: open it in ui.perfetto.dev")
            return 0
        summary, page = _summary(file, reader, bound, choice, draws=html is not None)
        with for_people(STDOUT if STDOUT in (html, json_path) else None):
            click.echo(format_summary(summary) if html is None else "\n".join(headline(summary)))
        write_output(html, page_file, page, "--html")
        write_data(json_path, json_file, as_data(summary))
    return 0


def _summary(
    file: str, reader: RecordingReader, until: Until, choice: DeviceChoice, *, draws: bool
) -> tuple[Summary, str]:
    """The summary, and its page if that is wanted."""
    from kvmbox.tools.replay.trace_summary import summarise

    records = filter(choice.concerns, until.take(reader.records()))
    if not draws:
        return summarise(records, reader.channels, choice), ""
    from kvmbox.tools.replay.lanes import Lanes
    from kvmbox.tools.replay.trace_page import Kept, trace_page

    kept, lanes = Kept(reader.channels), Lanes()
    summary = summarise(kept.watch(records), reader.channels, choice, lanes)
    return summary, trace_page(os.path.basename(file), summary, lanes, kept)
