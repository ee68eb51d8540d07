"""Types of configuration values: numbers with bounds and units, names, and commits of the Hugging Face Hub."""

from dataclasses import dataclass
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler


class Section(BaseModel):
    """A mapping in the configuration, in which unknown keys and wrong types are errors.

    The string below a field is the field's description. Its first line is the key's comment in config.yaml.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    def without(self, *keys: str) -> Self:
        """Return a copy in which the optional ``keys`` are null."""
        return self.model_copy(update=dict.fromkeys(keys))


SectionT = TypeVar("SectionT", bound=Section)


@dataclass(frozen=True)
class Unit:
    """The unit of a field, for the JSON schema (``x-unit``) and the page of the configuration."""

    name: str

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Return the schema of the field, with the unit."""
        return {**handler(core_schema), "x-unit": self.name}


def as_number(value: Any) -> Any:
    """Read a text such as `3e-4`, which YAML 1.1 does not take for a number, as a number, and digits as a whole one."""
    try:
        return (int if value.isdecimal() else float)(value) if isinstance(value, str) else value
    except ValueError:
        return value


FIRST_SEED = 42  # of `seeds: N`: the paper's


def _seeds(value: Any) -> Any:
    """`5` means five seeds, from the paper's on."""
    counts = isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 1000
    return list(range(FIRST_SEED, FIRST_SEED + value)) if counts else value


def is_none(value: Any) -> bool:
    """Tell whether an optional key is not set; settings files leave it out, so that new keys change no old file."""
    return value is None


def at_default(default: Any) -> Any:
    """Make a field that settings files leave out at its ``default``, so that a new key changes no old file."""
    return Field(exclude_if=lambda value: value == default)


PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Steps = Annotated[int, Field(ge=0), Unit("optimizer steps")]
PositiveSteps = Annotated[int, Field(gt=0), Unit("optimizer steps")]
Tokens = Annotated[int, Field(gt=0), Unit("tokens")]
Sequences = Annotated[int, Field(gt=0), Unit("sequences")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
# The bounds come before the validator: after it, pydantic's JSON schema would lack them.
PositiveNumber = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(as_number)]
NonNegativeNumber = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(as_number)]
BelowOne = Annotated[float, Field(ge=0, lt=1), BeforeValidator(as_number)]
Share = Annotated[float, Field(ge=0, le=1), BeforeValidator(as_number)]
ProperShare = Annotated[float, Field(gt=0, lt=1), BeforeValidator(as_number)]
Betas = Annotated[list[BelowOne], Field(min_length=2, max_length=2)]
# A seed goes to torch (below 2^64, with a step or a rank added) and into tables of 64-bit signed integers.
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Seeds = Annotated[
    list[Seed],
    Field(min_length=1),
    BeforeValidator(
        _seeds, json_schema_input_type=Annotated[list[Seed], Field(min_length=1)] | Annotated[int, Field(gt=0, le=1000)]
    ),
]
Revision = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None
