"""The recipe: every choice of a training run, typed, with defaults; read from YAML 1.2."""

import datetime
import difflib
import io
import json
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    NodeEvent,
)
from ruamel.yaml.reader import ReaderError

from eqpot.models import settings_of
from eqpot.training.fine_tuning_section import FineTuningSection

_LARGEST_FILE: Final = 2**20
_DEEPEST: Final = 32
_SECONDS: Final = {
    "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0,
    "min": 60.0, "m": 60.0, "minute": 60.0, "minutes": 60.0,
    "h": 3600.0, "hour": 3600.0, "hours": 3600.0,
    "d": 86400.0, "day": 86400.0, "days": 86400.0,
}  # fmt: skip


def parse_duration(text: str | float) -> float:
    """Return a duration in seconds from ``"10 min"``, ``"2 h"``, ``"90 s"`` or a number of seconds.

    Raises
    ------
    ValueError
        If the text is no duration, or not above zero.
    """
    if isinstance(text, int | float) and not isinstance(text, bool):
        seconds = float(text)
    else:
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([a-zA-Z]+)\s*", str(text))
        if match is None or match[2].lower() not in _SECONDS:
            raise ValueError(f'must be a duration such as "10 min", "2 h" or "90 s", got {text!r}')
        seconds = float(match[1]) * _SECONDS[match[2].lower()]
    if not 0 < seconds < float("inf"):
        raise ValueError(f"must be a duration above zero, got {text!r}")
    return seconds


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True,
        allow_inf_nan=False, validate_default=False,
    )  # fmt: skip


