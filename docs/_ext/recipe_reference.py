"""The directive ``recipe-reference``: a table for each section of a recipe, made from its types."""

import json
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from docutils import nodes
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from eqpot.training.recipe import Recipe
from eqpot.training.recipe_file import section_of
from eqpot.training.section import Section

_NAMES = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "true or false",
    type(None): "null",
}
_COLUMNS = (("Key", 18), ("Type", 24), ("Default", 14), ("Meaning", 44))


def type_text(annotation: Any, metadata: Any = ()) -> str:
    """Return a type, with its bounds, in the words of a recipe's author."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        limits: list[Any] = []
        for entry in arguments[1:]:
            limits += entry.metadata if isinstance(entry, FieldInfo) else [entry]
        return type_text(arguments[0], limits)
    if origin is Literal:
        text = ", ".join(json.dumps(value) for value in arguments)
    elif origin in (Union, types.UnionType):
        text = " or ".join(type_text(part) for part in arguments if part is not type(None))
    elif origin is list:
        text = f"list of {type_text(arguments[0])}"
    elif origin is dict:
        text = f"mapping from {type_text(arguments[0])} to {type_text(arguments[1])}"
    elif isinstance(annotation, type) and issubclass(annotation, Section):
        text = "section"
    else:
        text = _NAMES[annotation]
    limits_text = [
        "not empty" if isinstance(entry, annotated_types.MinLen) else _limit_text(entry)
        for entry in metadata
    ]
    return ", ".join([text, *limits_text])


def _limit_text(limit: Any) -> str:
    match limit:
        case annotated_types.Gt(gt=value):
            return f"above {value}"
        case annotated_types.Ge(ge=value):
            return f"at least {value}"
        case annotated_types.Lt(lt=value):
            return f"below {value}"
        case annotated_types.Le(le=value):
            return f"at most {value}"
    raise TypeError(f"no words for {limit!r}: add them here")


def default_text(field: FieldInfo) -> str | None:
    """Return the default as YAML, or ``None`` for a key that must be given."""
    if field.is_required():
        return None
    assert field.default is not PydanticUndefined
    if section_of(field) is not None:
        return "see below"
    return json.dumps(field.default, ensure_ascii=False)


def _sections(path: str, of: type[Section]) -> Iterator[tuple[str, type[Section]]]:
    """Yield the sections within a section, and those that a list may hold, with their paths."""
    for key, field in of.model_fields.items():
        section = section_of(field)
        for part in get_args(field.annotation):
            if isinstance(part, type) and issubclass(part, Section):
                section = part
        if section is not None:
            yield f"{path}{key}", section
            yield from _sections(f"{path}{key}.", section)


class RecipeReference(SphinxDirective):
    """Write the tables."""

    def run(self) -> list[nodes.Node]:
        """Return a section for the keys at the top and one for each section of the recipe."""
        self.env.note_reread()  # the types may change while this page does not
        top = {key: field for key, field in Recipe.model_fields.items() if not section_of(field)}
        sections = [
            self._section(name, section.__doc__ or "", section.model_fields)
            for name, section in _sections("", Recipe)
        ]
        return [self._section("recipe", "Keys at the top of the file.", top), *sections]

    def _section(self, name: str, about: str, fields: dict[str, FieldInfo]) -> nodes.section:
        title = "At the top" if name == "recipe" else name
        section = nodes.section(ids=[nodes.make_id(f"recipe-{name}")])
        heading = nodes.title()
        heading += nodes.Text(title) if name == "recipe" else nodes.literal(text=title)
        section += heading
        section += self.parse_text_to_nodes(about)
        section += self._table(fields)
        self.state.document.note_explicit_target(section)
        return section

    def _table(self, fields: dict[str, FieldInfo]) -> nodes.table:
        table = nodes.table()
        group = nodes.tgroup(cols=len(_COLUMNS))
        group += [nodes.colspec(colwidth=width) for _, width in _COLUMNS]
        head = nodes.thead()
        head += self._row([[nodes.paragraph(text=title)] for title, _ in _COLUMNS])
        body = nodes.tbody()
        for key, field in fields.items():
            default = default_text(field)
            if not field.description:
                raise ValueError(f"`{key}` of the recipe has no description")
            name = nodes.paragraph()
            name += nodes.literal(text=key)
            shown = nodes.paragraph()
            shown += nodes.Text("must be given") if default is None else nodes.literal(text=default)
            kind = nodes.paragraph(text=type_text(field.annotation, field.metadata))
            meaning = self.parse_text_to_nodes(field.description)
            body += self._row([[name], [kind], [shown], meaning])
        group += [head, body]
        table += group
        return table

    def _row(self, cells: list[list[nodes.Node]]) -> nodes.row:
        row = nodes.row()
        for cell in cells:
            entry = nodes.entry()
            entry += cell
            row += entry
        return row


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("recipe-reference", RecipeReference)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
