"""Recipes are found by their catalog names, and each has the five names of the protocol."""

import pytest

from dodona.errors import ConfigError
from dodona.recipes import load, names


def test_the_three_planning_recipes_exist():
    assert {"bellman-equation", "bellman-optimality", "dynamic-programming"} <= set(names())


@pytest.mark.parametrize("name", names())
def test_every_recipe_follows_the_protocol(name):
    recipe = load(name)
    assert (recipe.__doc__ or "").strip(), "the first line of the docstring is the report's claim"
    assert recipe.PRESETS["laptop"] == recipe.Config()
    assert "quick" in recipe.PRESETS
    assert recipe.Config().seed == 0
    assert all(callable(getattr(recipe, part)) for part in ("build", "judge", "figures"))


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'bellman-equation'"):
        load("belman-equation")
