"""The order and the report of isolation, without taking any of it."""

from __future__ import annotations

import errno
import os

import pytest

from kvmbox.jail import identity, layers, linux, namespaces
from kvmbox.wire import spawner_frames

VMM = 4242
UNSHARE = {flag: layers.NAMES[bit] for bit, flag in namespaces.FLAGS.items()}
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
        monkeypatch.setattr(linux, "clone", self._clone)
        monkeypatch.setattr(os, "setsid", lambda: None)
        monkeypatch.setattr(namespaces, "open_proc", lambda: os.open(os.devnull, os.O_PATH))
        # Nothing of this host is to be touched, whatever the code under test believes.
        monkeypatch.setattr(namespaces, "IPC_SYSCTLS", {})
        monkeypatch.setattr(namespaces, "forbid_objects", lambda former: self._note("ipc-limits"))
        monkeypatch.setattr(namespaces, "empty_root", lambda: self._note("empty root"))
        monkeypatch.setattr(identity, "leave_groups", lambda: self._note("groups"))
        monkeypatch.setattr(identity, "map_to_root", lambda uid, gid: self._note("map"))
        monkeypatch.setattr(identity, "change", self._change)

    def _clone(self, flags: int) -> int:
        return self._note("clone with ids" if flags & namespaces.CLONE_NEWUSER else "clone")

    def _change(self, vmm_pid: int, without: int) -> int:
        self._note("other-uid")
        return identity.first_of(vmm_pid)

    def _call(self, name: str, _number: int, flag: int) -> int:
        assert name == "unshare"
        return self._note(UNSHARE[flag])

    def _note(self, what: str) -> int:
        self.asked.append(what)
        if what in self.refuses:
            raise OSError(errno.EPERM, f"{what}: Operation not permitted")
        return 0


def isolate(without: int = 0, way: namespaces.Way | None = None) -> namespaces.Isolation:
    return namespaces.isolate(VMM, without, way or stage())


def stage() -> namespaces.Stage:
    return namespaces.Stage(VMM, lambda pid: None)


OTHERS = ["mount-namespace", "net-namespace", "ipc-namespace", "uts-namespace", "cgroup-namespace"]


AS_USER = layers.ISOLATION & ~layers.OWN_UID


def test_isolate_with_cap_sys_admin_enters_the_user_namespace_last(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, admin=True)
    isolation = isolate(way=(way := stage()))
    assert isolation.applied == layers.ISOLATION
    first = [*OTHERS, "pid-namespace", "ipc-limits", "empty root"]
    assert host.asked == [*first, "groups", "clone with ids", "other-uid"]
    assert (isolation.owned, way.is_introduced) == (True, True)
    assert isolation.first_id == identity.first_of(VMM)


def test_isolate_user_namespace_refused_changes_the_id_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, admin=True, refuses={"clone with ids"})
    isolation = isolate(way=(way := stage()))
    assert isolation.applied == layers.ISOLATION & ~layers.USER_NS & ~layers.OWN_UID
    assert isolation.reasons[layers.OWN_UID] == "needs user-namespace"
    assert host.asked[-3:] == ["clone with ids", "clone", "other-uid"]
    assert (isolation.owned, way.is_introduced, isolation.first_id) == (False, True, None)


def test_limits_of_system_v_objects_are_never_those_of_the_former_namespace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(namespaces, "IPC_SYSCTLS", {"kvmbox-no-such-limit": b"0"})
    here = os.readlink("/proc/self/ns/ipc")
    for former in (here, ""):
        with pytest.raises(OSError, match="the ipc namespace is not a new one"):
            namespaces.forbid_objects(former)
    with pytest.raises(FileNotFoundError, match="kvmbox-no-such-limit"):  # the control: now it would write
        namespaces.forbid_objects("ipc:[1]")


def test_isolate_without_cap_sys_admin_enters_the_user_namespace_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = Host(monkeypatch, admin=False)
    isolation = isolate()
    assert isolation.applied == AS_USER
    others = [*OTHERS, "pid-namespace", "map", "ipc-limits", "clone", "empty root"]
    assert host.asked == ["groups", "other-uid", "user-namespace", *others, "user-namespace"]
    assert isolation.owned is False


def test_isolate_second_user_namespace_refused_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    # In the first one an id has a name, so another could be made below it.
    host = Host(monkeypatch, admin=False)
    calls = iter([True, False])
    unshare = host._call

    def once(name: str, number: int, flag: int) -> int:
        if flag == namespaces.CLONE_NEWUSER and not next(calls):
            raise OSError(errno.EPERM, "unshare: Operation not permitted")
        return unshare(name, number, flag)

    monkeypatch.setattr(linux, "checked_syscall", once)
    isolation = isolate()
    assert isolation.applied == AS_USER & ~layers.USER_NS
    assert isolation.reasons[layers.USER_NS] == "unshare: Operation not permitted"


def test_isolate_without_any_way_in_asks_for_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, admin=False, refuses={"user-namespace", "other-uid"})
    isolation = isolate()
    assert isolation.applied == 0
    assert host.asked == ["groups", "other-uid", "user-namespace"]
    assert isolation.reasons[layers.USER_NS] == "user-namespace: Operation not permitted"
    assert {isolation.reasons[bit] for bit in namespaces.FLAGS} == {namespaces.NO_WAY_IN}


