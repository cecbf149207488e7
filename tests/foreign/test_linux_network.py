"""Linux on two networks: DHCP, HTTP to and from the host without root, `ping` between two machines.

One machine has a virtio device for the host and an e1000 for its peer, the other one the reverse.
"""

from __future__ import annotations

import shutil
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest

from kvmbox import Machine
from tests.foreign import images
from tests.foreign.guests import LINUX_OF_PCS
from tests.lab.packages import Unavailable
from tests.support.guest_table import backend
from tests.support.patience import patience

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.kvm,
    pytest.mark.skipif(shutil.which("passt") is None, reason="passt is not there: apt-get install passt"),
]

BOOT_S: Final = 60
LINUX_WORDS: Final = "console=ttyS0 loglevel=4 panic=-1"
"""Without what is less urgent: each character is an exit."""
MODULES: Final = ("e1000", "virtio_mmio", "virtio_net")
INTERFACES: Final = {"e1000": "eth0", "virtio": "eth1"}
"""As the modules are loaded."""
DRIVERS: Final = {"e1000": "e1000", "virtio": "virtio_net"}


class Page(BaseHTTPRequestHandler):
    """The host's page."""

    def do_GET(self) -> None:
        body = b"from the host"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    """Where the host serves its page."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_two_linuxes_reach_the_host_and_each_other(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend() == "pvm":
        pytest.skip("KVM's backend here refuses instructions of Linux: make test-svm runs it")
    try:
        image = images.find(*LINUX_OF_PCS)
        initrd = images.scripted_initramfs(tmp_path, LINUX_OF_PCS, MODULES, "network")
    except Unavailable as problem:
        pytest.skip(str(problem))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))  # the switch is the test's own

    def machine(number: int, outside: str, inside: str) -> Machine:
        words = (INTERFACES[outside], port, INTERFACES[inside], f"10.1.1.{number}", f"10.1.1.{3 - number}")
        return Machine(
            image,
            initrd=str(initrd),
            memory="256M",
            sandbox="none",  # so that no process has to be ready in time
            append=" ".join((LINUX_WORDS, "--", *map(str, words))),
            nets=[f"user,on={outside},forward=tcp:80", f"switch:lab,on={inside}"],
        )

    kinds = (("virtio", "e1000"), ("e1000", "virtio"))
    machines = []
    with ExitStack() as stack:
        for number, pair in enumerate(kinds, 1):
            vm = stack.enter_context(machine(number, *pair))
            for (
                kind
            ) in pair:  # before the next one starts: where both are slow, its processes have a time limit
                vm.expect(f"{INTERFACES[kind]} is driven by {DRIVERS[kind]}", patience(BOOT_S))
            machines.append(vm)
        for vm in machines:
            vm.expect("leased 10.0.2.15/24, router 10.0.2.2", patience(BOOT_S))
            vm.expect("got from the host", patience(BOOT_S))
            vm.expect("5 packets transmitted, [1-5] packets received", patience(BOOT_S))
            vm.expect("kvmbox-net: ready", patience(BOOT_S))
            with urllib.request.urlopen(f"http://127.0.0.1:{vm.forwarded(80)}/", timeout=BOOT_S) as page:
                assert page.read() == b"from the guest\n"
