"""Variants of a cell: named by what they change, and by nothing else."""

import pytest
from relora_study.config import check
from relora_study.config.settings import experiments_of
from relora_study.config.variants import section_of, variant_name, vary
from relora_study.errors import UserError


def test_a_name_says_what_was_changed_in_an_order_of_its_own():
    point = {"rank": 4, "learning_rate": 1e-5, "betas": [0.9, 0.95], "trainable_scale": True, "alpha": 8.0}
    assert variant_name("relora", point) == (
        "relora+alpha=8+betas=0.9_0.95+learning_rate=0.00001+rank=4+trainable_scale=true"
    )
    assert variant_name("relora", dict(reversed(point.items()))) == variant_name("relora", point)


@pytest.mark.parametrize(("value", "name"), [(1e30, "1e30"), (1.5e20, "1.5e20"), (1e-9, "0.000000001"), (3.0, "3")])
def test_no_number_is_named_with_a_dash_or_an_endless_row_of_zeros(value, name):
    assert variant_name("relora", {"alpha": value}) == f"relora+alpha={name}"


@pytest.mark.parametrize(
    ("key", "section"),
    [
        ("rank", "method"),
        ("learning_rate", "train"),
        ("betas", "train"),
        ("d_model", "size"),
        ("rope_theta", "model"),
        ("rate_ratios.embedding", "method"),
    ],
)
def test_every_key_has_its_section(key, section):
    assert section_of(key) == section


def test_an_unknown_key_is_one_line_with_those_there_are():
    with pytest.raises(UserError, match=r"'learningrate' is no key .* learning_rate"):
        section_of("learningrate")


def test_a_variant_differs_in_the_keys_named_and_nowhere_else(make_cell):
    cell = make_cell("relora")
    varied = vary(cell, {"rank": 2, "learning_rate": 0.5})
    assert varied.name == "tiny-relora+learning_rate=0.5+rank=2-s1" and varied.train.learning_rate == 0.5
    before, after = cell.model_dump(), varied.model_dump()
    for section, key in (("method", "rank"), ("train", "learning_rate")):
        assert after[section].pop(key) != before[section].pop(key)
    for key in ("name", "method_name"):
        assert after.pop(key) != before.pop(key)
    assert after == before


def test_a_dot_leads_to_a_key_of_an_inner_section(make_cell):
    varied = vary(make_cell("relora", rate_ratios={"head": 2.0}), {"rate_ratios.embedding": 4, "rate_ratios.norms": 1})
    assert varied.name == "tiny-relora+rate_ratios.embedding=4+rate_ratios.norms=1-s1"
    assert varied.method.rate_ratios.model_dump() == {"head": 2.0, "embedding": 4.0, "norms": 1.0}
    assert vary(make_cell("relora"), {"rate_ratios.head": 0.5}).method.rate_ratios.model_dump() == {"head": 0.5}
    with pytest.raises(UserError, match=r"'rate_ratios.body' is no key .* rate_ratios\.head"):
        section_of("rate_ratios.body")
    with pytest.raises(UserError, match=r"the variant tiny-full\+rate_ratios\.adapters=2-s1: .* no adapters"):
        vary(make_cell("full"), {"rate_ratios.adapters": 2.0})


@pytest.mark.parametrize(
    "space",
    [
        {"grid": {"rate_ratios.embedding": [1, 4]}},
        {"points": [{"rate_ratios.embedding": 1}, {"rate_ratios.embedding": 4}]},
        {"sobol": {"rate_ratios.embedding": {"low": 1.0, "high": 4.0, "scale": "log"}}, "size": 2},
    ],
)
def test_a_sweep_and_a_search_vary_a_ratio(raw, space):
    tuning = {"space": space, "rungs": [300, 600]}
    data = {**raw["data"], "validation_fraction": 0.05}
    study = check({**raw, "data": data, "sweeps": {"mine": {"space": space}}, "tuning": tuning}, [])
    found = experiments_of(study)
    for cells in (found.cells, found.searches["small-full"][1]):
        ratios = {cell.method.rate_ratios.embedding for cell in cells.values()}
        assert len(ratios) == 2 and all(1 <= ratio <= 4 for ratio in ratios)


def test_what_cannot_be_is_refused_by_name(make_cell):
    with pytest.raises(UserError, match=r"tiny-relora\+reset_period=0-s1"):
        vary(make_cell("relora"), {"reset_period": 0})


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        (
            {"methods": ["full", "relora"], "against": "rolera"},
            "sweeps.mine.against: 'rolera' is not previous or one of",
        ),
        ({"methods": ["relora"], "against": "full"}, "sweeps.mine.against: 'full' is not previous or one of relora"),
        ({"space": {"grid": {"rank": [2, 4]}}, "against": "full"}, "against compares methods as they are"),
    ],
)
def test_a_comparison_with_what_does_not_train_is_refused(raw, sweep, message):
    with pytest.raises(UserError, match=message):
        check({**raw, "sweeps": {"mine": sweep}}, [])


def test_a_sweeps_settings_say_what_its_methods_are_against(raw):
    study = check({**raw, "sweeps": {"mine": {"methods": ["relora", "full"], "against": "previous"}}}, [])
    settings = experiments_of(study).sweeps.sweeps["mine"]
    assert (settings.against, settings.keys) == ("previous", [])
    assert next(iter(settings.cells)).startswith("tiny-relora-"), "in the order of the configuration"