def test_isolate_one_namespace_refused_takes_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    Host(monkeypatch, admin=True, refuses={"net-namespace"})
    isolation = isolate()
    assert isolation.applied == layers.ISOLATION & ~layers.NET_NS
    assert isolation.reasons == {layers.NET_NS: "net-namespace: Operation not permitted"}


def test_isolate_pid_namespace_refused_makes_no_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, admin=True, refuses={"pid-namespace"})
    isolation = isolate(layers.USER_NS, way=(way := stage()))
    assert isolation.applied == layers.ISOLATION & ~layers.PID_NS & ~layers.USER_NS & ~layers.OWN_UID
    assert not way.is_introduced
    assert not {"clone", "clone with ids"} & set(host.asked)


def test_isolate_root_that_cannot_be_emptied_is_no_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    Host(monkeypatch, admin=True, refuses={"empty root"})
    isolation = isolate()
    assert isolation.applied == layers.ISOLATION & ~layers.MOUNT_NS
    assert isolation.reasons == {layers.MOUNT_NS: "empty root: Operation not permitted"}


@pytest.mark.parametrize("bit", [bit for bit in layers.NAMES if bit & layers.ISOLATION])
def test_isolate_layer_left_out_is_not_asked_for(monkeypatch: pytest.MonkeyPatch, bit: int) -> None:
    host = Host(monkeypatch, admin=True)
    isolation = isolate(bit)
    gone = {other for other, needed in layers.PARTS.items() if needed & bit and other & layers.ISOLATION}
    assert isolation.applied == layers.ISOLATION & ~bit & ~sum(gone)
    assert layers.NAMES[bit] not in host.asked
    assert set(isolation.reasons) == {bit, *gone}
    assert isolation.reasons[bit] == namespaces.LEFT_OUT
    assert {isolation.reasons[other] for other in gone} <= {f"needs {layers.NAMES[bit]}"}


def test_limit_on_namespaces_is_not_called_a_full_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(name: str, *_: int) -> int:
        raise OSError(errno.ENOSPC, f"{name}: No space left on device")

    Host(monkeypatch, admin=True)
    monkeypatch.setattr(linux, "checked_syscall", full)
    reasons = isolate(layers.OTHER_UID).reasons
    assert {reasons[bit] for bit in namespaces.FLAGS} == {namespaces.NO_MORE}


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
    own = identity.FIRST_ID + 63 * VMM
    ids = Ids(monkeypatch, {own, identity.NOBODY})
    identity.leave_groups()
    assert identity.change(VMM, 0) == own
    assert ids.calls == [("groups", 0), ("bound", 0), ("gid", own), ("uid", own)]


def test_change_id_that_the_container_does_not_map_becomes_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = Ids(monkeypatch, {identity.NOBODY})
    assert identity.change(VMM, layers.CAPABILITIES) == identity.NOBODY
    assert ids.calls == [("gid", identity.NOBODY), ("uid", identity.NOBODY)]


def test_change_no_id_to_be_had_tells_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    Ids(monkeypatch, set())
    with pytest.raises(OSError, match="setresgid: Invalid argument"):
        identity.change(VMM, 0)


def test_leave_groups_of_an_ordinary_user_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(OSError, match=identity.NOT_ROOT):
        identity.leave_groups()


def test_candidates_are_ids_that_systemd_gives_to_nobody() -> None:
    # Above the containers' range, below the foreign ids: 0x70000000 to 0x7ffdffff, for pids up to 2**22.
    for pid in (1, 2**22 - 1):
        first = identity.candidates(pid)[0]
        assert first > 0x7000_0000
        assert first + identity.IDS <= 0x7FFE_0000


def test_two_vmms_share_no_id() -> None:
    ids = [range(identity.first_of(pid), identity.first_of(pid) + identity.IDS) for pid in (7, 8)]
    assert not set(ids[0]) & set(ids[1])


def test_free_id_is_the_lowest_that_nobody_has_and_never_the_spawners() -> None:
    first = identity.first_of(VMM)
    assert identity.free_id(first, []) == first + 1
    assert identity.free_id(first, [first + 1, None, first + 3]) == first + 2
    assert identity.free_id(first, range(first + 1, first + identity.IDS)) is None


# --- How the reasons travel -------------------------------------------------------------------------------


def test_reasons_come_back_as_they_were() -> None:
    reasons = {"net-namespace": "unshare: Operation not permitted", "other-uid": identity.NOT_ROOT}
    assert spawner_frames.unpack_reasons(spawner_frames.pack_reasons(reasons)) == reasons
    assert spawner_frames.unpack_reasons(spawner_frames.pack_reasons({})) == {}


def test_reasons_of_every_layer_fit_a_frame() -> None:
    reasons = dict.fromkeys(layers.NAMES.values(), "x" * 120)
    assert spawner_frames.unpack_reasons(spawner_frames.pack_reasons(reasons)) == reasons
