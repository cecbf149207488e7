"""Texts and packets that kvmbox reads: suites, gdb's protocol, words of the monitor, keys. See `parsers`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, Final

from kvmbox.base.errors import UsageError
from kvmbox.host.console import us_keyboard
from kvmbox.host.console.escape_keys import EscapeParser
from kvmbox.host.console.mouse_events import acted, moved, sequences
from kvmbox.parts.gdb import packets
from kvmbox.parts.gdb.gdb_session import MOST_UNSENT, SIGTRAP, Session, Stop
from kvmbox.parts.monitor.line_editor import LineEditor
from kvmbox.run.api.monitor_commands import WORDS, Monitor
from kvmbox.tools.smoke.suite.suite_file import parse_suite
from kvmbox.tools.smoke.suite.unittests_cfg import parse_unittests_cfg
from tests.fuzz.parsers import edited, refused
from tests.support.dice import Dice
from tests.support.fake_target import FakeTarget
from tests.support.recordings import BOARD

# --- Suites -----------------------------------------------------------------------------------------------

KEYS: Final = """\
name = "b"
image = "clock"
image = 5
start = "up"
start = "x"
groups = ["a", "b"]
skip = "why"
skip = "a\\nb"
needs = "kvm"
check = { a = 'Y' }
check = { a = 1 }
retries = 2
retries = 99
retries = true
allow_flaky = true
allow_flaky = 1
timeout = 2.5
timeout = 0
timeout = 1e99
convention = "pattern"
convention = "kvmbox"
convention = "x"
status = [0, 5]
status = 4
status = 256
expect = "a"
expect = { regex = 'a+' }
expect = { regex = '(' }
expect = { regex = 'a*' }
expect = { x = 1, regex = 'a' }
expect = {}
expect = [1]
pass_line = "p"
fail_line = "f"
skip_line = "s"
fail_on = "x"
dialogue = { when = 'a', send = 'b' }
dialogue = [{ type = 'ab' }]
dialogue = [{ type = 'ä' }]
dialogue = [{ mouse = 'click left' }]
dialogue = [{ mouse = 'x' }]
dialogue = [{ send = 'a' }, { type = 'b' }]
dialogue = [{}]
dialogue = 1
keyboard = "none"
memory = 64
memory = "64M"
memory = true
cpus = 2
cpus = 1.5
cpus = 99999999999999999999999999999999999999999999999999999999999999999999999999999999
when = "login: "
append = "x"
keyboard = "stdin"
module = ["a", "b"]
inject = "a\\nb"
nme = 1
needs = 'nothing'
tolerate = ""
bios = "x"
[sub]
x.y = 1
a = '''
b =
modules = 'a b'
name = "a\\u0000b"
image = "clock/"
start = "ups"
retries = -1
timeout = true
timeout = "x"
expect_picture = "a.ppm"
dialogue = [{ type = 'a' }, { when = 'b' }]
""".splitlines()
HEADS: Final = (
    "[defaults]",
    "[[start]]",
    "[[test]]",
    "[[test]]",
    "[test]",
    "test = 1",
    "start = [1]",
    "[other]",
    "# x",
    "[test.check]",
    "defaults = 1",
    "test = [{ image = 5 }]",
)
STARTED: Final = '[[start]]\nname = "up"\nimage = "clock"\nwhen = "x"\n'


def read_suite(dice: Dice) -> None:
    """A suite gives tests, or is refused with file and line."""
    lines: list[str] = []
    if dice.byte() & 1:
        lines.append(STARTED * dice.some((1, 1, 1, 2)))
    for _ in range(dice.byte() % 4):
        lines.append(dice.some(HEADS))
        lines += ['image = "clock"'] * (dice.byte() & 1)
        lines += [dice.some(KEYS) for _ in range(dice.byte() % 5)]
    text = "\n".join(lines)
    if dice.byte() < 50:
        text = edited(dice, text.encode(), (b"[" * 3000, b"=" + b"9" * 5000, b'"""', b"\r\n")).decode(
            errors="replace"
        )
    checks = dice.byte() % 16

    def check(_test: object) -> None:
        if checks < 3:
            raise UsageError(
                ("--memory is wrong", "it is wrong", "--memory is")[checks],
                hint="be right" if checks == 2 else None,
            )

    find = (lambda _folder, image: image) if dice.byte() & 1 else None
    file, name = dice.some(("a.guest.toml", "a.toml", "b")), dice.some(("", "n"))
    tests = refused(partial(parse_suite, text, file, name=name, find_image=find, check=check))
    assert tests is None or len({one.name for one in tests}) == len(tests)


SETTINGS: Final = """\
file = a.flat
smp = 2
smp = x
arch = x86_64
arch = arm
accel = kvm
accel = tcg
groups = a nodefault
machine = q35
machine = pc
timeout = 5m
timeout = x
timeout = 0
check = /a=Y /b=N
disabled_if = x
test_args = "a b"
test_args = `date +%s`
test_args = `x`
test_args = 'a
what = 1
# x
x
[]
qemu_params = -m 64
qemu_params = -m x
extra_params = -cpu host,-pku
extra_params = -cpu max,+avx,pku=off
extra_params = -cpu EPYC
extra_params = -cpu host,x
qemu_params = -machine pit=off
qemu_params = -M q35
qemu_params = -serial x -nographic
qemu_params = -device edu
qemu_params = -x
test_args = \"\"\"a \\
b\"\"\"
qemu_params = -cpu max
qemu_params = -cpu host,enforce
qemu_params = -m 1G
""".splitlines()


def read_unittests_cfg(dice: Dice) -> None:
    """A configuration of kvm-unit-tests gives tests, or is refused with file and line."""
    lines = [dice.some(SETTINGS)] * (dice.byte() // 240)
    for _ in range(dice.byte() % 4):
        lines.append(dice.some(("[a]", "[b]", "[c]", "[\x07]", "")))
        lines += ["file = a.flat"] * (dice.byte() & 1)
        lines += [dice.some(SETTINGS) for _ in range(dice.byte() % 6)]
    hides = dice.byte() & 1 == 1
    read = partial(
        parse_unittests_cfg, "\n".join(lines), "u.cfg", name="u", now=5, can_hide=lambda _name: hides
    )
    tests = refused(read)
    assert tests is None or all(one.timeout > 0 for one in tests)


# --- gdb --------------------------------------------------------------------------------------------------

COMMANDS: Final = b"""
? g G p P m M X c C05 s S05; Hg Hc T Z z H qSupported:swbreak+;hwbreak+;error-message+ QStartNoAckMode
qXfer:features:read:target.xml: qXfer:features:read:x: qThreadExtraInfo, qC qfThreadInfo qsThreadInfo
vCont; vCont? qqemu.PhyMemMode Qqemu.PhyMemMode: qRcmd, D k vKill; qAttached P10= !
vCont;c:1 vCont;s:2 vCont;s:1 vCont;s qSupported:x+ qSupported:swbreak+ m0,ffff
""".split()
ARGUMENTS: Final = b"""
0 1 , ; : = -1 c s ffff ffffffffffffffff 7c00 1,1000 0,0 2,7c00,4 7c00,4: 00112233 1;c C05 64657669636573
70687973206f6e 7265736574 68656c70 zz p1.1 cond 0,7c00,1 3,7c00,1 10=0011223344556677 1: 2:
""".split()


def _raw(body: bytes) -> bytes:
    """A packet with escapes as they are."""
    return b"$%b#%02x" % (body, sum(body) & 0xFF)


STREAM: Final = (
    *(b"\x03", b"+", b"-", b"$", b"#", b"GET / HTTP/1.1\r\n", b"$" + b"a" * 20000),
    *(_raw(b"qC}}"), _raw(b"qC}"), _raw(b"q}}a"), b"-" * 300),
)


def talk_to_gdb(dice: Dice) -> None:
    """A client of GDB's protocol is answered, whatever it sends, and nothing grows."""
    target = FakeTarget()
    session = Session(target)
    if dice.byte() & 1:
        session.stopped(Stop(0, SIGTRAP))
    while not dice.ended:
        way = dice.byte()
        if way < 170:
            body = dice.some(COMMANDS) + b"".join(dice.some(ARGUMENTS) for _ in range(dice.byte() % 4))
            data = packets.encode(body) * (1 + 70 * (way == 0))
        elif way < 200:
            data = dice.some(STREAM)
        elif way < 220:
            data = packets.encode(dice.randbytes(dice.byte() % 12))
        elif way < 240:
            reason = dice.some(("", "watch", "swbreak", "hwbreak"))
            out = session.stopped(
                Stop(dice.byte() & 1, dice.some((5, 11)), reason, 0x1000, dice.some(("", "text")))
            )
            assert len(out) <= MOST_UNSENT
            continue
        else:
            data = dice.randbytes(dice.byte() % 40)
        out = session.receive(data)
        assert len(out) <= MOST_UNSENT + packets.PACKET_SIZE
        for event in packets.Parser().feed(out):
            assert isinstance(event, packets.Packet | packets.SendAgain)
    session.ended(dice.some((1, None)) or 0)
    assert all(text.isprintable() for text in target.said)
    assert session.closed is None or session.closed.isprintable()


# --- The monitor, and what is typed -----------------------------------------------------------------------

ADDRESSES: Final = (
    "0x7c00",
    "0",
    "-1",
    "0xffffffffffffffff",
    "x",
    "4097",
    "0x10000",
    "7",
    "1",
    "on",
    "off",
    "nmi",
)
OTHERS: Final = (
    "uart:kill",
    "x:kill",
    "uart:stall",
    "hello\\n",
    "ä",
    "ctrl-alt-delete",
    "a-a",
    "move",
    "10",
    "-5",
    "click",
)


class _Machine:
    """What a monitor looks at: a machine that stands still."""

    def __init__(self, dice: Dice) -> None:
        target = FakeTarget()
        vcpus = [
            SimpleNamespace(
                vcpu=SimpleNamespace(
                    get_regs=lambda one=one: one.regs,
                    get_sregs=lambda one=one: one.sregs,
                    index=0,
                    fileno=lambda: -1,  # KVM refuses what is asked of it
                )
            )
            for one in target.states
        ]
        way = dice.byte()
        if way & 8:
            for one in target.states:
                one.sregs.cr0 = 0
        if way & 64:  # behind all memory, with text in it
            target.memory.write(0, b"text")
            for one in target.states:
                one.regs.rip = 1 << 62
        self.memory = SimpleNamespace(available=target.memory.read)
        boot = None if way & 7 == 7 else SimpleNamespace(vcpus=vcpus)
        ends = SimpleNamespace(reset=lambda: None)
        self.loop = SimpleNamespace(watch=SimpleNamespace(boot=boot), ends=ends)
        self.board = BOARD
        keyboard = SimpleNamespace(keys=SimpleNamespace(send=len), mouse=SimpleNamespace(send=len))
        has = {"inject": way & 16, "snapshot_when": way & 32}
        self.config = SimpleNamespace(keyboard=keyboard, of_part=has.get)
        pool = SimpleNamespace(members={"uart": 1}, kill=lambda _name: None)
        self.devices = SimpleNamespace(clock=SimpleNamespace(now=lambda: 5), pool=pool)
        self.judge = SimpleNamespace(decide=lambda _outcome: None)

    def part(self, _name: str) -> Any:
        return SimpleNamespace(text=lambda: "screen\n", take_next=lambda: "file", add=lambda _text: None)


def use_monitor(dice: Dice) -> None:
    """A word of the monitor is answered by lines, or refused in one."""
    monitor: Any = Monitor(_Machine(dice))  # type: ignore[arg-type]
    while not dice.ended:
        words = [dice.some((*WORDS, *WORDS, "no", ""))]
        words += [dice.some(ADDRESSES if dice.byte() < 160 else OTHERS) for _ in range(dice.byte() % 4)]
        found = refused(partial(monitor.answer, words))
        assert found is None or all(line.isprintable() for line in found.splitlines())


TYPED: Final = (
    *(
        b"\x1b[A",
        b"\x1b[1;5D",
        b"\x1b[15~",
        b"\x1b[99~",
        b"\x1b[[A",
        b"\x1bOP",
        b"\x1b[Z",
        b"\x1b[Q",
        b"\x1b",
        b"\x1bx",
    ),
    *(
        b"\x1b[=1;5;5;1m",
        b"\x1b[=999;5;5;1m",
        b"\x1b[=0;70000;5;1m",
        b"\xc3\xa4",
        b"\r",
        b"\n",
        b"\x01",
        b"\x01x",
        b"\x01h",
    ),
    *(
        b"\x01c",
        b"\x01\x01",
        b"\x7f",
        b"\x03",
        b"\x15",
        b"\x04",
        b"help",
        b"A",
        b"\x00",
        b"\x1b[1;",
        b"\x1b[=1",
    ),
)
ACTIONS: Final = (
    "move 10 -5",
    "move 1",
    "wheel -3",
    "press left",
    "release right",
    "click middle",
    "click x",
    "",
    "x y",
    "move x 1",
    "move 255 0",
    "move 32768 0",
    "wheel 1001",
)


def type_anything(dice: Dice) -> None:
    """What is typed on a terminal becomes keys, commands and lines; a text becomes changes of keys."""
    reader, parser, editor = us_keyboard.KeyReader(), EscapeParser(), LineEditor()
    parser.summon = lambda: SimpleNamespace(typed=lambda _data, stays: stays and dice.byte() > 100)
    while not dice.ended:
        way = dice.byte()
        piece = b"".join(dice.some(TYPED) for _ in range(way % 4)) + dice.randbytes(way // 64)
        reader.feed(piece)
        assert len(reader.events) % 7 == 0
        typed = parser.feed(piece)
        if typed.monitor is not None:
            parser.tell_monitor(typed.monitor)
        lines, shown, _ = editor.feed(piece)
        assert all(line.isprintable() for line in lines)
        assert shown.isascii()
        text = piece.decode("latin-1")
        refused(partial(us_keyboard.typed, text))
        refused(partial(us_keyboard.chord, dice.some(("ctrl-alt-delete", "a", "-", "F1", "a-a", "A", text))))
        done = refused(partial(acted, ", ".join(dice.some((*ACTIONS, text)) for _ in range(1 + way % 3))))
        if done is not None:
            assert us_keyboard.KeyReader().feed(sequences(done)) == b""
        refused(partial(moved, way << 8, -way, at_once=True))


TARGETS: Final[dict[str, Callable[[Dice], None]]] = {
    "suites": read_suite,
    "unittests-cfg": read_unittests_cfg,
    "gdb": talk_to_gdb,
    "monitor": use_monitor,
    "typed": type_anything,
}
