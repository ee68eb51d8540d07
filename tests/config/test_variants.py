"""Variants of a cell: named by what they change, and by nothing else."""

import pytest
import yaml
from relora_study.config import cells, check, read_study
from relora_study.config.data import Data
from relora_study.config.settings import Partners, TokenSettings, experiments_of, settings_files, stage_settings
from relora_study.config.variants import LONGEST, OF_TOKENS, section_of, variant_name, vary
from relora_study.errors import UserError
from studies import ROOT


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
    for made in (found.cells, found.searches["small-full"][1]):
        ratios = {cell.method.rate_ratios.embedding for cell in made.values()}
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


GALORE = {"rank": 0, "schedule": "linear", "warmup_steps": 60, "horizon_steps": 6000, "update": "galore"}
GALORE |= {"projection_rank": 4, "targets": ["q_proj"]}
TUNING = {"space": {"grid": {"learning_rate": [1e-3, 3e-3]}}, "rungs": [240, 600]}
VALIDATED = {"validation_fraction": 0.05}


def small(raw, **more):
    """A configuration of one size, full rank and ReLoRA, with other sections."""
    return {**raw, "study": {"sizes": ["tiny"], "methods": ["full", "relora"], "seeds": [1]}, **more}


def swept(raw, sweep, **more):
    return small(raw, sweeps={"mine": sweep}, **more)


def tuned(raw, **more):
    return small(raw, data={**raw["data"], **VALIDATED}, tuning=TUNING, **more)


def changed(raw, method, **switches):
    return {**raw["methods"], method: {**raw["methods"].get(method, GALORE), **switches}}


def grid(**values):
    return {"space": {"grid": values}}


def test_cells_of_a_sweep_beside_a_search_have_the_configurations_settings_alike(raw):
    """The study's own took those that the search chose, and the sweep's other seeds and methods did not."""
    methods = changed(raw, "galore")
    sweep = {"methods": ["full", "relora", "galore"], "seeds": [1, 2], "against": "full"}
    study = check(tuned(raw, methods=methods, sweeps={"mine": sweep}), [])
    experiments = experiments_of(study)
    assert len(experiments.cells) == 6 and not experiments.cells.keys() & cells(study).keys()
    assert {cell.train.learning_rate for cell in experiments.cells.values()} == {3e-3}
    assert "tiny-full+untuned-s1" in experiments.cells
    files = settings_files(study, cells(study), experiments)
    assert "cells/tiny-full-s1/config.yaml" not in files, "its search makes it"
    plain = experiments_of(check(swept({**raw, "methods": methods}, sweep), []))
    assert "tiny-full-s1" in plain.cells, "without a search, the study's own cell"


@pytest.mark.parametrize(
    ("methods", "sweep", "message"),
    [
        ({"sizes": {"tinny": {}}}, {"methods": ["other"]}, "methods.other.sizes: 'tinny' is not one of tiny, small"),
        (
            {"sizes": {"small": {"horizon_steps": 60}}},
            {"methods": ["other"], "sizes": ["small"]},
            "warmup_steps 60 must",
        ),
        ({"projection_rank": 999}, {"methods": ["other"]}, "sweeps.mine: methods.other.projection_rank 999 is above"),
    ],
)
def test_what_only_a_sweep_names_is_checked_as_the_studys_own(raw, methods, sweep, message):
    with pytest.raises(UserError, match=message):
        check(swept({**raw, "methods": changed(raw, "other", **methods)}, sweep), [])


def test_a_label_changes_no_cell_and_cannot_vary(raw):
    named = {**raw, "methods": {**raw["methods"], "full": {**raw["methods"]["full"], "label": "All weights"}}}
    assert cells(check(named, [])) == cells(check(raw, []))
    with pytest.raises(UserError, match="'label' is no key of a method"):
        check(swept(raw, grid(label=["one", "two"])), [])


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({"methods": ["full"], "against": "full"}, "sweeps.mine.against: full is the only method"),
        ({"methods": ["full"], "against": "previous"}, "sweeps.mine.against: full is the only method"),
        ({"methods": ["full", "full"], "against": "full"}, r"sweeps.mine.methods: .* none twice"),
        ({"seeds": [1, 1]}, r"sweeps.mine.seeds: \[1, 1\] must name an entry, and none twice"),
        ({"sizes": []}, r"sweeps.mine.sizes: \[\] must name an entry"),
    ],
)
def test_a_comparison_needs_two_methods_and_lists_name_each_entry_once(raw, sweep, message):
    with pytest.raises(UserError, match=message):
        check(swept(raw, sweep), [])


@pytest.mark.parametrize(("key", "values"), [("vocab_size", [512, 1024]), ("context_length", [64, 128])])
def test_what_shapes_the_token_ids_cannot_vary(raw, key, values):
    for configuration in (
        swept(raw, grid(**{key: values})),
        tuned(raw) | {"tuning": {**TUNING, **grid(**{key: values})}},
    ):
        with pytest.raises(
            UserError,
            match=rf"^(sweeps.mine: {key} cannot vary: |tuning.space: {key} is no key to search).* \(--config\)$",
        ):
            check(configuration, [])
    assert set(OF_TOKENS) == TokenSettings.model_fields.keys() - Data.model_fields.keys()


def test_the_corpus_must_hold_the_longest_training_of_all(raw):
    def sequences(**more) -> int:
        return stage_settings(check(small(raw, **more), []))["enough"].train_sequences

    assert sequences() == 600 * 8
    assert sequences(sweeps={"mine": grid(steps=[600, 20_000])}) == 20_000 * 8
    paper = [ROOT / "config.yaml", ROOT / "workflow/presets/paper.yaml"]
    with pytest.raises(UserError, match=r"shards 1000 hold 20480000 rows, .* 40960000 in tiny-full\+steps=40000-s42"):
        read_study(paper, {"sweeps": {"mine": {"methods": ["full"], **grid(steps=[40_000])}}})


