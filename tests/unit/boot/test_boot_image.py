"""Reading image files: regular ones, whole, once; everything else is refused without waiting."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from kvmbox.base.errors import ImageError
from kvmbox.boot import bundled, read_image, read_module


def test_read_image_gives_bytes_and_name(tmp_path: Path) -> None:
    path = tmp_path / "k.elf"
    path.write_bytes(b"abc" * 1000)

    image = read_image(str(path))

    assert image.data == b"abc" * 1000
    assert (image.path, image.name) == (str(path), "k.elf")


def test_read_image_leaves_no_descriptor_open(tmp_path: Path) -> None:
    path = tmp_path / "k"
    path.write_bytes(b"abc")
    before = os.listdir("/proc/self/fd")

    read_image(str(path))

    assert os.listdir("/proc/self/fd") == before


def test_read_module_keeps_name_and_arguments(tmp_path: Path) -> None:
    path = tmp_path / "initrd"
    path.write_bytes(b"data")

    module = read_module(str(path), "a=1")

    assert (module.name, module.data, module.arguments) == ("initrd", b"data", "a=1")


def test_read_image_larger_than_allowed_is_refused_by_its_size_alone(tmp_path: Path) -> None:
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(1 << 40)

    with pytest.raises(ImageError, match="1099511627776 bytes are more than the 536870912 allowed"):
        read_image(str(path))


def test_read_image_of_the_largest_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "k"
    path.write_bytes(b"12345")

    assert read_image(str(path), max_size=5).data == b"12345"
    with pytest.raises(ImageError, match="more than the 4 allowed"):
        read_image(str(path), max_size=4)


def test_read_image_from_a_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")

    with pytest.raises(ImageError, match="it is a FIFO, not a regular file"):
        read_image(str(tmp_path / "fifo"))


def test_read_image_from_a_socket_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        with pytest.raises(ImageError, match="a socket"):
            read_image(str(tmp_path / "s"))


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/dev/zero", "character device"),
        ("/", "a directory"),
        ("", "no such file"),
        ("/nonexistent/x", "no such file"),
        ("/etc/passwd/x", "Not a directory"),
        ("a\0b", "NUL"),
        ("x" * 5000, "File name too long"),
        ("\ud800", "cannot be encoded"),
    ],
)
def test_read_image_from_what_is_no_file_says_why(path: str, found: str) -> None:
    with pytest.raises(ImageError, match=found) as caught:
        read_image(path)

    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 4


def test_bundled_guests_are_a_hint_for_an_image_only() -> None:
    with pytest.raises(ImageError) as caught:
        read_image("/nonexistent/x")
    assert "kvmbox guests" in str(caught.value.hint)
    with pytest.raises(ImageError) as caught:
        read_module("/nonexistent/x")
    assert caught.value.hint == "check the path"


def test_read_image_without_permission_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may read everything, so the refusal itself is played.
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "k"
    path.write_bytes(b"x")
    monkeypatch.setattr("kvmbox.boot.image.os.open", refuse)

    with pytest.raises(ImageError, match="permission denied") as caught:
        read_image(str(path))
    assert caught.value.hint


def test_read_image_replaced_by_a_fifo_between_look_and_open_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "k"
    os.mkfifo(path)
    regular = tmp_path / "regular"
    regular.write_bytes(b"x")
    looked_at = os.stat(regular)
    monkeypatch.setattr("kvmbox.boot.image.os.stat", lambda _: looked_at)

    with pytest.raises(ImageError, match="FIFO"):
        read_image(str(path))


def test_read_image_that_shrinks_meanwhile_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "k"
    path.write_bytes(b"12345")
    real_fstat = os.fstat

    def cut_after_fstat(descriptor: int) -> os.stat_result:
        status = real_fstat(descriptor)
        os.truncate(path, 2)
        return status

    monkeypatch.setattr("kvmbox.boot.image.os.fstat", cut_after_fstat)

    with pytest.raises(ImageError, match="shrank from 5 to 2"):
        read_image(str(path))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("-", "kvmbox reads no image from stdin: copy it to a file first"),
        ("hello46", "did you mean 'hello64'? `kvmbox guests` lists bundled guests"),
        ("no/such/kernel", "check the path; `kvmbox guests` lists bundled guests"),
        (".", "name a file in it"),
        ("/dev/null", "copy it to a file first, and name that"),
    ],
)
def test_image_that_is_none_gets_a_hint_that_fits(
    name: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bundled, "runs", lambda: [{"guest": "hello64", "proves": "it"}])
    monkeypatch.setattr(bundled, "find", lambda name: f"{name}.elf")
    with pytest.raises(ImageError) as caught:
        read_image(name)
    assert caught.value.hint == hint
