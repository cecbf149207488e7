"""The table of layers, what Landlock gives of them, and the probes for doctor."""

from __future__ import annotations

import sys

import pytest

from kvmbox.base.errors import SandboxError
from kvmbox.jail import identity, landlock, layers, linux, namespaces
from kvmbox.sandbox import host_support, libseccomp, seccomp
from kvmbox.sandbox.purposes import PURPOSES


def test_layers_of_the_vmm_are_nobody_else_s() -> None:
    assert not set(layers.VMM_NAMES) & set(layers.NAMES)
    assert sum(layers.VMM_NAMES) == layers.VMM
    assert layers.names(layers.mask_of(["vmm-landlock", "seccomp"])) == ["seccomp", "vmm-landlock"]


def test_layers_table_names_and_explains_each_bit() -> None:
    assert list(layers.NAMES | layers.VMM_NAMES) == list(PURPOSES)
    assert list(layers.NAMES) == [1 << position for position in range(len(layers.NAMES))]


def test_required_layers_are_those_of_the_design() -> None:
    assert set(layers.names(layers.REQUIRED)) >= {
        "seccomp", "no-new-privs", "closed-descriptors", "rlimits", "not-dumpable", "death-signal",
    }  # fmt: skip
    assert not layers.REQUIRED & layers.LANDLOCK  # old kernels have none


def test_mask_of_names_gives_bits_back() -> None:
    assert layers.names(layers.mask_of(["landlock-net", "seccomp"])) == ["seccomp", "landlock-net"]
    assert layers.mask_of([]) == 0


def test_mask_of_unknown_name_tells_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match=r"unknown sandbox layer 'selinux' \(known: seccomp, no-new-privs, .*"
    ):
        layers.mask_of(["selinux"])


# <linux/landlock.h>: the last filesystem right of each ABI.
@pytest.mark.parametrize(
    ("version", "highest_fs_bit", "network", "scopes"),
    [
        (1, 12, 0, 0),
        (2, 13, 0, 0),
        (3, 14, 0, 0),
        (4, 14, 3, 0),
        (5, 15, 3, 0),
        (6, 15, 3, 3),
        (7, 15, 3, 3),
        (8, 15, 3, 3),
        (9, 16, 3, 3),
        (10, 16, 15, 3),
        (99, 16, 15, 3),
    ],
)
def test_landlock_rights_grow_with_the_abi(
    version: int, highest_fs_bit: int, network: int, scopes: int
) -> None:
    assert landlock.handled_rights(version) == ((2 << highest_fs_bit) - 1, network, scopes)


@pytest.mark.parametrize(
    ("version", "names"),
    [
        (0, []),
        (1, ["landlock"]),
        (3, ["landlock"]),
        (4, ["landlock", "landlock-net"]),
        (6, ["landlock", "landlock-net", "landlock-scopes"]),
        (8, ["landlock", "landlock-net", "landlock-scopes"]),
    ],
)
def test_landlock_abi_gives_layers(version: int, names: list[str]) -> None:
    assert layers.names(landlock.layers_of(version)) == names


def test_probe_tells_of_every_layer_once() -> None:
    statuses = host_support.probe()
    assert [status.name for status in statuses] == [*layers.NAMES.values(), *layers.VMM_NAMES.values()]
    assert all(status.available or status.remedy for status in statuses)


def test_probe_old_kernel_tells_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 3)
    statuses = {status.name: status for status in host_support.probe()}
    assert statuses["landlock"].available
    assert statuses["landlock-net"].remedy == "run Linux 6.7 or later"
    assert not statuses["landlock-scopes"].available


def test_probe_without_landlock_tells_how_to_enable_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    status = {status.name: status for status in host_support.probe()}["landlock"]
    assert (status.available, status.required) == (False, False)
    assert "lsm=" in (status.remedy or "")


def test_probe_tells_why_a_namespace_is_missing_and_what_to_do() -> None:
    reasons = {
        layers.OTHER_UID: identity.NOT_ROOT,
        layers.USER_NS: "unshare: Operation not permitted",
        layers.NET_NS: namespaces.NO_WAY_IN,
    }
    found = layers.UTS_NS | layers.VMM_SECCOMP, reasons
    statuses = {status.name: status for status in host_support.probe(lambda _code: found)}
    assert {name for name, status in statuses.items() if not status.available} == {
        *layers.names(layers.ISOLATION & ~layers.UTS_NS),
        "vmm-landlock", "vmm-capabilities", "vmm-scopes", "lsm-label", "vmm-label",
    }  # fmt: skip
    assert statuses["other-uid"].remedy == host_support.ROOT_REMEDY
    assert statuses["user-namespace"].detail == "unshare: Operation not permitted"
    assert statuses["user-namespace"].remedy == host_support.USER_NAMESPACE_REMEDY
    assert statuses["net-namespace"].remedy == "as for user-namespace"
    assert statuses["vmm-landlock"].remedy == host_support.LANDLOCK_REMEDY


def test_probe_that_cannot_be_tried_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    status = {status.name: status for status in host_support.probe()}["pid-namespace"]
    assert not status.available
    assert status.detail.startswith("could not be tried: ")


def test_probe_without_close_range_tells_the_kernel_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(first: int, last: int = 0) -> None:
        raise OSError(38, "close_range: Function not implemented")

    monkeypatch.setattr(linux, "close_range", absent)
    status = {status.name: status for status in host_support.probe()}["closed-descriptors"]
    assert (status.available, status.remedy) == (False, "run Linux 5.9 or later")


def test_load_libseccomp_missing_gives_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_libseccomp(name: str) -> object:
        raise RuntimeError(f"Unable to find libseccomp for {name}")

    monkeypatch.setattr(libseccomp, "import_module", without_libseccomp)
    with pytest.raises(SandboxError, match="Unable to find libseccomp") as failure:
        libseccomp.load_libseccomp()
    assert failure.value.hint == libseccomp.LIBSECCOMP_HINT
    assert seccomp.syscall_name(2) == "open"  # names are our own
    status = {status.name: status for status in host_support.probe()}["seccomp"]
    assert (status.available, status.remedy) == (True, None)  # the filter was compiled ahead
    monkeypatch.setattr(seccomp, "SHIPPED", "/dev/null")
    status = {status.name: status for status in host_support.probe()}["seccomp"]
    assert (status.available, status.remedy) == (False, libseccomp.LIBSECCOMP_HINT)
