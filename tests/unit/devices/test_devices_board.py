"""The board: what a PC without disks has, where it answers, and what it may do."""

from __future__ import annotations

from itertools import combinations

import pytest

from kvmbox.base import layout
from kvmbox.contract.catalog import MODELS, USUAL, build_model
from kvmbox.contract.device_spec import (
    AddressRange,
    Content,
    DeviceSpec,
    Input,
    Memory,
    Output,
    ReplacingIrq,
    Reset,
    Resource,
    StopClean,
    StopPanic,
    StopValue,
    Suspend,
    by_type,
)
from kvmbox.contract.names import MMIO_UART, SERIAL_PORTS
from kvmbox.devices.pc_board import BoardOptions, pc_board, whole_board
from kvmbox.firmware.fw_cfg import FwCfgItem


def board(
    *,
    serial_ports: tuple[str, ...] = SERIAL_PORTS,
    debug_exit_port: int | None = layout.DEBUG_EXIT_PORT,
    uart_pace: bool = False,
    testdev: bool = False,
) -> dict[str, DeviceSpec]:
    options = BoardOptions(
        serial_ports=serial_ports,
        rtc_base=1_700_000_000,
        memory_size=128 * layout.MIB,
        debug_exit_port=debug_exit_port,
        uart_pace=uart_pace,
        testdev=testdev,
    )
    return {device.name: device for device in whole_board(options)}


def addresses(ranges: tuple[AddressRange, ...]) -> set[int]:
    return {address for each in ranges for address in range(each.first, each.first + each.count)}


def test_device_processes_of_most_guests_load_their_modules_ahead() -> None:
    board = pc_board(BoardOptions(("COM1",), 0, 128 * layout.MIB))
    wanted = {
        name: {MODELS[device.model].partition(":")[0] for device in devices}
        for name, devices in by_type(board).items()
        if name == "debug" or not all(device.on_demand for device in devices)
    }

    found = {name: {MODELS[model].partition(":")[0] for model in models} for name, models in USUAL.items()}
    assert found == wanted


def test_board_has_each_device_once_and_no_address_twice() -> None:
    devices = whole_board(BoardOptions(SERIAL_PORTS, 0, 128 * layout.MIB, testdev=True))
    assert len({device.name for device in devices}) == len(devices) == 22
    for one, other in combinations(devices, 2):
        assert not addresses(one.ports) & addresses(other.ports)
        assert not addresses(one.mmio) & addresses(other.mmio)


def test_board_ports_are_those_of_the_pc() -> None:
    devices = board()
    assert addresses(devices["COM1"].ports) == set(range(0x3F8, 0x400))
    assert addresses(devices["COM2"].ports) == set(range(0x2F8, 0x300))
    assert addresses(devices["COM3"].ports) == set(range(0x3E8, 0x3F0))
    assert addresses(devices["COM4"].ports) == set(range(0x2E8, 0x2F0))
    assert addresses(devices["PIT"].ports) == {0x40, 0x41, 0x42, 0x43, 0x61}
    assert addresses(devices["RTC"].ports) == {0x70, 0x71}
    assert addresses(devices["i8042"].ports) == {0x60, 0x64, 0x92}
    assert addresses(devices["debugcon"].ports) == {0xE9, 0x402}
    assert addresses(devices["POST"].ports) == {0x80}
    assert addresses(devices["debug-exit"].ports) == {0xF4, 0xF5, 0xF6, 0xF7}
    assert addresses(devices["debug-exit-501"].ports) == {0x501, 0x502, 0x503, 0x504}
    assert addresses(devices["shutdown"].ports) == {0x8900}
    assert addresses(devices["PM"].ports) == set(range(0x600, 0x60C))
    assert addresses(devices["power-off"].ports) == {*range(0xB004, 0xB008), *range(0x4004, 0x4008)}
    assert addresses(devices["HPET"].mmio) == set(range(0xFED0_0000, 0xFED0_0400))
    assert addresses(devices["pvpanic"].ports) == {0x505}
    assert addresses(devices["reset-control"].ports) == {0xCF8, 0xCF9, 0xCFA, 0xCFB}
    assert addresses(devices["fw_cfg"].ports) == {0x510, 0x511, *range(0x514, 0x51C)}
    ports = {0x3B4, 0x3B5, 0x3BA, *range(0x3C0, 0x3D0), 0x3D4, 0x3D5, 0x3DA}
    assert addresses(devices["VGA"].ports) == ports
    assert addresses(devices["MMIO"].mmio) == set(range(0xD000_0000, 0xD000_0008))


def test_board_interrupt_lines_are_those_of_the_pc() -> None:
    lines = {name: device.irqs for name, device in board().items() if device.irqs}
    assert lines == {
        "COM1": (4,),
        "COM2": (3,),
        "COM3": (4,),
        "COM4": (3,),
        "MMIO": (5,),
        "PIT": (0,),
        "RTC": (8,),
        "i8042": (1, 12),
        "PM": (9,),
        "HPET": (0, 8, 16, 17, 18, 19, 20, 21, 22, 23),
    }
    replaced = {grant.gsi for device in board().values() for grant in device.granted(ReplacingIrq)}
    assert replaced == {0, 8}


