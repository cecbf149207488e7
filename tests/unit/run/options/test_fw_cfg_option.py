"""The names that files of --fw-cfg may have."""

from __future__ import annotations

import pytest

from kvmbox.base.errors import UsageError
from kvmbox.run.options.fw_cfg_option import check_name, warning_about


@pytest.mark.parametrize("name", ["opt/x", "a", "opt/" + "x" * 51, "opt/org.example/a-b_c.d"])
def test_name_is_accepted(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "has not 1 to 55 characters"),
        ("opt/" + "x" * 52, "has not 1 to 55 characters"),
        ("opt/\u00e4", "is not plain ASCII"),
        ("opt/a b", "is not plain ASCII"),
        ("opt/a\n", "is not plain ASCII"),
    ],
)
def test_name_that_no_guest_could_find_is_refused(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        check_name(name)
    assert "\n" not in str(caught.value)
    assert str(caught.value).isascii()


def test_names_of_the_user_begin_with_opt() -> None:
    assert warning_about("opt/x") is None
    assert "'opt/'" in (warning_about("etc/x") or "")
