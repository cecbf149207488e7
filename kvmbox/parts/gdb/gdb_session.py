"""What a client of GDB's remote protocol asks, and what it is answered (the GDB manual, appendix E).

A session is all-stop: either all CPUs stand still and the client asks, or CPUs run and the client waits for a
stop reply. Packets that come in between wait, a bounded number of them. Threads are CPUs: thread 1 is CPU 0.

`Session` does no I/O. It takes bytes and returns bytes, and acts on a `Target`.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from kvmbox.base.value_classes import Value
from kvmbox.parts.gdb import packets
from kvmbox.parts.gdb.breakpoints import NAMES, Point
from kvmbox.parts.gdb.refused import RefusedError
from kvmbox.parts.gdb.registers import Layout, Registers

MOST_WAITING: Final = 64
"""How many packets may wait for the CPUs to stop: a client that waits sends none."""

MOST_UNSENT: Final = 1 << 20
"""How many bytes the answers to what has come at once may have: a client that waits for each has none."""

MOST_READ: Final = (packets.PACKET_SIZE - 16) // 2
"""How many bytes of memory a client gets at a time, two digits each."""

SIGINT: Final = 2
SIGTRAP: Final = 5
SIGABRT: Final = 6
SIGSEGV: Final = 11

HTTP: Final = re.compile(rb"[A-Z]+ [^ ]{1,8192} HTTP/")
"""How a browser begins. A page of anybody's may let it send packets to a port of this host, behind that."""

BROWSES: Final = "a browser has connected to --gdb, and is turned away"
FLOODS: Final = "the client of --gdb sends packets and does not wait for answers"


class Stop(Value):
    """Why the CPUs stand still: `cpu` met it. `reason` is "swbreak", "watch" and the like, or "". `text` is
    for the person.
    """

    cpu: int
    signal: int
    reason: str = ""
    address: int = 0
    text: str = ""


class Target(Protocol):
    """A machine that stands still. `cpu` is None where an address is physical. All may raise RefusedError."""

    @property
    def cpus(self) -> int:
        """How many CPUs there are."""

    @property
    def layout(self) -> Layout:
        """How registers are numbered."""

    def name_of(self, cpu: int) -> str:
        """What a CPU is and does, in words."""

    def registers(self, cpu: int) -> Registers:
        """Its registers."""

    def set_registers(self, cpu: int, registers: Registers) -> None:
        """Set those that have changed."""

    def read(self, cpu: int | None, address: int, size: int) -> bytes:
        """The bytes up to the first that is not there."""

    def write(self, cpu: int | None, address: int, data: bytes) -> None:
        """Write all of them, or none."""

    def add_point(self, cpu: int, point: Point) -> None:
        """Set a breakpoint or watchpoint."""

    def remove_point(self, point: Point) -> None:
        """Remove it."""

    def resume(self, running: Iterable[int], step: int | None) -> None:
        """Let these CPUs go on; or CPU `step` alone, for one instruction."""

    def interrupt(self) -> None:
        """Stop all CPUs, soon."""

    def detach(self) -> None:
        """The client leaves: let all CPUs go on without breakpoints."""

    def kill(self) -> None:
        """End the run."""

    def reset(self) -> None:
        """Reset the guest. It stands still again afterwards, and what is asked meanwhile waits."""

    def monitor(self, cpu: int, words: list[str]) -> str:
        """What a word of `run.api.monitor_commands` says, in lines of text."""

    def notify(self, text: str) -> None:
        """Tell the person at the VMM."""


