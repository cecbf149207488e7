"""Real device processes, really jailed: what they can do, what they cannot, and how that is told."""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from struct import Struct
from typing import Protocol

import pytest

from kvmbox.base.errors import DeviceProcessError, SandboxError
from kvmbox.jail import landlock, layers
from kvmbox.jail.fixed_descriptors import CHANNEL_FD, LISTENER_FD, REPORT_FD
from kvmbox.remote.process.spawner_client import DeviceProcess, SpawnerClient
from kvmbox.sandbox import host_support
from kvmbox.sandbox.libseccomp import compile_policy
from kvmbox.sandbox.policy import (
    DEVICE_POLICY,
    MAP_ANONYMOUS,
    MAP_PRIVATE,
    PROT_READ,
    PROT_WRITE,
    WORD,
    Policy,
    Rule,
)
from tests.support.patience import patience

PAYLOADS = str(Path(__file__).parent / "sandbox_payload")
ENTRIES = [
    f"payload:{name}"
    for name in ("echo", "call", "stress_memory", "exhaust_memory", "fail", "leave", "try_without_filter")
]
PATIENCE_MS = patience(10_000)  # how long a broken sandbox may hang a test; a good one takes microseconds

PROT_EXEC, MAP_SHARED, MAP_FIXED = 4, 1, 0x10
SET_MODE_FILTER = 1
# As in sandbox_payload/payload.py.
_CALL = Struct("=q6Q")
_RESULT = Struct("=qi")
READ, WRITE, MMAP, GETPID, SENDMSG, CLOSE, SETRLIMIT, SECCOMP = 0, 1, 9, 39, 46, 3, 160, 317


@pytest.fixture(scope="module")
def bpf() -> bytes:
    return compile_policy(DEVICE_POLICY)


@pytest.fixture
def client() -> Iterator[SpawnerClient]:
    client = SpawnerClient.start(entries=ENTRIES, payload_directory=PAYLOADS)
    yield client
    client.close()


class Device:
    """A device process that runs a payload, and the VMM's end of its channel."""

    def __init__(self, client: SpawnerClient, bpf: bytes, payload: str, **options: int) -> None:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.settimeout(PATIENCE_MS / 1000)
        self.client = client
        self.process: DeviceProcess = client.spawn(
            "uart", [theirs.detach()], bpf, entry=f"payload:{payload}", **options
        )

    def ask(self, request: bytes) -> bytes:
        self.channel.send(request)
        return self.channel.recv(4096)

    def call(self, number: int, *arguments: int) -> tuple[int, int]:
        """The result and errno of a system call that the device process makes."""
        return _RESULT.unpack(self.ask(self._request(number, *arguments)))

    def start_call(self, number: int, *arguments: int) -> None:
        self.channel.send(self._request(number, *arguments))

    @staticmethod
    def _request(number: int, *arguments: int) -> bytes:
        padded = [argument & WORD for argument in arguments] + [0] * (6 - len(arguments))
        return _CALL.pack(number, *padded)

    def wait_held(self) -> None:
        assert self.process.listener is not None
        wait_readable(self.process.listener)

    def wait_death(self) -> int:
        wait_readable(self.process.pidfd)
        while self.process.wait_status is None:
            wait_readable(self.client)
            self.client.poll_deaths()
        return self.process.wait_status


class HasDescriptor(Protocol):
    def fileno(self) -> int: ...


def wait_readable(descriptor: HasDescriptor | int) -> None:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    assert poller.poll(PATIENCE_MS), "nothing happened"


StartDevice = Callable[..., Device]


@pytest.fixture
def start(client: SpawnerClient, bpf: bytes) -> Iterator[StartDevice]:
    devices = []

    def start(payload: str, **options: int) -> Device:
        device = Device(client, bpf, payload, **options)
        devices.append(device)
        client.wait_ready(device.process)
        return device

    yield start
    for device in devices:
        device.channel.close()


# --- What is allowed --------------------------------------------------------------------------------


def test_device_process_many_requests_answers_all(start: StartDevice) -> None:
    device = start("echo")
    for number in range(20_000):
        request = number.to_bytes(8, "little")
        assert device.ask(request) == request


def test_device_process_growing_memory_survives(start: StartDevice) -> None:
    assert start("stress_memory").ask(b"!") == b"done"


def test_device_process_gigabyte_allocation_gets_memory_error(start: StartDevice) -> None:
    assert start("exhaust_memory").ask(b"!") == b"MemoryError"


