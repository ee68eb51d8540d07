"""Make the cells of a study: a size, a method and a seed each, with all settings of the training, which go together."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from ..errors import UserError
from .fields import PositiveInt, Section, at_default
from .method import Method
from .study import Study, cell_name
from .training import Model, Runtime, Size, Train

MARK = "+"  # parts a method's name from what a variant changes in it; no method of the configuration may hold it


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

    @model_validator(mode="after")
    def _possible(self) -> Self:
        try:
            targets = self.method.targets_in(self.size)
        except ValueError as error:
            raise ValueError(f"methods.{base_method(self)}.{error}, for the size {self.size_name}") from error
        for problem in _conflicts(self):
            raise ValueError(problem)
        return self.model_copy(update={"method": self.method.model_copy(update={"targets": targets})})


def base_method(cell: Cell) -> str:
    """The method of the configuration that a variant was made from."""
    return cell.method_name.partition(MARK)[0]


def _conflicts(cell: Cell) -> Iterator[str]:
    """Yield why the method of ``cell`` cannot train at its size, with its recipe and on its machines."""
    label, method, train = f"methods.{base_method(cell)}", cell.method, cell.train
    if method.full_rank_steps >= train.steps:
        yield (
            f"{label}.full_rank_steps {method.full_rank_steps} must be below train.steps {train.steps}:"
            " the adapters would never train"
        )
    period, offset = method.reset_period, train.checkpoint_offset
    if period is not None and not method.reset_offset < offset < period:
        yield (
            f"train.checkpoint_offset {offset} must be above {label}.reset_offset and below its"
            f" reset_period {period}: it is read after a reset"
        )
    key = "rank" if method.rank else "factor_rank" if method.factor_rank else "projection_rank"
    # Adapters of rank d_model can move every matrix in full, the narrow ones, too.
    most, what = (cell.size.d_model, "width") if method.rank else (cell.size.smallest_dimension, "smallest dimension")
    if method.target_rank > most:
        yield f"{label}.{key} {method.target_rank} is above {most}, the {what} of {cell.size_name}"
    if train.batch_size % cell.runtime.processes:
        yield f"train.batch_size {train.batch_size} must be a multiple of runtime.processes {cell.runtime.processes}"


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
    """The cell of a size, a method and a seed, with all that they set apart.

    Raises :class:`UserError` where they do not go together.
    """
    settings = {
        "model": study.model,
        "size": study.sizes[size].shape,
        "method": study.methods[method].switches_at(size),
        "train": resolved_recipe(study, size, method),
        "runtime": study.runtime,
        "data_order": study.data.order,
    }
    return valid_cell(name=cell_name(size, method, seed), size_name=size, method_name=method, seed=seed, **settings)


def valid_cell(**settings: Any) -> Cell:
    """The cell of ``settings``. Raises :class:`UserError` where a value is wrong or does not go with the others."""
    try:
        return Cell.model_validate(settings)
    except ValidationError as error:
        problem = error.errors()[0]
        if problem["type"] == "value_error":  # of several keys, which it names
            raise UserError(problem["msg"].removeprefix("Value error, ")) from error
        key = ".".join(map(str, problem["loc"][1:]))
        raise UserError(f"{key} = {problem['input']!r}: {problem['msg']}") from error


def resolved_recipe(study: Study, size: str, method: str) -> Train:
    """Return the recipe of a cell.

    A key is taken from the method's block for the size, else from the method, else from the size, else from `train`.
    """
    chosen = study.methods[method]
    overrides = study.sizes[size].overrides | chosen.overrides | chosen.at_size(size).overrides
    return study.train.model_copy(update=overrides)
