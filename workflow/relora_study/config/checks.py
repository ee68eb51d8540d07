"""Check that every cell of a study can train, and that its corpus and its search are large enough."""

from collections.abc import Iterator

from ..errors import UserError
from .cells import Cell
from .study import Study
from .variants import candidates, every_cell


def problems_of_cells(study: Study) -> Iterator[str]:
    """Yield why a cell of the study, of a sweep or of the search cannot train, or too little data for the longest."""
    try:
        longest = max(every_cell(study), key=lambda cell: cell.train.sequences)
    except UserError as error:
        yield str(error)
        return
    yield from _too_little_data(study, longest)
    yield from _alike(study)


def _too_little_data(study: Study, longest: Cell) -> Iterator[str]:
    """Yield a problem if the configuration alone shows that the corpus has too few rows for its ``longest`` cell."""
    shards, needed, fixed = study.data.hub_pretokenized, longest.train.sequences, study.dynamics
    if study.data.source == "hub_pretokenized":
        if (rows := shards.shards * shards.rows_per_shard) < needed:
            yield (
                f"data.hub_pretokenized.shards {shards.shards} hold {rows} rows, and train.steps times"
                f" train.batch_size are {needed} in {longest.name}: raise shards"
            )
        if fixed.batch_sequences > shards.rows_per_shard:
            yield f"dynamics.batch_sequences is above {shards.rows_per_shard}, the rows of the shard that is held out"
        return
    scores_held_out = study.evaluation.perplexity.source == "held_out"
    if scores_held_out and study.data.held_out_tokens_per_domain < study.model.context_length + 1:
        yield "data.held_out_tokens_per_domain must hold one sequence: above model.context_length"
    fixed_tokens = fixed.batch_sequences * (study.model.context_length + 1)
    if study.data.held_out_tokens < fixed_tokens:
        yield f"data.held_out_tokens must hold dynamics.batch_sequences: at least {fixed_tokens}"


def _alike(study: Study) -> Iterator[str]:
    """Yield a problem for each search of which candidates would train alike: it would be smaller than the others."""
    for method in study.study.methods if study.tuning else ():
        assert study.tuning is not None
        space = study.tuning.space_of(method)
        found = candidates(study, study.study.sizes[0], method).values()
        tried, distinct = len(space.candidates()), len({variant.cell.method_name for variant in found})
        if distinct < tried:
            yield (
                f"tuning: of the {tried} candidates of {method}, only {distinct} differ, because it does not use every"
                f" one of {', '.join(space.keys)}; give it a space of its own in tuning.spaces"
            )
