"""Stand-ins for `typing`, `enum` and `signal`, where the cost shows.

In device processes: `typing` pulls in re and more, as `dataclasses` does: 16 ms of CPU time in a process
that is started anew for each run, and pages that every device process would share for nothing. Modules that
the spawner loads therefore guard `typing` with a local `TYPE_CHECKING = False`, which type checkers take for
true, and take from here what they need while running.

`Enum` and `signal` are for a plain run: `enum`, which `signal` imports, takes 1 ms.

The bundle of bytecode (`kvmbox.base.bytecode`) takes from here what other modules import from `typing`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as signal  # noqa: PLC0414 - for others to import from here
    from enum import Enum as Enum  # noqa: PLC0414 - as well
else:
    import _signal as signal  # noqa: F401 - numbers where `signal` has enumerations, which take 1.5 ms

    from kvmbox.base.value_classes import NamedTuple  # noqa: F401 - of `typing`, too

    Any = Protocol = object

    def TypeVar(name, *_types, **_promises):
        """Any type."""
        return object

    def assert_never(value):
        """A bug: no case fits."""
        raise AssertionError(value)

    class Literal:
        """A type that is one of several texts. `typing` knows what this makes: that may ask for them, too."""

        def __class_getitem__(cls, texts):
            return type(list[int])(tuple, texts)

    def get_args(literal):
        """The texts of a `Literal`, also of one of `typing`: of a module that is not from the bundle."""
        return literal.__args__

    class _EnumType(type):
        """Makes of each value of a class body an instance with `name` and `value`."""

        def __new__(cls, name, bases, namespace):
            made = super().__new__(cls, name, bases, namespace)
            made._members = []
            for key, value in namespace.items():
                if not key.startswith("_"):
                    member = made()
                    member.name, member.value = key, value
                    setattr(made, key, member)
                    made._members.append(member)
            return made

        def __iter__(cls):
            return iter(cls._members)

    class Enum(metaclass=_EnumType):
        """Base of a class of named constants, compared by identity."""