def test_device_process_private_anonymous_mapping_is_allowed(start: StartDevice) -> None:
    flags = MAP_PRIVATE | MAP_ANONYMOUS
    address, _ = start("call").call(MMAP, 0, 4096, PROT_READ | PROT_WRITE, flags, -1, 0)
    assert address > 0


def test_device_process_descriptor_with_upper_bits_is_allowed(start: StartDevice) -> None:
    # The kernel ignores the upper half; address 0 then gives EFAULT, not a kill.
    result = start("call").call(WRITE, 0xABCD_0000_0000 | CHANNEL_FD, 0, 1)
    assert result == (-1, errno.EFAULT)


def test_device_process_channel_closed_exits_with_zero(start: StartDevice) -> None:
    device = start("echo")
    device.channel.close()
    assert device.wait_death() == 0


def test_device_process_entry_returns_status_exits_with_it(start: StartDevice) -> None:
    device = start("leave")
    device.channel.send(b"!")
    assert os.waitstatus_to_exitcode(device.wait_death()) == 7


def test_device_process_entry_raises_exits_with_one(start: StartDevice) -> None:
    device = start("fail")
    device.channel.send(b"!")
    assert os.waitstatus_to_exitcode(device.wait_death()) == 1


# --- What is forbidden ------------------------------------------------------------------------------

RW, ANONYMOUS = PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS
FORBIDDEN = {
    "read of another descriptor": ("read", READ, (0, 0x1000, 1)),
    "write to stderr": ("write", WRITE, (2, 0x1000, 1)),
    "write to a descriptor whose upper half is the channel": ("write", WRITE, (CHANNEL_FD << 32, 0, 1)),
    "executable mapping": ("mmap", MMAP, (0, 4096, RW | PROT_EXEC, ANONYMOUS, -1, 0)),
    "execute-only mapping": ("mmap", MMAP, (0, 4096, PROT_EXEC, ANONYMOUS, -1, 0)),
    "shared mapping": ("mmap", MMAP, (0, 4096, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0)),
    "fixed mapping": ("mmap", MMAP, (0x1000, 4096, RW, ANONYMOUS | MAP_FIXED, -1, 0)),
    "mapping of a file": ("mmap", MMAP, (0, 4096, RW, ANONYMOUS, CHANNEL_FD, 0)),
    "mapping with bits above the flags": ("mmap", MMAP, (0, 4096, RW, ANONYMOUS | 1 << 32, -1, 0)),
    "open": ("open", 2, (0x1000, 0)),
    "openat": ("openat", 257, (-100, 0x1000, 0)),
    "close of the channel": ("close", CLOSE, (CHANNEL_FD,)),
    "close of what nobody has": ("close", CLOSE, (7,)),
    "mprotect": ("mprotect", 10, (0x1000, 4096, RW | PROT_EXEC)),
    "mremap": ("mremap", 25, (0x1000, 4096, 8192, 1)),
    "sendmsg": ("sendmsg", SENDMSG, (CHANNEL_FD, 0x1000, 0)),
    "recvmsg": ("recvmsg", 47, (CHANNEL_FD, 0x1000, 0)),
    "socket": ("socket", 41, (1, 1, 0)),
    "fork": ("fork", 57, ()),
    "clone": ("clone", 56, (17,)),
    "clone3": ("clone3", 435, (0x1000, 88)),
    "execve": ("execve", 59, (0x1000, 0, 0)),
    "ptrace": ("ptrace", 101, (16, 1, 0, 0)),
    "kill": ("kill", 62, (1, 9)),
    "prctl": ("prctl", 157, (4, 1, 0, 0, 0)),
    "seccomp": ("seccomp", SECCOMP, (2, 0, 0x1000)),
    "setrlimit": ("setrlimit", SETRLIMIT, (9, 0x1000)),
    "ioctl": ("ioctl", 16, (CHANNEL_FD, 0x5401, 0)),
    "io_uring_setup": ("io_uring_setup", 425, (1, 0x1000)),
    "memfd_create": ("memfd_create", 319, (0x1000, 0)),
    "process_vm_readv": ("process_vm_readv", 310, (1, 0, 0, 0, 0, 0)),
    "the call of the self-test": ("getpid", GETPID, ()),
    "a number that no call has": ("system call 9999", 9999, ()),
}


