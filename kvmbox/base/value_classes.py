"""Light classes of values: named tuples, and what a frozen dataclass with slots is.

`dataclasses` writes and compiles source text for every class, 0.36 ms for a frozen one with slots, and
`kvmbox run` has forty of them: a tenth of a short run (docs/adr/start.md). A subclass of `Value` looks and
behaves the same, to type checkers too, and takes 7 µs to define. In device processes, `typing` and
`dataclasses` would be pages that each of them has for nothing: `kvmbox.base.light_typing` says more.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, ClassVar, Self, dataclass_transform

    _tuplegetter: Any
else:
    from _collections import _tuplegetter

    def dataclass_transform(**_promises):
        """What type checkers know of; it does nothing."""
        return lambda made: made


class _NamedTupleType(type):
    """Makes of a class body with annotations what `typing.NamedTuple` makes of it."""

    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> Any:
        if not bases:
            return super().__new__(cls, name, bases, namespace)
        fields = tuple(namespace.pop("__annotations__"))
        defaults = {field: namespace.pop(field) for field in fields if field in namespace}
        namespace |= {field: _tuplegetter(place, "") for place, field in enumerate(fields)}
        namespace |= {"__slots__": (), "_fields": fields, "_field_defaults": defaults}
        namespace["__match_args__"] = fields
        return type(name, (_Fields,), namespace)


class _Fields(tuple):  # type: ignore[type-arg]
    """What `collections.namedtuple` gives a class. That compiles a constructor, and needs four modules."""

    __slots__ = ()
    _fields: ClassVar[tuple[str, ...]]
    _field_defaults: ClassVar[dict[str, Any]]

    def __new__(cls, *values: object, **named: object) -> Self:
        if named or len(values) != len(cls._fields):
            names = cls._fields[len(values) :]
            given = {**cls._field_defaults, **named}
            if len(values) > len(cls._fields) or not given.keys() >= set(names) >= named.keys():
                raise TypeError(f"{cls.__name__} takes {', '.join(cls._fields)}")
            values += tuple(given[name] for name in names)
        return tuple.__new__(cls, values)

    @classmethod
    def _make(cls, values: Iterable[object]) -> Self:
        return cls(*values)

    def _asdict(self) -> dict[str, Any]:
        return dict(zip(self._fields, self, strict=True))

    def _replace(self, **changes: object) -> Self:
        return type(self)(**self._asdict() | changes)

    def __repr__(self) -> str:
        shown = (f"{name}={value!r}" for name, value in self._asdict().items())
        return f"{type(self).__name__}({', '.join(shown)})"

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self)


class NamedTuple(metaclass=_NamedTupleType):
    """Base of a class whose annotations are the fields of a tuple."""


class _ValueType(type):
    """Makes the annotations of a class body its slots and the parameters of its constructor."""

    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> Any:
        if not bases:
            return super().__new__(cls, name, bases, {**namespace, "__slots__": ()})
        if len(bases) > 1 or not isinstance(bases[0], _ValueType):
            raise TypeError(f"{name}: a value inherits from one other, and from nothing else")
        base: Any = bases[0]
        fields = tuple(namespace.get("__annotations__", ()))
        defaults = {field: namespace.pop(field) for field in fields if field in namespace}
        namespace |= {"_defaults": base._defaults | defaults, "__match_args__": base.__match_args__ + fields}
        made: Any = super().__new__(cls, name, bases, {**namespace, "__slots__": fields})
        made._stores = base._stores + tuple((field, getattr(made, field).__set__) for field in fields)
        return made


@dataclass_transform(frozen_default=True)
class Value(metaclass=_ValueType):
    """Base of an immutable class whose annotations are its fields: a frozen dataclass with slots.

    Defaults are shared by all instances, as in a function's signature, so they must be immutable. A class
    that inherits from a value has its fields first, and then its own.
    """

    __match_args__ = ()
    _defaults: ClassVar[dict[str, Any]] = {}
    _stores: ClassVar[tuple[tuple[str, Callable[[object, object], None]], ...]] = ()
    _shown: ClassVar[tuple[str, ...]] = ()
    """The fields that `repr` has, of a value with many of them."""

    def __init__(self, *values: object, **named: object) -> None:
        stores = self._stores
        if len(values) > len(stores):
            raise TypeError(f"{type(self).__name__} takes {len(stores)} arguments, not {len(values)}")
        # The slots' own setters, because `__setattr__` refuses.
        for (_, store), value in zip(stores, values, strict=False):
            store(self, value)
        defaults = self._defaults
        try:
            for field, store in stores[len(values) :]:
                store(self, named.pop(field) if field in named else defaults[field])
        except KeyError as missing:
            raise TypeError(f"{type(self).__name__} needs an argument {missing}") from None
        if named:
            raise TypeError(f"{type(self).__name__} has no argument '{next(iter(named))}', or has it twice")

    def as_dict(self) -> dict[str, Any]:
        """The fields by name; values within them stay what they are."""
        return {field: getattr(self, field) for field, _ in self._stores}

    def replaced(self, **changes: object) -> Self:
        """The same value with other fields."""
        return type(self)(**self.as_dict() | changes)

    def _values(self) -> tuple[object, ...]:
        return tuple(getattr(self, field) for field, _ in self._stores)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable: '{name}' cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable: '{name}' cannot be deleted")

    def __eq__(self, other: object) -> bool:
        return self._values() == other._values() if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        shown = self._shown or tuple(field for field, _ in self._stores)
        fields = [f"{field}={getattr(self, field)!r}" for field in shown]
        return f"{type(self).__name__}({', '.join((*fields, '…') if self._shown else fields)})"

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return type(self), self._values()
