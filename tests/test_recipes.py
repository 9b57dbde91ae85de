"""Every recipe in ``training/`` can be read, and says the same when it is written out."""

from pathlib import Path

import pytest

from eqpot.training.recipe_file import read_recipe, recipe_text

ROOM = Path(__file__).parents[1] / "training"
RECIPES = sorted(ROOM.glob("*.y*ml"))


def test_there_are_recipes():
    if not ROOM.is_dir():
        pytest.skip("there is no folder `training`")
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe(path, tmp_path):
    recipe = read_recipe(path)
    assert recipe.output == f"runs/{path.stem}"
    written = tmp_path / "recipe.yaml"
    written.write_text(recipe_text(recipe), encoding="utf-8")
    assert read_recipe(written) == recipe