def test_board_grants_reset_stop_and_suspend_to_few() -> None:
    devices = board()
    assert [name for name, device in devices.items() if device.granted(StopClean)] == [
        *("shutdown", "PM", "power-off")
    ]
    assert [name for name, device in devices.items() if device.granted(Suspend)] == ["PM"]
    assert [name for name, device in devices.items() if device.granted(Reset)] == ["i8042", "reset-control"]
    exits = [name for name, device in devices.items() if device.granted(StopValue)]
    assert exits == ["debug-exit", "debug-exit-501"]
    assert [name for name, device in devices.items() if device.granted(StopPanic)] == ["pvpanic"]
    inputs = {name: device.granted(Input) for name, device in devices.items() if device.granted(Input)}
    assert inputs == {name: [Input(name)] for name in SERIAL_PORTS} | {"i8042": [Input("keyboard")]}
    outputs = {name: device.granted(Output) for name, device in devices.items() if device.granted(Output)}
    assert outputs == {name: [Output(name)] for name in (*SERIAL_PORTS, "debugcon")}


def test_board_gives_memory_and_content_to_fw_cfg_alone() -> None:
    grants = {name: device.granted(Memory) for name, device in board(testdev=True).items()}
    assert {name: found for name, found in grants.items() if found} == {"fw_cfg": [Memory(16, 1)]}
    assert [name for name, device in board(testdev=True).items() if device.granted(Content)] == ["fw_cfg"]
    assert not any(device.granted(Resource) for device in board(testdev=True).values())


def test_board_registers_of_more_than_a_byte_are_few() -> None:
    devices = board(testdev=True)
    assert {name: device.natural_sizes for name, device in devices.items() if device.natural_sizes} == {
        "debug-exit": {2, 4},
        "debug-exit-501": {2, 4},
        "reset-control": {2, 4},
        "fw_cfg": {2, 4},
        "PM": {2, 4},
        "power-off": {2, 4},
        "HPET": {4, 8},
        "testdev": {2, 4, 8},
        "VBE": {2, 4},
    }


def test_board_testdev_is_there_only_on_request_and_leaves_the_debug_console_alone() -> None:
    assert "testdev" not in board()
    devices = board(testdev=True)
    ports = {*range(0xE0, 0xE9), 0xEA, 0xEB, *range(0x2000, 0x2018)}
    assert addresses(devices["testdev"].ports) == ports
    assert addresses(devices["testdev"].mmio) == set(range(0xFF00_0000, 0xFF01_0000))
    assert devices["testdev"].irqs == tuple(range(24))


@pytest.mark.parametrize("cpus", [1, 32])
def test_board_fw_cfg_tells_the_number_of_cpus_and_the_files(cpus: int) -> None:
    items = (FwCfgItem(b"hello", "opt/x"),)
    options = BoardOptions((), 0, 128 * layout.MIB, cpus=cpus, fw_cfg=items)
    (device,) = [one for one in whole_board(options) if one.name == "fw_cfg"]
    model = build_model(device.model, device.parameters)
    for key in (0x05, 0x0F):
        model.write(0, 0, 2, key)
        assert [model.read(0, 1, 1) for _ in range(2)] == [cpus, 0]
    (content,) = device.granted(Content)
    assert b"hello" in b"".join(content.parts)


def test_board_serial_ports_are_those_asked_for_in_the_order_of_the_pc() -> None:
    assert [n for n, d in board(serial_ports=("MMIO", "COM2")).items() if d.device_type == "uart"] == [
        "COM2",
        "MMIO",
    ]


@pytest.mark.parametrize("pace", [False, True])
def test_board_uart_pace_reaches_every_uart(pace: bool) -> None:
    uarts = [device for device in board(uart_pace=pace).values() if device.device_type == "uart"]
    assert {device.parameters["pace_transmit"] for device in uarts} == {int(pace)}


def test_board_debug_exit_port_can_move_and_be_left_out() -> None:
    assert addresses(board(debug_exit_port=0x600)["debug-exit"].ports) == {0x600, 0x601, 0x602, 0x603}
    assert not {"debug-exit", "debug-exit-501"} & set(board(debug_exit_port=None))


@pytest.mark.parametrize("port", [0x4FE, 0x501, 0x504])
def test_board_debug_exit_port_of_the_user_wins_over_the_second_one(port: int) -> None:
    devices = board(debug_exit_port=port)
    assert addresses(devices["debug-exit"].ports) == set(range(port, port + 4))
    assert "debug-exit-501" not in devices


@pytest.mark.parametrize("port", [0x4FD, 0x506])
def test_board_debug_exit_port_beside_the_second_one_leaves_it(port: int) -> None:
    assert "debug-exit-501" in board(debug_exit_port=port)


def test_board_rtc_knows_time_and_memory() -> None:
    parameters = board()["RTC"].parameters
    assert (parameters["base_seconds"], parameters["memory_bytes"]) == (1_700_000_000, 128 * layout.MIB)


def test_board_timers_announce_their_interrupts() -> None:
    assert {name for name, device in board().items() if device.parameters.get("announce")} == {
        *("PIT", "RTC", "HPET")
    }


@pytest.mark.parametrize("device", board(testdev=True).values(), ids=lambda device: device.name)
def test_board_device_has_a_model_that_fits_it(device: DeviceSpec) -> None:
    build_model(device.model, device.parameters)
    counts = [each.count for each in (*device.ports, *device.mmio)]
    assert all(max(counts) >= size for size in device.natural_sizes)
    # Every register of the model that the board maps is one that the model has, and is mapped once.
    offsets = [
        offset
        for each in (*device.ports, *device.mmio)
        for offset in range(each.offset, each.offset + each.count)
    ]
    assert device.name == "debugcon" or len(set(offsets)) == len(offsets)
    holes = device.name in ("debugcon", "fw_cfg", "testdev", "VGA")
    assert holes or sorted(offsets) == list(range(len(offsets)))


def test_board_mmio_uart_is_in_the_hole_that_no_memory_fills() -> None:
    (window,) = board()[MMIO_UART].mmio
    assert window.first >= layout.MMIO_HOLE_START
    assert window.first + window.count <= layout.KVM_IDENTITY_MAP_ADDRESS
