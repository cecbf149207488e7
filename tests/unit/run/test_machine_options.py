"""The options of a machine: those of `kvmbox run`, with the same defaults, and what cannot be asked for."""

from __future__ import annotations

import inspect
import itertools
from pathlib import Path
from typing import Any

import click
import pytest

from kvmbox import Capture, Machine, ModuleSpec, SnapshotFileError, UsageError
from kvmbox.base import layout
from kvmbox.cli.error_hints import advice
from kvmbox.cli.main import run_command
from kvmbox.cli.run.command import command
from kvmbox.contract.device_spec import DeviceSpec
from kvmbox.host.console.serial_backends import SerialSpec
from kvmbox.jail import layers
from kvmbox.parts.inject.spec import parse
from kvmbox.parts.snapshot.snapshots import parse_condition
from kvmbox.parts.snapshot.start_options import merged
from kvmbox.remote.transport.ipc_table import AUTO, DEFAULT_IPC, IPC_OPTIONS, TRANSPORTS
from kvmbox.run.options import choices, values
from kvmbox.run.options.choices import FirmwareFile, SymbolSpec
from kvmbox.run.options.option_table import PARAMETERS as ROWS
from kvmbox.run.options.option_table import taken

PARAMETERS = inspect.signature(Machine).parameters
OF_THE_COMMAND = {
    *("guest", "stats", "json_path", "html", "no_exit_samples", "report", "debug", "from_file", "watch")
}
OF_THE_LIBRARY = {
    *("image", "console", "kvm_path", "say", "devices", "resources", "sample_exits", "start", "transcript")
}


def test_taken_reads_the_hosts_clock_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count(1_000_000)
    monkeypatch.setattr("time.time", lambda: float(next(seconds)))

    first, second = (taken({})["rtc_base"] for _ in range(2))

    assert 1_000_000 <= first < second


def test_machine_has_the_options_of_the_command_and_the_command_has_those_of_the_machine() -> None:
    of_the_command = {parameter.name for parameter in command.params}
    assert of_the_command - OF_THE_COMMAND == set(PARAMETERS) - OF_THE_LIBRARY


def test_command_has_no_defaults_of_its_own() -> None:
    # What is not given is not passed on.
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.name not in OF_THE_COMMAND:
            assert parameter.to_info_dict()["default"] in (None, False, ()), parameter.name


def test_every_option_of_a_machine_has_a_type_and_a_default() -> None:
    for name, parameter in PARAMETERS.items():
        assert parameter.annotation is not parameter.empty, name
        assert name == "image" or parameter.default is not parameter.empty, name


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("boot", f"[default: {choices.DEFAULT_BOOT}]"),
        ("cpu", f"[default: {choices.DEFAULT_CPU}]"),
        ("firmware_tables", f"[default: {choices.DEFAULT_FIRMWARE}]"),
        ("serial_overflow", f"[default: {choices.DEFAULT_SERIAL_OVERFLOW}]"),
        ("sandbox", f"[default: {choices.DEFAULT_SANDBOX}]"),
        ("seccomp", f"[default: {choices.DEFAULT_SECCOMP}]"),
        ("ipc", f"[default: {DEFAULT_IPC}]"),
        ("on_device_crash", f"[default: {choices.DEFAULT_ON_DEVICE_CRASH}]"),
        ("restart_budget", f"[default: {choices.DEFAULT_RESTART_BUDGET}]"),
        ("pin", f"[default: {choices.DEFAULT_PIN}]"),
        ("rtc_base", f"[default: {choices.DEFAULT_RTC_BASE}]"),
        ("debug_exit", f"[default: {layout.DEBUG_EXIT_PORT:#x}]"),
        ("memory", f"[default: {layout.DEFAULT_MEMORY >> 20}M]"),
    ],
)
def test_help_tells_the_default(name: str, written: str) -> None:
    (option,) = (parameter for parameter in command.params if parameter.name == name)
    assert isinstance(option, click.Option)
    assert written in str(option.help)


