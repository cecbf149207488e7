"""Why no input takes some outcomes: patterns of their names (`branches.Outcome.name`), and the reason.

A pattern that fits no outcome any more fails a test.
"""

from __future__ import annotations

from typing import Final

REASONS: Final[dict[str, tuple[str, ...]]] = {
    "parameters, grants and tables come from the board, and are right": (
        *("devices/*.__init__: *", "devices/ide/model.py _make_drive: *"),
        *("devices/pci/model.py _Function._capability: *", "remote/channel/grants.py bind: *"),
        *(
            "remote/published/bulk_grants.py media_of: *",
            "remote/published/bulk_grants.py Media.check: if to_guest & RISES*",
        ),
        *("remote/published/medium.py medium_store: *", "wire/protocol.py encode_board: if isinstance*"),
        *(
            "run/vcpu/coalesced_ring.py CoalescedRing.__init__: or lock*",
            "remote/bus/pci_fabric.py PciFabric.bind: *",
        ),
        *(
            "tools/smoke/suite/suite_keys.py _option: or option.metavar*",
            "devices/fw_cfg/model.py FwCfg.memory: or data*",
        ),
    ),
    "a device of the fuzzer has its process from the start: tests/unit/remote/channel/test_on_demand.py": (
        "parts/restart/recovery.py Recovery.journal_is_full: if isinstance*",
    ),
    "a number wraps after 2^32 requests": ("*_asked + 1 *",),
    "a read of several registers prints nothing: another target lets a process lie (effects)": (
        "remote/channel/connection.py Channel._prints: *READ_WIDE*",
    ),
    "the board of the fuzzer has no ROM, tables of revision 2, and little text": (
        *(
            "boot/linux/real_mode_setup.py plan_setup: if context.bios_rom",
            "boot/multiboot2/information_tags.py *",
        ),
    ),
    "waits for another thread, which a fuzzer does not have": (
        *(
            "remote/channel/connection.py *slices is None*",
            "host/disk/mapped_image.py MappedFile._place_of: if not self._dialogue*",
        ),
    ),
    "checked before, and once more where it is used": (
        *(
            "remote/published/walker.py PublishedRing.__init__: *",
            "host/disk/mapped_image.py MappedFile.connect: or answer is None",
        ),
        *(
            "wire/effects.py _stray_coalesced: *",
            "parts/gdb/gdb_session.py Session.receive: match event: no case",
        ),
        "devices/uart/model.py Uart16550A._fold_line: filter *",
    ),
    "a socket that has ended is readable at once, and fails once": (
        "remote/transport/stream.py StreamTransport._last_words: *",
    ),
    "errors of the host's files, which are in memory here": (
        *("*: except OSError", "host/disk*error.strerror*"),
    ),
    "a rig answers at once, so that few requests are open in a snapshot, and damage adds five at most": (
        "devices/virtio/blk.py VirtioBlk.restore: *",
    ),
    "another target gets there (lives, snapshot-file)": (
        *(
            "parts/snapshot/description.py _check: if VIDEO in sections",
            "remote/channel/connection.py *journal.limit",
        ),
    ),
    "the files of a fuzzer are smaller": ("parts/snapshot/description.py _sections: *",),
    "the clock of a fuzzer ends before that of a model": (
        "devices/rtc/model.py RtcMc146818._let_pass: if now < LAST_NOW, false",
    ),
    "the driver takes the prefix of a released key and asks for it once more": (
        "devices/ps2/keyboard.py Ps2Keyboard.is_inside_change: *",
    ),
}
"""By the reason: patterns, as of the shell."""
