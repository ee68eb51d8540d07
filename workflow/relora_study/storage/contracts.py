"""The JSON files that stages exchange: each is a pydantic model, written and read by these two functions."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import UserError
from .files import write_json


class Contract(BaseModel):
    """The typed content of a JSON file. Unknown keys are ignored, so older code reads files of newer code."""

    model_config = ConfigDict(frozen=True)


ContractT = TypeVar("ContractT", bound=BaseModel)


def write_contract(path: Path, content: BaseModel) -> None:
    """Write ``content`` to ``path`` in one piece."""
    write_json(path, content.model_dump())


def read_contract(kind: type[ContractT], path: Path, refusal: str) -> ContractT:
    """Read ``path`` as ``kind``. Raises :class:`UserError` with ``refusal`` if the file is missing or malformed."""
    try:
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, ValidationError) as error:
        raise UserError(refusal) from error
