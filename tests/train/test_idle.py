"""Keys that change nothing of a training, against trainings: the same weights to the byte, or others."""

import pytest
import torch
from relora_study.config.method import OF_ADAPTERS, Method, idle_keys
from relora_study.config.training import Recipe
from relora_study.config.updates import keys_of_updates
from relora_study.config.variants import vary, with_search_result
from relora_study.errors import UserError
from relora_study.model.relora import effective_state
from relora_study.train.loop import train

OTHER = {  # of every key of a method, two values
    **{"rank": [2, 3], "alpha": [4.0, 2.0], "dropout": [0.3, 0.0], "targets": [["v_proj"], ["q_proj"]]},
    **{"factor_rank": [2, 3], "update": ["galore", "fira"], "projection_rank": [2, 3], "projection_period": [3, 5]},
    **{"projection_scale": [0.5, 0.7], "projection_scaling": ["tensor", "channel"], "rate_ratios": [{"targets": 0.5}]},
    **{"momentum": [0.5, 0.8]},
    **{"adapter_initialization": ["zero", "kaiming"], "trainable_scale": [True, False], "adapters_only": [True, False]},
    **{"frozen_dtype": ["bfloat16", "float32"], "full_rank_steps": [3, 4], "full_rank_from": [6, 7]},
    **{"merge": ["unscaled", "scaled", "none"], "restart": ["orthogonal", "undone", "none"]},
    **{
        "scale_reset": ["zero", "none"],
        "reset_period": [5, 4],
        "cycle_ranks": [[4, 2], [4, 1]],
        "reset_offset": [1, 0],
    },
    **{"moment_reset": ["magnitude", "full", "none"], "moment_reset_fraction": [0.25, 0.75]},
    **{"moment_mask": ["shared", "independent"], "moment_scope": ["all", "adapters"]},
    **{"schedule": ["linear", "jagged_cosine"], "warmup_steps": [2, 4], "rewarmup_steps": [1, 3]},
    **{"minimum_learning_rate_ratio": [0.3, 0.2], "horizon_steps": [50, 60]},
}
TARGETS = {"targets": ["q_proj", "up_proj"]}
RESET = {"rank": 4, "alpha": 8.0, "reset_period": 4, **TARGETS}
BASES = {
    "full": {},
    "full_jagged": {"rank": 0, "reset_period": 4, "schedule": "jagged_cosine", "rewarmup_steps": 2},
    "full_cosine": {"rank": 0, "schedule": "cosine"},
    "full_pruned": {"reset_period": 4, "moment_reset": "random", "moment_reset_fraction": 0.5, **TARGETS},
    "galore": {"update": "galore", "projection_rank": 4, **TARGETS},
    "apollo": {"update": "apollo", "projection_rank": 4, **TARGETS},
    "muon": {"update": "muon", **TARGETS},
    "lora": {"rank": 4, "alpha": 8.0, **TARGETS},
    "lora_then_full": {"rank": 4, "alpha": 8.0, "full_rank_from": 6, **TARGETS},
    "relora": {"moment_reset": "random", "moment_reset_fraction": 0.5, "reset_period": 4, "reset_offset": 0},
    "relora_kept": {**RESET, "moment_reset_fraction": 0.5},
    "relora_cleared": {**RESET, "moment_reset": "full"},
}


def test_every_key_of_a_method_is_tried():
    assert OTHER.keys() == Method.model_fields.keys() - Recipe.model_fields.keys() - {"sizes", "label"}


@pytest.mark.parametrize("name", BASES)
def test_a_key_is_idle_where_and_only_where_trainings_are_the_same(make_cell, tmp_path, name):
    short = {"steps": 8, "checkpoint_every": 8, "checkpoint_offset": 3, "state_every": 8, "batch_size": 1}
    small = {"d_model": 12, "intermediate_size": 12, "num_hidden_layers": 1}
    made = make_cell(name, train={**short, "micro_batch_size": 1}, **BASES[name])
    cell = with_search_result(made.model_copy(update={"method_name": "any"}), small)

    def weights(one) -> list[torch.Tensor]:
        run = train(one, torch.device("cpu"), batch_of, tmp_path / one.name)
        return list(effective_state(run.model).values())

    def possible(key: str) -> bool:
        try:
            return bool(vary(cell, {key: other[key]}))
        except UserError:
            return False  # the schema refuses it, whatever it would do

    before, idle = weights(cell), idle_keys(cell.method)
    tried = OF_ADAPTERS | keys_of_updates() | idle | {"minimum_learning_rate_ratio"}
    other = {key: next(value for value in OTHER[key] if value != getattr(cell.method, key)) for key in tried}
    other = {key: other[key] for key in sorted(other) if possible(key)}
    together = vary(cell, {key: value for key, value in other.items() if key in idle})
    assert all(map(torch.equal, before, weights(together))), f"{together.name} is {name}"
    for key in other.keys() - idle:
        assert not all(map(torch.equal, before, weights(vary(cell, {key: other[key]})))), f"{key} {other[key]}"


def batch_of(step):
    return torch.randint(300, (1, 17), generator=torch.Generator().manual_seed(step))
