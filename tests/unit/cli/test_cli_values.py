"""Values of options: what is accepted, and what it means."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from kvmbox.cli.values import (
    ADDRESS,
    MEMORY_SIZE,
    OPTIONAL_PORT,
    POSITIVE_BYTES,
    SECONDS,
    parse_module,
    parse_rtc_base,
    parse_size,
)
from kvmbox.config import ModuleSpec
from kvmbox.errors import UsageError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("64K", 64 << 10),
        ("64k", 64 << 10),
        ("128M", 128 << 20),
        ("128MB", 128 << 20),
        ("128MiB", 128 << 20),
        ("1G", 1 << 30),
        (" 2g ", 2 << 30),
        ("", None),
        ("M", None),
        ("-1", None),
        ("1.5M", None),
        ("1e3", None),
        ("0x1000", None),
        ("1 M", None),
        ("1T", None),
        ("١", None),
        ("9" * 19, None),
    ],
)
def test_size_is_bytes_or_none(text: str, size: int | None) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(("text", "size"), [("1M", 1 << 20), ("64G", 64 << 30), ("1052672", 1052672)])
def test_memory_size_at_its_limits_is_taken(text: str, size: int) -> None:
    assert MEMORY_SIZE.convert(text, None, None) == size


def test_positive_bytes_are_taken() -> None:
    assert POSITIVE_BYTES.convert("1", None, None) == 1
    assert POSITIVE_BYTES.convert("1G", None, None) == 1 << 30


@pytest.mark.parametrize(("text", "address"), [("0", 0), ("31744", 0x7C00), ("0x7C00", 0x7C00), ("0b11", 3)])
def test_address_is_taken_in_every_base(text: str, address: int) -> None:
    assert ADDRESS.convert(text, None, None) == address


@pytest.mark.parametrize(("text", "port"), [("none", None), ("0xf4", 0xF4), ("0", 0), ("0xfffc", 0xFFFC)])
def test_port_or_none_is_taken(text: str, port: int | None) -> None:
    assert OPTIONAL_PORT.convert(text, None, None) == port


@pytest.mark.parametrize(("text", "seconds"), [("1", 1.0), ("0.25", 0.25), ("1e3", 1000.0)])
def test_seconds_are_taken(text: str, seconds: float) -> None:
    assert SECONDS.convert(text, None, None) == seconds


@pytest.mark.parametrize(
    ("text", "module"),
    [
        ("a.mod", ModuleSpec("a.mod")),
        ("a.mod,", ModuleSpec("a.mod")),
        ("a.mod,x y,z", ModuleSpec("a.mod", "x y,z")),
        ("/a b/c,d", ModuleSpec("/a b/c", "d")),
    ],
)
def test_module_is_a_file_and_its_words(text: str, module: ModuleSpec) -> None:
    assert parse_module(text) == module


def test_module_without_a_file_is_refused() -> None:
    with pytest.raises(UsageError, match="names no file"):
        parse_module(",words")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1970-01-01", datetime(1970, 1, 1, tzinfo=UTC)),
        ("2024-02-29T23:59:58", datetime(2024, 2, 29, 23, 59, 58, tzinfo=UTC)),
        ("2024-02-29 23:59:58.9", datetime(2024, 2, 29, 23, 59, 58, tzinfo=UTC)),
        ("2024-02-29T12:00:00+05:30", datetime(2024, 2, 29, 12, tzinfo=UTC)),
        ("2024-02-29T12:00:00Z", datetime(2024, 2, 29, 12, tzinfo=UTC)),
        ("1899-12-31T23:59:59.5", datetime(1899, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_rtc_base_shows_what_was_written(text: str, moment: datetime) -> None:
    assert parse_rtc_base(text, now=0) == moment.timestamp()


def test_rtc_base_utc_is_the_host_s_clock() -> None:
    assert parse_rtc_base("utc", now=1_700_000_000.9) == 1_700_000_000


def test_rtc_base_localtime_is_shifted_by_the_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "XYZ-3:30")  # POSIX: three and a half hours east of Greenwich
    time.tzset()
    try:
        assert parse_rtc_base("localtime", now=1_700_000_000.0) == 1_700_000_000 + 12_600
    finally:
        monkeypatch.undo()
        time.tzset()
