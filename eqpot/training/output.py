"""The output folder of a run: what may be there, and whether the run in it is finished."""

import json
from pathlib import Path
from typing import Any, Final

from eqpot.durable import write_durably
from eqpot.training.base_potential import BasePotential, read_base_potential, recipe_with_base
from eqpot.training.checkpoint import NAME, PREVIOUS, check_identity
from eqpot.training.recipe import Recipe
from eqpot.training.recipe_file import read_recipe, recipe_text

RECIPE: Final = "recipe.yaml"
METRICS: Final = "metrics.json"
AUDIT: Final = "audit.json"
_MARK: Final = "# The complete recipe of the run in this folder.\n"


def resolved(recipe: Recipe) -> tuple[Recipe, BasePotential | None]:
    """Return the recipe with what the potential it starts from decides, and that potential.

    Raises
    ------
    OSError, ValueError
        If the potential cannot be read, or does not fit the recipe.
    """
    base = read_base_potential(recipe.fine_tuning)
    return (recipe, None) if base is None else (recipe_with_base(recipe, base), base)


def write_recipe(recipe: Recipe) -> None:
    """Write the recipe into its output folder, with a mark by which it is known again."""
    text = _MARK + recipe_text(recipe)
    write_durably(Path(recipe.output) / RECIPE, text.encode())


def check_output(recipe: Recipe) -> None:
    """Check that the output folder may be used: it is empty, or holds this run unfinished.

    Raises
    ------
    FileExistsError
        If it holds a finished run or files that are of no run.
    ValueError
        If it holds a run of another recipe; names what differs.
    """
    output = Path(recipe.output)
    if not output.exists():
        return
    # a run killed at its very start leaves no more than an unfinished file
    foreign = output.is_file() or (
        not _holds_run(output) and any(path.suffix != ".part" for path in output.iterdir())
    )
    if foreign:
        raise FileExistsError(
            f"{output}: `output` holds something that is no run of training; name another folder "
            "or remove it"
        )
    if is_finished(recipe):
        raise FileExistsError(
            f"{output}: holds the finished run of this recipe; name another `output` to repeat it"
        )


def is_finished(recipe: Recipe) -> bool:
    """Return whether the output folder holds the finished run of this recipe.

    Raises
    ------
    ValueError
        If it holds a run of another recipe; names what differs.
    """
    output = Path(recipe.output)
    if not _holds_run(output):
        return False
    recipe, _ = resolved(recipe)
    check_identity(output, read_recipe(output / RECIPE).identity(), recipe.identity())
    left = [name for name in (NAME, PREVIOUS) if (output / name).exists()]
    return (output / METRICS).is_file() and not left


def _holds_run(output: Path) -> bool:
    path = output / RECIPE
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_MARK)) == _MARK.encode()


def write_audit(output: Path, audit: dict[str, Any], data_sha256: dict[str, str]) -> None:
    """Write the audit of the data with these checksums."""
    text = json.dumps({"data_sha256": data_sha256, **audit}, indent=1, ensure_ascii=False)
    write_durably(output / AUDIT, (text + "\n").encode())


def read_audit(output: Path, data_sha256: dict[str, str]) -> dict[str, Any] | None:
    """Return the audit that is in the folder, if it is there, whole, and of the same data."""
    try:
        audit: dict[str, Any] = json.loads((output / AUDIT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(audit, dict) or audit.pop("data_sha256", None) != data_sha256:
        return None
    return audit
