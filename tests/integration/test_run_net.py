"""Network interfaces in runs: the guest `net`, over each backend that needs nothing of the host.

What the guest proves is in guests/net.c.
"""

from __future__ import annotations

import gc
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kvmbox import Machine
from tests.support.family import children_of, device_processes
from tests.support.patience import far_enough, patience, seconds
from tests.support.selection import first_per_commit
from tests.support.waiting import PATIENCE_S

pytestmark = pytest.mark.kvm

KVMBOX = (sys.executable, "-m", "kvmbox")
LOOPED = b"""\
ok net: one frame of each length
ok net: the longest frames
ok net: frames over several buffers
"""
JUMBO = b"ok net: a jumbo frame\n"
THERE = b"ok net: the peer is there\n"
DESIGNS = [
    *(("--ipc", ipc) for ipc in ("shm", "pipe", "socketpair")),
    *(("--sandbox", sandbox) for sandbox in ("none", "thread", "per-device")),
    ("--seccomp", "strict"),
]


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Switches of a test are its own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def kvmbox(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*KVMBOX, *map(str, arguments)], capture_output=True, timeout=PATIENCE_S, check=False
    )


@contextmanager
def beside(*arguments: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """A guest that answers, and is ready."""
    command = [*KVMBOX, "run", *map(str, arguments), "--append", "1", "net"]
    with subprocess.Popen(command, bufsize=0, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        try:
            assert run.stdout is not None
            assert run.stdout.readline() == b"net: ready\n"
            yield run
        finally:
            run.kill()


@pytest.mark.parametrize("kind", ["virtio", "e1000"])
@pytest.mark.parametrize("design", first_per_commit(DESIGNS))
def test_frames_come_back_in_every_design(design: tuple[str, str], kind: str, tmp_path: Path) -> None:
    facts = tmp_path / "run.json"

    run = kvmbox("run", *design, "--net", f"loop,on={kind}", "--json", facts, "net")
    assert (run.returncode, run.stdout) == (0, LOOPED + JUMBO * (kind == "e1000")), run.stderr
    (net,) = json.loads(facts.read_text())["nets"]
    assert net["name"] == "net0"
    assert net["sent"] == net["received"] > 100
    assert net["lost_sent"] == net["lost_received"] == 0


@pytest.mark.parametrize("kinds", [("virtio", "virtio"), ("e1000", "virtio"), ("e1000", "e1000")])
def test_two_machines_talk_over_a_switch_and_the_capture_has_it(
    kinds: tuple[str, str], tmp_path: Path
) -> None:
    capture = tmp_path / "net.pcap"
    with beside("--net", f"switch:lan,on={kinds[0]}") as peer:
        wire = f"switch:lan,on={kinds[1]},pcap={capture}"
        run = kvmbox("run", "--net", wire, "--append", "2 1 20 1", "net")
        output, messages = peer.communicate(timeout=PATIENCE_S)

    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(THERE + b"ok net: round trips 20 ")
    assert (peer.returncode, output) == (0, b"net: answers 20\n"), messages
    data, frames, place = capture.read_bytes(), 0, 24
    while place < len(data):
        place += 16 + int.from_bytes(data[place + 8 : place + 12], "little")
        frames += 1
    assert place == len(data)
    assert frames > 2 * 20


def test_switch_is_confined_and_ends_with_its_last_machine() -> None:
    with beside("--net", "switch:lan") as peer:
        (switch,) = [
            pid
            for pid in children_of(peer.pid)
            if b"parts.net.hub" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{switch}/status").read_text().splitlines()
        )
        assert (status["Seccomp"], status["NoNewPrivs"], status["CapEff"]) == ("2", "1", "0" * 16)
        watch = os.pidfd_open(switch)
    ready, _, _ = select.select([watch], [], [], PATIENCE_S)
    os.close(watch)
    assert ready


def test_two_machines_talk_over_a_socket(tmp_path: Path) -> None:
    path = tmp_path / "net.sock"
    with beside("--net", f"socket:unix:{path},listen") as peer:
        run = kvmbox("run", "--net", f"socket:unix:{path}", "--append", "2 1 5 1", "net")
        output, messages = peer.communicate(timeout=PATIENCE_S)

    assert run.returncode == 0, run.stderr
    assert (peer.returncode, output) == (0, b"net: answers 5\n"), messages


def test_socket_that_listens_is_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "net.sock"

    for sandbox in ("per-device", "none"):
        run = kvmbox("run", "--sandbox", sandbox, "--net", f"socket:unix:{path},listen", "hello32")
        assert run.returncode == 0, run.stderr
        assert not path.exists()


def test_machines_of_a_program_talk_over_an_inherited_descriptor() -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with (
        Machine("net", nets=f"fd:{one.detach()}", append="1") as server,
        Machine("net", nets=f"fd:{other.detach()}", append="2 1 5 1") as client,
    ):
        assert client.wait(PATIENCE_S).status == 0
        assert server.wait(PATIENCE_S).status == 0


def test_machine_of_a_program_starts_a_switch_that_nobody_is_warned_of() -> None:
    with Machine("hello32", nets="switch:lan") as vm:
        assert vm.wait(PATIENCE_S).status == 0
    gc.collect()  # a warning is an error


PROCESSES = pytest.mark.parametrize(("kind", "process_name"), [("virtio", "vnet"), ("e1000", "e1000")])


@PROCESSES
def test_lost_process_is_replaced_and_the_peer_cannot_tell(
    kind: str, process_name: str, tmp_path: Path
) -> None:
    wire = f"socket:unix:{tmp_path / 'net.sock'}"
    with beside("--net", f"{wire},listen,on={kind}", "--on-device-crash", "restart") as peer:
        (process,) = [pid for pid, name in device_processes(peer.pid).items() if name == process_name]
        os.kill(process, signal.SIGKILL)
        run = kvmbox("run", "--net", wire, "--append", "2 1 20 1", "net")
        _, messages = peer.communicate(timeout=PATIENCE_S)

    assert run.returncode == 0, run.stderr
    assert peer.returncode == 0, messages
    assert f"'{process_name}'".encode() in messages
    assert b": restarted, " in messages


@pytest.mark.parametrize("kind", ["virtio", "e1000"])
def test_recording_is_replayed_without_the_wire(kind: str, tmp_path: Path) -> None:
    recording = tmp_path / "run.rec"

    assert kvmbox("run", "--record", recording, "--net", f"loop,on={kind}", "net").returncode == 0
    replay = kvmbox("replay", recording)
    assert replay.returncode == 0, replay.stdout
    assert b"replies are identical" in replay.stdout


@pytest.mark.parametrize("kind", ["virtio", "e1000"])
def test_snapshot_goes_on_at_the_same_switch(kind: str, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot"
    wanted = ("--snapshot-when", f"ready={snapshot}", "--snapshot-stop", "--net", f"switch:lan,on={kind}")
    assert kvmbox("run", *wanted, "--append", "1", "net").returncode == 0

    command = [*KVMBOX, "run", "--from", str(snapshot)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as peer:
        run = kvmbox("run", "--net", "switch:lan", "--append", "2 1 5 1", "net")
        _, messages = peer.communicate(timeout=PATIENCE_S)
    assert run.returncode == 0, run.stderr
    assert peer.returncode == 0, messages


@pytest.mark.skipif(shutil.which("passt") is None, reason="passt is not there")
@pytest.mark.parametrize("kind", ["virtio", "e1000"])
def test_port_of_the_host_leads_to_the_guest(kind: str) -> None:
    with Machine("net", nets=f"user,on={kind},forward=udp:7", append="15") as vm:
        vm.expect("net: ready")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(1)
            client.connect(("127.0.0.1", vm.forwarded(7, "udp")))
            for _ in range(int(PATIENCE_S)):
                client.send(b"over and over")
                try:
                    assert client.recv(100) == b"over and over"
                    break
                except TimeoutError:
                    pass
            else:
                pytest.fail("there is no echo")


@pytest.mark.skipif(shutil.which("passt") is None, reason="passt is not there")
def test_timeout_ends_a_guest_that_only_waits_for_the_network() -> None:
    run = kvmbox("run", "--net", "user", "--timeout", "2", "--append", "15", "net")

    assert run.returncode == 124, run.stderr


def test_passt_that_cannot_be_executed_is_an_error_with_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "passt").write_text("no program")
    monkeypatch.setenv("PATH", str(tmp_path))

    run = kvmbox("run", "--net", "user", "net")
    assert run.returncode == 4
    assert run.stderr.startswith(b"kvmbox: error: --net user: passt does not start: Permission denied\n")
    assert b"\nhint: " in run.stderr


@pytest.mark.skipif(shutil.which("passt") is None, reason="passt is not there")
def test_port_of_the_host_that_is_taken_is_an_error_with_a_hint() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        run = kvmbox("run", "--net", f"user,forward=tcp:{other.getsockname()[1]}:80", "net")
    assert run.returncode == 4
    assert b"\nhint: " in run.stderr


def test_directory_of_switches_that_is_not_there_is_an_error_with_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "none"))

    run = kvmbox("run", "--net", "switch:lan", "net")
    assert run.returncode == 4
    assert run.stderr.startswith(b"kvmbox: error: --net switch:lan: ")
    assert b"\nhint: XDG_RUNTIME_DIR" in run.stderr


def test_passt_that_is_not_there_is_an_error_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    run = kvmbox("run", "--net", "user", "net")
    assert run.returncode == 4
    assert run.stderr.startswith(b"kvmbox: error: --net user: the program passt is not there\nhint: ")


def test_descriptor_that_was_passed_on_is_the_wire() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        number = theirs.fileno()
        run = subprocess.run(
            [*KVMBOX, "run", "--net", f"fd:{number}", "--timeout", "1", "--append", "1", "net"],
            pass_fds=[number],
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
    assert run.returncode == 124, run.stderr


@pytest.mark.parametrize(
    ("nets", "status"), [(("fd:3",), 4), (("fd:2",), 2), (("fd:99",), 4), (("fd:8", "fd:08"), 2)]
)
def test_descriptor_that_is_none_of_ours_is_refused(nets: tuple[str, ...], status: int) -> None:
    run = kvmbox("run", *(word for one in nets for word in ("--net", one)), "net")

    assert run.returncode == status
    assert run.stderr.startswith(b"kvmbox: error: --net")
    assert b"\nhint: " in run.stderr


def has_namespaces() -> bool:
    return os.geteuid() == 0 and shutil.which("ip") is not None and Path("/dev/net/tun").exists()


@pytest.mark.skipif(not has_namespaces(), reason="needs root, ip and /dev/net/tun")
def test_tap_reaches_the_kernel_of_the_host(tmp_path: Path) -> None:
    name = f"kvmbox{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    inside = ("ip", "netns", "exec", name)
    try:
        for words in ("tuntap add dev tap0 mode tap", "addr add 10.0.2.2/24 dev tap0", "link set tap0 up"):
            subprocess.run([*inside, "ip", *words.split()], check=True)
        run = subprocess.run(
            [*inside, *KVMBOX, "run", "--net", "tap:tap0", "--append", "15 2 5 2", "net"],
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(THERE + b"ok net: round trips 5 ")


def test_interface_that_is_no_tap_is_an_error_with_a_hint() -> None:
    run = kvmbox("run", "--net", "tap:lo", "net")

    assert run.returncode == 4
    assert run.stderr.startswith(b"kvmbox: error: --net tap:lo: ")
    assert b"\nhint: " in run.stderr


def test_peer_that_leaves_is_told_and_the_guest_goes_on(tmp_path: Path) -> None:
    told = b"net0 was cut: the peer has gone"

    def ended(scale: int) -> tuple[int, bytes]:
        path = tmp_path / f"{scale}.sock"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            listener.settimeout(PATIENCE_S)
            words = ("--net", f"socket:unix:{path}", "--append", "1", "net", "--timeout", seconds(scale))
            with subprocess.Popen(
                [*KVMBOX, "run", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
            ) as run:
                listener.accept()[0].close()
                _, messages = run.communicate(timeout=patience(120))
        return run.returncode, messages

    status, messages = far_enough(ended, lambda end: told in end[1])
    assert status == 124
    assert told in messages


@pytest.mark.parametrize("kind", ["virtio", "e1000"])
def test_lost_frames_are_counted_and_the_guest_misses_them(kind: str) -> None:
    run = kvmbox("run", "--net", f"loop,on={kind}", "--inject", "net:loss=1", "net")

    assert run.returncode == 3
    assert b"not ok net: a frame does not come back" in run.stdout
    assert b"--inject: net0: " in run.stderr


def test_late_frames_come_all_the_same() -> None:
    run = kvmbox("run", "--net", "loop", "--inject", "net0:delay=1", "net")

    assert (run.returncode, run.stdout) == (0, LOOPED), run.stderr


def test_two_tests_of_a_suite_talk_to_each_other(tmp_path: Path) -> None:
    (tmp_path / "suite.toml").write_text(
        """
        [defaults]
        timeout = 60

        [[test]]
        name = "server"
        image = "net"
        append = "1"
        nets = "switch:suite"
        expect = "net: answers 5"

        [[test]]
        name = "client"
        image = "net"
        append = "2 1 5 1"
        nets = ["switch:suite,pcap=client.pcap"]
        dialogue = [{ when = "the peer is there", send = "a line\\n" }]
        expect = "net: done"
        """
    )

    run = kvmbox("smoke", tmp_path / "suite.toml", "-j", "2", "--plain")
    assert run.returncode == 0, run.stdout + run.stderr
    assert b"2 passed" in run.stdout
    assert (tmp_path / "client.pcap").stat().st_size > 1000
