"""A boot as arguments of `kvmbox run`."""

from __future__ import annotations

from kvmbox.tools.smoke.suite.command_line import run_arguments
from kvmbox.tools.smoke.suite.test_case import Boot


def test_option_with_several_values_is_given_once_for_each() -> None:
    options = {
        "modules": ("a", "b"),
        "fw_cfg": ("opt/x=c",),
        "require": ("landlock",),
        "inject": ("uart:busy=1", "RTC:jump=+5"),
    }
    words = run_arguments(Boot("kernel.elf", options, 5.0))
    assert [word for word in words if word.startswith(("--mod", "--fw", "--req", "--inj"))] == [
        "--module=a",
        "--module=b",
        "--fw-cfg=opt/x=c",
        "--require=landlock",
        "--inject=uart:busy=1",
        "--inject=RTC:jump=+5",
    ]
    assert words[-2:] == ["--", "kernel.elf"]