class DataSection(_Section):
    """What to learn from."""

    train: Annotated[list[str], Field(min_length=1)]
    """Files of training frames: extended XYZ, what ASE reads, npz of MD17, or an eqpot store."""
    validation: float | str = 0.1
    """Fraction of the training frames that validates, or a file."""
    test: list[str] = []
    """Files of test frames; errors of each are reported at the end."""
    energy_key: str | None = None
    """Name of the energy in the files; without it the usual names are tried."""
    forces_key: str | None = None
    """Name of the forces."""
    stress_key: str | None = None
    """Name of the stress."""
    virial_key: str | None = None
    """Name of a virial, from which the stress is made."""
    units: dict[Literal["energy", "length", "stress", "virial", "forces"], str] | None = None
    """Units of the files where they are not eV and Å."""
    reference_energies: dict[str, float] | None = None
    """E0 of elements by symbol, eV; others come from isolated atoms or least squares."""

    @field_validator("train", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("validation")
    @classmethod
    def _fraction(cls, value: float | str) -> float | str:
        if isinstance(value, float) and not 0 < value < 1:
            raise ValueError(f"a fraction must lie between 0 and 1, got {value}")
        return value


class ModelSection(_Section):
    """The network; a number that is not given comes from the preset."""

    kind: Literal["gaunt"] = "gaunt"
    """Model family."""
    preset: Literal["small", "medium", "large"] = "medium"
    """Size: 32, 64 or 128 channels."""
    r_max: Annotated[float, Field(gt=0, le=30)] = 5.0
    """Radius within which an atom sees its neighbours, Å."""
    n_features: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Channels."""
    l_max: Annotated[int, Field(ge=0, le=8)] | None = None
    """Highest degree of the densities."""
    l_hidden: Annotated[int, Field(ge=0, le=8)] | None = None
    """Highest degree of the features between layers."""
    n_layers: Annotated[int, Field(ge=1, le=8)] | None = None
    """Message-passing layers."""
    n_radial: Annotated[int, Field(ge=1, le=256)] | None = None
    """Radial functions."""
    correlation: Annotated[int, Field(ge=1, le=6)] | None = None
    """Densities in the highest product; the body order less one."""
    repulsion: bool = False
    """Add nuclear (ZBL) repulsion at close contact."""

    @model_validator(mode="after")
    def _possible(self) -> "ModelSection":
        settings_of(self.kind, self.preset, self.changes())
        return self

    def changes(self) -> dict[str, int]:
        """Return the hyper-parameters that differ from the preset."""
        names = ("n_features", "l_max", "l_hidden", "n_layers", "n_radial", "correlation")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


class TrainingSection(_Section):
    """How to learn. Give ``max_time`` or ``epochs``."""

    max_time: str | float | None = None
    """Time for training, such as "10 min" (a number: seconds); 1 h without it and epochs."""
    epochs: Annotated[int, Field(ge=1)] | None = None
    """Passes over the training frames; frames that do not fill a step are left to the next pass."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of weights, split and order of frames."""
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """Frames in a step, over all devices; without it, as many as hold about 80 atoms."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.004
    """Highest learning rate."""
    energy_weight: Annotated[float, Field(gt=0)] = 0.01
    """Weight of energies, relative to forces, in the first part of the run."""
    final_energy_weight: Annotated[float, Field(gt=0)] = 10.0
    """Weight of energies at the end."""
    energy_ramp: Annotated[float, Field(ge=0, le=0.9)] = 0.7
    """Fraction of the run after which the weight of energies rises."""
    forces_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of forces."""
    stress_weight: Annotated[float, Field(ge=0)] = 0.1
    """Weight of stresses, as virials per atom."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay of the moving average of the weights."""
    max_gradient_norm: Annotated[float, Field(gt=0)] = 0.1
    """Gradients of the loss are clipped to this norm."""
    dtype: Literal["float32", "float64"] = "float32"
    """Precision of the network; energies and positions are float64 always."""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """Kind of device; auto takes CUDA where there is one."""
    devices: Annotated[int, Field(ge=1)] = 1
    """Devices on each node."""
    num_nodes: Annotated[int, Field(ge=1)] = 1
    """Nodes, started by torchrun or SLURM."""

    @field_validator("max_time")
    @classmethod
    def _duration(cls, value: str | float | None) -> str | float | None:
        if value is not None:
            parse_duration(value)
        return value

    @model_validator(mode="after")
    def _one_length(self) -> "TrainingSection":
        if self.max_time is not None and self.epochs is not None:
            raise ValueError("give `max_time` or `epochs`, not both")
        return self


class Recipe(_Section):
    """A training run."""

    output: Annotated[str, Field(min_length=1)]
    """Folder for everything that the run leaves; must not hold an earlier run."""
    data: DataSection
    model: ModelSection = ModelSection()
    fine_tuning: FineTuningSection = FineTuningSection()
    training: TrainingSection = TrainingSection()


DEFAULT_MAX_TIME: Final = "1 h"
"""Length of a run whose recipe gives neither ``max_time`` nor ``epochs``."""


class RecipeError(ValueError):
    """A recipe that cannot be used; the message names file, line and key."""


def default_recipe(frames: str | Path) -> Recipe:
    """Return the recipe of a file of frames alone: all defaults, output in ``runs/``."""
    path = Path(frames)
    name = path.name.split(".")[0]
    return Recipe(output=str(Path("runs") / name), data=DataSection(train=[str(path)]))


def read_recipe(path: str | Path) -> Recipe:
    """Return the recipe of a YAML 1.2 file. Paths in it are relative to the working directory.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    RecipeError
        If it is not YAML, holds an unknown key, a wrong type or an impossible value. The message
        names file, line, key, what was expected and what came.
    """
    path = Path(path)
    if not path.is_file():
        near = difflib.get_close_matches(
            path.name, [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        )
        hint = f"; near names: {', '.join(near)}" if near else ""
        raise FileNotFoundError(f"{path}: there is no such recipe{hint}")
    if path.stat().st_size > _LARGEST_FILE:
        raise RecipeError(f"{path}: a recipe must be below 1 MiB, got {path.stat().st_size} bytes")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: must be UTF-8 text: {error}") from error
    try:
        _check_syntax(path, text)
        document = YAML(typ="rt").load(io.StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise RecipeError(f"{path}{line}: not valid YAML: {error.problem}") from error
    except ReaderError as error:
        number = text[: error.position].count("\n") + 1
        raise RecipeError(
            f"{path}, line {number}: not valid YAML: holds the character {chr(error.character)!r}"
        ) from error
    except RecipeError:
        raise
    except ValueError as error:  # a number of thousands of digits
        raise RecipeError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(document, CommentedMap):
        got = "nothing" if document is None else "a list or a single value"
        raise RecipeError(
            f"{path}: a recipe must be a mapping with the keys {list(Recipe.model_fields)}, "
            f"got {got}"
        )
    try:
        return Recipe.model_validate(_plain(document))
    except ValidationError as error:
        raise RecipeError(_message(path, document, error)) from error


def _check_syntax(path: Path, text: str) -> None:
    """Check what a recipe may not hold, event by event, before any value is made of it.

    Anchors can stand for exponentially much text, tags can ask for any type, and a directive can
    ask for the rules of YAML 1.1.
    """
    depth = 0
    for event in YAML(typ="rt").parse(io.StringIO(text)):
        where = f"{path}, line {event.start_mark.line + 1}"
        if isinstance(event, DocumentStartEvent):
            if event.version is not None and tuple(event.version) != (1, 2):
                raise RecipeError(f"{where}: a recipe must be YAML 1.2")
        elif isinstance(event, NodeEvent):
            if event.anchor is not None:
                raise RecipeError(f"{where}: anchors and aliases have no place in a recipe")
            if getattr(event, "ctag", None) is not None:
                raise RecipeError(f"{where}: tags (`!name`) have no place in a recipe")
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > _DEEPEST:
            raise RecipeError(f"{where}: nested deeper than {_DEEPEST} levels")


def _plain(node: Any) -> Any:
    """Return a YAML node as plain Python values; those of ruamel carry formatting."""
    if isinstance(node, CommentedMap):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, CommentedSeq):
        return [_plain(value) for value in node]
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    if type(node) is datetime.date:
        return node.isoformat()  # text in YAML 1.2: a folder may be called 2024-05-31
    return node


def _message(path: Path, document: CommentedMap, error: ValidationError) -> str:
    messages: dict[tuple[int, str], list[str]] = {}
    for problem in error.errors():
        location, line = _place(document, problem)
        name = ".".join(location) or "recipe"
        if problem["type"] == "extra_forbidden":
            known = _known_keys(location[:-1])
            near = difflib.get_close_matches(location[-1], known, n=1)
            hint = f"; did you mean `{near[0]}`?" if near else "."
            what = f"unknown key{hint} Known keys: {', '.join(known)}"
        elif problem["type"] == "missing":
            what = "this key is needed"
        elif problem["type"] == "model_type":
            what = (
                f"must be a section with the keys {', '.join(_known_keys(location))}, "
                f"got {problem['input']!r}"
            )
        else:
            got, text = problem["input"], problem["msg"]
            own = problem["type"] == "value_error"  # of this package: says itself what came
            shown = "" if own or isinstance(got, dict | BaseModel) else f", got {got!r}"
            text = text.removeprefix("Value error, ")
            what = f"{text[0].lower()}{text[1:]}{shown}"
        messages.setdefault((line, name), []).append(what)
    return "\n".join(
        f"{path}, line {line}: `{name}`: {_alternatives(texts)}"
        for (line, name), texts in messages.items()
    )


def _alternatives(texts: list[str]) -> str:
    """Return one message from those of the members of a union, which differ in the type wanted."""
    start = "input should be "
    first, got, value = texts[-1].partition(", got ")
    if len(texts) == 1 or not all(text.startswith(start) for text in texts):
        return "; ".join(dict.fromkeys(texts))
    wanted = [text.partition(", got ")[0].removeprefix(start) for text in texts[:-1]]
    return f"{start}{' or '.join([*wanted, first.removeprefix(start)])}{got}{value}"


def _place(document: CommentedMap, problem: Any) -> tuple[list[str], int]:
    """Return the keys that lead to a problem, and the line of the last one that is in the file.

    What pydantic names besides keys of the file (members of a union) is left out.
    """
    location: list[str] = []
    line = 1
    node: Any = document
    for part in problem["loc"]:
        if isinstance(node, CommentedMap):
            found = [key for key in node if str(key) == part]
            if found:
                line = node.lc.key(found[0])[0] + 1
                node = node[found[0]]
            elif problem["type"] != "missing":
                continue
        elif isinstance(node, CommentedSeq) and isinstance(part, int) and part < len(node):
            line = node.lc.item(part)[0] + 1
            node = node[part]
        else:
            continue
        location.append(str(part))
    return location, line


def _known_keys(location: list[str]) -> list[str]:
    section: Any = Recipe
    for part in location:
        section = section.model_fields[part].annotation
    return list(section.model_fields)


def recipe_text(recipe: Recipe | None = None, *, documented: bool = True) -> str:
    """Return a complete recipe as YAML, each key with its meaning as a comment.

    Parameters
    ----------
    recipe
        Values to write; without it, the defaults, with places to fill in.
    documented
        Whether to write the meanings.
    """
    lines = []
    values = recipe.model_dump() if recipe is not None else {}

    def write(name: str, value: Any, description: str | None, indent: str) -> None:
        if documented and description:
            lines.append(f"{indent}# {description}")
        lines.append(f"{indent}{name}: {json.dumps(value, ensure_ascii=False)}")

    for name, field in Recipe.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            lines.append("")
            if documented and section.__doc__:
                lines.append(f"# {section.__doc__}")
            lines.append(f"{name}:")
            for key, entry in section.model_fields.items():
                default = ["train.extxyz"] if entry.is_required() else entry.default
                value = values[name][key] if values else default
                write(key, value, entry.description, "  ")
        else:
            write(name, values.get(name, "runs/first"), field.description, "")
    return "\n".join(lines) + "\n"
