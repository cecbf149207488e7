"""unittests.cfg of kvm-unit-tests, as its own scripts read it."""

from __future__ import annotations

import pytest

from kvmbox.base.errors import UsageError
from kvmbox.tools.smoke.suite.test_case import Origin, Test
from kvmbox.tools.smoke.suite.unittests_cfg import parse_unittests_cfg

NOW = 1_700_000_000


def parse(text: str, **values: object) -> list[Test]:
    return parse_unittests_cfg(text, "x86/unittests.cfg", name="x86", now=NOW, **values)  # type: ignore[arg-type] # one of two


def one(settings: str) -> Test:
    (test,) = parse("[t]\nfile = t.flat\n" + settings)
    return test


def test_plain_entry() -> None:
    (test,) = parse("##\n# comment\n\n[smptest]\nfile = smptest.flat\nsmp = 2\n")
    assert test == Test(
        name="smptest",
        suite="x86",
        image="x86/smptest.flat",
        origin=Origin("x86/unittests.cfg", 4),
        options={"testdev": True, "no_reboot": True, "cpus": 2},
        timeout=90.0,
        convention="kvm-unit-tests",
    )


def test_everything_of_an_entry_that_runs() -> None:
    test = one(
        "smp=4\ntest_args = 'a b' \"c\" `date +%s`\n"
        "qemu_params = -enable-kvm -cpu max -m 4g -machine pit=off\n"
        "groups = vmexit apic\ntimeout = 2m\narch = x86_64\naccel = kvm\ncheck = /a=1 /b/c=Y=Z\n"
    )
    assert test.skip is None
    assert test.options == {
        "testdev": True,
        "no_reboot": True,
        "cpus": 4,
        "memory": "4G",
        "append": f"a b c {NOW}",
    }
    assert test.groups == ("vmexit", "apic")
    assert test.timeout == 120.0
    assert test.checks == (("/a", "1"), ("/b/c", "Y=Z"))


@pytest.mark.parametrize(
    ("value", "seconds"), [("30", 30), ("30s", 30), ("2m", 120), ("1h", 3600), ("0", 86400), ("9d", 86400)]
)
def test_timeouts_of_coreutils(value: str, seconds: float) -> None:
    assert one(f"timeout = {value}\n").timeout == seconds


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ("arch = i386\n", "i386 only"),
        ("accel = tcg\n", "tcg only"),
        ("machine = q35\n", "machine q35 only"),
        ("disabled_if = true\n", "disabled_if needs a shell: true"),
        ("smp = $MAX_SMP\n", "smp = $MAX_SMP is no number"),
        (f"smp = {'9' * 5000}\n", f"smp = {'9' * 5000} is no number"),
        ("timeout = soon\n", "timeout = soon is no time"),
        ("test_args = `uname`\n", "test_args needs a shell: `uname`"),
        ("test_args = 'x\n", "test_args: No closing quotation"),
        ("qemu_params = -device edu\n", "needs -device edu"),
        ("extra_params = -device edu\n", "needs -device edu"),
        ("qemu_params = -M q35,kernel-irqchip=split\n", "needs -M q35,kernel-irqchip=split"),
        ("qemu_params = -machine vmport=on -cpu max\n", "needs -machine vmport=on"),
        ("qemu_params = -cpu IvyBridge,phys-bits=36\n", "needs -cpu IvyBridge"),
        ("qemu_params = -cpu max,vendor=GenuineIntel\n", "needs -cpu max,vendor=GenuineIntel"),
        ("qemu_params = -cpu host,hv_passthrough\n", "needs -cpu host,hv_passthrough"),
        ("qemu_params = -m lots\n", "needs -m lots"),
        ("qemu_params = -append $X\n", "qemu_params needs a shell: -append $X"),
        ("qemu_params = -bios\n", "needs -bios"),
        ("something = 1\n", "'something' is not supported"),
    ],
)
def test_what_is_not_supported_is_skipped_with_the_reason(settings: str, reason: str) -> None:
    assert one(settings).skip == reason


def test_entry_without_a_file_is_skipped() -> None:
    assert parse("[t]\nsmp = 1\n")[0].skip == "it names no file"


@pytest.mark.parametrize(
    ("value", "cpu"),
    [
        ("max", None),
        ("qemu64,+x2apic,+tsc-deadline", None),
        ("max,host-phys-bits", None),
        ("host,migratable=no", None),
        ("qemu64,-x2apic,+tsc-deadline", "host,-x2apic"),
        ("qemu64,pcid=off,-invpcid", "host,-pcid,-invpcid"),
    ],
)
def test_cpu_models(value: str, cpu: str | None) -> None:
    test = one(f"qemu_params = -cpu {value}\n")
    assert test.skip is None
    assert test.options.get("cpu") == cpu


def test_feature_that_cannot_be_hidden_is_skipped() -> None:
    (test,) = parse(
        "[t]\nfile = t.flat\nqemu_params = -cpu max,-vmx-mbec\n",
        can_hide=lambda feature: feature != "vmx-mbec",
    )
    assert test.skip == "needs -cpu max,-vmx-mbec"


def test_nodefault_is_a_manual_run() -> None:
    assert one("groups = slow nodefault\n").manual == "marked as a manual run (group nodefault)"
    assert one("groups = slow\n").manual is None


def test_value_in_triple_quotes_goes_on_in_the_next_lines() -> None:
    test = one('qemu_params = """-m 256 \\\n -cpu max\n"""\nsmp = 3\n')
    assert test.skip is None
    assert test.options["memory"] == "256M"
    assert test.options["cpus"] == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file = x\n", "x86/unittests.cfg:1: before the first section: 'file = x'"),
        ("[t]\nwhat is this\n", "x86/unittests.cfg:2: neither section nor setting: 'what is this'"),
        ("[t]\n[]\n", "x86/unittests.cfg:2: a section without a name"),
        ("[t]\nfile=a\n\n[t]\n", "x86/unittests.cfg:4: there is a test 't' already, in line 1"),
        ('[t]\nqemu_params = """x\n', 'x86/unittests.cfg:2: the quotes """ do not end'),
        ("# nothing\n", "x86/unittests.cfg: there is no test in it"),
    ],
)
def test_what_is_no_configuration_has_line_and_hint(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert str(caught.value) == message
    assert caught.value.hint
