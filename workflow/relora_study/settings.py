"""The settings files that commands read: `results/settings/NAME.yaml` for a stage, `config.yaml` for a cell.

A file holds only the settings that its readers use, so that another setting's change reruns nothing.
"""

from typing import Any

import yaml

from .config import Data, Dynamics, Evaluation, Section, Study
from .config.fields import PositiveInt

DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # libyaml's dumper plans a study of 1,000 cells in seconds


class TokenSettings(Data):
    """Settings for making token ids: the data section, the model's vocabulary and its context length."""

    vocab_size: PositiveInt
    context_length: PositiveInt


class CorpusNeeds(Section):
    """The rows of ``context_length`` that a study takes from its corpus, for training and for the fixed batch."""

    context_length: PositiveInt
    train_sequences: PositiveInt
    held_out_sequences: PositiveInt


class MeasurementSettings(Evaluation):
    """Settings for evaluating a cell: the evaluation section, and how much held-out text is read."""

    held_out_tokens_per_domain: PositiveInt
    batch_sequences: PositiveInt


class DynamicsSettings(Dynamics):
    """Settings for taking spectra: the dynamics section, and the cycle over which all methods are compared."""

    cycle_steps: PositiveInt


def stage_settings(study: Study) -> dict[str, Section]:
    """Return the content of each `results/settings/NAME.yaml` by NAME."""
    data, model = study.data, study.model
    sections = {name: getattr(study, name) for name in ("study", "data", "evaluation", "report", "runtime")}
    return sections | {
        "tokens": TokenSettings(**data.model_dump(), vocab_size=model.vocab_size, context_length=model.context_length),
        "enough": CorpusNeeds(
            context_length=model.context_length,
            train_sequences=study.train.steps * study.train.batch_size,
            held_out_sequences=study.dynamics.batch_sequences,
        ),
        "measurement": MeasurementSettings(
            **study.evaluation.model_dump(),
            held_out_tokens_per_domain=data.held_out_tokens_per_domain,
            batch_sequences=study.dynamics.batch_sequences,
        ),
        "dynamics": DynamicsSettings(**study.dynamics.model_dump(), cycle_steps=study.cycle_steps),
        "whole": study,
    }


def as_yaml(settings: Section) -> str:
    """Return ``settings`` as the text of a settings file."""
    return yaml.dump(settings.model_dump(), Dumper=DUMPER, sort_keys=False)
