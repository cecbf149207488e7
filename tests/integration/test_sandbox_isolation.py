"""Namespaces and the other user id: taken where the host allows, each visible, each left out on request."""

from __future__ import annotations

import errno
import json
import os
import select
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import Any, Final

import pytest

import kvmbox
from kvmbox.base.errors import SandboxError
from kvmbox.jail import identity, layers, linux, namespaces
from kvmbox.remote.process.spawner_client import DeviceProcess, SpawnerClient
from kvmbox.sandbox.libseccomp import compile_policy
from kvmbox.sandbox.policy import DEVICE_POLICY, Policy, Rule
from tests.support.patience import patience

PAYLOADS = Path(__file__).parent / "sandbox_payload"
ROOT = str(Path(kvmbox.__file__).parent.parent)
ENTRIES = ["payload:call", "payload:try_without_filter"]
PATIENCE_S = patience(10)
_CALL = Struct("=q6Q")  # as in sandbox_payload/payload.py
_RESULT = Struct("=qi")
LINKS = {
    "user": layers.USER_NS,
    "mnt": layers.MOUNT_NS,
    "pid": layers.PID_NS,
    "net": layers.NET_NS,
    "ipc": layers.IPC_NS,
    "uts": layers.UTS_NS,
    "cgroup": layers.CGROUP_NS,
}
PRLIMIT64, SHMGET, SEMGET, MSGGET = 302, 29, 64, 68
RLIMIT_AS = 9
EACH = [bit for bit in layers.NAMES if bit & layers.ISOLATION]

# Lets the layers under test decide.
LAX = compile_policy(
    Policy(
        "lax",
        DEVICE_POLICY.rules
        + tuple(
            Rule(name, number, "let the other layers decide")
            for name, number in {
                "openat": 257, "close": 3, "fstat": 5, "newfstatat": 262, "fcntl": 72,
                "socket": 41, "bind": 49, "kill": 62, "prctl": 157, "unshare": 272,
                "prlimit64": PRLIMIT64, "shmget": SHMGET, "msgget": MSGGET, "semget": SEMGET,
            }.items()
        ),
    )
)  # fmt: skip


