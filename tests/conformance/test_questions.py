"""Each fault trips the questions that ask for it and no other; sound code trips none."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import peft
import pytest
import torch
from accelerate import Accelerator
from peft.tuners.lora import LoraLayer
from relora_study.conformance import questions
from relora_study.conformance.observation import observe
from relora_study.conformance.questions import findings, largest_update, nearest_restart, rate_restarts
from relora_study.conformance.training import Training, load
from relora_study.errors import UserError
from transformers.pytorch_utils import Conv1D

sys.path.insert(0, str(Path(__file__).parent))
from faulty import training

EXAMPLES = Path(__file__).parents[2] / "docs/conformance"
SOUND, FAULT, NOT_TESTED = "sound", "fault", "not tested"


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def answers(given):
    return findings(observe(given if isinstance(given, Training) else Training(given)))


def with_verdict(found, verdict):
    return {int(one.question[0]) for one in found if one.verdict == verdict}


def test_sound_code_is_sound_in_all_questions():
    assert with_verdict(answers(training()), SOUND) == {1, 2, 3, 4, 5, 6, 7}


FAULTS = {
    "zero start": {1},
    "zero restart": {1},
    "zeroed scale": {1},
    "unscaled merge": {2},
    "no merge": {2, 6},
    "old B": {2, 3},
    "old A": {3},
    "master copies": {3},
    "nothing but moments": {3, 6},
    "independent masks": {4},
    "second alone pruned": {4},
    "first alone pruned": {4},
    "no pruning": {4},
    "shrunk second": {4},
    "all moments": {5},
    "W trains": {6},
    "late reset": {7},
    "early reset": {7},
    "no re-warm-up": {7},
}


@pytest.mark.parametrize(("fault", "questions"), FAULTS.items())
def test_a_fault_trips_its_question_and_no_other(fault, questions):
    found = answers(training(fault))
    assert with_verdict(found, FAULT) == questions
    assert all(bool(one.mend) == (one.verdict == FAULT) for one in found)


def test_faults_in_one_code_are_told_apart():
    assert with_verdict(answers(training("zero start", "unscaled merge", "independent masks")), FAULT) == {1, 2, 4}


def number(found, question, name):
    return found[question - 1].numbers[name]


def test_an_unscaled_merge_with_scale_two_loses_half():
    found = answers(training("unscaled merge"))
    assert number(found, 2, "kept_share") == pytest.approx(0.5, abs=1e-4)
    assert number(found, 6, "merged_share") == pytest.approx(0.5, abs=1e-4)


def test_weights_are_judged_where_the_output_does_not_show_the_adapters():
    given = training("unscaled merge")
    given.forward = lambda: torch.ones(3)
    assert with_verdict(answers(given), FAULT) == {2}


def test_the_output_is_judged_where_adapters_and_weights_are_merged_soundly():
    given = training()
    merge = given.reset

    def reset():
        merge()
        given.model[1].weight.data.mul_(1.1)  # a norm

    given.reset = reset
    assert with_verdict(answers(given), FAULT) == {2}


def test_the_last_reset_is_judged():
    given = training()
    merge, resets = given.reset, []

    def reset():
        for layer in (given.model[0], given.model[3]) if resets else ():
            layer.faults = {"no merge"}
        resets.append(1)
        merge()

    given.reset = reset
    assert with_verdict(answers(given), FAULT) == {2, 6}


def test_a_reset_that_loses_an_adapter_is_not_judged():
    given = training()

    def reset():
        given.model[0] = torch.nn.Linear(12, 24)

    given.reset = reset
    with pytest.raises(UserError, match=r"reset\(\) left 1 of 2 adapters"):
        answers(given)


def test_master_copies_bring_all_entries_back():
    found = answers(training("master copies"))
    assert min(number(found, 3, f"returned_share_{part}") for part in "AB") > 0.95


def test_a_first_moment_without_its_second_makes_an_update_over_epsilon():
    found = answers(training("second alone pruned"))
    assert number(found, 4, "update_after") > 100 * number(found, 4, "update_before")


def test_a_reset_between_steps_at_rate_zero_is_in_place():
    assert 7 in with_verdict(answers(training("rate of zero")), SOUND)
    assert 7 in with_verdict(answers(training("rate of zero", "early reset")), FAULT)  # before a step at full rate
    assert 7 in with_verdict(answers(training("rate of zero", "late reset")), SOUND)  # after a step that moves nothing


def test_without_a_schedule_the_rate_is_not_tested():
    assert with_verdict(answers(training("constant rate")), NOT_TESTED) == {7}


def test_moments_of_other_optimizers_are_not_tested():
    given = training("constant rate", "no pruning")
    given.optimizer = torch.optim.SGD(given.model.parameters(), lr=0.1)

    def step():
        given.optimizer.zero_grad()
        given.model(torch.ones(4, 12)).square().mean().backward()
        for layer in (given.model[0], given.model[3]):
            layer.weight.grad = None
        given.optimizer.step()

    given.step = step
    found = answers(given)
    assert with_verdict(found, NOT_TESTED) == {4, 5, 7}
    assert not with_verdict(found, FAULT)


def test_adapters_that_never_move_leave_the_merge_untested():
    given = training("zero start", "zero restart")
    assert with_verdict(answers(given), NOT_TESTED) == {2, 3, 4, 6}


def test_rounding_of_weights_in_bfloat16_is_not_called_a_fault():
    given = training()
    given.model.to(torch.bfloat16)
    given.step_in_float32, x = given.step, torch.ones(8, 12, dtype=torch.bfloat16)

    def step():
        given.optimizer.zero_grad()
        given.model(x).square().mean().backward()
        given.optimizer.param_groups[0]["lr"] = 1e-6  # an update below W's rounding
        given.optimizer.step()

    given.step = step
    found = answers(given)
    assert found[1].verdict == NOT_TESTED
    assert "bfloat16" in found[1].evidence


def test_a_model_that_a_reset_builds_anew_is_followed():
    """merge_and_unload, new adapters and a new optimizer: PEFT's usual way."""
    given = load(str(EXAMPLES / "peft_loop.py"))._given
    settings, x = given.model.peft_config["default"], torch.randn(16, 12)
    given.optimizer = torch.optim.AdamW(given.model.parameters(), lr=1e-2)

    def step():
        given.optimizer.zero_grad()
        given.model(x).square().mean().backward()
        given.optimizer.step()

    def reset():
        given.model = peft.get_peft_model(given.model.merge_and_unload(), settings)
        given.optimizer = torch.optim.AdamW(given.model.parameters(), lr=1e-2)

    given.step, given.reset = step, reset
    assert with_verdict(answers(given), SOUND) == {1, 2, 3, 4, 6}


