"""The base of every section of a recipe."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Typed, frozen values; an unknown key, another type, NaN or infinity is refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True,
        allow_inf_nan=False, validate_default=False,
    )  # fmt: skip
