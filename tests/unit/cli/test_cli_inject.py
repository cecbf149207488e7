"""`kvmbox run --inject help`, refusals, and what a shell completes."""

from __future__ import annotations

import pytest

from kvmbox.cli import main
from kvmbox.cli.run.inject_help import every_device, words
from kvmbox.parts.inject.fault_table import FAULTS
from kvmbox.parts.inject.injection import Injection
from kvmbox.parts.inject.spec import parse


def test_help_lists_each_fault_with_an_example_and_each_device(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run_command(["run", "--inject", "help"]) == 0
    text = capsys.readouterr().out
    for fault in FAULTS.values():
        assert f"  {fault.name}={fault.takes} " in text
        assert f" --inject {fault.example}\n" in text
    for device in every_device():
        assert device.name in text.split("Devices, by type")[1]


def test_examples_of_the_help_can_all_be_had_at_once() -> None:
    Injection([parse(fault.example) for fault in FAULTS.values()], every_device())


def test_fault_that_is_none_is_one_line_and_a_hint_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run_command(["run", "hello32", "--inject", "uart:bussy=1"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == "kvmbox: error: --inject 'uart:bussy=1': 'bussy' is no fault"
    assert second == "hint: did you mean busy? 'kvmbox run --inject help' lists devices and faults"


def test_words_are_devices_and_then_faults() -> None:
    assert words("he") == ["help"]
    assert words("COM") == ["COM1:", "COM2:", "COM3:", "COM4:"]
    assert "uart:" in words("")
    assert words("uart:b") == ["uart:busy=", "uart:break="]
    assert words("RTC:jump=+5,s") == ["RTC:jump=+5,spurious-irq=", "RTC:jump=+5,seed="]
    assert words("xyzzy:") == []