def of_conv1d(width: int, turned: bool = True):
    """PEFT on GPT-2's layers, which hold W as [in, out]; a merge that is not ``turned`` adds B A as it is."""
    given = load(str(EXAMPLES / "peft_loop.py"))._given
    base = torch.nn.Sequential(Conv1D(width, 12), torch.nn.GELU(), Conv1D(12, width))
    settings = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["0", "2"], fan_in_fan_out=True)
    given.model, x = peft.get_peft_model(base, settings), torch.randn(64, 12)
    given.optimizer = torch.optim.AdamW([one for one in given.model.parameters() if one.requires_grad], lr=1e-2)

    def step():
        given.optimizer.zero_grad()
        (given.model(x) - 1).square().mean().backward()
        given.optimizer.step()

    def reset():
        for layer in given.model.modules():
            if isinstance(layer, LoraLayer):
                update = layer.get_delta_weight("default")
                layer.get_base_layer().weight.data += update if turned else update.mT
                layer.reset_lora_parameters("default", init_lora_weights=True)
        given.optimizer.state.clear()

    given.step, given.reset = step, reset
    return given


@pytest.mark.parametrize("width", [12, 20])
def test_weights_that_lie_the_other_way_are_read_so(width):
    found = answers(of_conv1d(width))
    assert with_verdict(found, FAULT) == set() and number(found, 2, "kept_share") == pytest.approx(1, abs=1e-4)
    for given in (of_conv1d(width), training()):
        for row in Training(given).adapters():
            assert row.weight.shape == (row.B.shape[0], row.A.shape[1])


def test_a_merge_the_wrong_way_round_is_a_fault():
    assert 2 in with_verdict(answers(of_conv1d(12, turned=False)), FAULT)


def test_a_weight_that_trains_is_none_of_the_other_parameters_where_it_is_a_view():
    given = of_conv1d(12)
    given.optimizer = torch.optim.AdamW(given.model.parameters(), lr=1e-2)
    for layer in given.model.modules():
        if isinstance(layer, LoraLayer):
            layer.get_base_layer().weight.requires_grad_(True)
    found = answers(given)
    assert with_verdict(found, FAULT) == {6} and 5 in with_verdict(found, NOT_TESTED)


def test_the_optimizer_inside_accelerates_is_read():
    given = of_conv1d(20)
    given.optimizer = Accelerator(cpu=True).prepare(given.optimizer)
    assert with_verdict(answers(given), SOUND) == {1, 2, 3, 4, 6}


def test_numbers_of_numpy_are_numbers():
    given = training()
    given.period, given.offset = np.int64(10), np.int32(0)
    assert Training(given).period == 10
    for layer in (given.model[0], given.model[3]):
        layer.scale = np.float32(2.0)
    assert Training(given).adapters()[0].number() == 2.0
    given.period = np.float64(10)
    with pytest.raises(UserError, match="period must be a whole number"):
        Training(given)


@pytest.mark.parametrize(("example", "not_tested"), [("plain.py", set()), ("peft_loop.py", {5, 7}), ("ours.py", set())])
def test_the_examples_are_sound(example, not_tested):
    found = answers(load(str(EXAMPLES / example)))
    assert with_verdict(found, NOT_TESTED) == not_tested
    assert with_verdict(found, SOUND) == {1, 2, 3, 4, 5, 6, 7} - not_tested


