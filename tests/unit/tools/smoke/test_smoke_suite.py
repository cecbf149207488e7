"""Suite files: what they mean, and what is wrong with them, each with its line and a hint."""

from __future__ import annotations

import pytest

from kvmbox.base.errors import UsageError
from kvmbox.tools.smoke.suite.suite_file import OF_THE_START, parse_suite, suite_name
from kvmbox.tools.smoke.suite.suite_keys import FIELDS
from kvmbox.tools.smoke.suite.test_case import Origin, Pattern, Start, Step, Test


def parse(text: str, file: str = "dir/s.toml") -> list[Test]:
    return parse_suite(text, file)


def test_smallest_suite_has_all_defaults() -> None:
    (test,) = parse('[[test]]\nimage = "kernels/a.elf"\n')
    assert test == Test(
        name="a", suite="s", image="dir/kernels/a.elf", origin=Origin("dir/s.toml", 1), timeout=60.0
    )


def test_every_key_reaches_the_test() -> None:
    (test,) = parse(
        """
        [[test]]
        name = "all of it"
        image = "a.elf"
        groups = ["fast", "net"]
        skip = "broken"
        needs = "hardware-virtualization"
        check = { "/sys/x" = "Y" }
        tolerate = "issue 7"
        retries = 2
        allow_flaky = true
        timeout = 1.5
        status = [33, 0]
        expect = ["one", { regex = '^two\\d$' }]
        fail_on = "PANIC"
        dialogue = [{ when = "login:", send = "root\\n" }, { send = "x" }, { when = { regex = '[#$] ' } }]
        boot = "pvh"
        bios = "seabios.bin"
        append = "a=1"
        modules = ["m.bin,words here", "n.bin"]
        initrd = "initrd.img"
        memory = "64M"
        cpus = 2
        cpu = "host,-pcid"
        load_address = 0x7c00
        entry = "0:7c00"
        segments = "cs"
        firmware_tables = "none"
        fw_cfg = "opt/x=f.txt"
        disks = ["d.img,write", "e,,f.img,format=qcow2,backing=g.img"]
        cdroms = "c.iso"
        disk_overlay = "1M"
        rng = true
        virtio_console = "null"
        pci = "on"
        nets = ["switch:lan,pcap=a.pcap"]
        testdev = true
        keyboard = "none"
        serial_limit = "2M"
        uart_pace = true
        rtc_base = "utc"
        debug_exit = 0xf4
        no_reboot = true
        on_device_crash = "restart"
        restart_budget = 3
        require = ["landlock"]
        inject = "uart:drop-irq=0.5"
        """
    )
    assert test.name == "all of it"
    assert test.groups == ("fast", "net")
    assert (test.skip, test.tolerate, test.retries, test.allow_flaky) == ("broken", "issue 7", 2, True)
    assert test.needs == ("hardware-virtualization",)
    assert test.checks == (("/sys/x", "Y"),)
    assert test.timeout == 1.5
    assert test.statuses == (33, 0)
    assert test.expect == (Pattern("one"), Pattern(r"^two\d$", is_regex=True))
    assert test.fail_on == (Pattern("PANIC"),)
    assert test.dialogue == (
        Step(Pattern("login:"), b"root\n"),
        Step(None, b"x"),
        Step(Pattern("[#$] ", is_regex=True), b""),
    )
    assert test.options == {
        "boot": "pvh",
        "bios": "dir/seabios.bin",
        "append": "a=1",
        "initrd": "dir/initrd.img",
        "modules": ("dir/m.bin,words here", "dir/n.bin"),
        "memory": "64M",
        "cpus": 2,
        "cpu": "host,-pcid",
        "load_address": 0x7C00,
        "entry": "0:7c00",
        "segments": "cs",
        "firmware_tables": "none",
        "fw_cfg": ("opt/x=dir/f.txt",),
        "disks": ("dir/d.img,write", "dir/e,,f.img,format=qcow2,backing=dir/g.img"),
        "cdroms": ("dir/c.iso",),
        "disk_overlay": "1M",
        "rng": True,
        "virtio_console": "null",
        "pci": "on",
        "nets": ("switch:lan,pcap=dir/a.pcap",),
        "testdev": True,
        "serial_limit": "2M",
        "uart_pace": True,
        "keyboard": "none",
        "rtc_base": "utc",
        "debug_exit": 0xF4,
        "no_reboot": True,
        "on_device_crash": "restart",
        "restart_budget": 3,
        "require": ("landlock",),
        "inject": ("uart:drop-irq=0.5",),
    }
    used = set(test.options) | {"name", "image", "groups", "skip", "needs", "check", "tolerate", "retries"}
    used |= {"allow_flaky", "timeout", "status", "expect", "fail_on", "dialogue"}
    other = {"start", "convention", "pass_line", "fail_line", "skip_line", "expect_picture"}
    assert set(FIELDS) - used == other


