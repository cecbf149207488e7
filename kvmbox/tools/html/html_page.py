"""A page of HTML in one file. Nothing that a guest has printed is ever markup or script in it.

Two things see to that: whoever makes a page puts text into it by `text` and `lines` alone, and the policy of
the page (Content-Security-Policy) lets a browser load nothing, and run no script and no style but the two
that are named by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Final

from kvmbox.explain.demangled_names import printable

_STYLE, _SCRIPT = (
    (files("kvmbox.tools.html") / name).read_text(encoding="utf-8") for name in ("page.css", "page.js")
)
_POLICY: Final = (
    "default-src 'none'; img-src data:; style-src '{style}'; script-src '{script}'; base-uri 'none';"
    " form-action 'none'"
)
_PAGE: Final = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
<script>{script}</script>
</body>
</html>
"""


def text(value: str) -> str:
    """A line of text as HTML: no markup, no control character."""
    return html.escape(printable(value))


def lines(value: str) -> str:
    """Lines of text as HTML, to stand in <pre>."""
    return html.escape("\n".join("\t".join(map(printable, line.split("\t"))) for line in value.split("\n")))


def block(value: str) -> str:
    """Lines of text as they are, in a box that a keyboard can scroll."""
    return f'<pre tabindex="0">{lines(value.rstrip())}</pre>\n'


def facts(fields: Mapping[str, str]) -> str:
    """Names, and what is to be said of each."""
    rows = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in fields.items())
    return f"<dl>{rows}</dl>\n"


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], name: str) -> str:
    """A table of texts; a cell that begins with a digit is a number. `name` is what a screen reader says."""
    head = "".join(f'<th scope="col">{text(title)}</th>' for title in titles)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>\n" for row in rows)
    return (
        f'<div class="chart" tabindex="0" role="group" aria-label="{text(name)}">\n'
        f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n"
    )


def _cell(value: str) -> str:
    number = ' class="number"' if value[:1].isdigit() else ""
    return f"<td{number}>{text(value)}</td>"


def page(title: str, body: str) -> str:
    """The whole page. `title` is text, `body` is HTML."""
    policy = _POLICY.format(style=_hash(_STYLE), script=_hash(_SCRIPT))
    return _PAGE.format(
        policy=html.escape(policy), title=text(title), style=_STYLE, script=_SCRIPT, body=body
    )


def _hash(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
