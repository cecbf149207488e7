"""The documentation site: `make docs` makes it of the same pages that a forge shows.

The source folder is the root of the repository, so that a link between two pages is one here as well. What
only the site has is added while a page is read: the lists of pages, and the references made from the code.
"""

from __future__ import annotations

import sys
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import kvmbox  # noqa: E402

project = "kvmbox"
author = "the kvmbox authors"
project_copyright = author
version = release = kvmbox.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_click"]
root_doc = "docs/index"
include_patterns = [
    *("docs/**", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"),
    *("guests/README.md", "examples/*/README.md"),
]
exclude_patterns = ["docs/site/*"]
myst_heading_anchors = 4
myst_links_external_new_tab = False
# Some pages are parts of others, and begin at a lower level; `asm` is the name by which a forge knows GNU as.
suppress_warnings = ["myst.header", "misc.highlighting_failure"]
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
highlight_language = "text"
smartquotes = False  # an option begins with two hyphens

html_theme = "furo"
html_title = f"kvmbox {version}"
html_static_path = ["site/static"]
html_css_files = ["kvmbox.css"]
html_extra_path = ["site/index.html"]  # the first address of the site leads to the landing page
html_copy_source = html_show_sourcelink = False

PAGES = {
    "Start": ("docs/tutorial", "README", "docs/coming-from-qemu", "docs/command-line"),
    "Boot a kernel": (
        *("docs/booting", "docs/bios", "docs/disks", "docs/network", "docs/screen", "docs/snapshots"),
        *("docs/guests-that-boot", "guests/README"),
    ),
    "Debug a kernel": (
        "docs/debugging",
        "docs/gdb",
        "docs/monitor",
        "docs/profiling",
        "docs/record-replay",
    ),
    "Test a kernel": (
        *("docs/smoke", "docs/pytest", "docs/ci", "docs/fault-injection", "docs/python-api"),
        *("examples/c/README", "examples/asm/README", "examples/rust/README"),
    ),
    "The machine": (
        *("docs/device-models", "docs/processors", "docs/firmware-tables", "docs/backends"),
        *("docs/devices/*", "docs/qtest"),
    ),
    "The sandbox": (
        *("docs/architecture", "docs/threat-model", "docs/properties", "docs/audit", "docs/reach"),
        *("docs/crash-survival", "docs/performance", "docs/rfc-answer", "docs/wire-protocol"),
        "docs/writing-a-device",
        "docs/internals/*",
        "docs/adr/*",
    ),
    "Reference": ("docs/commands", "docs/api"),
    "Project": ("CONTRIBUTING", "CHANGELOG", "SECURITY"),
}
"""The pages in reading order. A folder with `*` has those that stand nowhere else."""


def toctrees() -> str:
    """The lists of pages, which the sidebar shows."""
    text = ""
    for caption, pages in PAGES.items():
        glob = "\n:glob:" if any("*" in page for page in pages) else ""
        names = "\n".join(f"/{page}" for page in pages)
        text += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}{glob}\n\n{names}\n```\n"
    return text


def add_lists(_app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the lists of pages behind the landing page, where a forge would show their source."""
    if docname == root_doc:
        source[0] += toctrees()


def escape(_app: Sphinx, _context: object, lines: list[str]) -> None:
    """Help texts are plain: a star in them is a shell pattern."""
    lines[:] = [line.replace("*", r"\*") for line in lines]


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", add_lists)
    for part in ("description", "usage", "options", "epilog"):
        app.connect(f"sphinx-click-process-{part}", escape)
