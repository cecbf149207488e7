"""`kvmbox run --html`: the page of a confined run, of one that could not start, and of a hostile guest."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmbox.host.console.last_lines import HEAD, KEPT
from tests.support.browser import dom_of
from tests.support.html_page import Page
from tests.support.real_mode import debug_exit, say, show
from tests.support.runs import Images, Run, run_to_end

pytestmark = pytest.mark.kvm


def page_of(path: Path) -> Page:
    page = Page(path.read_text(encoding="utf-8"))
    page.assert_policy_holds()
    page.assert_accessible()
    return page


@pytest.mark.parametrize("options", [(), ("--sandbox", "none"), ("--json", "out.json", "--stats")])
def test_page_has_console_report_and_command(tmp_path: Path, options: tuple[str, ...]) -> None:
    path = tmp_path / "run.html"
    run = Run("triplefault", "--html", path, *options, cwd=tmp_path)
    status, output, messages = run_to_end(run)
    assert status == 6
    page = page_of(path)
    for words in (
        *("the guest crashed: triple fault", "Console COM1", output.decode().strip(), "Crash report"),
        *("#UD (invalid opcode)", "RFLAGS", f"--html {path}", "wall time"),
    ):
        assert words in page.text, words
    assert "#UD (invalid opcode)" in messages


def test_page_has_the_picture_or_the_text_of_the_screen(tmp_path: Path) -> None:
    path = tmp_path / "run.html"
    run_to_end(Run("vbe", "--append", "320 200 16", "--html", path, "--debugcon", "null"))
    (picture,) = page_of(path).of("img")
    assert picture["alt"] == "a picture of 320 x 200 pixels"
    run_to_end(Run("screen", "--append", "21", "--html", path))
    (picture,) = page_of(path).of("img")
    assert "Hello from the text screen!" in (picture["alt"] or "")


def test_page_of_a_run_that_cannot_start_says_why(tmp_path: Path) -> None:
    path = tmp_path / "run.html"
    status, _, messages = run_to_end(Run("/no/such/kernel", "--html", path))
    assert status == 4
    page = page_of(path)
    assert "no such file" in messages
    assert "no such file" in page.text


@pytest.mark.parametrize(
    "attack", [b"</pre><script>alert(1)</script>", b"<img src=x onerror=alert(1)>\x1b[31m"]
)
def test_nothing_of_the_guest_is_markup(images: Images, tmp_path: Path, attack: bytes) -> None:
    path = tmp_path / "run.html"
    shapes = []
    for text in (b"x", attack):
        guest = images.write(say(text + b"\n"), show(text), debug_exit(1))
        run_to_end(Run("--boot", "real", guest, "--html", path))
        shapes.append(page_of(path).shape)
    assert attack.replace(b"\x1b", b"\\x1b").decode() in page_of(path).text
    assert shapes[0] == shapes[1]


def test_page_has_both_ends_of_a_long_console_and_says_what_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "run.html"
    _, output, _ = run_to_end(Run("flood", "--append", "64000", "--html", path))
    assert len(output) > 64000 - 64
    text = page_of(path).text
    assert output.decode()[: HEAD // 2] in text
    assert output.decode().rstrip()[-KEPT // 2 :] in text
    assert f"{len(output) - HEAD - KEPT} bytes of the console are left out here" in text
    assert len(text) < HEAD + KEPT + 20_000


def test_page_that_cannot_be_written_is_told_of_before_the_run(tmp_path: Path) -> None:
    status, output, messages = run_to_end(Run("hello32", "--html", tmp_path))
    assert (status, output) == (4, b"")
    assert messages.startswith(f"kvmbox: error: cannot write --html '{tmp_path}'")
    status, _, messages = run_to_end(Run("hello32", "--html", "-"))
    assert (status, "stdout belongs to the guest" in messages) == (2, True)


@pytest.mark.thorough
def test_browser_takes_what_a_guest_prints_for_text(images: Images, tmp_path: Path) -> None:
    attack = b"<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    path = tmp_path / "run.html"
    run_to_end(Run("--boot", "real", images.write(say(attack), debug_exit(1)), "--html", path))
    shown = dom_of(path)
    assert "<title>kvmbox run" in shown
    assert attack.decode() in Page(shown).text
    assert not Page(shown).of("img")