def test_defaults_are_a_plain_run_with_its_console_in_memory() -> None:
    vm = Machine("no-such-guest")
    made = vm.config
    assert (made.guest, made.memory_size, made.boot) == ("no-such-guest", layout.DEFAULT_MEMORY, "auto")
    assert made.serial == {
        "COM1": SerialSpec("COM1", "capture", capture=vm.console),
        "MMIO": SerialSpec("MMIO", "shared", capture=vm.console),
    }
    assert made.debugcon == SerialSpec("debugcon", "auto", capture=vm.console)
    assert not vm.running


def test_values_are_taken_as_numbers_and_as_text(tmp_path: Path) -> None:
    made = Machine(
        tmp_path,
        memory="64M",
        load_address="0x1000",
        boot="real",
        serial_limit="1K",
        debug_exit="0x501",
        record=tmp_path / "record",
        record_limit=4096,
        profile=tmp_path / "profile",
        profile_rate="500",
        rtc_base="2000-02-29T12:00:00",
        modules=["a,b c", ModuleSpec("d")],
        expect="one",
        fail_on=[b"two", "three"],
        pin=0,
        require=["seccomp"],
    ).config
    assert (made.guest, made.memory_size, made.load_address) == (str(tmp_path), 64 << 20, 0x1000)
    assert (made.serial_limit, made.debug_exit_port, made.of_part("record_limit")) == (1024, 0x501, 4096)
    assert made.parts["profile"] == {"profile": str(tmp_path / "profile"), "profile_rate": 500}
    assert made.rtc_base == 951_825_600
    assert made.modules == (ModuleSpec("a", "b c"), ModuleSpec("d"))
    assert (made.expect, made.fail_on) == ((b"one",), (b"two", b"three"))
    assert (made.pin, made.require) == ("0", layers.SECCOMP)
    assert Machine("x", debug_exit="none").config.debug_exit_port is None
    assert Machine("x", rtc_base=7).config.rtc_base == 7


DEVICE = DeviceSpec("own", "own", "uart_16550")
ONE: list[tuple[str, Any, str, Any]] = [
    ("modules", "own.elf,a b", "modules", ModuleSpec("own.elf", "a b")),
    ("modules", b"own.elf", "modules", ModuleSpec("own.elf")),
    ("modules", Path("a,b"), "modules", ModuleSpec("a,b")),
    ("modules", ModuleSpec("m"), "modules", ModuleSpec("m")),
    ("fw_cfg", "opt/a=f", "fw_cfg", FirmwareFile("opt/a", "f")),
    ("fw_cfg", FirmwareFile("opt/a", "f"), "fw_cfg", FirmwareFile("opt/a", "f")),
    ("symbols", "own.elf@0x10", "symbols", SymbolSpec("own.elf", 0x10)),
    ("symbols", Path("own@0x10"), "symbols", SymbolSpec("own@0x10")),
    ("expect", "text", "expect", b"text"),
    ("fail_on", b"text", "fail_on", b"text"),
    ("snapshot_when", "34=f", "snapshot_when", parse_condition("34=f")),
    ("source", "dir", "source", "dir"),
    ("source", Path("dir"), "source", "dir"),
    ("inject", "uart:busy=1", "inject", parse("uart:busy=1")),
    ("devices", DEVICE, "devices", DEVICE),
]


@pytest.mark.parametrize(("option", "given", "name", "made"), ONE)
def test_one_value_of_a_repeated_option_is_not_taken_apart(
    option: str, given: Any, name: str, made: Any
) -> None:
    options: list[dict[str, Any]] = [{option: given}, {option: [given]}, {option: (given,)}]
    for one in options:
        config = Machine("hello32", **one).config
        found = config.of_part(name) if ROWS[option].part else getattr(config, name)
        assert found == (made,)


def test_one_text_names_one_layer_and_one_port() -> None:
    made = Machine("hello32", require="seccomp", without="landlock", serial="COM2=null").config
    assert made.require == layers.SECCOMP
    assert made.design.without == layers.LANDLOCK
    assert made.serial["COM2"] == SerialSpec("COM2", "null")


def test_one_text_names_one_port_of_a_snapshot() -> None:
    own = {"serial": dict.fromkeys(("COM1", "COM2", "MMIO"), "null")}
    for given in ("COM2=pty", ["COM2=pty"]):
        assert merged(own, {"serial": given})["serial"][0] == "COM2=pty"