def test_defaults_hold_for_all_tests_and_a_test_replaces_them() -> None:
    first, second = parse(
        '[defaults]\nimage = "k.elf"\ntimeout = 5\ngroups = ["a"]\nmemory = "64M"\n'
        '[[test]]\nname = "1"\n[[test]]\nname = "2"\ntimeout = 9\ngroups = []\n'
    )
    assert (first.timeout, first.groups, first.options) == (5.0, ("a",), {"memory": "64M"})
    assert (second.timeout, second.groups, second.options) == (9.0, (), {"memory": "64M"})
    assert first.image == second.image == "dir/k.elf"
    assert [test.origin.line for test in (first, second)] == [6, 8]


def test_dialogue_that_types_on_the_keyboard_needs_the_console_for_it() -> None:
    first, second = parse(
        '[defaults]\nimage = "k.elf"\n[[test]]\nname = "1"\ndialogue = { when = "$", type = "ls\\n" }\n'
        '[[test]]\nname = "2"\ndialogue = { send = "ls" }\n'
    )
    assert first.dialogue == (Step(Pattern("$"), b"ls\n", on_keyboard=True),)
    assert first.options == {"keyboard": "console"}
    assert second.options == {}


def test_dialogue_moves_the_mouse_over_the_console_of_the_keyboard() -> None:
    (test,) = parse(
        '[[test]]\nimage = "a"\ndialogue = [{ type = "a" }, { mouse = "move 1 -1, press left" }]\n'
    )
    done = b"\x1b[=0;1;1;0m\x1b[=1;0;0;0m"
    assert test.dialogue == (Step(None, b"a", on_keyboard=True), Step(None, done, on_keyboard=True))
    assert test.options == {"keyboard": "console"}


def test_builtin_bios_is_no_file() -> None:
    (test,) = parse('[[test]]\nimage = "a"\nbios = "builtin"\n')
    assert test.options == {"bios": "builtin"}


def test_verdict_lines_are_the_convention_pattern() -> None:
    (test,) = parse("[[test]]\nimage = 'a'\npass_line = 'OK'\nfail_line = { regex = 'BAD|WORSE' }\n")
    assert test.convention == "pattern"
    assert test.verdict_lines == (("pass", Pattern("OK")), ("fail", Pattern("BAD|WORSE", is_regex=True)))


def test_image_is_found_by_whoever_knows_the_bundled_ones() -> None:
    (test,) = parse_suite(
        '[[test]]\nimage = "x"\n', "d/s.toml", find_image=lambda folder, name: f"{folder}!{name}"
    )
    assert test.image == "d!x"


@pytest.mark.parametrize(
    ("file", "name"), [("a/b.guest.toml", "b"), ("b.toml", "b"), ("x.cfg", "x"), (".toml", ".toml")]
)
def test_suite_is_called_as_its_file(file: str, name: str) -> None:
    assert suite_name(file) == name


def test_start_has_its_options_and_tests_forked_from_it_have_their_own() -> None:
    forked, other = parse(
        """
        [defaults]
        memory = "32M"
        serial_limit = "2M"
        image = "k.elf"
        timeout = 5
        fail_on = "PANIC"
        [[start]]
        name = "booted"
        cpus = 2
        when = "login: "
        timeout = 30
        [[test]]
        name = "forked"
        start = "booted"
        no_reboot = true
        [[test]]
        name = "other"
        """
    )
    assert forked.start == Start(
        name="booted",
        image="dir/k.elf",
        origin=Origin("dir/s.toml", 8),
        when="login: ",
        options={"memory": "32M", "serial_limit": "2M", "cpus": 2},
        timeout=30.0,
    )
    assert forked.image == "dir/k.elf"
    assert forked.options == {"serial_limit": "2M", "no_reboot": True}
    assert (forked.timeout, forked.fail_on) == (5.0, (Pattern("PANIC"),))
    assert other.start is None
    assert other.options == {"memory": "32M", "serial_limit": "2M"}


