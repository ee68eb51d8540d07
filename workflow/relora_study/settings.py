"""The settings files: what each stage's commands read, `results/settings/NAME.yaml` and a cell's `config.yaml`."""

from typing import Any

import yaml

from .config import Data, Dynamics, Evaluation, Section, Study
from .config.fields import PositiveInt

DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # libyaml's: a study of 1,000 cells is planned in seconds


class TokenSettings(Data):
    """What turns documents or shards into token ids: the data section, and what the model says of ids."""

    vocab_size: PositiveInt
    context_length: PositiveInt


class CorpusNeeds(Section):
    """What a study takes of its corpus: rows of ``context_length`` that train in all, and rows that are held out."""

    context_length: PositiveInt
    train_sequences: PositiveInt
    held_out_sequences: PositiveInt


class MeasurementSettings(Evaluation):
    """What a cell is evaluated on: the evaluation section, and how much of the held-out documents and ids is read."""

    held_out_tokens_per_domain: PositiveInt
    batch_sequences: PositiveInt


class DynamicsSettings(Dynamics):
    """How spectra are taken: the dynamics section, and the steps over which all methods are compared."""

    cycle_steps: PositiveInt


def stage_settings(study: Study) -> dict[str, Section]:
    """What `results/settings/NAME.yaml` holds, by NAME."""
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
    """The text of a settings file."""
    return yaml.dump(settings.model_dump(), Dumper=DUMPER, sort_keys=False)
