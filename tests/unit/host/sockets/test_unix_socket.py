"""Unix sockets that clients come to."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from kvmbox.host.sockets.unix_socket import listen_at


def test_socket_is_for_its_user_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with listen_at(str(tmp_path / "socket")):
            assert stat.S_IMODE((tmp_path / "socket").stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_place_that_is_taken_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="in use"):
        listen_at(str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "mine"