def test_picture_reaches_the_test_and_is_refused_beside_what_it_would_cut_off() -> None:
    text = '[[test]]\nimage = "a.elf"\nexpect_picture = "wanted.png,within=0.1"\n'
    (test,) = parse(text)
    assert test.options == {"expect_picture": "dir/wanted.png,within=0.1"}
    for beside in ('expect = "one"', 'convention = "bootimage"'):
        with pytest.raises(UsageError, match=r"^dir/s\.toml:3: 'expect_picture' ends the boot") as caught:
            parse(text + beside)
        assert caught.value.hint == "leave out one of the two"


def test_long_value_is_told_in_part() -> None:
    text = f"[[test]]\nimage = 'a.elf'\nconvention = '{'x' * 5_000}'\n"
    with pytest.raises(UsageError) as caught:
        parse(text)
    message = str(caught.value)
    assert len(message) < 450
    assert message.startswith("dir/s.toml:3: 'convention' 'xxx")
    assert "pattern" in message[-20:]


def test_every_option_of_a_suite_is_decided_by_the_start_or_free() -> None:
    options = {one.name for one in FIELDS.values() if one.is_option}
    free = {"keyboard", "serial_limit", "no_reboot", "on_device_crash", "restart_budget", "require", "inject"}
    assert options - OF_THE_START == {*free, "expect_picture"}


GOOD = '[[test]]\nimage = "a"\n'
START = '[[start]]\nname = "s"\nimage = "a"\nwhen = "x"\n'
FORKED = '[[test]]\nname = "t"\nstart = "s"\n'