class Started:
    """A spawner and one device process, with what was asked to be left out left out."""

    def __init__(self, payload: str, *, without: int = 0, landlock_limit: int = 0) -> None:
        self.client = SpawnerClient.start(
            entries=ENTRIES,
            payload_directory=str(PAYLOADS),
            landlock_limit=landlock_limit,
            without=without,
        )
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.settimeout(PATIENCE_S)
        self.process: DeviceProcess = self.client.spawn(
            "uart", [theirs.detach()], LAX, entry=f"payload:{payload}"
        )
        self.client.wait_ready(self.process)
        self.others: list[socket.socket] = []

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        for channel in (self.channel, *self.others):
            channel.close()
        self.client.close()

    def another(self) -> DeviceProcess:
        """One more device process of the same spawner, ready."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.others.append(ours)
        process = self.client.spawn("pit", [theirs.detach()], LAX, entry="payload:call")
        self.client.wait_ready(process)
        return process

    def call(self, number: int, *arguments: int) -> tuple[int, int]:
        """The result and errno of a system call that the device process makes."""
        self.channel.send(_CALL.pack(number, *arguments, *[0] * (6 - len(arguments))))
        return _RESULT.unpack(self.channel.recv(64))

    def attempts(self) -> dict[str, int]:
        """What opening "/" and a signal to this process gave: errno by name."""
        self.channel.send(b"%d" % os.getpid())
        answer = self.channel.recv(4096).decode()
        return {name: int(result) for name, _, result in (one.partition("=") for one in answer.split())}


def status_of(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.split() for key, _, value in (line.partition(":") for line in lines)}


@pytest.fixture(scope="module")
def whole() -> Iterator[Started]:
    """With everything that root can have."""
    with Started("call") as started:
        yield started


# --- As root, everything ----------------------------------------------------------------------------------


@pytest.mark.root
def test_isolation_as_root_is_whole(whole: Started) -> None:
    assert layers.names(whole.process.layers & layers.ISOLATION) == layers.names(layers.ISOLATION)
    assert whole.client.layers & layers.ISOLATION == layers.ISOLATION
    assert not [name for name in whole.client.missing if "namespace" in name]


@pytest.mark.root
@pytest.mark.parametrize("link", LINKS)
def test_device_process_namespace_is_neither_the_host_s_nor_shared_with_the_vmm(
    whole: Started, link: str
) -> None:
    inside = os.readlink(f"/proc/{whole.process.pid}/ns/{link}")
    assert inside != os.readlink(f"/proc/self/ns/{link}")
    # Its user namespace is its own, below the spawner's, so that the spawner has rights over it.
    assert (inside == os.readlink(f"/proc/{whole.client.pid}/ns/{link}")) is (link != "user")


@pytest.mark.root
def test_device_process_user_and_group_are_this_vmm_s_own(whole: Started) -> None:
    first = identity.FIRST_ID + identity.IDS * os.getpid()
    for pid, number in ((whole.client.pid, first), (whole.process.pid, first + 1)):
        status = status_of(pid)
        assert status["Uid"] == status["Gid"] == [str(number)] * 4
        assert status["Groups"] == []


@pytest.mark.root
def test_device_process_capabilities_are_gone_from_every_set(whole: Started) -> None:
    status = status_of(whole.process.pid)
    assert {status[name][0] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}


@pytest.mark.root
def test_spawner_keeps_the_capabilities_to_give_out_ids_over_those_ids_alone(whole: Started) -> None:
    status = status_of(whole.client.pid)
    giving = 1 << linux.CAP_SETUID | 1 << linux.CAP_SETGID | 1 << linux.CAP_KILL
    assert {int(status[name][0], 16) for name in ("CapPrm", "CapEff")} == {giving}
    assert {int(status[name][0], 16) for name in ("CapInh", "CapBnd", "CapAmb")} == {0}
    first = identity.FIRST_ID + identity.IDS * os.getpid()
    for name in ("uid_map", "gid_map"):
        words = Path(f"/proc/{whole.client.pid}/{name}").read_text().split()
        assert [int(word) for word in words] == [first, first, identity.IDS]


@pytest.mark.root
def test_device_processes_have_an_id_each_which_the_next_one_gets_when_one_is_gone() -> None:
    with Started("call") as first:
        second, third = first.another(), first.another()
        numbers = [int(status_of(one.pid)["Uid"][0]) for one in (first.process, second, third)]
        base = identity.first_of(os.getpid())
        assert numbers == [base + 1, base + 2, base + 3]

        second.kill()  # of another id than the spawner, which must be able to all the same
        poller = select.poll()
        poller.register(second.pidfd, select.POLLIN)
        assert poller.poll(PATIENCE_S * 1000)
        poller.register(first.client, select.POLLIN)
        while second.wait_status is None:
            poller.poll(PATIENCE_S * 1000)
            first.client.poll_deaths()
        assert os.WTERMSIG(second.wait_status) == 9
        assert int(status_of(first.another().pid)["Uid"][0]) == base + 2


@pytest.mark.root
@pytest.mark.parametrize(
    ("without", "expected"), [(0, (-1, errno.EPERM)), (layers.OWN_UID, (0, 0))], ids=["whole", "control"]
)
def test_device_process_cannot_limit_a_sibling_of_another_id(without: int, expected: tuple[int, int]) -> None:
    with Started("call", without=without) as started:
        sibling = int(status_of(started.another().pid)["NSpid"][-1])
        assert started.call(PRLIMIT64, sibling, RLIMIT_AS, 0, 0) == expected


@pytest.mark.root
@pytest.mark.parametrize("number", [SHMGET, MSGGET, SEMGET])
@pytest.mark.parametrize("without", [0, layers.IPC_LIMITS], ids=["whole", "control"])
def test_system_v_object_cannot_be_made(number: int, without: int) -> None:
    sizes = {SHMGET: (0, 4096, 0o1600), MSGGET: (0, 0o1600), SEMGET: (0, 1, 0o1600)}
    with Started("call", without=without) as started:
        result, error = started.call(number, *sizes[number])
    if without:  # the control
        assert (result >= 0, error) == (True, 0)
    else:
        assert (result, error) == (-1, errno.EINVAL if number == SEMGET else errno.ENOSPC)


def test_host_keeps_its_system_v_objects() -> None:
    with Started("call"):
        assert int(Path("/proc/sys/kernel/shmmni").read_text()) > 0


@pytest.mark.root
def test_device_process_user_namespace_maps_nobody(whole: Started) -> None:
    assert Path(f"/proc/{whole.process.pid}/uid_map").read_text() == ""
    assert Path(f"/proc/{whole.process.pid}/gid_map").read_text() == ""


@pytest.mark.root
def test_device_process_root_directory_is_empty_and_read_only(whole: Started) -> None:
    root = f"/proc/{whole.process.pid}/root"
    assert os.listdir(root) == []
    with pytest.raises(OSError, match="Read-only") as refused:
        os.mkdir(f"{root}/x")
    assert refused.value.errno == errno.EROFS
    mounts = Path(f"/proc/{whole.process.pid}/mounts").read_text().splitlines()
    assert len(mounts) == 1  # nothing of the host is below it


@pytest.mark.root
def test_device_process_network_is_a_loopback_that_is_down(whole: Started) -> None:
    lines = Path(f"/proc/{whole.process.pid}/net/dev").read_text().splitlines()[2:]
    assert [line.partition(":")[0].strip() for line in lines] == ["lo"]


@pytest.mark.root
def test_spawner_is_first_process_of_its_namespace_and_a_child_of_ours(whole: Started) -> None:
    status = status_of(whole.client.pid)
    assert status["NSpid"] == [str(whole.client.pid), "1"]
    assert status["PPid"] == [str(os.getpid())]


@pytest.mark.root
def test_pid_of_device_process_is_the_vmm_s_view(whole: Started) -> None:
    outside, inside = status_of(whole.process.pid)["NSpid"]
    assert int(outside) == whole.process.pid
    assert int(inside) < int(outside)  # or this shows nothing


@pytest.mark.root
def test_stage_is_gone_once_the_spawner_has_said_hello(whole: Started) -> None:
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    spawners = [pid for pid in children if status_of(int(pid))["Name"][:2] == ["kvmbox:", "spawner"]]
    assert spawners == [str(whole.client.pid)]


# --- One layer less, and what the next one stops ------------------------------------------------------


@pytest.mark.root
@pytest.mark.parametrize("left_out", EACH, ids=[layers.NAMES[bit] for bit in EACH])
def test_layer_left_out_leaves_the_others_standing(left_out: int) -> None:
    gone = left_out | sum(bit for bit, needed in layers.PARTS.items() if needed & left_out)
    with Started("call", without=left_out) as started:
        assert started.process.layers & layers.ISOLATION == layers.ISOLATION & ~gone
        assert started.client.missing[layers.NAMES[left_out]] == namespaces.LEFT_OUT
        link = next((name for name, bit in LINKS.items() if bit == left_out), None)
        if link is not None:
            inside = os.readlink(f"/proc/{started.process.pid}/ns/{link}")
            assert inside == os.readlink(f"/proc/self/ns/{link}")


@pytest.mark.root
@pytest.mark.parametrize(
    ("without", "expected"),
    [
        (0, {"open": errno.EACCES, "kill": errno.ESRCH}),
        (layers.MOUNT_NS, {"open": 0, "kill": errno.ESRCH}),
        (layers.PID_NS, {"open": errno.EACCES, "kill": errno.EPERM}),
        (layers.PID_NS | layers.OTHER_UID, {"open": errno.EACCES, "kill": 0}),
        (layers.ISOLATION, {"open": 0, "kill": 0}),  # the control: nothing else stops them
    ],
)
def test_isolation_stops_what_the_filter_lets_through(without: int, expected: dict[str, int]) -> None:
    # Without rlimits, which would not let anything be opened.
    with Started("try_without_filter", without=without | layers.RLIMITS) as started:
        attempts = started.attempts()
    assert {name: attempts[name] for name in expected} == expected


@pytest.mark.root
@pytest.mark.parametrize(
    ("without", "expected"), [(0, (-1, errno.EPERM)), (layers.USER_NS, (0, 0))], ids=["whole", "control"]
)
def test_user_namespace_without_a_mapping_refuses_another_below_it(
    without: int, expected: tuple[int, int]
) -> None:
    with Started("call", without=without) as started:
        assert started.call(linux.SYS_UNSHARE, namespaces.CLONE_NEWUSER) == expected


@pytest.mark.root
def test_layer_required_and_left_out_never_serves() -> None:
    client = SpawnerClient.start(
        entries=ENTRIES, payload_directory=str(PAYLOADS), without=layers.NET_NS | layers.UTS_NS
    )
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = client.spawn(
        "uart", [theirs.detach()], LAX, entry="payload:call", require=layers.mask_of(["net-namespace"])
    )
    with ours, pytest.raises(SandboxError, match=r"missing: net-namespace \(left out on request\)$"):
        client.wait_ready(process)
    client.close()


def test_close_before_the_spawner_is_up_leaves_no_child() -> None:
    before = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text()
    SpawnerClient.start(entries=ENTRIES, payload_directory=str(PAYLOADS)).close()
    assert Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text() == before


def test_spawner_stopped_and_killed_takes_its_device_process_along() -> None:
    with Started("call") as started:
        pidfd = os.pidfd_open(started.process.pid)
        os.kill(started.client.pid, 19)
        os.kill(started.client.pid, 9)
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        assert poller.poll(PATIENCE_S * 1000)
        os.close(pidfd)


# --- Less than root ---------------------------------------------------------------------------------------


def report_of(*wrapper: str, program: str = "vmm.py") -> dict[str, Any]:
    """What a VMM that `wrapper` starts reports: the program of sandbox_payload, to its end."""
    bpf = compile_policy(DEVICE_POLICY).hex()
    complaint = b""
    for python in (sys.executable, "/usr/bin/python3"):
        command = [*wrapper, python, str(PAYLOADS / program), ROOT, bpf, "ready"]
        done = subprocess.run(
            command, input=b"", capture_output=True, cwd="/", check=False, timeout=patience(60)
        )
        if done.returncode == 0:
            report: dict[str, Any] = json.loads(done.stdout.splitlines()[0])
            return report
        complaint = done.stderr
    pytest.skip(f"no Python here that it can start: {complaint.decode()[-500:]}")


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"no {name} on this host")
    return path


def assert_serves_without(report: dict[str, Any], missing: set[str]) -> None:
    names = set(layers.names(layers.ISOLATION))
    for found in report["layers"]:
        assert set(found) >= set(layers.names(layers.REQUIRED))
        assert names - set(found) == missing
    assert set(report["missing"]) & names == missing


@pytest.mark.root
def test_ordinary_user_gets_every_namespace_and_keeps_the_user_id() -> None:
    report = report_of(tool("setpriv"), "--reuid=65534", "--regid=65534", "--clear-groups", "--")
    if namespaces.NO_WAY_IN in report["missing"].values():
        pytest.skip("this host forbids user namespaces to ordinary users")
    assert_serves_without(report, {"other-uid", "own-uid"})
    assert report["missing"]["other-uid"] == report["missing"]["own-uid"] == identity.NOT_ROOT


@pytest.mark.root
def test_user_namespaces_forbidden_serves_and_says_why_all_are_missing() -> None:
    # The limit holds in the namespace below ours, in which the VMM is an ordinary user.
    script = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    no_rights = (tool("setpriv"), "--bounding-set=-all", "--inh-caps=-all", "--")
    report = report_of(tool("unshare"), "-U", "-r", "sh", "-c", script, "sh", *no_rights)
    assert_serves_without(report, set(layers.names(layers.ISOLATION)))
    assert report["missing"]["user-namespace"] == namespaces.NO_MORE
    assert report["missing"]["net-namespace"] == namespaces.NO_WAY_IN
    assert report["missing"]["other-uid"].startswith("set")  # the call that was refused


@pytest.mark.root
def test_root_without_cap_sys_admin_changes_its_id_and_takes_the_user_namespace_first() -> None:
    report = report_of(tool("setpriv"), "--bounding-set=-sys_admin", "--")
    if namespaces.NO_WAY_IN in report["missing"].values():
        pytest.skip("this host forbids user namespaces")
    assert_serves_without(report, {"own-uid"})
    assert report["missing"]["own-uid"] == namespaces.NO_MAP


@pytest.mark.root
def test_mounts_that_are_shared_with_other_namespaces_do_not_stand_in_the_way() -> None:
    # As systemd sets a host up: nothing may be mounted there for all to see.
    assert_serves_without(report_of(tool("unshare"), "-m", "--propagation", "shared", "--"), set())


@pytest.mark.root
def test_root_of_a_container_with_few_ids_becomes_nobody() -> None:
    report = report_of(tool("unshare"), "-U", "--map-users=0,0,65536", "--map-groups=0,0,65536")
    assert_serves_without(report, {"own-uid"})
    assert report["missing"]["own-uid"] == identity.FEW_IDS


def below(limit: str = "") -> list[str]:
    """The command of root in a user namespace below ours, without the namespaces of that kind."""
    script = f"echo 0 > /proc/sys/user/max_{limit}_namespaces && " if limit else ""
    return ["unshare", "-U", "-r", "sh", "-c", f'{script}exec "$@"', "sh"]


NO_RIGHTS: Final = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--")


@pytest.mark.root
@pytest.mark.parametrize(
    "wrapper",
    [
        [],
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"],
        ["unshare", "-U", "--map-users=0,0,65536", "--map-groups=0,0,65536"],
        [*below("user"), *NO_RIGHTS],
        *map(below, ("user", "mnt", "net", "ipc", "uts", "cgroup", "pid")),
    ],
    ids=" ".join,
)
def test_spawner_that_a_template_clones_has_what_one_has_that_its_vmm_starts(wrapper: list[str]) -> None:
    report = report_of(*map(tool, wrapper[:1]), *wrapper[1:], program="lent.py")
    assert report["lent"] == report["own"]
    assert report["own"]["seen"]


@pytest.mark.root
def test_root_without_cap_sys_admin_starts_its_spawners_itself() -> None:
    report = report_of(tool("setpriv"), "--bounding-set=-sys_admin", "--", program="lent.py")
    if "user-namespace" in report["own"]["missing"]:
        pytest.skip("this host forbids user namespaces")
    assert set(report) == {"own"}
