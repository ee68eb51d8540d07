"""The figures, a function for each; ``FIGURES`` lists them by name."""

from collections.abc import Callable

from matplotlib.figure import Figure

from ...analysis.source import Source
from . import evaluation, gaps, spectra, training

FIGURES: dict[str, Callable[[Source], Figure]] = {
    function.__name__: function
    for function in (
        gaps.gap_over_training,
        training.training_curves,
        training.training_cost,
        evaluation.blimp_by_phenomenon,
        evaluation.blimp_over_training,
        evaluation.perplexity_by_domain,
        gaps.gap_by_width,
        spectra.per_weights,
        spectra.cn_weights,
        spectra.per_updates,
        spectra.cn_updates,
        spectra.first_last_layers,
        training.lr_schedules,
        training.resets,
        training.adapter_gradients,
        spectra.update_rank,
        spectra.cycle_overlap,
        spectra.cka,
        spectra.merges,
        spectra.adapter_pattern,
        spectra.gradients,
        spectra.gradient_conditions,
        spectra.ov_circuits,
        spectra.sparsity,
    )
}
