"""What is fuzzed: for each target the module that has it, and the files of kvmbox whose branches count.

Nothing of kvmbox is loaded here, so that its branches can be counted.
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatch
from importlib import import_module
from typing import Final, NamedTuple

from tests.support.dice import Dice


class Row(NamedTuple):
    """A target: `module` of this package has it in `TARGETS`.

    `covers` are patterns of files in kvmbox, each maybe with a colon and a pattern of functions that count.
    """

    module: str
    covers: tuple[str, ...]

    @property
    def files(self) -> list[str]:
        """The patterns of files."""
        return [pattern.partition(":")[0] for pattern in self.covers]

    def counts(self, file: str, function: str) -> bool:
        """Whether the branches of a function of a file count."""
        parts = [pattern.partition(":") for pattern in self.covers]
        return any(fnmatch(file, one) and fnmatch(function, other or "*") for one, _, other in parts)

    def target(self, name: str) -> Callable[[Dice], None]:
        """What takes an input. Loads what it needs."""
        found: Callable[[Dice], None] = import_module(f"tests.fuzz.{self.module}").TARGETS[name]
        return found


def _devices(*paths: str) -> Row:
    return Row("models", tuple(f"devices/{path}.py" for path in paths))


_LIVES: Final = ("__init__", "attach", "journal_is_full", "_snapshot", "_parts", "rescue", "_replay*", "_ask")
_LOSSES: Final = (
    *(f"Recovery.{one}" for one in ("_begin_again", "_blame", "_give_up", "_unlike", "overdue")),
    *("AllOnes*", "all_ones", "poison", "show"),
)

TABLE: Final[dict[str, Row]] = {
    "uart": _devices("uart/*"),
    "pit": _devices("pit/*"),
    "rtc": _devices("rtc/*"),
    "i8042": _devices("ps2/*"),
    "ide": _devices("ide/*"),
    "hpet": _devices("hpet/*"),
    "acpi-pm": _devices("acpi/*"),
    "debug-ports": _devices("debug/*", "pci/reset_control", "bios/report_port"),
    "testdev": _devices("testdev/*"),
    "boot-disk": _devices("bios/boot_disk"),
    "fw-cfg": _devices("fw_cfg/*"),
    "vga": _devices("vga/model", "vga/memory_modes", "vga/planes"),
    "vbe": _devices("vga/dispi"),
    "pci-host": _devices("pci/model"),
    "virtio-blk": _devices("virtio/blk", "virtio/mmio"),
    "virtio-rng": _devices("virtio/rng"),
    "virtio-console": _devices("virtio/console"),
    "virtio-net": _devices("virtio/net"),
    "virtio-pci": _devices("virtio/pci", "virtio/msix_table", "virtio/registers"),
    "e1000": _devices("e1000/model"),
    "qcow2": _devices("qcow2/*"),
    "rfb": _devices("rfb/*"),
    "stream": Row(
        "vmm",
        (
            *(
                f"remote/channel/connection.py:Channel.{one}"
                for one in ("_accept", "_apply_all", "_explain_header")
            ),
            *(
                f"remote/channel/connection.py:Channel.{one}"
                for one in ("check_effect", "_prints", "_use", "access")
            ),
        ),
    ),
    "shared": Row(
        "vmm",
        (
            "remote/transport/shared_page.py:PageTransport.exchange_words",
            "remote/transport/shared_page.py:PageTransport.payload",
        ),
    ),
    "effects": Row(
        "effects",
        (
            *(
                "wire/effect_kinds.py",
                "wire/effects.py",
                "wire/bulk_effect_table.py",
                "wire/pci_effect_table.py",
            ),
            *(
                "remote/channel/grants.py",
                "remote/published/bulk_grants.py",
                "remote/published/guest_memory.py",
                "remote/channel/vga_window.py",
            ),
        ),
    ),
    "pci-bus": Row("effects", ("remote/bus/pci_fabric.py",)),
    "protocol": Row("effects", ("wire/protocol.py", "wire/access_blocks.py:Block*", "wire/chains.py")),
    "lives": Row(
        "vmm",
        (
            *(f"parts/restart/recovery.py:Recovery.{one}" for one in _LIVES),
            *("remote/channel/journal.py", "remote/process/crash_policy.py", "wire/access_blocks.py:ends"),
            *(
                f"remote/channel/connection.py:Channel.{one}"
                for one in ("_complete", "_ask_block", "*_string", "write_wide")
            ),
        ),
    ),
    "losses": Row("vmm", tuple(f"parts/restart/recovery.py:{one}" for one in _LOSSES)),
    "model-snapshots": Row(
        "vmm", ("jail/server.py:*_part", "jail/server.py:*handle", "jail/server.py:*_encoded")
    ),
    "coalesced": Row("vmm", ("run/vcpu/coalesced_ring.py",)),
    "socketpair": Row("vmm", ("remote/transport/stream.py:Socket*",)),
    "pipe": Row(
        "vmm", ("remote/transport/stream.py:StreamTransport*", "remote/transport/stream.py:PipeTransport*")
    ),
    "shm": Row("vmm", ()),
    "rings": Row(
        "rings",
        (
            *(
                "remote/published/walker.py",
                "devices/virtio/vmm.py:Virtqueue*",
                "remote/published/queues.py",
                "remote/published/queue_walks.py",
                "remote/published/queue_packets.py",
            ),
            *(
                "remote/published/queue_interrupts.py",
                "devices/virtio/register_watch.py:VirtqueueWatch*",
                "devices/virtio/register_watch.py:_*",
            ),
            "remote/published/medium.py",
        ),
    ),
    "registers": Row(
        "registers",
        (
            "devices/virtio/vmm.py:VirtioRegisters*",
            "remote/published/queue_kinds.py",
            "remote/published/registers.py",
            "devices/virtio/register_watch.py:notified",
        ),
    ),
    "rings-compiled": Row("rings", ()),
    "descriptors": Row("descriptors", ("devices/e1000/vmm.py:Descriptor*", "devices/e1000/ring_watch.py")),
    "windows": Row(
        "windows",
        (
            "remote/published/data_window.py",
            "remote/published/window_access.py",
        ),
    ),
    "boot-images": Row(
        "images",
        (
            *("boot/elf/*.py", "boot/segments.py", "boot/multiboot/*.py", "boot/multiboot2/*.py"),
            "boot/pvh/*.py",
            *(
                f"boot/linux/{one}.py"
                for one in ("setup_header", "boot_params", "real_mode_setup", "video_mode", "way")
            ),
        ),
    ),
    "disk-contents": Row(
        "files",
        tuple(f"boot/disk/{one}.py" for one in ("contents", "partitions", "cd_image", "file_systems")),
    ),
    "disk-formats": Row("files", ("host/disk/stores.py", "host/disk/mapped_image.py")),
    "disk-overlay": Row("files", ("host/disk/overlay.py",)),
    "compressed": Row("files", ("boot/compressed.py",)),
    "snapshot-text": Row(
        "files", tuple(f"parts/snapshot/{one}.py" for one in ("description", "strict_json", "file_layout"))
    ),
    "snapshot-cpu": Row(
        "files", ("parts/snapshot/vcpu_state.py:*code", "parts/snapshot/vcpu_state.py:_kinds")
    ),
    "snapshot-file": Row(
        "files",
        (
            *("parts/snapshot/file.py:SnapshotFile*", "parts/snapshot/frame_buffer_section.py:give_video"),
            *(f"parts/snapshot/ram.py:{one}" for one in ("read", "_read", "_check_*")),
        ),
    ),
    "recordings": Row("files", ("tools/replay/reader.py", "parts/record/format.py")),
    "symbols": Row("files", ("explain/symbols.py",)),
    "suites": Row(
        "texts", tuple(f"tools/smoke/suite/{one}.py" for one in ("suite_file", "suite_keys", "toml_lines"))
    ),
    "unittests-cfg": Row("texts", ("tools/smoke/suite/unittests_cfg.py",)),
    "gdb": Row("texts", ("parts/gdb/packets.py", "parts/gdb/gdb_session.py")),
    "monitor": Row("texts", ("run/api/monitor_commands.py",)),
    "typed": Row(
        "texts",
        (
            "host/console/escape_keys.py",
            "host/console/us_keyboard.py",
            "host/console/mouse_events.py",
            "parts/monitor/line_editor.py",
        ),
    ),
}
