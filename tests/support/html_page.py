"""A page of HTML as a browser reads it: its elements, its text, and what its policy lets run."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from itertools import pairwise


class Page(HTMLParser):
    """The elements of a page with their attributes, and the text outside of script and style."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self._inside = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag if tag in self.raw else self._inside

    def handle_endtag(self, tag: str) -> None:
        self._inside = "" if tag == self._inside else self._inside

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.raw[self._inside].append(data)
        else:
            self.texts.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of all elements of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        """The text that a reader sees."""
        return "".join(self.texts)

    @property
    def shape(self) -> list[tuple[str, tuple[str, ...]]]:
        """The elements and the names of their attributes, without what is in them."""
        return [(tag, tuple(attributes)) for tag, attributes in self.elements]

    def assert_policy_holds(self) -> None:
        """Nothing is loaded, and only the page's own script and style, known by their hashes, count."""
        (policy,) = (
            one["content"] or ""
            for one in self.of("meta")
            if one.get("http-equiv") == "Content-Security-Policy"
        )
        rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
        assert rules["default-src"] == "'none'"
        for kind in ("script", "style"):
            (source,) = self.raw[kind]
            digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
            assert rules[f"{kind}-src"] == f"'sha256-{digest}'"
        assert not self.of("link")
        for _, attributes in self.elements:
            assert not [name for name in attributes if name.startswith("on") or name == "style"]
            assert re.match(r"data:image/png;base64,", attributes.get("src") or "data:image/png;base64,")

    def assert_accessible(self) -> None:
        """What a screen reader and a keyboard need: a language, names, headings in order, titles."""
        names = [tag for tag, _ in self.elements]
        assert (self.of("html")[0]["lang"], names.count("main"), names.count("h1")) == ("en", 1, 1)
        levels = [int(tag[1]) for tag in names if re.fullmatch("h[1-6]", tag)]
        assert all(below <= above + 1 for above, below in pairwise(levels)), levels
        assert all(one["scope"] == "col" for one in self.of("th"))
        for one in self.of("img"):
            assert one["alt"]
        for one in self.of("svg"):
            assert (one["role"], bool(one["aria-label"])) == ("img", True)
        # What scrolls sideways can be reached without a mouse.
        scrolling = [*self.of("pre"), *(one for one in self.of("div") if one.get("class") == "chart")]
        assert all(one["tabindex"] == "0" for one in scrolling)
        for at, (tag, _) in enumerate(self.elements):
            if tag == "input":
                assert self.elements[at - 1][0] == "label"
