"""The study of hand-made readings that the report's tests have."""

from ..report.conftest import opened, results

__all__ = ["opened", "results"]
