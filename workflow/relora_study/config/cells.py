"""Make the cells of a study: a size, a method and a seed each, with all settings of the training."""

from typing import Annotated, Literal

from pydantic import Field

from .fields import PositiveInt, Section, at_default
from .study import Study, cell_name
from .training import Method, Model, Runtime, Size, Train


class Cell(Section):
    """All settings of one training, the content of `results/cells/<cell>/config.yaml`."""

    name: str
    size_name: str
    method_name: str
    seed: int
    model: Model
    size: Size
    method: Method
    train: Train
    runtime: Runtime
    data_order: Annotated[Literal["seed", "corpus"], at_default("corpus")] = "corpus"
    """The order of the corpus's sequences: each seed's own, or the corpus's."""
    rungs: Annotated[list[PositiveInt], at_default([])] = Field(default=[])
    """Optimizer steps at which a search scores it, from a checkpoint of its own each."""


def cells(study: Study) -> dict[str, Cell]:
    """Return the study's cells by name; sizes vary slowest, then methods, then seeds."""
    chosen = study.study
    made = (
        make_cell(study, size, method, seed)
        for size in chosen.sizes
        for method in chosen.methods
        for seed in chosen.seeds
    )
    return {cell.name: cell for cell in made}


def make_cell(study: Study, size: str, method: str, seed: int) -> Cell:
    """The cell of a size, a method and a seed, with all that they set apart."""
    return Cell(
        name=cell_name(size, method, seed),
        size_name=size,
        method_name=method,
        seed=seed,
        model=study.model,
        size=study.sizes[size].shape,
        method=study.methods[method].switches_at(size),
        train=resolved_recipe(study, size, method),
        runtime=study.runtime,
        data_order=study.data.order,
    )


def resolved_recipe(study: Study, size: str, method: str) -> Train:
    """Return the recipe of a cell.

    A key is taken from the method's block for the size, else from the method, else from the size, else from `train`.
    """
    chosen = study.methods[method]
    overrides = study.sizes[size].overrides | chosen.overrides | chosen.at_size(size).overrides
    return study.train.model_copy(update=overrides)