class Session:
    """One client, from its first byte to its last."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._parser = packets.Parser()
        self._waiting: deque[bytes] = deque()
        self._out = bytearray()
        self._last = b""
        self._acks = True
        self._words = False  # whether the client shows the text of an error
        self._reasons = False  # whether the client knows what swbreak and hwbreak mean
        self._stands = False
        self._awaits = False  # whether a stop reply is owed
        self._stop = Stop(0, SIGTRAP)
        self._cpu = 0
        self._resume_cpu: int | None = None
        self._physical = False
        self._reported: set[str] = set()
        self._has_input = False  # whether anything has come
        self.has_spoken = False
        """Whether the client has sent a packet: it is more than somebody who tries whether a port is open."""
        self.closed: str | None = None
        """Why nothing more is to be said, once that is so: a line for the person, or ""."""

    # --- The ends of the session --------------------------------------------------------------------------

    def receive(self, data: bytes) -> bytes:
        """Take what the client has sent; returns what it is to be sent."""
        if not self._has_input and HTTP.match(data):
            self.closed = BROWSES
        self._has_input = True
        for event in self._parser.feed(data):
            if self.closed is not None:
                break
            match event:
                case packets.Packet(payload):
                    self.has_spoken = True
                    if self._acks:
                        self._out += b"+"
                    self._waiting.append(payload)
                    if len(self._waiting) > MOST_WAITING:
                        self.closed = FLOODS
                case packets.Damaged() if self._acks:
                    self._out += b"-"
                case packets.Damaged():
                    self.closed = "the client of --gdb sends damaged packets"
                case packets.TooLong():
                    self.closed = "the client of --gdb sends a packet that is too long"
                case packets.SendAgain():
                    self._out += self._last
                case packets.Interrupt():
                    if not self._stands:
                        self._target.interrupt()
            self._work()
            if len(self._out) > MOST_UNSENT:
                self.closed = FLOODS
        return self._take_out()

    def stopped(self, stop: Stop) -> bytes:
        """The CPUs stand still, as `stop` says. Returns what the client is to be sent."""
        self._stands, self._stop, self._cpu, self._resume_cpu = True, stop, stop.cpu, None
        if self._awaits:
            self._awaits = False
            if stop.text:
                self._send(b"O" + f"kvmbox: {stop.text}\n".encode().hex().encode())
            self._send(self._stop_reply())
        self._work()
        return self._take_out()

    def ended(self, status: int) -> bytes:
        """The run has ended with this exit status. Returns what the client is to be sent."""
        if self._awaits and self.closed is None:
            self._send(b"W%02x" % status)
        self.closed = self.closed or ""
        return self._take_out()

    def begun_again(self) -> None:
        """The guest was reset, and nothing of it may be asked until it stands still."""
        self._stands = False

    def _take_out(self) -> bytes:
        out = bytes(self._out)
        self._out.clear()
        return out

    def _work(self) -> None:
        """Answer what waits, as long as the CPUs stand still."""
        while self._stands and self._waiting and self.closed is None:
            payload = self._waiting.popleft()
            try:
                answer = self._answer(payload)
            except RefusedError as error:
                answer = self._error(str(error))
            except (ValueError, IndexError, OverflowError):
                answer = self._error("kvmbox does not understand this packet")
            if answer is not None:
                self._send(answer)

    def _send(self, payload: bytes) -> None:
        self._last = packets.encode(payload)
        self._out += self._last

    def _error(self, text: str) -> bytes:
        return b"E." + text.encode() if self._words else b"E01"

    # --- Commands -----------------------------------------------------------------------------------------

    def _answer(self, payload: bytes) -> bytes | None:
        """The answer to a packet; None if it has none, or not now. Raises ValueError for nonsense."""
        name = payload[:1]
        simple = _COMMANDS.get(name)
        if simple is not None:
            return simple(self, payload[1:])
        for prefix, command in _LONG_COMMANDS:
            if payload.startswith(prefix):
                return command(self, payload[len(prefix) :])
        return b""

    def _stop_reply(self, _rest: bytes = b"") -> bytes:
        stop = self._stop
        reply = f"T{stop.signal:02x}thread:{stop.cpu + 1:x};"
        if stop.reason in ("swbreak", "hwbreak"):
            reply += f"{stop.reason}:;" if self._reasons else ""
        elif stop.reason:
            reply += f"{stop.reason}:{stop.address:x};"
        return reply.encode()

    def _read_registers(self, _rest: bytes) -> bytes:
        target = self._target
        return target.layout.all_values(target.registers(self._cpu)).hex().encode()

    def _write_registers(self, rest: bytes) -> bytes:
        registers = self._target.registers(self._cpu)
        self._target.layout.set_all(registers, _from_hex(rest))
        self._target.set_registers(self._cpu, registers)
        return b"OK"

    def _read_register(self, rest: bytes) -> bytes:
        target = self._target
        return target.layout.value(_number(rest), target.registers(self._cpu)).hex().encode()

    def _write_register(self, rest: bytes) -> bytes:
        number, _, data = rest.partition(b"=")
        registers = self._target.registers(self._cpu)
        self._target.layout.set_value(_number(number), registers, _from_hex(data))
        self._target.set_registers(self._cpu, registers)
        return b"OK"

    def _place(self) -> int | None:
        return None if self._physical else self._cpu

    def _read_memory(self, rest: bytes) -> bytes:
        address, size = _numbers(rest, 2)
        found = self._target.read(self._place(), address, min(size, MOST_READ))
        if size and not found:
            raise RefusedError(f"there is no memory at {address:#x}")
        return found.hex().encode()

    def _write(self, rest: bytes, decode: Callable[[bytes], bytes]) -> bytes:
        place, _, data = rest.partition(b":")
        address, size = _numbers(place, 2)
        content = decode(data)
        if len(content) != size:
            raise ValueError("another size was announced")
        if content:
            self._target.write(self._place(), address, content)
        return b"OK"

    def _go(self, address: bytes, *, stepping: bool) -> None:
        if address:
            registers = self._target.registers(self._cpu)
            pc = self._target.layout.pc
            pc.set(registers, _number(address))
            self._target.set_registers(self._cpu, registers)
        chosen = self._resume_cpu
        if stepping:
            self._resume([], self._cpu if chosen is None else chosen)
        else:
            self._resume(range(self._target.cpus) if chosen is None else [chosen], None)

    def _resume(self, running: Iterable[int], step: int | None) -> None:
        with self._telling():
            self._target.resume(running, step)
        self._stands, self._awaits = False, True

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Tell the person why something is refused: clients say that it failed, and few of them say why."""
        try:
            yield
        except RefusedError as error:
            text = f"--gdb: {error}"
            if text not in self._reported and len(self._reported) < MOST_WAITING:
                self._reported.add(text)
                self._target.notify(text)
            raise

    def _vcont(self, rest: bytes) -> None:
        """`vCont;action:thread;action`: the first action that names a CPU counts for it."""
        chosen: dict[int, bytes] = {}
        for one in rest.split(b";"):
            action, colon, thread = one.partition(b":")
            if action[:1] not in (b"c", b"C", b"s", b"S"):
                raise ValueError("an action that was not offered")
            number = self._cpu_of(thread) if colon else None
            for cpu in range(self._target.cpus) if number is None else [number]:
                chosen.setdefault(cpu, action[:1].lower())
        stepping = [cpu for cpu, action in chosen.items() if action == b"s"]
        if stepping:
            self._resume([], self._cpu if self._cpu in stepping else stepping[0])
        else:
            self._resume(sorted(chosen), None)

    def _select(self, rest: bytes) -> bytes:
        cpu = self._cpu_of(rest[1:])
        if rest[:1] == b"g":
            self._cpu = self._stop.cpu if cpu is None else cpu
        elif rest[:1] == b"c":
            self._resume_cpu = cpu
        else:
            return b""
        return b"OK"

    def _cpu_of(self, thread: bytes) -> int | None:
        """The CPU of a thread; None for any, or all, of them. RefusedError if there is none."""
        if thread in (b"0", b"-1", b""):
            return None
        cpu = _number(thread) - 1
        if not 0 <= cpu < self._target.cpus:
            raise RefusedError(f"there is no thread {cpu + 1}")
        return cpu

    def _is_alive(self, rest: bytes) -> bytes:
        self._cpu_of(rest)
        return b"OK"

    def _point(self, rest: bytes) -> Point:
        kind, address, size = _numbers(rest.partition(b";")[0], 3)
        if kind not in NAMES:
            raise ValueError("no such kind")
        return Point(kind, address, size)

    def _add_point(self, rest: bytes) -> bytes:
        with self._telling():
            self._target.add_point(self._cpu, self._point(rest))
        return b"OK"

    def _remove_point(self, rest: bytes) -> bytes:
        self._target.remove_point(self._point(rest))
        return b"OK"

    def _detach(self, _rest: bytes) -> bytes:
        self._target.detach()
        self.closed = ""
        return b"OK"

    def _kill(self, _rest: bytes) -> None:
        self._target.kill()
        self.closed = ""

    def _kill_politely(self, rest: bytes) -> bytes:
        self._kill(rest)
        return b"OK"

    # --- Queries ------------------------------------------------------------------------------------------

    def _supported(self, rest: bytes) -> bytes:
        offered = set(rest.lstrip(b":").split(b";"))
        self._words = b"error-message+" in offered
        self._reasons = b"swbreak+" in offered and b"hwbreak+" in offered
        answer = b"PacketSize=%x;QStartNoAckMode+;qXfer:features:read+;vContSupported+" % packets.PACKET_SIZE
        if self._words:
            answer += b";error-message+"
        return answer + (b";swbreak+;hwbreak+" if self._reasons else b"")

    def _no_acks(self, _rest: bytes) -> bytes:
        self._acks = False
        return b"OK"

    def _features(self, rest: bytes) -> bytes:
        annex, _, part = rest.partition(b":")
        if annex != b"target.xml":
            return b"E00"
        offset, size = _numbers(part, 2)
        text = self._target.layout.xml
        piece = text[offset : offset + min(size, packets.room_for(1))]
        return (b"m" if offset + len(piece) < len(text) else b"l") + piece

    def _threads(self, _rest: bytes) -> bytes:
        return b"m" + b",".join(b"%x" % (cpu + 1) for cpu in range(self._target.cpus))

    def _thread_info(self, rest: bytes) -> bytes:
        cpu = self._cpu_of(rest)
        return self._target.name_of(0 if cpu is None else cpu).encode().hex().encode()

    def _current(self, rest: bytes) -> bytes:
        return b"" if rest else b"QC%x" % (self._cpu + 1)

    def _set_physical_mode(self, rest: bytes) -> bytes:
        self._physical = _number(rest) != 0
        return b"OK"

    def _host(self, _rest: bytes) -> bytes:
        layout = self._target.layout
        triple = layout.triple.encode().hex()
        return f"triple:{triple};ptrsize:{layout.pointer_size};endian:little;".encode()

    def _monitor(self, rest: bytes) -> bytes:
        words = _from_hex(rest).decode("utf-8", "replace").split()
        text = self._monitored(words)
        if not text:
            return b"OK"
        data = text.encode()
        for start in range(0, len(data), MOST_READ):
            self._send(b"O" + data[start : start + MOST_READ].hex().encode())
        return b"OK"

    def _monitored(self, words: list[str]) -> str:
        match words:
            case ["reset"]:
                self._target.reset()
                self.begun_again()
                return "the guest is reset; the command 'maintenance flush register-cache' shows its entry\n"
            case ["phys", "on" | "off" as choice]:
                self._physical = choice == "on"
        return self._target.monitor(self._cpu, words or ["help"])