@pytest.mark.parametrize(("name", "number", "arguments"), FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_forbidden_call_is_named_then_killed(
    start: StartDevice, name: str, number: int, arguments: tuple[int, ...]
) -> None:
    device = start("call")

    device.start_call(number, *arguments)
    device.wait_held()
    call = device.process.take_forbidden_call()

    assert call is not None
    assert (call.name, call.number, call.pid) == (name, number, device.process.pid)
    assert call.arguments[: len(arguments)] == tuple(argument & WORD for argument in arguments)
    assert os.waitstatus_to_exitcode(device.wait_death()) == -signal.SIGKILL


def test_forbidden_call_is_printed_with_its_arguments(start: StartDevice) -> None:
    device = start("call")
    device.start_call(257, 1, 2, 3, 4, 5, 0xABC)
    device.wait_held()
    assert str(device.process.take_forbidden_call()) == "openat(0x1, 0x2, 0x3, 0x4, 0x5, 0xabc)"


def test_forbidden_call_of_foreign_abi_is_killed_by_the_kernel(start: StartDevice) -> None:
    device = start("call")
    device.start_call(0x4000_0000 | GETPID)  # x32
    assert os.waitstatus_to_exitcode(device.wait_death()) == -signal.SIGSYS


@pytest.mark.parametrize(
    ("number", "argument"),
    [
        (SENDMSG, REPORT_FD),
        (CLOSE, LISTENER_FD),
        (CLOSE, REPORT_FD),
        (SETRLIMIT, resource.RLIMIT_NOFILE),
        (SECCOMP, SET_MODE_FILTER),
    ],
)
@pytest.mark.parametrize("listens", [True, False])
def test_call_of_the_way_into_the_jail_is_fatal_behind_it(
    start: StartDevice, number: int, argument: int, listens: bool
) -> None:
    device = start("call")
    assert device.process.listener is not None
    if not listens:
        device.process.listener.close()
    device.start_call(number, argument | 1 << 32, 0x1000, 0x1000)
    assert os.waitstatus_to_exitcode(device.wait_death()) == -signal.SIGSYS


def test_forbidden_call_without_listener_fails(start: StartDevice) -> None:
    device = start("call")
    assert device.process.listener is not None
    device.process.listener.close()
    assert device.call(GETPID) == (-1, errno.ENOSYS)


def test_allowed_calls_leave_nothing_held(start: StartDevice) -> None:
    device = start("echo")
    device.ask(b"!")
    assert device.process.take_forbidden_call() is None


# --- What a device process holds ----------------------------------------------------------------------


def proc(process: DeviceProcess, name: str) -> bytes:
    return Path(f"/proc/{process.pid}/{name}").read_bytes()


def status_of(process: DeviceProcess) -> dict[str, str]:
    lines = proc(process, "status").decode().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def test_device_process_ready_reports_every_layer_of_this_host(start: StartDevice) -> None:
    process = start("echo").process
    available = layers.mask_of(status.name for status in host_support.probe() if status.available)
    expected = layers.REQUIRED | landlock.layers_of(landlock.abi()) | layers.ISOLATION & available
    assert layers.names(process.layers) == layers.names(expected)
    assert process.landlock_abi == landlock.abi()


def test_device_process_status_shows_seccomp_and_no_privileges(start: StartDevice) -> None:
    status = status_of(start("echo").process)
    assert status["Seccomp"] == "2"
    assert status["Seccomp_filters"] == str(len(("policy", "seal")))
    assert status["NoNewPrivs"] == "1"
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    assert status["Threads"] == "1"


@pytest.mark.root
def test_device_process_bounding_set_is_empty(start: StartDevice) -> None:
    assert status_of(start("echo").process)["CapBnd"] == "0" * 16


@pytest.mark.root
def test_device_process_descriptors_are_the_channel_only(start: StartDevice) -> None:
    device, other = start("echo"), start("echo")
    assert other.process.ready
    for process in (device.process, other.process):
        assert os.listdir(f"/proc/{process.pid}/fd") == [str(CHANNEL_FD)]
    ours = os.stat(device.channel.fileno())
    theirs = os.stat(f"/proc/{device.process.pid}/fd/{CHANNEL_FD}")
    assert ours.st_ino != theirs.st_ino  # the far end, not ours


@pytest.mark.root
def test_device_process_environment_is_empty(start: StartDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "PATH" in os.environ  # or the test shows nothing
    assert proc(start("echo").process, "environ") == b""


@pytest.mark.root
def test_device_process_maps_have_no_libseccomp(start: StartDevice) -> None:
    maps = proc(start("echo").process, "maps")
    assert b"libc" in maps
    assert b"seccomp" not in maps
    assert b"rwxp" not in maps


@pytest.mark.root
def test_device_process_limits_are_set(start: StartDevice) -> None:
    lines = proc(start("echo").process, "limits").decode().splitlines()
    limits = {line[:26].strip(): line[26:].split()[:2] for line in lines[1:]}
    zero = ["0", "0"]
    assert limits["Max open files"] == zero
    assert limits["Max processes"] == zero
    assert limits["Max file size"] == zero
    assert limits["Max core file size"] == zero
    assert limits["Max locked memory"] == zero
    assert limits["Max address space"] == [str(512 << 20)] * 2


def test_device_process_title_is_its_type(start: StartDevice, client: SpawnerClient) -> None:
    process = start("echo").process
    assert proc(process, "comm") == b"kvmbox: uart\n"
    assert proc(process, "cmdline").rstrip(b"\0") == b"kvmbox: uart"
    assert Path(f"/proc/{client.pid}/cmdline").read_bytes().rstrip(b"\0") == b"kvmbox: spawner"
    assert Path(f"/proc/{client.pid}/comm").read_bytes() == b"kvmbox: spawner\n"


@pytest.mark.root
def test_spawner_holds_nothing_of_the_vmm(start: StartDevice, client: SpawnerClient) -> None:
    device = start("echo")
    device.process.kill()
    device.wait_death()  # reported after the spawner has let go of what it passed on
    targets = {os.readlink(f"/proc/{client.pid}/fd/{name}") for name in os.listdir(f"/proc/{client.pid}/fd")}
    kinds = {target.partition("[")[0] for target in targets}
    assert kinds == {"/dev/null", "socket:", "anon_inode:"}
    assert {target for target in targets if target.startswith("anon_inode:")} == {"anon_inode:[signalfd]"}
    assert sum(target.startswith("socket:") for target in targets) == 1  # the control socket
    assert Path(f"/proc/{client.pid}/environ").read_bytes() == b""


def test_spawner_inherits_no_descriptor_that_the_vmm_leaks(bpf: bytes) -> None:
    leak, other = os.pipe()
    os.set_inheritable(other, True)
    client = SpawnerClient.start(entries=ENTRIES, payload_directory=PAYLOADS)
    wait_readable(client)  # it has said hello
    os.close(other)
    assert os.read(leak, 1) == b""  # nobody else holds the writing end
    os.close(leak)
    client.close()


def test_device_process_cpu_asked_for_is_its_only_one(start: StartDevice) -> None:
    cpu = max(os.sched_getaffinity(0))
    process = start("echo", cpu=cpu).process
    assert os.sched_getaffinity(process.pid) == {cpu}


# --- What holds without the filter ----------------------------------------------------------------------

LAX_POLICY = Policy(
    "lax",
    DEVICE_POLICY.rules
    + tuple(
        Rule(name, number, "let the other layers decide")
        for name, number in {
            "openat": 257, "close": 3, "fstat": 5, "newfstatat": 262, "fcntl": 72,
            "socket": 41, "bind": 49, "kill": 62, "prctl": 157,
        }.items()
    ),
)  # fmt: skip


@pytest.mark.parametrize(
    ("landlock_limit", "stopped"),
    [
        (6, {"open": errno.EACCES, "bind": errno.EACCES, "kill": errno.EPERM}),
        (4, {"open": errno.EACCES, "bind": errno.EACCES, "kill": 0}),
        (1, {"open": errno.EACCES, "bind": 0, "kill": 0}),
        (0, {"open": 0, "bind": 0, "kill": 0}),  # the control: it is Landlock that stops them
    ],
)
def test_device_process_without_filter_is_stopped_by_landlock(
    landlock_limit: int, stopped: dict[str, int]
) -> None:
    if landlock.abi() < landlock_limit:
        pytest.skip(f"this kernel has Landlock ABI {landlock.abi()}")
    client = SpawnerClient.start(
        entries=ENTRIES,
        payload_directory=PAYLOADS,
        landlock_limit=landlock_limit,
        # What isolation does is test_sandbox_isolation's; rlimits would not let anything be opened.
        without=layers.ISOLATION | layers.RLIMITS,
    )
    device = Device(client, compile_policy(LAX_POLICY), "try_without_filter")
    client.wait_ready(device.process)

    answer = device.ask(b"%d" % os.getpid()).decode()

    device.channel.close()
    client.close()
    results = {name: int(result) for name, _, result in (item.partition("=") for item in answer.split())}
    assert results == {**stopped, "dumpable": 0}


# --- Failing closed -----------------------------------------------------------------------------------


def expect_failure(client: SpawnerClient, bpf: bytes, **options: int) -> str:
    device = Device(client, bpf, "echo", **options)
    with device.channel:
        with pytest.raises(SandboxError, match="cannot start device process 'uart'") as failure:
            client.wait_ready(device.process)
        device.wait_death()
        with pytest.raises(ConnectionError):
            device.ask(b"!")  # it never served
    return str(failure.value)


def test_spawn_bogus_filter_never_serves(client: SpawnerClient) -> None:
    assert "seccomp: Invalid argument" in expect_failure(client, bytes(16))


def test_spawn_empty_filter_never_serves(client: SpawnerClient) -> None:
    assert "seccomp: Invalid argument" in expect_failure(client, b"")


def test_spawn_filter_that_allows_everything_never_serves(client: SpawnerClient) -> None:
    allow_all = Struct("=HBBI").pack(0x06, 0, 0, 0x7FFF_0000)
    assert "it exited with status 1 before it was ready" in expect_failure(client, allow_all)


def test_spawn_filter_that_kills_everything_never_serves(client: SpawnerClient) -> None:
    kill_all = Struct("=HBBI").pack(0x06, 0, 0, 0x8000_0000)
    assert "SIGSYS" in expect_failure(client, kill_all)


def test_spawn_absent_cpu_never_serves(client: SpawnerClient, bpf: bytes) -> None:
    expect_failure(client, bpf, cpu=1023)


def test_device_process_of_a_user_with_descriptors_in_flight_serves(bpf: bytes) -> None:
    # The kernel counts those of all processes of a user, and refuses more than a sender may have open.
    one, other = socket.socketpair()
    for _ in range(3):
        socket.send_fds(one, [b"!"], [one.fileno()])
    client = SpawnerClient.start(
        entries=ENTRIES, payload_directory=PAYLOADS, without=layers.OTHER_UID | layers.OWN_UID
    )
    device = Device(client, bpf, "echo")
    client.wait_ready(device.process)
    assert device.ask(b"!") == b"!"
    device.channel.close()
    client.close()
    one.close()
    other.close()


def test_spawn_after_failure_still_works(start: StartDevice, client: SpawnerClient) -> None:
    expect_failure(client, b"")
    assert start("echo").ask(b"still") == b"still"


def test_spawn_without_landlock_serves_and_reports_it(bpf: bytes) -> None:
    client = SpawnerClient.start(entries=ENTRIES, payload_directory=PAYLOADS, landlock_limit=0)
    device = Device(client, bpf, "echo")
    client.wait_ready(device.process)
    assert device.process.layers & ~layers.ISOLATION == layers.REQUIRED
    assert client.missing["landlock"].startswith(("Landlock was limited to ABI 0", "this kernel has no"))
    assert device.ask(b"!") == b"!"
    device.channel.close()
    client.close()


def test_spawn_without_required_landlock_never_serves(bpf: bytes) -> None:
    client = SpawnerClient.start(entries=ENTRIES, payload_directory=PAYLOADS, landlock_limit=3)
    message = expect_failure(client, bpf, require=layers.mask_of(["landlock-net"]))
    assert "sandbox layer missing: landlock-net" in message
    client.close()


def test_start_entry_that_cannot_be_imported_is_named(bpf: bytes) -> None:
    client = SpawnerClient.start(entries=["nowhere:nothing"])
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, pytest.raises(SandboxError, match="No module named 'nowhere'"):
        client.wait_ready(client.spawn("uart", [theirs.detach()], bpf, entry="nowhere:nothing"))
    client.close()


def test_poll_deaths_spawner_killed_is_named(start: StartDevice, client: SpawnerClient) -> None:
    process = start("echo").process
    os.kill(client.pid, signal.SIGKILL)
    wait_readable(process.pidfd)  # the device process went with it
    wait_readable(client)
    with pytest.raises(DeviceProcessError) as failure:
        client.poll_deaths()
    assert str(failure.value) == "device process 'spawner' was killed by signal 9 (SIGKILL)"
