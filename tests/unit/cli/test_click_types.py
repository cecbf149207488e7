"""Values of options: what is accepted, what is refused and how that is said."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.base import layout
from kvmbox.base.errors import UsageError
from kvmbox.cli.click_types import Value
from kvmbox.run.options import values
from kvmbox.run.options.choices import ModuleSpec, parse_module
from kvmbox.run.options.values import parse_rtc_base, parse_size

MEMORY_SIZE = Value("size", values.memory_size)
SECONDS = Value("seconds", values.seconds)
ADDRESS = Value("address", values.address)
OPTIONAL_PORT = Value("port", values.optional_port)
POSITIVE_BYTES = Value("bytes", values.byte_count)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("64K", 64 << 10),
        ("64k", 64 << 10),
        ("128M", 128 << 20),
        ("1G", 1 << 30),
        ("2GiB", 2 << 30),
        ("2gb", 2 << 30),
        (" 1M ", 1 << 20),
        ("007", 7),
    ],
)
def test_parse_size_accepts(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", " ", "M", "-1", "+1", "1.5G", "1T", "1 M", "0x100", "1e6", "1MM", "1Mi", "1_000", "١",
     "1\u212a", "1" * 19],
)  # fmt: skip
def test_parse_size_refuses(text: str) -> None:
    assert parse_size(text) is None


@given(st.text(alphabet=st.sampled_from("0123456789KMGkmgiBb \u212a\u0130.-"), max_size=8))
def test_parse_size_of_any_text_gives_a_size_or_none(text: str) -> None:
    size = parse_size(text)
    assert size is None or (size >= 0 and re.search("[0-9]", text))


def refusal(kind: click.ParamType[object], text: str) -> str:
    with pytest.raises(click.UsageError) as caught:
        kind.convert(text, None, None)
    return str(caught.value.format_message())


@pytest.mark.parametrize(("text", "size"), [("1M", 1 << 20), ("64G", 64 << 30), ("1052672", 1052672)])
def test_memory_size_accepts(text: str, size: int) -> None:
    assert MEMORY_SIZE.convert(text, None, None) == size


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("many", "is not a size"),
        ("1048577", "is not a multiple of the page size, 4096 bytes"),
        ("1023K", "is not a multiple of the page size"),
        ("1020K", "is not between 1M and 64G"),
        ("0", "is not between 1M and 64G"),
        ("65G", "is not between 1M and 64G"),
        ("68719480832", "is not between 1M and 64G"),
    ],
)
def test_memory_size_refuses_and_says_why(text: str, message: str) -> None:
    assert message in refusal(MEMORY_SIZE, text)
    assert f"'{text}'" in refusal(MEMORY_SIZE, text)


def test_memory_size_takes_a_default_as_it_is() -> None:
    assert MEMORY_SIZE.convert(layout.DEFAULT_MEMORY, None, None) == layout.DEFAULT_MEMORY


def test_positive_bytes_accepts_sizes_and_refuses_none() -> None:
    assert POSITIVE_BYTES.convert("1", None, None) == 1
    assert POSITIVE_BYTES.convert("64K", None, None) == 65536
    for text in ("0", "-1", "x", ""):
        assert "is not a positive number of bytes" in refusal(POSITIVE_BYTES, text)


@pytest.mark.parametrize(("text", "address"), [("0x7c00", 0x7C00), ("0", 0), ("1024", 1024), ("0b1", 1)])
def test_address_accepts(text: str, address: int) -> None:
    assert ADDRESS.convert(text, None, None) == address


@pytest.mark.parametrize("text", ["", "-1", "7c00", "0x", "0x7c00h", "1.0", "9" * 5000])
def test_address_refuses(text: str) -> None:
    assert "is not an address" in refusal(ADDRESS, text)


@pytest.mark.parametrize(("text", "port"), [("none", None), ("0xf4", 0xF4), ("0", 0), ("0xfffc", 0xFFFC)])
def test_optional_port_accepts(text: str, port: int | None) -> None:
    assert OPTIONAL_PORT.convert(text, None, None) == port


@pytest.mark.parametrize("text", ["", "None", "0xfffd", "0x10000", "-1", "f4"])
def test_optional_port_refuses_what_four_ports_do_not_fit_behind(text: str) -> None:
    assert "is neither none nor a port from 0 to 0xfffc" in refusal(OPTIONAL_PORT, text)


@pytest.mark.parametrize(("text", "seconds"), [("1", 1.0), ("0.5", 0.5), ("1e-3", 0.001)])
def test_seconds_accepts(text: str, seconds: float) -> None:
    assert SECONDS.convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "0", "-1", "-0.0", "nan", "inf", "1e999", "soon"])
def test_seconds_refuses(text: str) -> None:
    assert "is not a positive number of seconds" in refusal(SECONDS, text)


@pytest.mark.parametrize(
    ("text", "module"),
    [
        ("a.bin", ModuleSpec("a.bin", "")),
        ("a.bin,", ModuleSpec("a.bin", "")),
        ("a.bin,x y,z=1", ModuleSpec("a.bin", "x y,z=1")),
    ],
)
def test_parse_module_splits_at_the_first_comma(text: str, module: ModuleSpec) -> None:
    assert parse_module(text) == module


@pytest.mark.parametrize("text", ["", ",arguments"])
def test_parse_module_without_a_file_raises(text: str) -> None:
    with pytest.raises(UsageError, match="names no file"):
        parse_module(text)


# --- The RTC's first time --------------------------------------------------------------------------------

SUMMER = 1_750_000_000.75  # 2025-06-15 15:06:40.75 UTC
WINTER = 1_736_900_000.0


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Sets the host's time zone."""

    def set_zone(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield set_zone
    monkeypatch.undo()
    time.tzset()


def test_rtc_base_utc_is_the_hosts_second() -> None:
    assert parse_rtc_base("utc", now=SUMMER) == 1_750_000_000


def test_rtc_base_utc_without_a_time_asks_the_host() -> None:
    before = int(time.time())
    assert before <= parse_rtc_base("utc") <= int(time.time())


@pytest.mark.parametrize(
    ("name", "moment", "offset"),
    [
        ("UTC0", SUMMER, 0),
        ("EST5EDT,M3.2.0,M11.1.0", SUMMER, -4 * 3600),
        ("EST5EDT,M3.2.0,M11.1.0", WINTER, -5 * 3600),
        ("CET-1CEST,M3.5.0,M10.5.0", SUMMER, 2 * 3600),
        ("NPT-5:45", WINTER, 5 * 3600 + 45 * 60),
    ],
)
def test_rtc_base_localtime_is_what_a_clock_on_the_wall_shows(
    zone: Callable[[str], None], name: str, moment: float, offset: int
) -> None:
    zone(name)
    assert parse_rtc_base("localtime", now=moment) == int(moment) + offset


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01", 0),
        ("1970-01-01T00:00:01", 1),
        ("1970-01-01 00:01", 60),
        ("2000-02-29T12:00:00", 951_825_600),
        ("1969-12-31T23:59:59", -1),
        ("1970-01-01T00:00:01.999", 1),
        ("0001-01-01", -62_135_596_800),
        ("9999-12-31T23:59:59", 253_402_300_799),
    ],
)
def test_rtc_base_iso_date_is_shown_as_it_is_written(
    zone: Callable[[str], None], text: str, seconds: int
) -> None:
    zone("CET-1CEST,M3.5.0,M10.5.0")
    assert parse_rtc_base(text) == seconds


@pytest.mark.parametrize("suffix", ["Z", "+00:00", "+05:45", "-11:00"])
def test_rtc_base_iso_date_with_a_zone_is_shown_as_it_is_written(suffix: str) -> None:
    assert parse_rtc_base("2000-02-29T12:00:00" + suffix) == 951_825_600


@pytest.mark.parametrize(
    "text", ["", "now", "UTC", "2000-02-30", "2001-02-29", "1700000000x", "12:00", "2000-13-01"]
)
def test_rtc_base_anything_else_raises_and_gives_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="neither utc, localtime nor an ISO date and time") as caught:
        parse_rtc_base(text)
    assert caught.value.hint == "for example 2026-02-28T23:59:50"
