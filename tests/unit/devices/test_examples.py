"""The examples in the docstrings of the models, and that `kvmbox.devices` exports each of them."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

from kvmbox import devices
from kvmbox.contract.catalog import MODELS, model_class

CLASSES = {name: model_class(name) for name in MODELS}


def test_every_model_of_the_catalogue_is_exported() -> None:
    exported = [getattr(devices, name) for name in devices.__all__]
    assert [model for model in CLASSES.values() if model not in exported] == []


def test_name_that_is_not_exported_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Uart8250'"):
        _ = devices.Uart8250
    assert set(devices.__all__) <= set(dir(devices))


@pytest.mark.parametrize("name", CLASSES)
def test_model_has_an_example_and_the_example_is_right(name: str) -> None:
    model = CLASSES[name]
    module = import_module(model.__module__)
    (test,) = doctest.DocTestFinder(recurse=False).find(model, name, module)
    assert test.examples
    assert doctest.DocTestRunner().run(test).failed == 0


def test_example_of_the_package_is_right() -> None:
    result = doctest.testmod(devices)
    assert result.attempted
    assert result.failed == 0
