"""The words of the monitor: what gdb's `monitor_commands` and the monitor on the terminal (Ctrl-A C) have in
common.

A word acts on a machine whose CPUs stand still, which is the business of whoever has heard it, and answers
with lines of text. `WORDS` is the one table of them: both look words up there, and their help is made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from kvmbox.base.errors import KvmboxError, KvmError, StartError, UsageError
from kvmbox.base.outcome import INTERRUPTED, Outcome
from kvmbox.base.value_classes import Value
from kvmbox.explain.paging import CR0_PG
from kvmbox.explain.stopped_cpu import Cpu
from kvmbox.kvm.guest_debug import inject_nmi

if TYPE_CHECKING:
    from kvmbox.host.console.serial_backends import KeyboardSpec
    from kvmbox.run.machine.one_boot import Boot
    from kvmbox.run.part import Standing

MOST_MEMORY: Final = 4096
"""How many bytes of memory one word shows."""
_ROW: Final = 16
_ADDRESS: Final = (1 << 64) - 1

_REGISTERS: Final = (
    *(("rax", "rbx", "rcx", "rdx"), ("rsi", "rdi", "rbp", "rsp")),
    *(("r8", "r9", "r10", "r11"), ("r12", "r13", "r14", "r15"), ("rip", "rflags")),
)
_CONTROL: Final = (("cr0", "cr2", "cr3", "cr4"), ("efer", "cr8"))
_SEGMENTS: Final = ("cs", "ss", "ds", "es", "fs", "gs")


class MonitorError(KvmboxError):
    """A word cannot be done; the text says why."""


class Monitor:
    """The words on one machine. Belongs to the main loop's thread."""

    def __init__(self, machine: Standing) -> None:
        self.machine: Final = machine
        self.cpu = 0
        """The CPU that words are about."""
        self.is_physical = False
        """Whether addresses of memory are physical."""

    def answer(self, words: Sequence[str]) -> str:
        """What a word with its arguments gives. Raises MonitorError, DeviceProcessError."""
        word = WORDS.get(words[0])
        if word is None:
            raise MonitorError(f"there is no word '{words[0][:40]}': 'help' lists them")
        if not word.fewest <= len(words) - 1 <= word.most:
            raise MonitorError(f"it is used as: {word.usage}")
        try:
            return word.do(self, *words[1:])
        except (KvmError, StartError, UsageError) as error:
            raise MonitorError(f"{error}; {error.hint}" if error.hint else str(error)) from error

    @property
    def boot(self) -> Boot:
        """The boot that runs. Raises MonitorError."""
        boot = self.machine.loop.watch.boot
        if boot is None:
            raise MonitorError("no CPU runs: the guest is suspended, or about to boot")
        return boot

    def state(self) -> Cpu:
        """The present CPU."""
        vcpu = self.boot.vcpus[self.cpu].vcpu
        return Cpu(vcpu.get_regs(), vcpu.get_sregs(), self.machine.memory.available, self.cpu)

    def choose_cpu(self, text: str = "") -> str:
        """Make another CPU the present one, or tell which it is."""
        if text:
            number = number_of(text)
            if number >= len(self.boot.vcpus):
                raise MonitorError(f"there is no CPU {number}: the guest has {len(self.boot.vcpus)}")
            self.cpu = number
        return self.place()

    def place(self) -> str:
        """Where the present CPU is."""
        cpu = self.state()
        code = cpu.read(cpu.pc, 8).hex(" ") or "nothing is mapped there"
        return f"CPU {cpu.number}, {cpu.bits}-bit code, at {cpu.pc:#x}: {code}\n"

    # --- Looks --------------------------------------------------------------------------------------------

    def registers(self) -> str:
        """The registers of the present CPU."""
        cpu = self.state()
        rows = [[(name, getattr(cpu.regs, name)) for name in row] for row in _REGISTERS]
        rows += [[(name, getattr(cpu.sregs, name)) for name in row] for row in _CONTROL]
        lines = ["  ".join(f"{name:>6} {value:016x}" for name, value in row) for row in rows]
        for name in _SEGMENTS:
            one = getattr(cpu.sregs, name)
            lines.append(f"{name:>6} {one.selector:04x} base {one.base:016x} limit {one.limit:08x}")
        return "".join(f"{line}\n" for line in (f"CPU {cpu.number}, {cpu.bits}-bit code", *lines))

    def memory(self, address_text: str, count_text: str = "64") -> str:
        """A dump of memory, linear or physical."""
        address, count = number_of(address_text), number_of(count_text)
        if count > MOST_MEMORY:
            raise MonitorError(f"{MOST_MEMORY} bytes are shown at most")
        if self.is_physical:
            data = self.machine.memory.available(address, count)
        else:
            data = self.state().read(address, count)
        lines = [_dumped(address + at, data[at : at + _ROW]) for at in range(0, len(data), _ROW)]
        if len(data) < count:
            lines.append(f"there is no memory at {address + len(data) & _ADDRESS:#x}\n")
        return "".join(lines)

    def translate(self, text: str) -> str:
        """A page walk."""
        address, cpu = number_of(text), self.state()
        walk = cpu.walk(address)
        lines = [f"  {level}\n" for level in walk.levels]
        if walk.physical is None:
            lines.append(f"{address:#x} is not mapped: {walk.stopped}\n")
        elif not cpu.sregs.cr0 & CR0_PG:
            lines.append(f"{address:#x} is physical {walk.physical:#x}: paging is off\n")
        else:
            lines.append(f"{address:#x} is physical {walk.physical:#x}: {walk.in_words}\n")
        return "".join(lines)

    def phys(self, choice: str) -> str:
        """Take addresses as physical, or not."""
        if choice not in ("on", "off"):
            raise MonitorError("it is used as: phys on|off")
        self.is_physical = choice == "on"
        return f"addresses of memory are {'physical' if self.is_physical else 'linear'} from now on\n"

    def devices(self) -> str:
        """The devices of the board, with their ports and addresses."""
        lines = []
        for device in self.machine.board:
            ports = [f"port {one.first:#x}+{one.count}" for one in device.ports]
            places = ports + [f"memory {one.first:#x}+{one.count:#x}" for one in device.mmio]
            lines.append(f"{device.name:16} {device.model:16} {', '.join(places)}\n")
        return "".join(lines)

    def screen(self) -> str:
        """The text on the screen, without control characters."""
        text: str = self.machine.part("screen").text()
        return text

    def time(self) -> str:
        """Guest time."""
        return f"{self.machine.devices.clock.now() / 1e9:.9f} s of guest time since power-on\n"

    # --- Acts ---------------------------------------------------------------------------------------------

    def type(self, *words: str) -> str:
        r"""Type on the keyboard: \n is Enter."""
        from kvmbox.host.console.us_keyboard import typed

        self._keyboard.keys.send(typed(" ".join(words).replace("\\n", "\n")))
        return ""

    def press(self, keys: str) -> str:
        """Press keys of the keyboard together."""
        from kvmbox.host.console.us_keyboard import chord

        self._keyboard.keys.send(chord(keys))
        return ""

    def mouse(self, *words: str) -> str:
        """Use the mouse."""
        from kvmbox.host.console.mouse_events import acted

        self._keyboard.mouse.send(acted(" ".join(words)))
        return ""

    @property
    def _keyboard(self) -> KeyboardSpec:
        keyboard = self.machine.config.keyboard
        assert keyboard is not None
        return keyboard

    def snapshot(self) -> str:
        """Take the next snapshot of --snapshot-when, whatever it waits for. A confined VMM opens no file."""
        if not self.machine.config.of_part("snapshot_when"):
            raise MonitorError(
                "a run opens its files at the start: name one by --snapshot-when time:86400=FILE"
            )
        path: str = self.machine.part("snapshot").take_next()
        return f"the machine goes to '{path}'\n"

    def inject(self, text: str) -> str:
        """An NMI, a dead device process, or a fault of a device that has others by --inject."""
        device, _, fault = text.partition(":")
        if text == "nmi":
            inject_nmi(self.boot.vcpus[self.cpu].vcpu)
            return f"CPU {self.cpu} gets an NMI\n"
        if fault == "kill":
            pool = self.machine.devices.pool
            if device not in pool.members:
                raise MonitorError(f"there is no device process '{device[:40]}'")
            pool.kill(device)
            return f"the process '{device}' is killed\n"
        if not self.machine.config.of_part("inject"):
            raise MonitorError("faults of devices have to be prepared: start with --inject, or use TYPE:kill")
        self.machine.part("inject").add(text)
        return f"{text} from now on\n"

    def reset(self) -> str:
        """Reset the guest."""
        self.machine.loop.ends.reset()
        return "the guest is reset\n"

    def quit(self) -> str:
        """End the run."""
        self.machine.judge.decide(Outcome(INTERRUPTED, "left by the monitor"))
        return ""

    def help(self) -> str:
        """The table."""
        return usage(WORDS.values())


