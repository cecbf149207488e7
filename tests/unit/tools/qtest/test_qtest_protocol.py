"""Lines of the qtest protocol: what is a request, what is not, and how answers are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.tools.qtest import qtest_protocol
from kvmbox.tools.qtest.qtest_protocol import (
    BlockRead,
    BlockWrite,
    ClockSet,
    ClockStep,
    Endianness,
    InterceptIrqs,
    MemoryRead,
    MemoryWrite,
    Memset,
    PortRead,
    PortWrite,
    Request,
    RequestError,
    parse,
)

LAST = (1 << 64) - 1


@pytest.mark.parametrize(
    ("line", "request_"),
    [
        (b"inb 0x71", PortRead(0x71, 1)),
        (b"inw 0x40", PortRead(0x40, 2)),
        (b"inl 65535", PortRead(0xFFFF, 4)),
        (b"outb 0x70 0x1ff", PortWrite(0x70, 1, 0xFF)),
        (b"outw 0x70 0x1234", PortWrite(0x70, 2, 0x1234)),
        (b"outl 0x70 -1", PortWrite(0x70, 4, 0xFFFF_FFFF)),
        (b"readb 0x1000", MemoryRead(0x1000, 1)),
        (b"readw 0x1000", MemoryRead(0x1000, 2)),
        (b"readl 0x1000", MemoryRead(0x1000, 4)),
        (b"readq -8", MemoryRead(LAST - 7, 8)),
        (b"writeb 0x1000 0x101", MemoryWrite(0x1000, 1, 1)),
        (b"writew 0x1000 0x10001", MemoryWrite(0x1000, 2, 1)),
        (b"writel 0x1000 7", MemoryWrite(0x1000, 4, 7)),
        (b"writeq 0x1000 0xffffffffffffffff", MemoryWrite(0x1000, 8, LAST)),
        (b"read 0x10 4", BlockRead(0x10, 4, base64=False)),
        (b"b64read 0x10 0", BlockRead(0x10, 0, base64=True)),
        (b"write 0x10 2 0xabcd", BlockWrite(0x10, b"\xab\xcd")),
        (b"write 0x10 4 0xab", BlockWrite(0x10, b"\xab\0\0\0")),
        (b"write 0x10 1 0xabcd", BlockWrite(0x10, b"\xab")),
        (b"write 0x10 2 0xabc", BlockWrite(0x10, b"\xab\0")),
        (b"write 0x10 0 0xab", BlockWrite(0x10, b"")),
        (b"b64write 0x10 4 AQIDBA==", BlockWrite(0x10, b"\1\2\3\4")),
        (b"b64write 0x10 2 AQIDBA==", BlockWrite(0x10, b"\1\2")),
        (b"memset 0x10 5 0x1aa", Memset(0x10, 5, 0xAA)),
        (b"clock_step", ClockStep(None)),
        (b"clock_step 1000", ClockStep(1000)),
        (b"clock_step -1", ClockStep(-1)),
        (b"clock_set 9223372036854775807", ClockSet(qtest_protocol.MAX_TIME)),
        (b"irq_intercept_in ioapic", InterceptIrqs()),
        (b"irq_intercept_in /machine/whatever", InterceptIrqs()),
        (b"endianness", Endianness()),
        (b"endianness and more", Endianness()),
        (b"inb 0x71 0x80", PortRead(0x71, 1)),
        (b"clock_step 1000 7", ClockStep(1000)),
    ],
)
def test_line_of_a_command_gives_its_request(line: bytes, request_: Request) -> None:
    assert parse(line) == request_


@pytest.mark.parametrize(
    ("word", "value"),
    [
        (b"0", 0),
        (b"00", 0),
        (b"017", 15),
        (b"+5", 5),
        (b"-1", LAST),
        (b"0x1F", 31),
        (b"0X1f", 31),
        (b"\t7", 7),
        (b"18446744073709551615", LAST),
    ],
)
def test_number_is_read_as_strtoul_reads_it(word: bytes, value: int) -> None:
    assert qtest_protocol.number(word) == value


@pytest.mark.parametrize(
    "word",
    [
        *(
            b"",
            b"x",
            b"08",
            b"0x",
            b"1_0",
            b"0b1",
            b"0o7",
            b"1 ",
            b"--1",
            b"18446744073709551616",
            b"1" * 100,
        ),
        *(b"-18446744073709551616", "\u0661".encode(), b"1\n"),
    ],
)
def test_number_that_strtoul_would_not_read_to_its_end_is_refused(word: bytes) -> None:
    with pytest.raises(RequestError):
        qtest_protocol.number(word)


@pytest.mark.parametrize("word", [b"9223372036854775808", b"-9223372036854775809", b"0xffffffffffffffff"])
def test_time_beyond_63_bits_is_refused(word: bytes) -> None:
    with pytest.raises(RequestError, match="64 bits"):
        parse(b"clock_step " + word)


@pytest.mark.parametrize("line", [b"\x1b[2J\x9b", "a\u202eb".encode(), b"inb \x07", b"outb 1 \r"])
def test_answer_repeats_no_control_character(line: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        parse(line)
    answer = qtest_protocol.fail(caught.value)
    assert answer.endswith(b"\n")
    assert answer[:-1].decode().isprintable()


@pytest.mark.parametrize(
    ("line", "word"),
    [
        *((b"foo", "foo"), (b"foo bar", "foo"), (b"", ""), (b" inb 0x71", ""), (b"INB 0x71", "INB")),
        *((b"inq 0x71", "inq"), (b"rtas a b", "rtas"), (b"irq_intercept_out ioapic", "irq_intercept_out")),
    ],
)
def test_unknown_command_is_named(line: bytes, word: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse(line)
    assert qtest_protocol.fail(caught.value) == f"FAIL Unknown command '{word}'\n".encode()


@pytest.mark.parametrize(
    "line",
    [
        *(
            b"inb",
            b"inb ",
            b"outb 0x70",
            b"outb  0x70 1",
            b"inb 0x10000",
            b"outb -1 0",
            b"clock_set",
            b"read 0",
        ),
        *(b"read 0 0", b"write 0 1", b"write 0 1 abcd", b"write 0 1 0xgg", b"write 0 1 0x+1", b"memset 0 1"),
        *(b"b64write 0 1 AQ=", b"b64write 0 1 !!!!", b"irq_intercept_in", b"readq", b"clock_step zz"),
        *(b"read 0 0x1000001", b"b64read 0 -1", b"write 0 0x1000001 0x00"),
    ],
)
def test_command_that_cannot_be_read_fails_with_a_reason(line: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        parse(line)
    answer = qtest_protocol.fail(caught.value)
    assert answer.startswith(b"FAIL ")
    assert b"Unknown command" not in answer
    assert answer.count(b"\n") == 1


@pytest.mark.parametrize("line", [b"write 0 1 0x", b"b64write 0 1 AA"])
def test_data_of_less_than_three_characters_is_refused_in_qemus_words(line: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        parse(line)
    assert qtest_protocol.fail(caught.value) == b"ERR invalid argument size\n"


LINES = st.binary(max_size=60).filter(lambda line: b"\n" not in line)
WORDS = st.lists(st.binary(max_size=8).filter(lambda word: b"\n" not in word), max_size=4)
COMMANDS = st.sampled_from([b"inb", b"outl", b"writeq", b"write", b"memset", b"clock_step", b"b64write"])


@given(LINES | st.builds(lambda command, words: b" ".join([command, *words]), COMMANDS, WORDS))
def test_any_line_is_a_request_or_a_failure_of_one_line(line: bytes) -> None:
    failure = None
    try:
        parse(line)
    except RequestError as error:
        failure = qtest_protocol.fail(error)
    assert failure is None or (failure.endswith(b"\n") and failure.count(b"\n") == 1)


def test_answers_have_qemus_form() -> None:
    assert qtest_protocol.ok_port(0x80) == b"OK 0x0080\n"
    assert qtest_protocol.ok_port(0xFFFF_FFFF) == b"OK 0xffffffff\n"
    assert qtest_protocol.ok_memory(0xAB) == b"OK 0x00000000000000ab\n"
    assert qtest_protocol.ok_block(b"\x01\xab", base64_text=False) == b"OK 0x01ab\n"
    assert qtest_protocol.ok_block(b"\x01\xab", base64_text=True) == b"OK Aas=\n"
    assert qtest_protocol.ok_block(b"", base64_text=True) == b"OK \n"
    assert qtest_protocol.ok_time(5) == b"OK 5\n"
    assert qtest_protocol.fail_time(5) == b"FAIL 5\n"
    assert qtest_protocol.irq(4, 1) == b"IRQ raise 4\n"
    assert qtest_protocol.irq(0, 0) == b"IRQ lower 0\n"


def test_unknown_word_is_repeated_in_bounded_length() -> None:
    with pytest.raises(RequestError) as caught:
        parse(b"x" * 10_000)
    assert len(qtest_protocol.fail(caught.value)) < 200
