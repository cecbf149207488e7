"""tools/boot_exits.py: what cannot be measured is told in a line."""

from __future__ import annotations

import pytest

from tools import boot_exits


@pytest.mark.parametrize("words", ["missing.elf", "hello64 --unknown"])
def test_guest_that_does_not_start_ends_it_with_the_reason(words: str) -> None:
    with pytest.raises(SystemExit, match=rf"^{words}: \w"):
        boot_exits.counts(words)


@pytest.mark.kvm
def test_guest_that_did_not_come_as_far_as_it_was_to_is_not_counted() -> None:
    with pytest.raises(SystemExit, match=r"^hello64 --expect another: .* printed 'another'"):
        boot_exits.counts("hello64 --expect another")


@pytest.mark.parametrize(("arguments", "status"), [([], 2), (["--help"], 0)])
def test_no_guest_is_a_usage_error_and_help_is_no_guest(
    arguments: list[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        boot_exits.main(arguments)
    assert caught.value.code == status
    assert "GUEST" in "".join(capsys.readouterr())
