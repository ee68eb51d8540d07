"""Groups of parameters have learning rates of their own, whichever way a method trains them."""

import pandas as pd
import pytest
import torch
from relora_study.config.variants import vary
from relora_study.errors import UserError
from relora_study.train.loop import take_step, train
from relora_study.train.run import begin_adapters, start
from relora_study.train.state import fingerprint

CPU = torch.device("cpu")
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RATIOS = {"embedding": 4.0, "head": 2.0, "norms": 0.5, "targets": 0.25, "adapters": 0.125}
PROJECTED = {"targets": TARGETS, "projection_rank": 4, "projection_period": 5}
# Of `relora`, and of the name of a new method, with the groups that train in some step. A warm start ends after step 6,
# a reset follows step 17, and the last two steps of the second method train whole weights again.
ADAPTED = {"full_rank_steps": 6, "targets": TARGETS, "trainable_scale": True}
METHODS = {
    "relora": ADAPTED,
    "relora_released": {**ADAPTED, "full_rank_from": 22, "moment_scope": "all"},
    "galore": {"update": "galore", **PROJECTED},
    "fira": {"update": "fira", **PROJECTED},
    "apollo": {"update": "apollo", **PROJECTED},
    "factorized": {"factor_rank": 4, "targets": TARGETS},
    "muon": {"update": "muon", "targets": TARGETS},
    "slow": {"targets": TARGETS},
}


def ratios_of(name: str, ratios: dict[str, float]) -> dict[str, float]:
    """The ones of ``ratios`` whose group the method ``name`` has."""
    lacks = {"factorized": "targets"}.get(name, "" if name.startswith("relora") else "adapters")
    return {group: ratio for group, ratio in ratios.items() if group != lacks}


def batch_of(step):
    return torch.randint(300, (4, 17), generator=torch.Generator().manual_seed(step))


def ratio_of(name: str, targets: list[str]) -> float:
    """The ratio in `RATIOS` of the parameter ``name``."""
    *_, layer, last = name.split(".")
    if last in ("A", "B", "scale"):
        return RATIOS["adapters"]
    plain = {"embed_tokens": "embedding", "lm_head": "head", "norm": "norms"}
    group = plain.get(layer, "norms" if layer.endswith("layernorm") else "targets" if layer in targets else "")
    return RATIOS.get(group, 1.0)


@pytest.mark.parametrize("targets", [TARGETS, ["q_proj", "down_proj"]])
@pytest.mark.parametrize("name", ["slow", "relora", "factorized"])
def test_steps_are_those_of_torchs_adamw_with_groups(make_cell, name, targets):
    """On equal gradients; the oracle's groups are of one parameter each, and are made by its name."""
    switches = METHODS[name] | {"targets": targets, "rate_ratios": ratios_of(name, RATIOS)}
    run = start(make_cell(name, **switches), CPU)
    recipe = run.cell.train
    for phase in range(1 + (name == "relora")):
        if phase:
            begin_adapters(run, 6)
        mine = {key: parameter for key, parameter in run.model.named_parameters() if parameter.requires_grad}
        theirs = {key: parameter.detach().clone() for key, parameter in mine.items()}
        numbers = {"betas": tuple(recipe.betas), "eps": recipe.eps, "weight_decay": recipe.weight_decay}
        oracle = torch.optim.AdamW([{"params": [one]} for one in theirs.values()], fused=True, **numbers)
        for key, parameter in mine.items():
            oracle.state[theirs[key]] |= {kind: kept.clone() for kind, kept in run.optimizer.state[parameter].items()}
        for step in (10 * phase + 1, 10 * phase + 2, 10 * phase + 3):
            rate = take_step(run, batch_of(step), step)["learning_rate"]
            for group, (key, parameter) in zip(oracle.param_groups, mine.items(), strict=True):
                theirs[key].grad, group["lr"] = parameter.grad.clone(), rate * ratio_of(key, targets)
            oracle.step()
        assert rate > 0 and all(torch.equal(parameter, theirs[key]) for key, parameter in mine.items())
        kept = run.optimizer.state[run.model.lm_head.weight]["step"]
        assert kept == 3 * (phase + 1), "what trains on keeps its moments"


@pytest.mark.parametrize("name", METHODS)
def test_half_the_rate_of_every_group_is_half_the_rate(make_cell, tmp_path, name):
    """Bit by bit: in a warm start, over resets, beside projections and after adapters are folded in."""
    halves = {"rate_ratios": ratios_of(name, dict.fromkeys(RATIOS, 0.5))}
    # At ratios of 1, a group of the targets is named, because a full-rank method may not name targets without a use.
    whole = {"rate_ratios": {"targets": 1.0}} if name == "slow" else {}
    plain = make_cell(name, **METHODS[name], **whole)
    slower = vary(plain, {"learning_rate": plain.train.learning_rate / 2})
    by_group = train(make_cell(name, **METHODS[name], **halves), CPU, batch_of, tmp_path / "groups")
    at_once = train(slower, CPU, batch_of, tmp_path / "at once")
    for key, tensor in at_once.model.state_dict().items():
        assert torch.equal(tensor, by_group.model.state_dict()[key]), key
    losses = [pd.read_csv(tmp_path / place / "log.csv").loss for place in ("groups", "at once")]
    assert losses[0].tolist() == losses[1].tolist()


