"""The order and the report of isolation, without taking any of it."""

from __future__ import annotations

import errno
import os

import pytest

from kvmbox.remote import spawner_frames
from kvmbox.sandbox import identity, layers, linux, namespaces

VMM = 4242
UNSHARE = {flag: layers.NAMES[bit] for bit, flag in namespaces._FLAGS.items()}
UNSHARE[namespaces.CLONE_NEWUSER] = "user-namespace"


class Host:
    """A host that notes what is asked of it, and refuses what it is told to."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *, admin: bool, refuses: set[str] | None = None
    ) -> None:
        self.asked: list[str] = []
        self.refuses = refuses or set()
        monkeypatch.setattr(linux, "has_capability", lambda number: admin)
        monkeypatch.setattr(linux, "checked_syscall", self._call)
        monkeypatch.setattr(linux, "clone_sibling", lambda: self._note("clone"))
        monkeypatch.setattr(os, "setsid", lambda: None)
        monkeypatch.setattr(namespaces, "empty_root", lambda: self._note("empty root"))
        monkeypatch.setattr(identity, "change", lambda vmm_pid, without: self._note("other-uid"))

    def _call(self, name: str, _number: int, flag: int) -> int:
        assert name == "unshare"
        return self._note(UNSHARE[flag])

    def _note(self, what: str) -> int:
        self.asked.append(what)
        if what in self.refuses:
            raise OSError(errno.EPERM, f"{what}: Operation not permitted")
        return 0


def isolate(without: int = 0) -> namespaces.Isolation:
    return namespaces.isolate(VMM, without, lambda pid: None)


OTHERS = ["mount-namespace", "net-namespace", "ipc-namespace", "uts-namespace", "cgroup-namespace"]


def test_isolate_with_cap_sys_admin_enters_the_user_namespace_last(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, admin=True)
    assert isolate().applied == layers.ISOLATION
    assert host.asked == [*OTHERS, "pid-namespace", "clone", "empty root", "other-uid", "user-namespace"]


def test_isolate_without_cap_sys_admin_enters_the_user_namespace_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = Host(monkeypatch, admin=False)
    assert isolate().applied == layers.ISOLATION
    assert host.asked == ["other-uid", "user-namespace", *OTHERS, "pid-namespace", "clone", "empty root"]


def test_isolate_without_any_way_in_asks_for_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, admin=False, refuses={"user-namespace", "other-uid"})
    isolation = isolate()
    assert isolation.applied == 0
    assert host.asked == ["other-uid", "user-namespace"]
    assert isolation.reasons[layers.USER_NS] == "user-namespace: Operation not permitted"
    assert {isolation.reasons[bit] for bit in namespaces._FLAGS} == {namespaces.NO_WAY_IN}


def test_isolate_one_namespace_refused_takes_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    Host(monkeypatch, admin=True, refuses={"net-namespace"})
    isolation = isolate()
    assert isolation.applied == layers.ISOLATION & ~layers.NET_NS
    assert isolation.reasons == {layers.NET_NS: "net-namespace: Operation not permitted"}


def test_isolate_pid_namespace_refused_makes_no_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, admin=True, refuses={"pid-namespace"})
    assert isolate().applied == layers.ISOLATION & ~layers.PID_NS
    assert "clone" not in host.asked


def test_isolate_root_that_cannot_be_emptied_is_no_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    Host(monkeypatch, admin=True, refuses={"empty root"})
    isolation = isolate()
    assert isolation.applied == layers.ISOLATION & ~layers.MOUNT_NS
    assert isolation.reasons == {layers.MOUNT_NS: "empty root: Operation not permitted"}


@pytest.mark.parametrize("bit", [bit for bit in layers.NAMES if bit & layers.ISOLATION])
def test_isolate_layer_left_out_is_not_asked_for(monkeypatch: pytest.MonkeyPatch, bit: int) -> None:
    host = Host(monkeypatch, admin=True)
    isolation = isolate(bit)
    assert isolation.applied == layers.ISOLATION & ~bit
    assert layers.NAMES[bit] not in host.asked
    assert isolation.reasons == {bit: namespaces.LEFT_OUT}


def test_limit_on_namespaces_is_not_called_a_full_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(name: str, *_: int) -> int:
        raise OSError(errno.ENOSPC, f"{name}: No space left on device")

    Host(monkeypatch, admin=True)
    monkeypatch.setattr(linux, "checked_syscall", full)
    assert set(isolate(layers.OTHER_UID).reasons.values()) == {namespaces.NO_MORE, namespaces.LEFT_OUT}


# --- The user id ------------------------------------------------------------------------------------------


class Ids:
    """setgroups, setresgid and setresuid of a process that may be anybody among `mapped`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, mapped: set[int]) -> None:
        self.calls: list[tuple[str, int]] = []
        self.mapped = mapped
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(os, "setgroups", lambda groups: self.calls.append(("groups", len(groups))))
        monkeypatch.setattr(os, "setresgid", lambda *ids: self._set("gid", ids))
        monkeypatch.setattr(os, "setresuid", lambda *ids: self._set("uid", ids))
        monkeypatch.setattr(linux, "bound_capabilities", lambda: self.calls.append(("bound", 0)))

    def _set(self, what: str, ids: tuple[int, ...]) -> None:
        (number,) = set(ids)
        if number not in self.mapped:
            raise OSError(errno.EINVAL, "Invalid argument")
        self.calls.append((what, number))


def test_change_gives_up_groups_and_capabilities_before_the_user_id(monkeypatch: pytest.MonkeyPatch) -> None:
    own = identity.FIRST_ID + VMM
    ids = Ids(monkeypatch, {own, identity.NOBODY})
    identity.change(VMM, 0)
    assert ids.calls == [("bound", 0), ("groups", 0), ("gid", own), ("uid", own)]


def test_change_id_that_the_container_does_not_map_becomes_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = Ids(monkeypatch, {identity.NOBODY})
    identity.change(VMM, layers.CAPABILITIES)
    assert ids.calls == [("groups", 0), ("gid", identity.NOBODY), ("uid", identity.NOBODY)]


def test_change_no_id_to_be_had_tells_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    Ids(monkeypatch, set())
    with pytest.raises(OSError, match="setresgid: Invalid argument"):
        identity.change(VMM, 0)


def test_change_by_an_ordinary_user_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(OSError, match=identity.NOT_ROOT):
        identity.change(VMM, 0)


def test_candidates_are_ids_that_systemd_gives_to_nobody() -> None:
    # Above the containers' range, below the foreign ids: 0x70000000 to 0x7ffdffff, for pids up to 2**22.
    for pid in (1, 2**22 - 1):
        assert 0x7000_0000 < identity.candidates(pid)[0] < 0x7FFE_0000


# --- How the reasons travel -------------------------------------------------------------------------------


def test_reasons_come_back_as_they_were() -> None:
    reasons = {"net-namespace": "unshare: Operation not permitted", "other-uid": identity.NOT_ROOT}
    assert spawner_frames.unpack_reasons(spawner_frames.pack_reasons(reasons)) == reasons
    assert spawner_frames.unpack_reasons(spawner_frames.pack_reasons({})) == {}


def test_reasons_of_every_layer_fit_a_frame() -> None:
    reasons = dict.fromkeys(layers.NAMES.values(), "x" * 120)
    assert spawner_frames.unpack_reasons(spawner_frames.pack_reasons(reasons)) == reasons
