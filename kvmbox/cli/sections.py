"""A command whose help groups the options by purpose, with examples above them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

OTHER: Final = "Other options"
"""The section of options that no other section names: --debug and --help."""


class SectionedCommand(click.Command):
    """`sections` has the parameters of each section by name, in order; `examples` command lines and meanings.

    `configurable` names the parameters that a configuration file may set: see `cli.defaults`.
    """

    def __init__(
        self,
        *args: Any,
        sections: Mapping[str, Sequence[str]],
        examples: Sequence[tuple[str, str]] = (),
        configurable: frozenset[str] = frozenset(),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.sections: Final = sections
        self.examples: Final = examples
        self.configurable: Final = configurable

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options, section by section."""
        records = {
            parameter.name: record
            for parameter in self.get_params(ctx)
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx)) is not None
        }
        if self.examples:
            with formatter.section("Examples"):
                for line, meaning in self.examples:
                    formatter.write_text(f"# {meaning}")
                    formatter.write(f"{'':>{formatter.current_indent}}{line}\n")
        for title, names in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([records.pop(name) for name in names])
        with formatter.section(OTHER):
            formatter.write_dl(list(records.values()))