@pytest.mark.parametrize(
    ("method", "questions"), [("relora", {4}), ("relora_released", {1, 2, 4}), ("relora_zero2", {1, 2, 3, 4})]
)
def test_this_projects_methods_have_the_faults_that_they_model(method, questions):
    assert with_verdict(answers(load(f"{EXAMPLES / 'ours.py'}:{method}")), FAULT) == questions


@pytest.mark.parametrize(
    ("switches", "questions"),
    [
        ({"moment_reset": "full"}, set()),
        ({"moment_reset": "none"}, {4}),
        ({"moment_reset": "full", "moment_scope": "all"}, {5}),
        ({"moment_reset": "full", "merge": "none"}, {2, 6}),
        ({"moment_reset": "full", "adapter_initialization": "zero"}, {1}),
        ({"moment_reset": "full", "trainable_scale": True, "scale_reset": "zero"}, {1}),
        ({"moment_reset": "full", "restart": "orthogonal"}, set()),
        ({"moment_reset": "full", "restart": "undone"}, {3}),  # what comes back is no update of Adam's
    ],
)
def test_switches_of_a_method_trip_their_questions(switches, questions):
    spec = importlib.util.spec_from_file_location("ours", EXAMPLES / "ours.py")
    ours = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ours)
    found = answers(ours.method("relora", **switches))
    assert with_verdict(found, FAULT) == questions
    assert ("update_after" in found[3].numbers) == (questions != {3})


@pytest.mark.parametrize(
    ("differs", "output", "rounding", "noise", "verdict"),
    [
        (0.0099, 0.0, 0.0, 0.0, SOUND),
        (0.0101, 0.0, 0.0, 0.0, FAULT),
        (0.0, 0.0099, 0.0, 0.0, SOUND),
        (0.0, 0.0101, 0.0, 0.0, FAULT),
        (0.0, 1.0, 0.0, 0.099, FAULT),
        (0.0, 1.0, 0.0, 0.101, SOUND),  # the output is too coarse to judge
        (1.0, 0.0, 0.099, 0.0, FAULT),
        (1.0, 0.0, 0.101, 0.0, NOT_TESTED),
    ],
)
def test_a_merge_is_judged_by_its_lost_share(monkeypatch, differs, output, rounding, noise, verdict):
    monkeypatch.setattr(questions, "_weight_shares", lambda reset: (differs, 1.0, rounding))
    monkeypatch.setattr(questions, "_output_shares", lambda reset: (output, noise))
    adapter = SimpleNamespace(weight=torch.zeros(1))
    reset = SimpleNamespace(before=SimpleNamespace(adapters=[adapter]))
    assert questions.kept_function(SimpleNamespace(judged=lambda: reset)).verdict == verdict


@pytest.mark.parametrize(("returned", "verdict"), [(0.49, SOUND), (0.51, FAULT)])
def test_a_restart_is_judged_by_its_returned_share(monkeypatch, returned, verdict):
    monkeypatch.setattr(questions, "_returned_share", lambda reset, part: returned)
    assert questions.surviving_restart(SimpleNamespace(judged=object)).verdict == verdict


@pytest.mark.parametrize(
    ("rates", "restarts"),
    [
        ([1, 2, 3, 1, 2], [(3, 3)]),
        ([3, 2, 1, 0, 1], [(3, 4)]),
        ([3, 0, 0, 1], [(1, 3)]),  # a plateau of zero
        ([3, 1, 1, 2], [(1, 1)]),  # a plateau above zero moves the adapters
        ([3, 1e-7, 1e-7, 2], [(1, 3)]),  # next to nothing, as in Guitaricet/relora's cyclical cosine
        ([3, 0.0029, 0.0029, 2], [(1, 3)]),  # a thousandth of the highest rate is next to nothing
        ([3, 0.0031, 0.0031, 2], [(1, 1)]),
        ([1, 2, 3, 2, 1], []),
        ([1, 2, 3, 3], []),
        ([], []),
    ],
)
def test_restarts_of_a_rate(rates, restarts):
    assert rate_restarts(rates) == restarts


def test_the_distance_to_a_restart_is_signed():
    restarts = [(10, 11), (20, 20)]
    assert [nearest_restart(restarts, step) for step in (9, 10, 11, 12, 19, 20, 23)] == [-1, 0, 0, 1, -1, 0, 3]


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.9, 0.967), (0.8, 0.95)])
def test_the_bound_of_adams_update_is_reached_by_the_worst_gradients_and_not_passed(betas):
    steps = 400
    worst = torch.tensor([(betas[0] / betas[1]) ** (steps - step) for step in range(steps)], dtype=torch.float64)
    bound = largest_update(betas) / 3.0
    first = second = torch.zeros(200, dtype=torch.float64)
    for step in range(steps):
        gradient = torch.randn(200, dtype=torch.float64) * (torch.rand(200) < 0.2)
        gradient[0] = worst[step]
        first = betas[0] * first + (1 - betas[0]) * gradient
        second = betas[1] * second + (1 - betas[1]) * gradient**2
    sizes = first.abs() / second.sqrt()
    assert sizes.max() <= bound * (1 + 1e-9)
    assert sizes[0] == pytest.approx(bound, rel=1e-3)