def number_of(text: str) -> int:
    """An address, or a count: of 64 bits, in C's notation. Raises MonitorError."""
    try:
        return int(text, 0) & _ADDRESS
    except ValueError:
        raise MonitorError(f"'{text[:40]}' is no address, such as 0xffffffff80000000") from None


def _dumped(address: int, data: bytes) -> str:
    text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in data)
    return f"{address & _ADDRESS:016x}  {data.hex(' '):{3 * _ROW}} {text}\n"


class Word(Value):
    """One word. `usage` has its arguments, of which there are `fewest` to `most`."""

    usage: str
    text: str
    do: Callable[..., str]
    fewest: int = 0
    most: int = 0


_ANY: Final = 1000

WORDS: Final = {
    word.usage.partition(" ")[0]: word
    for word in (
        Word("cpu [N]", "show where the present CPU is, or make N the present one", Monitor.choose_cpu, 0, 1),
        Word("registers", "show the registers of the present CPU", Monitor.registers),
        Word("memory ADDR [COUNT]", "show memory, 64 bytes by default", Monitor.memory, 1, 2),
        Word("translate ADDR", "walk the page tables of the present CPU", Monitor.translate, 1, 1),
        Word("phys on|off", "take addresses of memory as physical, or as linear", Monitor.phys, 1, 1),
        Word("devices", "list the devices of the board", Monitor.devices),
        Word("screen", "show the text on the guest's screen", Monitor.screen),
        Word("time", "show guest time", Monitor.time),
        Word("type TEXT", "type on the PS/2 keyboard; \\n is Enter", Monitor.type, 1, _ANY),
        Word("press KEYS", "press keys together: ctrl-alt-delete", Monitor.press, 1, 1),
        Word("mouse ACTION", "use the PS/2 mouse: move 10 -5, click left", Monitor.mouse, 1, _ANY),
        Word("snapshot", "take the next snapshot of --snapshot-when now", Monitor.snapshot),
        Word("inject FAULT", "nmi, TYPE:kill, or a fault as --inject has it", Monitor.inject, 1, 1),
        Word("reset", "reset the guest", Monitor.reset),
        Word("quit", "end the run", Monitor.quit),
        Word("help", "this list", Monitor.help),
    )
}
"""By the word."""


def usage(words: Iterable[Word], prefix: str = "") -> str:
    """A line for each word."""
    return "".join(f"{prefix}{word.usage:20} {word.text}\n" for word in words)
