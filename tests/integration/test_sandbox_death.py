"""Nothing outlives the VMM, however it dies, and nothing is left behind when it does not."""

from __future__ import annotations

import ctypes
import json
import math
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

import kvmbox
from kvmbox.base.errors import DeviceProcessError, SandboxError
from kvmbox.jail import layers
from kvmbox.remote.process.spawner_client import KILL_PATIENCE_NS, SpawnerClient
from kvmbox.sandbox.libseccomp import compile_policy
from kvmbox.sandbox.policy import DEVICE_POLICY
from tests.support.patience import patience

PAYLOADS = Path(__file__).parent / "sandbox_payload"
ROOT = str(Path(kvmbox.__file__).parent.parent)
PATIENCE_S = math.ceil(patience(10))
OPENAT = 257
NOBODY = 65534
PR_SET_CHILD_SUBREAPER = 36


class Vmm:
    """The program sandbox_payload/vmm.py, taken to a phase."""

    def __init__(self, phase: str, *command: str, scoped: bool = False) -> None:
        bpf = compile_policy(DEVICE_POLICY).hex()
        self.process = subprocess.Popen(
            [
                *(command or (sys.executable,)),
                str(PAYLOADS / "vmm.py"),
                ROOT,
                bpf,
                phase,
                *(["scoped"] if scoped else []),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
        )
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            self.process.communicate()
            pytest.fail(f"the VMM ended with status {self.process.returncode}")
        self.report: dict[str, Any] = json.loads(line)

    def finish(self) -> dict[str, Any]:
        """Let it close everything; returns what it reports."""
        output, _ = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0
        result: dict[str, Any] = json.loads(output)
        return result

    def kill(self) -> None:
        """SIGKILL, reaped."""
        self.process.kill()
        self.process.communicate(timeout=PATIENCE_S)


@pytest.fixture
def orphans() -> Iterator[None]:
    """Orphans of this test become children of this process, and the wait for them is bounded."""

    def expire(number: int, frame: object) -> NoReturn:
        raise TimeoutError("a process outlived the VMM")

    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    previous = signal.signal(signal.SIGALRM, expire)
    signal.alarm(PATIENCE_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def wait_readable(descriptor: int | SpawnerClient) -> None:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    assert poller.poll(PATIENCE_S * 1000), "nothing happened"


def reap_orphans() -> list[int]:
    """The wait statuses of all children, once all of them are dead."""
    statuses = []
    while True:
        try:
            statuses.append(os.wait()[1])
        except ChildProcessError:
            return statuses


@pytest.mark.parametrize("phase", ["started", "asked", "ready"])
@pytest.mark.usefixtures("orphans")
def test_vmm_killed_in_any_phase_leaves_no_process(phase: str) -> None:
    vmm = Vmm(phase)
    pidfd = os.pidfd_open(vmm.report["spawner"])
    vmm.kill()

    statuses = reap_orphans()

    # The spawner is an orphan for certain; it may have forked before it died, and those are, too.
    assert statuses
    with pytest.raises(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, 0)
    os.close(pidfd)


@pytest.mark.usefixtures("orphans")
def test_vmm_killed_while_devices_serve_kills_each_of_them() -> None:
    vmm = Vmm("ready")
    pidfds = [os.pidfd_open(pid) for pid in (vmm.report["spawner"], *vmm.report["devices"])]
    vmm.kill()

    reap_orphans()

    for pidfd in pidfds:
        with pytest.raises(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, 0)
        os.close(pidfd)


@pytest.mark.usefixtures("orphans")
def test_spawner_killed_kills_each_device_process() -> None:
    vmm = Vmm("ready")
    pidfds = [os.pidfd_open(pid) for pid in vmm.report["devices"]]
    os.kill(vmm.report["spawner"], signal.SIGKILL)
    for pidfd in pidfds:
        wait_readable(pidfd)
        os.close(pidfd)
    vmm.kill()
    reap_orphans()


@pytest.mark.parametrize(
    ("phase", "scoped"), [("ready", False), ("ready", True), ("confined", False), ("confined", True)]
)
@pytest.mark.usefixtures("orphans")
def test_vmm_killed_while_the_spawner_is_stopped_kills_it_all_the_same(phase: str, scoped: bool) -> None:
    # It cannot read the end of its socket: only the death signal reaches it. Where it has its own user
    # id that takes a right over its user namespace, which root has as its owner; and that Landlock's scope,
    # if there is one, has the spawner in it.
    vmm = Vmm(phase, scoped=scoped)
    pidfds = [os.pidfd_open(pid) for pid in (vmm.report["spawner"], *vmm.report["devices"])]
    os.kill(vmm.report["spawner"], signal.SIGSTOP)
    vmm.kill()

    for pidfd in pidfds:
        wait_readable(pidfd)
        os.close(pidfd)
    reap_orphans()


def check_whole_life(vmm: Vmm) -> None:
    pids = [vmm.report["spawner"], *vmm.report["devices"]]
    assert set(vmm.report["layers"][0]) >= set(layers.names(layers.REQUIRED))

    result = vmm.finish()

    assert result["forbidden"] == OPENAT
    # The one that made a forbidden call was killed; the others saw the end of their channels.
    assert [os.waitstatus_to_exitcode(status) for status in result["statuses"]] == [-signal.SIGKILL, 0, 0]
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.mark.parametrize("minor", [11, 12, 13, 14])
def test_sandbox_whole_life_works_on_python(minor: int) -> None:
    # The sandbox needs the standard library only, so any interpreter of the host will do.
    python = shutil.which(f"python3.{minor}", path="/usr/bin:/usr/local/bin")
    if sys.version_info[:2] == (3, minor):
        python = sys.executable
    if python is None:
        pytest.skip(f"no python3.{minor} on this host")
    vmm = Vmm("ready", python)
    assert vmm.report["version"] == [3, minor]
    check_whole_life(vmm)


@pytest.mark.root
def test_sandbox_whole_life_works_as_ordinary_user() -> None:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("no setpriv on this host")
    become_nobody = [setpriv, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
    for python in (sys.executable, "/usr/bin/python3"):
        # setpriv itself may still reach what the user may not, so the interpreter is asked about itself.
        code = f"import os, sys; sys.path.append({ROOT!r}); import kvmbox.jail.spawner; "
        check = [python, "-c", code + "sys.exit(not os.access(sys.executable, os.X_OK))"]
        if (
            subprocess.run([*become_nobody, *check], cwd="/", capture_output=True, check=False).returncode
            == 0
        ):
            break
    else:
        pytest.skip("an ordinary user can read no Python here, or not this checkout")
    vmm = Vmm("ready", *become_nobody, python)
    assert vmm.report["uid"] == NOBODY
    check_whole_life(vmm)


@pytest.mark.parametrize("scoped", [False, True])
def test_sandbox_whole_life_works_for_a_confined_vmm(scoped: bool) -> None:
    check_whole_life(Vmm("confined", scoped=scoped))


def start_one(client: SpawnerClient) -> tuple[socket.socket, int]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = client.spawn("uart", [theirs.detach()], compile_policy(DEVICE_POLICY), entry="payload:echo")
    client.wait_ready(process)
    return ours, process.pid


@pytest.fixture
def client() -> Iterator[SpawnerClient]:
    client = SpawnerClient.start(entries=["payload:echo"], payload_directory=str(PAYLOADS))
    yield client
    client.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_device_process_killed_is_reported_with_its_signal(client: SpawnerClient, number: int) -> None:
    channel, pid = start_one(client)
    os.kill(pid, number)
    wait_readable(client)
    (death,) = client.poll_deaths()
    assert death.pid == pid
    assert os.waitstatus_to_exitcode(death.wait_status) == -number
    assert str(death) == f"was killed by signal {number.real} ({signal.Signals(number).name})"
    assert channel.recv(1) == b""
    channel.close()


def test_device_process_terminal_signals_do_not_reach_it(client: SpawnerClient) -> None:
    channel, pid = start_one(client)
    for target in (pid, client.pid):
        for number in (signal.SIGINT, signal.SIGTSTP, signal.SIGHUP, signal.SIGQUIT):
            os.kill(target, number)
    channel.send(b"alive")
    assert channel.recv(16) == b"alive"
    channel.close()


def test_device_process_has_its_own_session(client: SpawnerClient) -> None:
    channel, pid = start_one(client)
    assert os.getsid(pid) == os.getsid(client.pid) == client.pid
    channel.close()


def test_close_stopped_device_process_is_killed(client: SpawnerClient) -> None:
    channel, pid = start_one(client)
    os.kill(pid, signal.SIGSTOP)
    channel.close()
    client.close()
    assert not Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{client.pid}").exists()


@pytest.mark.parametrize("without", [0, layers.PID_NS], ids=["PID 1", "not PID 1"])
def test_close_ends_device_processes_whose_channels_are_open(without: int) -> None:
    client = SpawnerClient.start(entries=["payload:echo"], payload_directory=str(PAYLOADS), without=without)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = client.spawn("uart", [theirs.detach()], compile_policy(DEVICE_POLICY))
    client.wait_ready(process)
    with ours:
        client.close()
    assert not Path(f"/proc/{process.pid}").exists()
    # PID 1 leaves it to the kernel, and does not wait to tell how they end.
    assert (process.wait_status is None) is bool(client.layers & layers.PID_NS)


def test_close_stopped_spawner_is_killed(client: SpawnerClient) -> None:
    channel, pid = start_one(client)
    pidfd = os.pidfd_open(pid)
    os.kill(client.pid, signal.SIGSTOP)
    client.close(timeout_ns=0)
    assert not Path(f"/proc/{client.pid}").exists()
    wait_readable(pidfd)
    os.close(pidfd)
    channel.close()


def test_kill_that_a_stopped_spawner_does_not_obey_ends_it_and_its_children(client: SpawnerClient) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = client.spawn("uart", [theirs.detach()], compile_policy(DEVICE_POLICY), entry="payload:echo")
    client.wait_ready(process)
    os.kill(client.pid, signal.SIGSTOP)
    process.kill()
    process.kill()  # soon after: it is given its time
    assert client.poll_deaths() == []
    assert process.kill_asked_at is not None
    process.kill_asked_at -= KILL_PATIENCE_NS
    process.kill()
    wait_readable(process.pidfd)
    wait_readable(client)
    with pytest.raises(DeviceProcessError, match="'spawner' was killed: it did not do so"):
        client.poll_deaths()
    ours.close()


def test_kill_of_one_that_is_dead_spares_the_spawner_however_late(client: SpawnerClient) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = client.spawn("uart", [theirs.detach()], compile_policy(DEVICE_POLICY), entry="payload:echo")
    client.wait_ready(process)
    process.kill()
    wait_readable(process.pidfd)
    assert process.kill_asked_at is not None
    process.kill_asked_at -= KILL_PATIENCE_NS
    process.kill()  # nobody has heard of its death yet
    channel, _ = start_one(client)
    for one in (ours, channel):
        one.close()


def test_close_leaves_no_descriptor(client: SpawnerClient) -> None:
    before = set(os.listdir("/proc/self/fd"))
    second = SpawnerClient.start(entries=["payload:echo"], payload_directory=str(PAYLOADS))
    channel, _ = start_one(second)
    channel.close()
    second.close()
    second.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_kill_before_the_pid_is_known_is_kept(client: SpawnerClient) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = client.spawn("uart", [theirs.detach()], compile_policy(DEVICE_POLICY), entry="payload:echo")
    process.kill()
    while process.wait_status is None:
        wait_readable(client)
        client.poll_deaths()
    assert os.waitstatus_to_exitcode(process.wait_status) == -signal.SIGKILL
    ours.close()


def test_wait_ready_stopped_spawner_ends_at_the_deadline(client: SpawnerClient) -> None:
    channel, _ = start_one(client)
    os.kill(client.pid, signal.SIGSTOP)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = client.spawn("rtc", [theirs.detach()], compile_policy(DEVICE_POLICY), entry="payload:echo")
    with pytest.raises(SandboxError, match="device process 'rtc': it was not ready within 0 ms"):
        client.wait_ready(process, timeout_ns=0)
    os.kill(client.pid, signal.SIGCONT)
    while process.wait_status is None:  # and what was late does not live on
        wait_readable(client)
        client.poll_deaths()
    assert os.waitstatus_to_exitcode(process.wait_status) == -signal.SIGKILL
    ours.close()
    channel.close()
