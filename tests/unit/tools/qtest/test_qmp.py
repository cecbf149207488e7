"""QMP: what QEMU's test programs say to a new server, and that nothing more is pretended."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox import __version__
from kvmbox.base.memory import GuestMemory
from kvmbox.tools.qtest.bare_machine import BareMachine
from kvmbox.tools.qtest.qmp import MAX_COMMAND, QmpServer

CAPABILITIES = b'{"execute": "qmp_capabilities"}\n'


class Monitor:
    """A QMP server on a machine without devices."""

    def __init__(self, *, negotiated: bool = True) -> None:
        self.sent: list[bytes] = []
        machine = BareMachine([], GuestMemory(1 << 20), lambda _line, _level: None)
        self.server = QmpServer(machine, self.sent.append, wall_clock=lambda: 12.5)
        if negotiated:
            assert self.say(CAPABILITIES) == [{"return": {}}]

    def say(self, data: bytes, *, goes_on: bool = True) -> list[dict[str, Any]]:
        self.sent.clear()
        assert self.server.feed(data) is goes_on
        assert all(text.endswith(b"\r\n") for text in self.sent)
        return [json.loads(text) for text in self.sent]


def test_greeting_names_the_dialect_and_who_speaks_it() -> None:
    monitor = Monitor(negotiated=False)
    monitor.server.greet()
    assert json.loads(monitor.sent[0]) == {
        "QMP": {
            "version": {
                "qemu": {"major": 10, "minor": 0, "micro": 0},
                "package": f"kvmbox {__version__}",
            },
            "capabilities": [],
        }
    }


def test_nothing_is_done_before_the_capabilities() -> None:
    monitor = Monitor(negotiated=False)
    (answer,) = monitor.say(b'{"execute": "quit", "id": 7}')
    assert (answer["error"]["class"], answer["id"]) == ("CommandNotFound", 7)
    assert monitor.say(CAPABILITIES) == [{"return": {}}]
    assert monitor.say(b'{"execute": "query-status"}') == [{"return": {"running": True, "status": "running"}}]


def test_identity_comes_back() -> None:
    (answer,) = Monitor().say(b'{"execute": "query-version", "id": {"a": [1]}, "arguments": {}}')
    assert answer["id"] == {"a": [1]}
    assert answer["return"]["qemu"]["major"] == 10


def test_commands_are_those_that_are_listed() -> None:
    monitor = Monitor()
    (answer,) = monitor.say(b'{"execute": "query-commands"}')
    names = {entry["name"] for entry in answer["return"]}
    assert names == {
        *("qmp_capabilities", "query-commands", "query-status", "query-version", "quit", "system_reset"),
    }


@pytest.mark.parametrize("name", ["device_add", "cont", "qmp_capabilities", "query-machines", "Quit"])
def test_other_command_is_not_found(name: str) -> None:
    (answer,) = Monitor().say(json.dumps({"execute": name}).encode())
    assert answer["error"] == {"class": "CommandNotFound", "desc": f"The command {name} has not been found"}


def test_quit_answers_and_ends() -> None:
    monitor = Monitor()
    assert monitor.say(b'{"execute": "quit"}{"execute": "query-status"}', goes_on=False) == [
        {"return": {}},
        {
            "timestamp": {"seconds": 12, "microseconds": 500_000},
            "event": "SHUTDOWN",
            "data": {"guest": False, "reason": "host-qmp-quit"},
        },
    ]


def test_reset_answers_and_tells() -> None:
    answer, event = Monitor().say(b'{"execute": "system_reset"}')
    assert answer == {"return": {}}
    assert event["event"] == "RESET"


@given(st.lists(st.integers(0, 90), max_size=6))
def test_commands_do_not_depend_on_how_the_bytes_come(places: list[int]) -> None:
    data = b' {"execute":"query-status",\n "id": "\xc3\xa9"}\r\n\t{"execute":"query-version"}\n\n'
    monitor = Monitor()
    answers = []
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    for start, end in pairwise(bounds):
        answers += monitor.say(data[start:end])
    assert [sorted(answer) for answer in answers] == [["id", "return"], ["return"]]
    assert answers[0]["id"] == "é"


@pytest.mark.parametrize(
    "data",
    [
        *(b"hello\n", b'{"execute": quit}\n', b"[1, 2]\n", b"7\n", b'{"execute": 7}\n', b'{"run": "quit"}\n'),
        *(b'{"execute": "quit", "more": 1}\n', b'{"execute": "quit", "arguments": {"a": 1}}\n', b"}\n"),
        *(b'{"execute: quit\n', b'hello {"execute": "quit"}\n', b'{"id": "\xff"}\n', b'{"a": "\\"}"}\n'),
    ],
)
def test_input_that_is_no_command_is_one_error_and_the_next_command_is_heard(data: bytes) -> None:
    monitor = Monitor()
    answers = monitor.say(data + b'{"execute": "query-status"}\n')
    assert ["error" in answer for answer in answers] == [True, False]
    assert answers[0]["error"]["class"] == "GenericError"


def test_endless_command_is_refused_and_forgotten() -> None:
    monitor = Monitor()
    errors = []
    for _ in range(40):
        errors += monitor.say(b'{"execute": "' + b"x" * (MAX_COMMAND // 10) + b"y" * 3)
        assert len(monitor.server._stream.pending) <= MAX_COMMAND
    errors += monitor.say(b"\n")
    assert [sorted(error) for error in errors] == [["error"]]
    assert monitor.say(b'{"execute": "query-status"}')[0]["return"]["running"]


def test_deep_nesting_is_refused() -> None:
    monitor = Monitor()
    answers = monitor.say(b"[" * 60_000)
    answers += monitor.say(b"\n" + b'{"execute": "query-status"}\n')
    assert ["error" in answer for answer in answers] == [True, False]
    assert answers[-1] == {"return": {"running": True, "status": "running"}}
