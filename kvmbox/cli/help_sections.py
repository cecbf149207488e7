"""A command whose help groups the options by purpose, with examples above them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import click

from kvmbox.run.options.definition import FILE, Section

OTHER: Final = "Other options"
"""The section of options that no other section names: --debug and --help."""


class SectionedCommand(click.Command):
    """`sections` has the options by purpose, in order; `examples` command lines and meanings.

    A configuration file may set the parameters that `configurable` names: see `cli.config.option_defaults`.
    """

    def __init__(
        self, *args: Any, sections: Sequence[Section], examples: Sequence[tuple[str, str]] = (), **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.sections: Final = [section for section in sections if section.title != OTHER]
        self.examples: Final = examples
        options = [option for section in sections for option in section.options]
        self.configurable: Final = frozenset(one.name for one in options if one.marks & FILE)

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
        for section in self.sections:
            with formatter.section(section.title):
                formatter.write_dl([records.pop(option.name) for option in section.options])
        with formatter.section(OTHER):
            formatter.write_dl(list(records.values()))
