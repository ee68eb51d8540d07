"""The section about an archive of the results: who ran the study, and under which terms the results are passed on."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from .fields import Section


class Sharing(Section):
    """What an archive says of the run beside its results (docs/sharing.md)."""

    run_by: str | None = None
    """Name of the person who ran the study; null: the archive names nobody."""
    orcid: Annotated[str, Field(pattern=r"^\d{4}-\d{4}-\d{4}-\d{3}[\dX]$")] | None = None
    """The person's ORCID, such as 0000-0002-1825-0097; null: none."""
    licence: Annotated[str, Field(pattern=r"^[A-Za-z0-9.+-]+$")] | None = None
    """SPDX identifier of the results' licence, such as CC-BY-4.0; null: none chosen."""

    @model_validator(mode="after")
    def _of_somebody(self) -> Self:
        if self.orcid and not self.run_by:
            raise ValueError("run_by must name the person whose orcid this is")
        return self
