"""Recipes as files: YAML 1.2 read with file, line and key for every mistake, and written."""

import datetime
import difflib
import io
import json
import textwrap
from pathlib import Path
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
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

from eqpot.missing import missing_file
from eqpot.training.recipe import Recipe
from eqpot.training.section import Section

_LARGEST_FILE: Final = 2**20
_DEEPEST: Final = 32
_EXAMPLES: Final = {"output": "runs/first", "train": ["train.extxyz"], "data": {}}


class RecipeError(ValueError):
    """A recipe that cannot be used; the message names file, line and key."""


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
        raise missing_file(path)
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
        is_index = get_origin(section) is list
        section = get_args(section)[0] if is_index else section.model_fields[part].annotation
    return list(section.model_fields)


def section_of(field: FieldInfo) -> type[Section] | None:
    """Return the section that a key of a recipe is, if it is one."""
    kind: Any = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def recipe_text(recipe: Recipe | None = None, *, documented: bool = True) -> str:
    """Return a complete recipe as YAML, each key with its meaning as a comment.

    Parameters
    ----------
    recipe
        Values to write; without it, the defaults, with places to fill in.
    documented
        Whether to write the meanings.
    """
    lines: list[str] = []

    def write(section: type[Section], values: dict[str, Any], indent: str) -> None:
        for name, field in section.model_fields.items():
            default = _EXAMPLES[name] if field.is_required() else field.default
            value = values.get(name, default)
            part = section_of(field)
            meaning = field.description if part is None else part.__doc__
            if part is not None and not indent:
                lines.append("")
            if documented and meaning:
                start = f"{indent}# "
                lines.extend(
                    textwrap.wrap(meaning, 100, initial_indent=start, subsequent_indent=start)
                )
            if part is None:
                lines.append(f"{indent}{name}: {json.dumps(value, ensure_ascii=False)}")
            else:
                lines.append(f"{indent}{name}:")
                write(part, value if isinstance(value, dict) else {}, f"{indent}  ")

    write(Recipe, recipe.model_dump() if recipe is not None else {}, "")
    return "\n".join(lines) + "\n"