@pytest.mark.parametrize(
    ("text", "line", "message", "hint"),
    [
        ("[[test]\n", 1, "this is not TOML: Expected ']]'", "toml.io"),
        ('[[test]]\nimage = "a', 2, "this is not TOML", "toml.io"),
        ("", 0, "there is no test in it", "[[test]]"),
        ("test = []\n", 0, "there is no test in it", "[[test]]"),
        ("test = 3\n", 1, "'test' is no array of tables", "[[test]]"),
        ("\n[test]\nimage = 'a'\n", 2, "'test' is no array of tables", "[[test]]"),
        (
            "timeout = 3\n" + GOOD,
            1,
            "'timeout' is none of [defaults], [[start]] and",
            "belongs in [defaults]",
        ),
        (GOOD + "[[tests]]\n", 3, "'tests' is none of", "did you mean 'test'?"),
        ("[a.b]\nx=1\n" + GOOD, 1, "'a' is none of", "belongs in"),
        ("defaults = 3\n" + GOOD, 1, "'defaults' is no table", "[defaults]"),
        ("[defaults]\nname = 'x'\n" + GOOD, 2, "'name' is no key of [defaults]", "did you mean"),
        (GOOD + "tiemout = 3\n", 3, "'tiemout' is no key of [[test]]", "did you mean 'timeout'?"),
        (GOOD + "fail-on = 'x'\n", 3, "'fail-on' is no key", "did you mean 'fail_on'?"),
        (GOOD + "xyzzy = 3\n", 3, "'xyzzy' is no key", "docs/smoke.md"),
        ("[[test]]\nname = 'x'\n", 1, "this test has no 'image'", "name the file"),
        (GOOD + "\n" + GOOD, 4, "there is a test 'a' already, in line 1", "a name of its own"),
        (
            GOOD + 'name = "x"\n' + GOOD + "# c\nname = 'x'\n",
            7,
            "there is a test 'x' already, in line 1",
            "name",
        ),
        (GOOD + "name = ''\n", 3, "'name' wants a text that is not empty", "text"),
        (GOOD + 'name = "a\\u001bb"\n', 3, "'name' wants one line of printable characters", "text"),
        (GOOD + "image = 3\n", 0, "this is not TOML: Cannot overwrite a value", "toml.io"),
        ('[[test]]\nimage = "a\\u0000"\n', 2, "'image' must not contain a zero byte", "file"),
        (GOOD + "timeout = 0\n", 3, "'timeout' wants a number of seconds", "seconds"),
        (GOOD + "timeout = nan\n", 3, "'timeout' wants a number of seconds", "seconds"),
        (GOOD + "timeout = true\n", 3, "'timeout' wants a number of seconds", "seconds"),
        (GOOD + "retries = 101\n", 3, "'retries' wants a number from 0 to 100", "0 to 100"),
        (GOOD + "retries = 1.0\n", 3, "'retries' wants a whole number", "0 to 100"),
        (GOOD + "status = 4\n", 3, "'status' 4 is even", "debug-exit"),
        (GOOD + f"retries = 0b{'1' * 70}\n", 3, "'retries' wants a number of at most 64 bits", "0 to 100"),
        (GOOD + f"memory = 0x{'f' * 5000}\n", 3, "'memory' wants a number of at most 64 bits", "number"),
        (GOOD + f"status = 0x{'f' * 5000}\n", 3, "'status' wants a number of at most 64 bits", "number"),
        (GOOD + f"status = {'9' * 5000}\n", 3, "a number has too many digits", "no key"),
        (GOOD + f"x = [\n{'9_' * 5000}9]\n", 4, "a number has too many digits", "no key"),
        (GOOD + "status = 257\n", 3, "'status' 257 is no exit status", "number or array"),
        (GOOD + "cpus = true\n", 3, "'cpus' wants a whole number", "number"),
        (GOOD + "memory = [1]\n", 3, "'memory' wants a number, or a text", "number or text"),
        (GOOD + "testdev = 1\n", 3, "'testdev' wants true or false", "true or false"),
        (GOOD + "needs = 'kvm'\n", 3, "'needs' 'kvm' is none of hardware-virtualization", "array"),
        (GOOD + "check = ['x']\n", 3, "'check' wants a table", "table"),
        (GOOD + "[test.check]\n'/x' = 1\n", 3, "'check' wants a table", "table"),
        (GOOD + "convention = 'tapp'\n", 3, "'convention' 'tapp' is none of kvmbox", "tap"),
        (GOOD + "expect = [\n 'a',\n 3]\n", 3, "'expect' wants a text or { regex", "pattern"),
        (GOOD + "expect = { regexp = 'x' }\n", 3, "'expect' wants a text or", "this table has regexp"),
        (
            GOOD + "expect = { regex = '(' }\n",
            3,
            "'expect' '(' is no regular expression: missing )",
            "pattern",
        ),
        (GOOD + "expect = { regex = 'x{99999999999}' }\n", 3, "'expect' 'x{99999999999}' is no", "pattern"),
        (GOOD + "expect = { regex = '" + "(" * 9999 + "' }\n", 3, "'expect' '((((", "pattern"),
        (GOOD + "fail_on = { regex = 'x*' }\n", 3, "'fail_on' 'x*' matches an empty text", "whatever"),
        (GOOD + "expect = ''\n", 3, "'expect' wants a text that is not empty", "pattern"),
        (GOOD + "keyboard = 'usb'\n", 3, "'keyboard' 'usb' is none of none, console", "none, console"),
        (GOOD + "[[test.dialogue]]\ntype = 'é'\n", 3, "'dialogue' cannot be typed", "ASCII"),
        (
            GOOD + "[[test.dialogue]]\nmouse = 'jump'\n",
            3,
            "'dialogue' 'jump' is nothing that a mouse",
            "click",
        ),
        (
            GOOD + "dialogue = [{ type = 'a' }, { send = 'b' }]\n",
            3,
            "'dialogue' has 'send' beside 'type' or 'mouse'",
            "or to the keyboard",
        ),
        (
            GOOD + "dialogue = [{ type = 'a' }]\nkeyboard = 'none'\n",
            4,
            "'keyboard' is 'none', and the dialogue uses the keyboard or the mouse",
            "leave out 'keyboard'",
        ),
        (GOOD + "dialogue = ['x']\n", 3, "'dialogue' wants tables", "array of tables"),
        (GOOD + "[[test.dialogue]]\nwen = 'x'\n", 3, "'dialogue' wants tables", "array of tables"),
        (
            GOOD + "pass_line = 'x'\nconvention = 'tap'\n",
            3,
            "'pass_line' needs convention 'pattern'",
            "leave out",
        ),
        (GOOD + "convention = 'pattern'\n", 3, "convention 'pattern' needs 'pass_line'", "passing guest"),
        (
            "[defaults]\nfail_line = 'x'\n" + GOOD,
            3,
            "convention 'pattern' needs 'pass_line'",
            "passing guest",
        ),
        (
            GOOD + "convention = 'tap'\nstatus = 1\n",
            4,
            "'status' means nothing to convention 'tap'",
            "leave out",
        ),
        ("start = 3\n" + GOOD, 1, "'start' is no array of tables", "[[start]]"),
        (START + "expect = 'x'\n" + FORKED, 5, "'expect' is no key of [[start]]", "docs/smoke.md"),
        (START + "whn = 'x'\n" + FORKED, 5, "'whn' is no key of [[start]]", "did you mean 'when'?"),
        (START + START + FORKED, 6, "there is a start 's' already, in line 1", "a name of its own"),
        ("[[start]]\nimage = 'a'\nwhen = 'x'\n" + GOOD, 1, "this start has no 'name'", "start = 'booted'"),
        ("[[start]]\nname = 's'\nwhen = 'x'\n" + GOOD, 1, "this start has no 'image'", "name the file"),
        ("[[start]]\nname = 's'\nimage = 'a'\n" + GOOD, 1, "this start has no 'when'", "login: "),
        (START + "[[test]]\nname = 't'\nstart = 'ss'\n", 7, "there is no start 'ss'", "did you mean 's'?"),
        (FORKED, 3, "there is no start 's'", "begins with [[start]]"),
        (START + FORKED + "image = 'b'\n", 8, "'image' contradicts 'start'", "in line 1"),
        (START + FORKED + "memory = '1M'\n", 8, "'memory' contradicts 'start'", "move 'memory' to [[start]]"),
        ("[defaults]\nstart = 's'\n" + START + GOOD, 8, "'image' contradicts 'start'", "in line 3"),
        ("[defaults]\nstatus = 3\n" + GOOD + "convention = 'lk'\n", 2, "'status' means nothing", "leave out"),
    ],
)
def test_what_is_wrong_has_its_line_and_a_hint(text: str, line: int, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    where = f"dir/s.toml:{line}: " if line else "dir/s.toml"
    assert str(caught.value).startswith(where + message) or (not line and message in str(caught.value)), (
        caught.value
    )
    assert "\n" not in str(caught.value)
    assert caught.value.hint is not None
    assert hint in caught.value.hint
    assert caught.value.exit_status == 2


def test_refused_option_is_named_as_the_suite_spells_it_with_its_line() -> None:
    def refuse(test: Test) -> None:
        raise UsageError(
            "--serial-limit: 'x' is not a positive number of bytes", hint="K, M and G may follow"
        )

    with pytest.raises(UsageError) as caught:
        parse_suite("[defaults]\nserial_limit = 'x'\n" + GOOD, "s.toml", check=refuse)
    assert str(caught.value) == "s.toml:2: 'serial_limit': 'x' is not a positive number of bytes"
    assert caught.value.hint == "K, M and G may follow"


def test_start_is_checked_as_what_makes_its_snapshot() -> None:
    checked: list[Test] = []
    parse_suite(START + "cpus = 2\n" + FORKED, "s.toml", check=checked.append)
    assert checked[0].options == {"cpus": 2, "snapshot_when": ("x=snapshot",), "snapshot_stop": True}

    def refuse(test: Test) -> None:
        if "snapshot_when" in test.options:
            raise UsageError("--snapshot-when: 'x' is not a number of seconds")

    with pytest.raises(UsageError, match=r"^s.toml:4: 'when': 'x' is not a number of seconds$"):
        parse_suite(START + FORKED, "s.toml", check=refuse)


def test_refused_module_and_refusals_without_an_option_have_a_line_too() -> None:
    def refuse_module(test: Test) -> None:
        raise UsageError("--module ',x' names no file")

    with pytest.raises(UsageError, match=r"^s.toml:3: 'modules' ',x' names no file$") as caught:
        parse_suite(GOOD + "modules = ',x'\n", "s.toml", check=refuse_module)
    assert caught.value.hint == "docs/smoke.md lists the keys"

    def refuse(test: Test) -> None:
        raise UsageError("no")

    with pytest.raises(UsageError, match=r"^s.toml:1: no$"):
        parse_suite(GOOD, "s.toml", check=refuse)


def test_deeply_nested_arrays_are_an_error_and_no_crash() -> None:
    with pytest.raises(UsageError, match="nested"):
        parse("x = " + "[" * 100_000 + "]" * 100_000)
