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
