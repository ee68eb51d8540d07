"""The figures, one function each; ``FIGURES`` holds them by name."""

from collections.abc import Callable

from matplotlib.figure import Figure

from ..load import Results
from . import evaluation, spectra, training

FIGURES: dict[str, Callable[[Results], Figure]] = {
    function.__name__: function
    for function in (
        training.training_curves,
        spectra.per_weights,
        spectra.cn_weights,
        spectra.per_updates,
        spectra.cn_updates,
        spectra.first_last_layers,
        evaluation.minimal_pairs_by_phenomenon,
        evaluation.perplexity_by_domain,
        training.lr_schedules,
        training.adapter_gradients,
        training.resets,
        spectra.update_rank,
        spectra.cycle_overlap,
        spectra.cka,
        spectra.merges,
        training.training_cost,
        spectra.adapter_pattern,
        spectra.gradients,
        spectra.gradient_conditions,
        spectra.ov_circuits,
        spectra.sparsity,
        evaluation.minimal_pairs_over_training,
    )
}
