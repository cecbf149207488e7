"""From arguments to tests: files, folders, globs, bundled guests, and what is none of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmbox.base.errors import UsageError
from kvmbox.tools.smoke.execute.host_requirements import why_skipped
from kvmbox.tools.smoke.suite.collect import collect
from kvmbox.tools.smoke.suite.test_case import Origin
from tests.support.smoke import a_test

ELF = b"\x7fELF...."


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images and other files, which is the working directory's subfolder `kernels`."""
    kernels = tmp_path / "kernels"
    kernels.mkdir()
    for name in ("b.elf", "a.bin", "c.img", "notes.txt", "x.o", ".hidden.elf", "no-elf"):
        (kernels / name).write_bytes(b"data")
    (kernels / "vmlinux").write_bytes(ELF)
    (kernels / "sub.elf").mkdir()
    monkeypatch.chdir(tmp_path)
    return kernels


def names(*suites: str, convention: str | None = None) -> list[str]:
    return [test.key for test in collect(suites, convention=convention).tests]


def test_folder_has_images_and_elf_files_without_an_ending(folder: Path) -> None:
    assert names("kernels") == ["kernels/a.bin", "kernels/b.elf", "kernels/c.img", "kernels/vmlinux"]
    assert names("kernels/") == names("kernels")


def test_glob_takes_whatever_it_matches(folder: Path) -> None:
    assert names("kernels/*e*") == ["kernels/b.elf", "kernels/no-elf", "kernels/notes.txt"]


def test_image_and_bundled_guest(folder: Path) -> None:
    (image, bundled) = collect(["kernels/b.elf", "hello32"], convention="bootimage").tests
    assert (image.key, image.image, image.origin, image.convention) == (
        *("kernels/b", "kernels/b.elf", Origin("kernels/b.elf"), "bootimage"),
    )
    assert (bundled.key, bundled.image) == ("bundled/hello32", "hello32")


def test_suite_file_goes_by_its_folder_and_bundled_guests_have_names(folder: Path) -> None:
    (folder / "s.toml").write_text(
        '[[test]]\nimage = "b.elf"\n[[test]]\nimage = "hello32"\n[[test]]\nimage = "gone.elf"\n'
    )
    collected = collect(["kernels/s.toml"])
    assert [test.image for test in collected.tests] == ["kernels/b.elf", "hello32", "kernels/gone.elf"]
    assert collected.files == ("kernels/s.toml",)


def test_file_beside_the_suite_goes_before_a_bundled_guest(folder: Path) -> None:
    (folder / "hello32").write_bytes(ELF)
    (folder / "s.toml").write_text('[[test]]\nimage = "hello32"\n')
    assert collect(["kernels/s.toml"]).tests[0].image == "kernels/hello32"


def test_option_that_kvmbox_refuses_has_the_line_of_the_suite(folder: Path) -> None:
    (folder / "s.toml").write_text('[defaults]\nmemory = "64Q"\n\n[[test]]\nimage = "b.elf"\n')
    with pytest.raises(UsageError, match=r"^kernels/s.toml:2: 'memory': '64Q' is not a size"):
        collect(["kernels/s.toml"])
    (folder / "s.toml").write_text('[[test]]\nimage = "b.elf"\nrestart_budget = 3\n')
    with pytest.raises(
        UsageError, match=r"^kernels/s.toml:3: 'restart_budget' needs --on-device-crash restart"
    ):
        collect(["kernels/s.toml"])
    (folder / "s.toml").write_text('[[test]]\nimage = "b.elf"\nserial_limit = "1G"\n')
    with pytest.raises(
        UsageError, match=r"^kernels/s.toml:3: 'serial_limit' 1G is more than a suite may keep"
    ):
        collect(["kernels/s.toml"])


def test_unittests_cfg_is_called_as_its_folder_and_missing_files_are_skipped(folder: Path) -> None:
    (folder / "unittests.cfg").write_text(
        "[there]\nfile = a.bin\n[gone]\nfile = gone.flat\n[wide]\nfile = a.bin\nsmp = 999\n"
        "[hidden]\nfile = a.bin\nqemu_params = -cpu max,-nosuchfeature\n"
    )
    tests = collect(["kernels/unittests.cfg"]).tests
    assert [(test.key, test.skip) for test in tests] == [
        ("kernels/there", None),
        ("kernels/gone", "there is no file 'kernels/gone.flat'"),
        ("kernels/wide", "--cpus: '999' is not a whole number from 1 to 32"),
        ("kernels/hidden", "needs -cpu max,-nosuchfeature"),
    ]


@pytest.mark.parametrize(
    ("suite", "message"),
    [
        ("nothing", "SUITE 'nothing' does not exist"),
        ("nothing.toml", "cannot read the suite 'nothing.toml': No such file or directory"),
        ("kernels/*.none", "'kernels/*.none' matches no file"),
        ("empty", "there is no image in the folder 'empty'"),
        ("latin.toml", "latin.toml:2: the suite is not UTF-8"),
        ("fifo.toml", "cannot read the suite 'fifo.toml': it is a FIFO, not a regular file"),
        ("large.toml", "cannot read the suite 'large.toml': it is larger than 4 MiB"),
    ],
)
def test_what_is_no_suite(folder: Path, suite: str, message: str) -> None:
    import os

    Path("empty").mkdir()
    Path("latin.toml").write_bytes(b"# x\n# \xff\n")
    os.mkfifo("fifo.toml")
    Path("large.toml").write_bytes(b"#" * ((4 << 20) + 1))
    with pytest.raises(UsageError) as caught:
        collect([suite])
    assert str(caught.value) == message


def test_two_suites_of_one_name_are_refused(folder: Path) -> None:
    Path("a").mkdir()
    Path("b").mkdir()
    for name in ("a/s.toml", "b/s.toml"):
        Path(name).write_text('[[test]]\nimage = "hello32"\n')
    with pytest.raises(
        UsageError, match=r"two tests are called 's/hello32': from a/s.toml:1 and from b/s.toml:1"
    ):
        collect(["a/s.toml", "b/s.toml"])


def test_host_checks(tmp_path: Path) -> None:
    file = tmp_path / "parameter"
    file.write_text("Y\n")
    assert why_skipped(a_test(checks=((str(file), "Y"),))) is None
    assert why_skipped(a_test(checks=((str(file), "N"),))) == f"{file} is not N"
    assert why_skipped(a_test(checks=((str(tmp_path), "Y"),))) == f"{tmp_path} is not Y"
    assert why_skipped(a_test(checks=(("/nonexistent", ""),))) == "/nonexistent is not "
    assert why_skipped(a_test(skip="because", checks=(("/nonexistent", "1"),))) == "because"
