"""The last accesses to devices, as a report shows them."""

from __future__ import annotations

from kvmbox.parts.crash_report.last_accesses import Made, as_json, lines_of

MADE: list[Made] = [
    (("in", 0x3FD, 1), 0x60),
    (("in", 0x3FD, 1), 0x60),
    (("in", 0x3FD, 1), 0x0),
    (("write", 0xD000_0000, 4), 0x1234),
    (("out", 0x3F8, 1), None),
]


def test_equal_accesses_in_a_row_are_one_line() -> None:
    assert lines_of(MADE) == [
        "Last accesses to devices, the newest last:",
        "  in    0x03fd size 1  0x60, 2 times",
        "  in    0x03fd size 1  0x00",
        "  write 0xd0000000 size 4  0x00001234",
        "  out   0x03f8 size 1  a string",
    ]
    assert lines_of([]) == []


def test_data_has_every_access() -> None:
    assert len(as_json(MADE)) == 5
    assert as_json(MADE)[-2:] == [
        {"access": "write", "address": "0xd0000000", "size": 4, "value": 0x1234},
        {"access": "out", "address": "0x3f8", "size": 1, "value": None},
    ]


def out(value: int) -> Made:
    return ("out", 0x3F8, 1), value


def test_polled_output_is_one_line() -> None:
    made = [one for value in b"Hi\xff\x00!" for one in ((("in", 0x3FD, 1), 0x60), out(value))]
    assert lines_of(made)[1:] == ["  in 0x3fd -> 0x60, out 0x3f8: 5 times"]
    assert lines_of(made[:4])[1:] == [  # twice is no pattern
        "  in    0x03fd size 1  0x60",
        "  out   0x03f8 size 1  0x48",
        "  in    0x03fd size 1  0x60",
        "  out   0x03f8 size 1  0x69",
    ]


def test_written_value_that_never_changes_is_shown_with_its_pattern() -> None:
    made: list[Made] = [(("out", 0x70, 1), 0x8A), (("in", 0x71, 1), 0x26)] * 3
    assert lines_of(made)[1:] == ["  out 0x70 <- 0x8a, in 0x71 -> 0x26: 3 times"]


def test_pattern_ends_where_another_value_is_read() -> None:
    made: list[Made] = [(("out", 0x70, 1), 0x8A), (("in", 0x71, 1), 0xA6)] * 3
    made += [(("out", 0x70, 1), 0x8A), (("in", 0x71, 1), 0x26)]
    assert lines_of(made)[1:] == [
        "  out 0x70 <- 0x8a, in 0x71 -> 0xa6: 3 times",
        "  out   0x0070 size 1  0x8a",
        "  in    0x0071 size 1  0x26",
    ]


def test_characters_to_one_place_are_a_text() -> None:
    assert lines_of([out(one) for one in b"a 'b'\n"] + [out(0x1B)])[1:] == [
        "  out   0x03f8 size 1  \"a 'b'\\n\"",
        "  out   0x03f8 size 1  0x1b",
    ]