@pytest.mark.parametrize(
    ("option", "given", "message"),
    [
        ("modules", 7, "--module: 7 is neither one value nor a sequence of values"),
        ("modules", [7], "--module: 7 is neither text nor a ModuleSpec"),
        ("symbols", [ModuleSpec("a")], "is neither text nor a SymbolSpec"),
        ("fw_cfg", [Path("a")], "is neither text nor a FirmwareFile"),
        ("require", None, "--require: None is neither"),
        ("serial", 7, "--serial: 7 is neither"),
        ("snapshot_when", [None], "--snapshot-when: None is neither text nor a SnapshotCondition"),
    ],
)
def test_what_is_neither_one_value_nor_several_is_a_usage_error(
    option: str, given: Any, message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        Machine("hello32", **{option: given})
    assert message in str(caught.value)


def test_bundled_guest_is_found_unless_there_is_such_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled = Machine("real16").config
    assert bundled.guest.endswith("real16.bin")
    assert bundled.boot == "real"
    (tmp_path / "real16").touch()
    monkeypatch.chdir(tmp_path)
    assert (Machine("real16").config.guest, Machine("real16").config.boot) == ("real16", "auto")


WRONG: list[tuple[dict[str, Any], list[str], str]] = [
    ({"memory": "much"}, [], "--memory: 'much' is not a size"),
    ({"memory": 5000}, [], "--memory: '5000' is not a multiple of the page size"),
    ({"timeout": 0}, [], "--timeout: '0' is not a positive number of seconds"),
    ({"cpus": 1.5}, [], "--cpus: '1.5' is not a whole number from 1 to"),
    ({"debug_exit": {}}, [], "--debug-exit: '{}' is neither none nor a port"),
    ({"debug_exit": 65536}, [], "--debug-exit: '65536' is neither none nor a port"),
    ({"record": "x", "record_limit": 0}, [], "--record-limit: '0' is not a positive number"),
    ({"profile": "x", "profile_rate": 1001}, [], "--profile-rate: '1001' is not a whole number from 1 to"),
    ({"profile": "x", "profile_rate": 0.5}, [], "--profile-rate: '0.5' is not a whole number from 1 to"),
    ({"success_status": 300}, [], "--success-status 300 is not between 1 and 255"),
    ({"on_device_crash": "restart", "restart_budget": 0}, [], "--restart-budget 0 is less than 1"),
    ({"sandbox": "vm"}, [], "--sandbox 'vm' is none of none, thread, process, per-device"),
    ({"seccomp": "x"}, [], "--seccomp 'x' is none of filter, strict, off"),
    ({"ipc": "x"}, [], "--ipc 'x' is none of auto, socketpair, pipe, shm"),
    ({"serial_overflow": "x"}, [], "--serial-overflow 'x' is none of wait, drop"),
    ({"on_device_crash": "x"}, [], "--on-device-crash 'x' is none of fail, restart, all-ones"),
    ({"console": "x"}, [], "console 'x' is none of capture, stdio"),
    # The same as on the command line, word for word.
    ({"load_address": 4096}, ["--load-address", "4096"], "--load-address needs --boot real"),
    ({"success_status": 2}, ["--success-status", "2"], "--success-status 2 is even"),
    ({"expect": ""}, ["--expect", ""], "--expect and --fail-on want a text that is not empty"),
    ({"fail_on": ["a", b""]}, ["--fail-on", "a", "--fail-on", ""], "want a text that is not empty"),
    (
        {"success_status": 3, "debug_exit": None},
        ["--success-status", "3", "--debug-exit", "none"],
        "--success-status needs the debug-exit port",
    ),
    ({"record_limit": 9}, ["--record-limit", "9"], "--record-limit needs --record"),
    ({"profile_rate": 9}, ["--profile-rate", "9"], "--profile-rate needs --profile"),
    ({"require": ["x"]}, ["--require", "x"], "--require: "),
    ({"without": ["x"]}, ["--without", "x"], "--without: "),
    (
        {"without": ["seccomp"], "require": ["seccomp"]},
        ["--without", "seccomp", "--require", "seccomp"],
        "--require and --without name seccomp",
    ),
    (
        {"sandbox": "none", "without": ["seccomp"]},
        ["--sandbox", "none", "--without", "seccomp"],
        "--without seccomp needs device processes",
    ),
    (
        {"without": ["seccomp"], "seccomp": "filter"},
        ["--without", "seccomp", "--seccomp", "filter"],
        "--without seccomp contradicts --seccomp filter",
    ),
    (
        {"require": ["seccomp"], "seccomp": "off"},
        ["--require", "seccomp", "--seccomp", "off"],
        "--require seccomp contradicts --seccomp off",
    ),
    ({"sandbox": "none", "ipc": "auto"}, ["--sandbox", "none", "--ipc", "auto"], "--ipc needs a --sandbox"),
    ({"sandbox": "none", "ipc": "shm"}, ["--sandbox", "none", "--ipc", "shm"], "--ipc needs a --sandbox"),
    (
        {"sandbox": "thread", "seccomp": "strict"},
        ["--sandbox", "thread", "--seccomp", "strict"],
        "--seccomp strict needs device processes",
    ),
    (
        {"sandbox": "none", "on_device_crash": "restart"},
        ["--sandbox", "none", "--on-device-crash", "restart"],
        "--on-device-crash restart needs device processes",
    ),
    ({"restart_budget": 3}, ["--restart-budget", "3"], "--restart-budget needs --on-device-crash restart"),
    ({"modules": [",x"]}, ["--module", ",x"], "--module ',x' names no file"),
    ({"rtc_base": "soon"}, ["--rtc-base", "soon"], "--rtc-base 'soon' is neither utc"),
    ({"debugcon": "tcp"}, ["--debugcon", "tcp"], "--debugcon: unknown backend 'tcp'"),
    (
        {"serial": ["COM9=null"]},
        ["--serial", "COM9=null"],
        "--serial 'COM9=null': no such serial port 'COM9'",
    ),
    ({"serial": ["COM1"]}, ["--serial", "COM1"], "--serial 'COM1': no such serial port 'COM1'"),
    (
        {"serial": ["COM1=null", "com1=pty"]},
        ["--serial", "COM1=null", "--serial", "com1=pty"],
        "--serial names COM1 twice",
    ),
    (
        {"serial": {"COM1": "stdio", "COM2": "stdio"}},
        ["--serial", "COM1=stdio", "--serial", "COM2=stdio"],
        "--serial puts COM1 and COM2 on stdio",
    ),
    ({"cpus": 0}, [], "--cpus: '0' is not a whole number from 1 to 32"),
    ({"cpus": 33}, [], "--cpus: '33' is not a whole number from 1 to 32"),
    ({"cpus": "two"}, [], "--cpus: 'two' is not a whole number from 1 to 32"),
    ({"boot": "fake"}, [], "--boot 'fake' is none of auto, "),
    ({"entry": "1000"}, [], "--entry: '1000' is not CS:IP"),
    ({"entry": "1000:0"}, [], "--entry needs --boot real"),
    ({"segments": "cs"}, [], "--segments needs --boot real"),
    ({"fw_cfg": ["opt/a"]}, [], "--fw-cfg 'opt/a' is not NAME=FILE"),
    ({"serial": {"COM9": "null"}}, [], "--serial 'COM9=null': no such serial port 'COM9'"),
    ({"serial": {"COM1": "tcp"}}, [], "--serial 'COM1=tcp': unknown backend 'tcp'"),
    ({"serial": {"COM1": 7}}, [], "--serial COM1: 7 is neither text nor a Capture"),
    ({"debugcon": None}, [], "--debugcon: None is neither text nor a Capture"),
    (
        {"snapshot_when": "x=f", "virtio_console": "null"},
        ["--snapshot-when", "x=f", "--virtio-console", "null"],
        "--snapshot-when contradicts --virtio-console",
    ),
]


@pytest.mark.parametrize(
    ("option", "given"),
    [
        *(("memory", 4096.0), ("serial_limit", b"1"), ("rtc_base", 1.5), ("timeout", [])),
        *(("success_status", "43"), ("restart_budget", "3"), ("entry", 7)),
        *(("success_status", 1.5), ("restart_budget", float("nan")), ("gdb", "1" * 5000)),
        *(("cpu", None), ("append", 7), ("record", 7), ("expect", "\ud800")),
        *(("gdb", 1234), ("vnc", 5900), ("inject", [None]), ("expect_picture", 7)),
    ],
)
def test_value_of_a_wrong_type_is_a_usage_error(option: str, given: Any) -> None:
    with pytest.raises(UsageError) as caught:
        Machine("hello32", **{option: given})
    assert str(caught.value).startswith(f"{ROWS[option].spelling}: ")
    assert str(caught.value).endswith(f" is no {ROWS[option].annotation}")


def test_parameter_that_is_none_is_refused_when_called_and_by_type_checkers() -> None:
    with pytest.raises(TypeError, match=r"'memroy'\. Did you mean 'memory'"):
        Machine("hello32", memroy="1M")  # type: ignore[call-arg]
    with pytest.raises(UsageError, match=r"--cpus: '\[2\]' is not a whole number"):
        Machine("hello32", cpus=[2])  # type: ignore[arg-type]
    with pytest.raises(SnapshotFileError):
        Machine.from_snapshot("no-such-file", memory="1M")  # type: ignore[call-arg]


@pytest.mark.parametrize("cpus", [1, values.MOST_CPUS])
def test_number_of_vcpus_may_be_any_in_the_range(cpus: int) -> None:
    assert Machine("hello32", cpus=cpus).config.cpus == cpus


@pytest.mark.parametrize(("wrong", "written", "message"), WRONG)
def test_wrong_option_is_a_usage_error_and_the_same_on_the_command_line(
    wrong: dict[str, Any], written: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        Machine("hello32", **wrong)
    assert message in str(caught.value)
    if written:
        assert run_command(["run", *written, "hello32"]) == 2
        error, hint = capfd.readouterr().err.splitlines()
        assert error == f"kvmbox: error: {caught.value}"
        assert hint == f"hint: {caught.value.hint or advice(caught.value)}"


# --- Where the console is ---------------------------------------------------------------------------------


def test_console_is_the_capture_of_com1() -> None:
    com1 = Capture()
    vm = Machine("hello32", serial={"com1": com1})
    assert vm.console is com1
    assert vm.config.debugcon.capture is com1


@pytest.mark.parametrize(
    "options", [{"console": "stdio"}, {"serial": {"COM2": "stdio"}}, {"serial": ["COM1=stdio"]}]
)
def test_console_on_stdio_has_no_capture(options: dict[str, Any]) -> None:
    vm = Machine("hello32", **options)
    assert vm.console is None
    assert all(spec.capture is None for spec in (*vm.config.serial.values(), vm.config.debugcon))
    for use in (lambda: vm.output, lambda: vm.send(b""), lambda: vm.expect("x", 0)):
        with pytest.raises(UsageError, match="on stdio"):
            use()


def test_com1_elsewhere_leaves_the_debug_console_in_memory() -> None:
    vm = Machine("hello32", serial={"COM1": "null"})
    assert vm.config.serial["COM1"] == SerialSpec("COM1", "null")
    assert vm.config.debugcon.capture is vm.console is not None


def test_one_capture_for_two_ports_or_two_machines_is_refused() -> None:
    capture = Capture()
    with pytest.raises(UsageError, match="COM1 and COM2 on one Capture"):
        Machine("hello32", serial={"COM1": capture, "COM2": capture})
    Machine("hello32", serial={"COM2": capture})
    with pytest.raises(UsageError, match="has been used"):
        Machine("hello32", serial={"COM1": capture})


def test_wait_and_expect_before_the_start_are_refused() -> None:
    vm = Machine("hello32")
    for use in (lambda: vm.wait(0), lambda: vm.expect("x", 0)):
        with pytest.raises(UsageError, match="was not started"):
            use()


def test_choices_of_the_types_are_those_of_the_parts() -> None:
    assert DEFAULT_IPC in IPC_OPTIONS
    assert set(IPC_OPTIONS) == {AUTO, *TRANSPORTS}
    assert choices.DEFAULT_SECCOMP in choices.SECCOMP_CHOICES