Command = Callable[[Session, bytes], bytes | None]

_COMMANDS: Final[dict[bytes, Command]] = {
    b"?": Session._stop_reply,
    b"g": Session._read_registers,
    b"G": Session._write_registers,
    b"p": Session._read_register,
    b"P": Session._write_register,
    b"m": Session._read_memory,
    b"M": lambda session, rest: session._write(rest, _from_hex),
    b"X": lambda session, rest: session._write(rest, bytes),
    b"c": lambda session, rest: session._go(rest, stepping=False),
    b"C": lambda session, rest: session._go(_behind_signal(rest), stepping=False),
    b"s": lambda session, rest: session._go(rest, stepping=True),
    b"S": lambda session, rest: session._go(_behind_signal(rest), stepping=True),
    b"H": Session._select,
    b"T": Session._is_alive,
    b"Z": Session._add_point,
    b"z": Session._remove_point,
    b"D": Session._detach,
    b"k": Session._kill,
}
"""By their letter. The answer to any other packet is empty: not supported. vMustReplyEmpty is one of them."""

_LONG_COMMANDS: Final[tuple[tuple[bytes, Command], ...]] = (
    (b"qSupported", Session._supported),
    (b"QStartNoAckMode", Session._no_acks),
    (b"qXfer:features:read:", Session._features),
    (b"qfThreadInfo", Session._threads),
    (b"qsThreadInfo", lambda _session, _rest: b"l"),
    (b"qThreadExtraInfo,", Session._thread_info),
    (b"qC", Session._current),
    (b"qAttached", lambda _session, _rest: b"1"),
    (b"vCont?", lambda _session, _rest: b"vCont;c;C;s;S"),
    (b"vCont;", Session._vcont),
    (b"vKill", Session._kill_politely),
    (b"qqemu.PhyMemMode", lambda session, _rest: b"1" if session._physical else b"0"),
    (b"Qqemu.PhyMemMode:", Session._set_physical_mode),
    (b"qHostInfo", Session._host),
    (b"qProcessInfo", lambda session, rest: b"pid:1;" + session._host(rest)),
    (b"qRcmd,", Session._monitor),
)


def _number(digits: bytes) -> int:
    """A hexadecimal number of at most 64 bits. Raises ValueError."""
    if not 1 <= len(digits) <= 16 or not digits.isalnum():
        raise ValueError("no number")
    return int(digits, 16)


def _behind_signal(rest: bytes) -> bytes:
    """The address behind a signal: a CPU takes none."""
    return rest.partition(b";")[2]


def _numbers(text: bytes, count: int) -> list[int]:
    found = [_number(one) for one in text.split(b",")]
    if len(found) != count:
        raise ValueError("too few numbers, or too many")
    return found


def _from_hex(digits: bytes) -> bytes:
    return bytes.fromhex(digits.decode("ascii"))
