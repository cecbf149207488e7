"""The signature of `Machine` with each option, its type and its default: for `help` and for programs."""

from __future__ import annotations

from inspect import Parameter, Signature
from typing import get_type_hints

from kvmbox.run.options import _generated
from kvmbox.run.options.option_table import PARAMETERS


def signature() -> Signature:
    """What `inspect.signature(Machine)` gives."""
    types = get_type_hints(_generated.MachineOptions)
    options = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=option.parameter_default, annotation=types[name])
        for name, option in PARAMETERS.items()
    ]
    image = Parameter("image", Parameter.POSITIONAL_OR_KEYWORD, annotation="str | os.PathLike[str]")
    return Signature([image, *options])