def test_processes_share_the_batch_of_every_cell(raw):
    two = {**raw["runtime"], "processes": 2}
    with pytest.raises(
        UserError, match=r"^sweeps.mine: .*: train.batch_size 3 must be a multiple of runtime.processes 2"
    ):
        check(swept(raw, grid(batch_size=[8, 3], micro_batch_size=[1]), runtime=two), [])


def names(study, seed=1):
    return [cell.method_name for cell in experiments_of(study).cells.values() if cell.seed == seed]


def test_a_method_that_uses_no_key_of_a_sweep_trains_once_under_its_plain_name(raw):
    study = check(swept(raw, grid(dropout=[0.0, 0.1, 0.2])), [])
    assert names(study) == ["full", *(f"relora+dropout={value}" for value in ("0", "0.1", "0.2"))]
    assert names(check(tuned(raw, sweeps={"mine": grid(dropout=[0.0, 0.1])}), []))[0] == "full+untuned"


def test_a_key_without_use_at_a_point_makes_no_second_cell(raw):
    """A fraction says nothing where no moment is cleared."""
    study = check(swept(raw, grid(moment_reset=["none", "random"], moment_reset_fraction=[0.5, 0.9])), [])
    assert names(study) == [
        *("full", "relora+moment_reset=none"),
        *(f"relora+moment_reset=random+moment_reset_fraction={share}" for share in (0.5, 0.9)),
    ]


def test_a_key_that_no_method_of_a_sweep_uses_is_refused(raw):
    with pytest.raises(UserError, match=r"^sweeps.mine: dropout changes nothing in full; "):
        check(swept(raw, {"methods": ["full"], **grid(dropout=[0.0, 0.1])}), [])


def test_a_search_of_candidates_that_train_alike_is_refused(raw):
    alphas = {**TUNING, **grid(alpha=[4, 8])}
    with pytest.raises(UserError, match=r"^tuning: of the 2 candidates of full, only 1 differ, .* alpha; .*spaces"):
        check({**tuned(raw), "tuning": alphas}, [])
    own = {"spaces": {"full": {"grid": {"learning_rate": [1e-3, 2e-3]}}}}
    assert check({**tuned(raw), "tuning": alphas | own}, [])


def test_a_name_of_many_keys_is_a_files_name_and_still_says_which_point_it_is(raw):
    point = {f"{key}_with_a_long_name": 0.123 for key in "abcdefghijkl"}
    one, other = (variant_name("relora", point | {"l_with_a_long_name": value}) for value in (0.123, 0.124))
    assert one != other and one.startswith("relora+a_with_a_long_name=0.123+")
    assert max(len(one), len(other)) <= LONGEST
    assert variant_name("relora", dict(reversed(point.items()))) == one


@pytest.mark.parametrize("key", ["sizes", "rang"])
def test_what_is_no_key_of_a_cell_is_refused(raw, key):
    with pytest.raises(
        UserError, match=rf"^sweeps.mine: '{key}' is no key of a method, a size, the model or the recipe"
    ):
        check(swept(raw, {"methods": ["relora"], **grid(**{key: [{}]})}), [])


def test_a_wrong_value_is_named_with_its_key(raw):
    with pytest.raises(UserError, match=r"the variant tiny-relora\+rank=two-s1: rank = 'two': "):
        check(swept(raw, {"methods": ["relora"], **grid(rank=["two"])}), [])
    study = check(swept(raw, {"methods": ["relora"], **grid(rank=["2"])}), [])
    assert names(study) == ["relora+rank=2"], "a number in quotes is one, as a rate is"


@pytest.mark.parametrize("name", ["a/b", 1])
def test_a_wrong_name_is_told_with_its_file(raw, tmp_path, name):
    overlay = tmp_path / "mine.yaml"
    overlay.write_text(yaml.safe_dump({"sweeps": {name: {"methods": ["relora"]}}}))
    with pytest.raises(UserError, match=rf"^sweeps.{name} .*\({overlay}\)$"):
        read_study([ROOT / "config.yaml", overlay])


def test_a_cell_stands_beside_full_rank_of_its_seed_and_size_at_the_nearest_rate(raw):
    """Among rates 1e-3 and 1e-2 the nearer to the study's 3e-3, by ratio, is 1e-3 for 3e-3 and 1e-2 for 6e-3."""
    sweeps = {
        "whole": grid(learning_rate=[1e-3, 1e-2]) | {"methods": ["full"], "seeds": [1]},
        "mine": grid(learning_rate=[3e-3, 6e-3]) | {"methods": ["relora"], "seeds": [1, 2]},
        "longer": grid(steps=[40]) | {"methods": ["relora"], "seeds": [1]},
    }
    study = check(small(raw, study={"sizes": ["tiny"], "methods": ["relora"], "seeds": [1]}, sweeps=sweeps), [])
    every = cells(study) | experiments_of(study).cells
    assert Partners.of(study, every).pairs == {
        "tiny-relora-s1": "tiny-full+learning_rate=0.001-s1",
        "tiny-relora+learning_rate=0.003-s1": "tiny-full+learning_rate=0.001-s1",
        "tiny-relora+learning_rate=0.006-s1": "tiny-full+learning_rate=0.01-s1",
    }


def test_an_overlay_leaves_out_a_sweep_by_setting_it_to_null(raw):
    sweeps = {"mine": grid(learning_rate=[1e-3, 1e-2]), "other": None}
    assert set(check(small(raw, sweeps=sweeps), []).sweeps) == {"mine"}
    with pytest.raises(UserError, match="sweeps"):
        check(small(raw, sweeps=[None]), [])
