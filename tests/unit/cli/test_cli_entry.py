"""For which command lines the script starts a spawner at once."""

from __future__ import annotations

import pytest

from kvmbox.cli.entry import OTHER_SPAWNER, SAME_SPAWNER, _has_plain_device_processes
from kvmbox.run.options.option_table import OPTIONS


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("run hello32", True),
        ("run --stats --timeout 3 hello32", True),
        ("run --require landlock hello32", True),
        ("run", True),
        ("", False),
        ("--version", False),
        ("guests", False),
        ("qtest run", False),
        ("run --help", False),
        ("run -h", False),
        ("run --sandbox none hello32", False),
        ("run --sandbox=thread hello32", False),
        ("run hello32 --seccomp strict", False),
        ("run hello32 --without landlock", False),
        ("run --sandbox process --seccomp=filter --ipc shm hello32", True),
        ("run --sandbox=per-device hello32 --seccomp filter", True),
        ("run --sandbox process --seccomp off hello32", False),
        ("run --sandbox", False),
    ],
)
def test_spawner_is_started_early_for_a_plain_run_only(line: str, expected: bool) -> None:
    assert _has_plain_device_processes(line.split()) is expected


def test_options_that_are_looked_for_are_in_the_table_with_their_values() -> None:
    spelled = {option.spelling: option for option in OPTIONS.values()}
    assert {*OTHER_SPAWNER, *SAME_SPAWNER} - {"-h", "--help"} <= set(spelled)
    for spelling, values in SAME_SPAWNER.items():
        assert set(values) < set(spelled[spelling].choices)
