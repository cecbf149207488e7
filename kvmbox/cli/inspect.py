"""`kvmbox inspect`: what an image is, and every way in which it could boot."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from kvmbox.cli.click_options import JSON, as_in_run, takes
from kvmbox.cli.json_files import STDOUT, for_people, open_output, write_data
from kvmbox.host.files.file_conflicts import refuse_shared

if TYPE_CHECKING:
    from kvmbox.boot.disk.contents import DiskContents
    from kvmbox.boot.inspection import Inspection, WayResult

_UNBOOTABLE = 4


@click.command("inspect", short_help="show what an image is, and how it boots")
@click.argument("image")
@takes(as_in_run("memory", help="The guest memory that the image must fit into."), JSON)
def command(image: str, memory: int, json_path: str | None) -> int:
    """Show what IMAGE is, and every way in which 'kvmbox run' could boot it.

    IMAGE is an image file or the name of a bundled guest. The guest does not run, and /dev/kvm is not needed.

    \b
    Exit status:
      0    'kvmbox run IMAGE' finds a way to boot it
      2    usage error
      4    IMAGE cannot be read, or there is no way to boot it
      14   kvmbox failed
    """
    from kvmbox.base.memory import GuestMemory
    from kvmbox.boot import bundled
    from kvmbox.boot.choose import AUTO
    from kvmbox.boot.inspection import inspect_file

    path = image if os.path.exists(image) else bundled.find(image) or image
    if json_path not in (None, STDOUT):
        refuse_shared([("--json", json_path)], [("the image", path)])
    json_file = open_output(json_path)
    boot = "real" if path != image and bundled.is_flat(path) else AUTO  # as `kvmbox run` does
    found = inspect_file(path, GuestMemory(memory), boot)
    with for_people(json_path):
        click.echo(_as_text(found))
    write_data(json_path, json_file, found.as_json())
    return 0 if found.taken else _UNBOOTABLE


def _as_text(found: Inspection) -> str:
    size = f"{found.size} bytes"
    if found.compression:
        size += f", {found.compression}-compressed: {found.decompressed_size} bytes"
    lines = [f"{found.path}: {size}"]
    if found.disk is not None:
        lines += _disk(found.disk)
    for way in found.ways:
        mark = "*" if way.name == found.taken else "+" if way.plan is not None else "-"
        lines += [f" {mark} {way.name:<11} {line}" for line in _headline(way)]
        if way.plan is not None:
            lines += _details(way)
    if found.ways:
        lines.append("(* is taken by 'kvmbox run', + can be chosen with --boot, - does not fit)")
    if not found.taken:
        lines.append(found.reason + (f"\nhint: {found.hint}" if found.hint else ""))
    return "\n".join(lines)


def _disk(disk: DiskContents) -> list[str]:
    from kvmbox.base.layout import SECTOR_SIZE
    from kvmbox.boot.disk.cd_image import CD_SECTOR

    lines = []
    if disk.partitions is not None:
        problem = disk.partitions.problem
        lines.append(f"   {disk.partitions.scheme} partitions" + (f", but {problem}" if problem else ""))
        for one in disk.partitions.partitions:
            words = [f"{one.start:#012x}..{one.start + one.size:#012x}", "*" if one.active else " ", one.kind]
            words += [f"'{one.name}'"] * bool(one.name) + [f"({one.file_system})"] * bool(one.file_system)
            lines.append(f"     {one.number:>3}  {' '.join(words)}")
    if disk.cd is not None:
        entry = disk.cd.entry
        boot = f"it does not boot: {disk.cd.problem}"
        if entry is not None:
            place = entry.lba * CD_SECTOR
            boot = f"boots {entry.sectors} sectors of {SECTOR_SIZE} from {place:#x}, {entry.kind}"
        others = f"; boot catalog also for {', '.join(disk.cd.sections)}" if disk.cd.sections else ""
        lines.append(f"   CD '{disk.cd.volume}'; {boot}{others}")
    if disk.file_system and disk.cd is None:
        lines.append(f"   file system {disk.file_system}")
    return lines


def _headline(way: WayResult) -> list[str]:
    if way.plan is not None:
        doubt = f"; not taken unasked: {way.reason}" if way.reason else ""
        return [f"{way.kind}; entry {way.plan.entry:#x}{doubt}"]
    text = f"{way.kind}, but {way.reason}" if way.kind else way.reason
    return [text + (f" ({way.hint})" if way.hint else "")]


def _details(way: WayResult) -> list[str]:
    assert way.plan is not None
    video = [f"     frame buffer: {way.plan.video}"] if way.plan.video is not None else []
    return video + [
        f"     {one.address:#012x}..{one.end:#012x}  {one.file_size:>9} bytes from offset {one.offset:#x}"
        for one in way.plan.segments
    ]
