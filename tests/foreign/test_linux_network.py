"""Linux on a virtio network: DHCP, HTTP to and from the host without root, `ping` between two machines."""

from __future__ import annotations

import shutil
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from kvmbox import Machine
from tests.foreign import images
from tests.foreign.guests import LINUX, LINUX_WORDS
from tests.lab.packages import Unavailable
from tests.support.guest_table import backend
from tests.support.patience import patience

pytestmark = [pytest.mark.kvm, pytest.mark.thorough]

BOOT_S = 240


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


@pytest.fixture
def linux(tmp_path: Path) -> dict[str, Any]:
    """The options of a machine that starts it."""
    if backend() == "pvm":
        pytest.skip("KVM's backend here refuses instructions of Linux: make test-svm runs it")
    try:
        image = images.find(*LINUX)
        modules = ("virtio_mmio", "virtio_net")
        initrd = images.scripted_initramfs(tmp_path, LINUX, modules, "network")
    except Unavailable as problem:
        pytest.skip(str(problem))
    return {"image": str(image), "initrd": str(initrd), "memory": "256M"}


def words(*of_init: object) -> str:
    return " ".join((LINUX_WORDS, "--", *map(str, of_init)))


@pytest.mark.skipif(shutil.which("passt") is None, reason="passt is not there")
def test_linux_gets_an_address_and_pages_in_both_directions(linux: dict[str, Any], port: int) -> None:
    with Machine(**linux, append=words("dhcp", port), nets="user,forward=tcp:80") as vm:
        vm.expect("kvmbox-net: leased 10.0.2.15/24, router 10.0.2.2, names 10.0.2.3", patience(BOOT_S))
        vm.expect("kvmbox-net: got from the host", patience(BOOT_S))
        vm.expect("kvmbox-net: ready", patience(BOOT_S))
        with urllib.request.urlopen(f"http://127.0.0.1:{vm.forwarded(80)}/", timeout=patience(60)) as page:
            assert page.read() == b"from the guest\n"


def test_two_linuxes_reach_each_other_over_a_switch(
    linux: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with (
        Machine(**linux, append=words("10.1.1.1"), nets="switch:lab") as server,
        Machine(**linux, append=words("10.1.1.2", "10.1.1.1"), nets="switch:lab") as client,
    ):
        server.expect("kvmbox-net: ready", patience(BOOT_S))
        client.expect("5 packets transmitted, [1-5] packets received", patience(BOOT_S))
