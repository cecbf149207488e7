"""What `--disk` and `--cdrom` take, and what is said of anything else."""

from __future__ import annotations

import re

import pytest

from kvmbox.run.options.disk_value import DiskRequest, parse, parse_cd, with_paths


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("disk.img", DiskRequest("disk.img")),
        ("disk.img,write", DiskRequest("disk.img", "write")),
        ("disk.img,readonly", DiskRequest("disk.img", "readonly")),
        ("disk.img,overlay,on=virtio", DiskRequest("disk.img", "overlay", on="virtio")),
        ("a b=c,format=qcow2", DiskRequest("a b=c", format="qcow2")),
        ("a,serial=KV 1=2", DiskRequest("a", serial="KV 1=2")),
        ("a,format=qcow2,backing=b,,c", DiskRequest("a", format="qcow2", backing="b,c")),
        ("a,,b", DiskRequest("a,b")),
        ("a,,write", DiskRequest("a,write")),
        ("a,,,write", DiskRequest("a,", "write")),
        (",,", DiskRequest(",")),
    ],
)
def test_text_is_a_request(text: str, expected: DiskRequest) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no file"),
        (",write", "names no file"),
        ("a,", "'' is none of write, overlay, readonly, format=, on=, serial=, backing="),
        ("a,wrte", "did you mean 'write'?"),
        ("a,Write", "did you mean 'write'?"),
        ("a,read-only", "did you mean 'readonly'?"),
        ("a,fmt=raw", "'fmt=raw' is none of"),
        ("a,form=raw", "did you mean 'format='?"),
        (
            "a,format=qcow",
            "'format=qcow' is not format=raw or format=qcow2 or format=vhd: did you mean 'qcow2'?",
        ),
        ("a,on=scsi", "'on=scsi' is not on=ide or on=virtio"),
        ("a,format", "did you mean 'format='?"),
        ("a,write,overlay", "'a,write,overlay' says mode twice: write and overlay"),
        ("a,on=ide,on=ide", "says on twice"),
        ("a,serial=", "nothing behind '='"),
        ("a,serial=123456789012345678901", "at most 20 printable ASCII characters"),
        ("a,serial=\u00e9", "at most 20 printable ASCII characters"),
        ("a,serial=\x1b", "at most 20 printable ASCII characters"),
        ("a,format=raw,backing=b", "only a qcow2 image has a backing file"),
        ("a\0b", "has a NUL"),
    ],
)
def test_other_text_is_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_unlike_word_gets_no_guess() -> None:
    with pytest.raises(ValueError, match="is none of") as caught:
        parse("a,zzzz")
    assert "did you mean" not in str(caught.value)


def test_cd_is_read_only_and_its_name_may_have_commas() -> None:
    request = parse_cd("os,write.iso")
    assert (request.path, request.mode, request.is_cd) == ("os,write.iso", "readonly", True)
    with pytest.raises(ValueError, match="names no file"):
        parse_cd("")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.img,write", "in,,to/a.img,write"),
        ("a,,b.img,serial=x,,y", "in,,to/a,,b.img,serial=x,,y"),
        ("a,format=qcow2,backing=b,,c", "in,,to/a,format=qcow2,backing=in,,to/b,,c"),
        (",write", ",write"),
        ("a,wrote,backing=", "in,,to/a,wrote,backing="),
        ("a\0b", "a\0b"),
    ],
)
def test_value_has_other_paths(text: str, expected: str) -> None:
    assert with_paths(text, lambda path: f"in,to/{path}") == expected