@pytest.mark.parametrize("name", ["galore", "fira", "apollo"])
def test_a_projected_weight_moves_by_its_share(make_cell, name):
    """From equal weights and gradients, in the first step with a rate; weight decay takes the same share."""
    moved = []
    for ratios in ({}, {"targets": 0.25}):
        run = start(make_cell(name, **METHODS[name], rate_ratios=ratios), CPU)
        take_step(run, batch_of(0), 1)
        before = {key: tensor.clone() for key, tensor in run.model.state_dict().items()}
        take_step(run, batch_of(1), 2)
        moved.append({key: tensor - before[key] for key, tensor in run.model.state_dict().items()})
    for key, whole in moved[0].items():
        share = 0.25 if key.split(".")[-2] in TARGETS else 1.0
        torch.testing.assert_close(moved[1][key], share * whole, rtol=1e-3, atol=2e-7)  # roundings of weights near 1


@pytest.mark.parametrize(
    ("name", "stop"),
    [
        ("relora", 5),
        ("relora", 14),
        ("relora_released", 19),
        ("relora_released", 24),
        ("galore", 14),
        ("factorized", 9),
    ],
)
def test_a_stopped_training_ends_as_one_never_stopped(make_cell, tmp_path, name, stop):
    def stopping(step):
        if step == stop - 1:
            raise KeyboardInterrupt
        return batch_of(step)

    cell = make_cell(name, **METHODS[name], rate_ratios=ratios_of(name, RATIOS))
    whole = train(cell, CPU, batch_of, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(cell, CPU, stopping, tmp_path / "stopped")
    again = train(cell, CPU, batch_of, tmp_path / "stopped")
    for key, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[key]), key
    pd.testing.assert_frame_equal(*(pd.read_csv(tmp_path / place / "log.csv") for place in ("whole", "stopped")))


def test_without_ratios_there_is_one_group_and_no_word_of_them(make_cell):
    for name in ("full", "relora"):
        cell, ones = make_cell(name), make_cell(name, rate_ratios={"embedding": 1.0, "norms": 1})
        assert "rate_ratios" not in cell.model_dump_json(), "older cells keep their fingerprints"
        assert [len(start(one, CPU).optimizer.param_groups) for one in (cell, ones)] == [1, 1]
        assert fingerprint(make_cell(name, rate_ratios={"head": 2.0}), "") != fingerprint(cell, "")


@pytest.mark.parametrize(
    ("name", "switches", "message"),
    [
        ("full", {"adapters": 0.5}, r"rate_ratios\.adapters 0\.5: the method has no adapters and no factors"),
        ("full", {"targets": 0.5}, "targets must name a projection"),
        ("relora", {"targets": 0.5}, r"rate_ratios\.targets 0\.5: no whole weight of a target ever trains"),
        ("factorized", {"targets": 0.5}, r"rate_ratios\.targets 0\.5: no whole weight"),
        ("frozen", {"norms": 2}, r"rate_ratios\.norms 2: adapters_only freezes this group"),
        ("relora", {"body": 2}, r"methods\.relora\.rate_ratios\.body = 2: unknown key"),
        ("relora", {"head": 0}, r"rate_ratios\.head = 0: Input should be greater than 0"),
    ],
)
def test_a_ratio_of_a_group_that_never_trains_is_refused(make_cell, name, switches, message):
    base = {"factorized": METHODS["factorized"], "frozen": {"rank": 4, "targets": TARGETS, "adapters_only": True}}
    with pytest.raises(UserError, match=message) as refused:
        make_cell(name, **base.get(name, {}), rate_ratios=switches)
    assert "\n" not in str(refused.value)


def test_the_old_key_is_unknown(make_cell):
    with pytest.raises(UserError, match=r"target_rate_ratio = 0\.25: unknown key"):
        make_cell("full", target_rate_ratio=0.25, targets=TARGETS)


def test_a_method_at_one_size_has_ratios_of_its_own(make_cell):
    at_tiny = {"tiny": {"rate_ratios": {"head": 3.0, "adapters": 0.5}}}
    cell = make_cell("relora", rate_ratios={"embedding": 2.0, "head": 2.0}, sizes=at_tiny)
    assert cell.method.rate_ratios.model_dump() == {"embedding": 2.0, "head": 3.0, "adapters": 0.5}
    with pytest.raises(UserError, match=r"methods\.full\.sizes\.tiny: rate_ratios\.adapters 0\.5"):
        make_cell("full", sizes=at_tiny)
