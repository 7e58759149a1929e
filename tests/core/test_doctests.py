"""The examples in the core's docstrings, run as they stand."""

import doctest
import pkgutil
from importlib import import_module
from types import ModuleType

import pytest

import segloss.losses

LOSS_MODULES = [f"segloss.losses.{module.name}" for module in pkgutil.iter_modules(segloss.losses.__path__)]
MODULES = [
    *("segloss", "segloss.errors", "segloss.metrics", "segloss.pixel_counts", "segloss.decisions", "segloss.adapters"),
    *(name for name in LOSS_MODULES if not name.endswith("triton")),
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name):
    assert doctest.testmod(import_module(name)).failed == 0


def test_an_example_that_gives_something_else_is_seen(capsys):
    wrong = ModuleType("wrong", ">>> 1 + 1\n3\n")
    assert doctest.testmod(wrong).failed == 1
    assert "Expected:\n    3" in capsys.readouterr().out


@pytest.mark.parametrize("name", [name for name in segloss.losses.__all__ if name.islower()])
def test_every_public_function_of_the_losses_has_an_example(name):
    assert ">>> " in getattr(segloss.losses, name).__doc__
