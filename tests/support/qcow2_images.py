"""qcow2 images for tests, made by hand, and a process that reads their map, which is none."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Final

from kvmbox.contract.model import HostOutput
from kvmbox.devices.qcow2.model import Qcow2
from kvmbox.host.disk.mapped_image import MappedFile

ZERO_CLUSTER: Final = b""
"""In a map of clusters: one that is marked as zeros."""


def qcow2(
    clusters: Mapping[int, bytes],
    *,
    size: int,
    bits: int = 9,
    version: int = 3,
    backing: int = 0,
    encryption: int = 0,
    features: int = 0,
    entries: Mapping[int, int] | None = None,
) -> bytes:
    """An image of a disk of `size` bytes with these clusters. `entries` are L2 entries as they are given."""
    cluster = 1 << bits
    per_table = cluster // 8
    total = -(-size // cluster)
    tables = -(-total // per_table)
    l1_clusters = -(-tables * 8 // cluster)
    l2_at = (1 + l1_clusters) * cluster
    l1: list[int] = []
    l2: dict[int, list[int]] = {}
    data: list[bytes] = []
    used = sorted({number // per_table for number in (*clusters, *(entries or {}))})
    data_at = l2_at + len(used) * cluster
    for number, content in sorted(clusters.items()):
        table = l2.setdefault(number // per_table, [0] * per_table)
        if content == ZERO_CLUSTER:
            table[number % per_table] = 1
        else:
            table[number % per_table] = 1 << 63 | data_at + len(data) * cluster
            data.append(content.ljust(cluster, b"\0"))
    for number, entry in (entries or {}).items():
        l2.setdefault(number // per_table, [0] * per_table)[number % per_table] = entry
    for index in range(tables):
        l1.append(1 << 63 | l2_at + used.index(index) * cluster if index in used else 0)
    header = struct.pack(
        ">4sIQIIQIIQQIIQ",
        b"QFI\xfb",
        version,
        backing,
        0,
        bits,
        size,
        encryption,
        tables,
        cluster,
        0,
        0,
        0,
        0,
    )
    if version == 3:
        header += struct.pack(">QQQII", features, 0, 0, 4, 104)
    parts = [
        header.ljust(cluster, b"\0"),
        struct.pack(f">{tables}Q", *l1).ljust(l1_clusters * cluster, b"\0"),
    ]
    parts += [struct.pack(f">{per_table}Q", *l2[index]) for index in used]
    return b"".join((*parts, *data))


def connect(mapped: MappedFile, ask: Callable[[bytes], bytes]) -> None:
    """Have a function answer the questions of a disk."""
    mapped.connect(lambda frame: mapped.hear(ask(frame)))


class Asked:
    """Asks a model in this process, and notes what it was given."""

    def __init__(self, model: Qcow2 | None = None) -> None:
        self.model = model or Qcow2()
        self.frames: list[bytes] = []

    def __call__(self, frame: bytes) -> bytes:
        self.frames.append(frame)
        assert self.model.receive(0, frame) == len(frame)
        output = b""
        for effect in self.model.take_effects():
            assert isinstance(effect, HostOutput)
            output += effect.data
        return output
