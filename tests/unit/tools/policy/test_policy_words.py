"""Arguments and conditions in words, words to arguments, names to numbers, with libseccomp and without."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.base.errors import SandboxError, UsageError
from kvmbox.sandbox import libseccomp
from kvmbox.sandbox.policy import INT, WORD, Condition
from kvmbox.sandbox.syscall_names import NUMBERS
from kvmbox.tools.policy.syscall_lookup import number_of
from kvmbox.tools.policy.words import (
    SIGNATURES,
    argument_name,
    condition_in_words,
    parse_argument,
    value_in_words,
)

# --- In words --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "condition", "words"),
    [
        ("read", Condition(0, 3, INT), "fd is 3"),
        ("mmap", Condition(4, INT, INT), "fd is -1"),
        ("mmap", Condition(2, 3), "prot is PROT_READ|PROT_WRITE"),
        ("mmap", Condition(2, 0), "prot is PROT_NONE"),
        ("mprotect", Condition(2, 0, 4), "prot has none of PROT_EXEC"),
        ("mmap", Condition(3, 0x22, 0x22), "flags has MAP_PRIVATE|MAP_ANONYMOUS"),
        ("mmap", Condition(3, 0x02, 0x22), "flags & (MAP_PRIVATE|MAP_ANONYMOUS) is MAP_PRIVATE"),
        ("mmap", Condition(3, 0x100022), "flags is MAP_PRIVATE|MAP_ANONYMOUS|0x100000"),
        ("ioctl", Condition(1, 0xAE80), "request is 0xae80"),
        ("ioctl", Condition(1, 0xAE00, 0xFF00), "request & (0xff00) is 0xae00"),
        ("openat", Condition(2, 0, 0o103), "flags has none of O_WRONLY|O_RDWR|O_CREAT"),
        ("clone", Condition(0, 0x10000, 0x30000), "flags & (CLONE_THREAD|CLONE_NEWNS) is CLONE_THREAD"),
        ("clone", Condition(0, 0), "flags is 0"),
        ("ioctl", Condition(1, 0x4020_AE46), "request is 0x4020ae46"),
        ("strange", Condition(2, 7), "argument 3 is 7"),
        ("read", Condition(5, 7), "argument 6 is 7"),
    ],
)
def test_condition_in_words(call: str, condition: Condition, words: str) -> None:
    assert condition_in_words(call, condition) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (INT, "-1"), (WORD, "-1"), (WORD - 99, "-100"), (0x7FFF_FFFF, "2147483647"), (0, "0"),
        (3 << 32, "0x300000000"), (0xABCD_0000_0003, "0xabcd00000003"),
    ],
)  # fmt: skip
def test_descriptor_is_spelled_as_a_signed_number_where_it_is_one(value: int, words: str) -> None:
    assert value_in_words("read", "fd", value) == words


def test_current_directory_is_spelled_by_its_name() -> None:
    assert value_in_words("openat", "dirfd", WORD - 99) == "AT_FDCWD"
    assert value_in_words("openat", "dirfd", 3) == "3"


def test_arguments_of_every_known_call_are_six_at_most_and_distinct() -> None:
    for call, names in SIGNATURES.items():
        assert len(names.split()) <= 6, call
        assert len(set(names.split())) == len(names.split()), call
    assert argument_name("mmap", 5) == "offset"


# --- Words to arguments ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0), ("3", 3), ("-1", -1), ("0x1000", 4096), ("0o17", 15), ("18446744073709551615", WORD),
        ("PROT_NONE", 0), ("PROT_READ|PROT_WRITE", 3), ("PROT_READ | 0x4", 5), ("MAP_ANONYMOUS", 0x20),
        ("MAP_SHARED|MAP_FIXED", 0x11), ("AT_FDCWD", -100), ("stderr", 2), ("channel", 3), ("reply", 4),
        ("O_RDWR|O_CLOEXEC", 0o2000002), ("AF_UNIX", 1), ("SOCK_STREAM", 1), ("SIGKILL", 9),
    ],
)  # fmt: skip
def test_argument_is_parsed(text: str, value: int) -> None:
    assert parse_argument(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "|", "three", "1.5", "010", "PROT_FLY", "SIG", "O_", "1e3", "18446744073709551616",
     "-9223372036854775809", "SIG_IGN_", "channel|", "AF_"],
)  # fmt: skip
def test_argument_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"neither a number|does not fit"):
        parse_argument(text)


@given(value=st.integers(-(1 << 63), WORD))
def test_any_register_value_is_parsed_in_decimal_and_hexadecimal(value: int) -> None:
    assert parse_argument(str(value)) == value
    assert parse_argument(hex(value)) == value


@given(text=st.text(max_size=20))
def test_any_text_is_a_number_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(parse_argument(text), int)


# --- Names of calls --------------------------------------------------------------------------------------


@pytest.fixture
def no_libseccomp(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise SandboxError("cannot load libseccomp: gone")

    monkeypatch.setattr(libseccomp, "load_libseccomp", missing)


FOUND = [
    ("read", ("read", 0)),
    ("rt_tgsigqueueinfo", ("rt_tgsigqueueinfo", 297)),
    ("257", ("openat", 257)),
    ("0x3b", ("execve", 59)),
    ("599", ("system call 599", 599)),
]


@pytest.mark.parametrize(("text", "found"), FOUND)
def test_call_is_found_by_name_and_number(text: str, found: tuple[str, int]) -> None:
    assert number_of(text) == found


@pytest.mark.usefixtures("no_libseccomp")
@pytest.mark.parametrize(("text", "found"), FOUND)
def test_call_is_found_without_libseccomp(text: str, found: tuple[str, int]) -> None:
    assert number_of(text) == found


def test_call_that_only_libseccomp_knows_is_asked_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(NUMBERS, "openat2")
    assert number_of("openat2") == ("openat2", 437)


@pytest.mark.usefixtures("no_libseccomp")
def test_unknown_call_without_libseccomp_gives_close_matches_too() -> None:
    with pytest.raises(UsageError, match="no system call 'opennat'") as caught:
        number_of("opennat")
    assert caught.value.hint is not None
    assert "openat" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        number_of("zzz")
    assert caught.value.hint == "give its number, if it is a new one"


def test_unknown_call_gives_close_matches() -> None:
    with pytest.raises(UsageError, match="x86-64 has no system call 'opennat'") as caught:
        number_of("opennat")
    assert caught.value.hint is not None
    assert "openat" in caught.value.hint


@pytest.mark.parametrize("text", ["-1", "0x100000000", "", "socketcall", "read "])
def test_what_is_no_call_of_x86_64_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        number_of(text)
