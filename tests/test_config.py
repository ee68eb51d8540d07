import copy
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from relora_study.config import cells, check
from relora_study.errors import UserError

CONFIG = Path(__file__).parent.parent / "config.yaml"


def changed(raw, key, value):
    raw = copy.deepcopy(raw)
    *path, last = key.split(".")
    section = raw
    for part in path:
        section = section[part]
    section[last] = value
    return raw


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("train.stepz", 3, "train.stepz = 3: unknown key"),
        ("train.steps", 1_000_000, "train.steps = 1000000: Input should be less than 1000000"),
        ("train.checkpoint_offset", 1, "must be above methods.relora.reset_offset and below its reset_period 60"),
        ("dynamics.batch_sequences", 65, "dynamics.batch_sequences is above 64, which are held out of texts"),
        ("train.steps", "many", "train.steps = 'many': Input should be a valid integer"),
        ("train.steps", True, "train.steps = True: Input should be a valid integer"),
        ("train.learning_rate", "fast", "train.learning_rate = 'fast'"),
        ("sizes.tiny.d_model", 50, "sizes.tiny: d_model 50 must be num_attention_heads 6 times an even head size"),
        ("sizes.tiny.num_key_value_heads", 4, "must be a multiple of num_key_value_heads 4"),
        ("methods.relora.rank", 17, "methods.relora.rank 17 is above 16, the smallest dimension of tiny"),
        ("methods.relora.reset_period", 3, "reset_period 3 must be longer than rewarmup_steps"),
        ("data.held_out_tokens_per_domain", 128, "must hold one sequence"),
        ("study.methods", ["lora"], "study.methods: 'lora' is not one of full, relora, relora_released"),
        ("study.seeds", [1, 1], "twice"),
        ("schema_version", 2, "schema_version = 2"),
    ],
)
def test_a_mistake_is_named(raw, key, value, said):
    with pytest.raises(UserError) as error:
        check(changed(raw, key, value), [CONFIG])
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_vocabulary_too_big_for_the_tokens_type(raw):
    raw = changed(changed(raw, "data.token_dtype", "uint16"), "model.vocab_size", 65537)
    with pytest.raises(UserError, match=r"vocab_size 65537 is too big for data.token_dtype: at most 65536"):
        check(raw, [CONFIG])


def test_the_strongest_file_that_sets_a_key_is_named(raw, tmp_path):
    overlay, base = tmp_path / "overlay.yaml", tmp_path / "config.yaml"
    overlay.write_text(yaml.safe_dump({"train": {"steps": -1}}))
    base.write_text(yaml.safe_dump(changed(raw, "model.vocab_size", -1)))
    with pytest.raises(UserError, match=r"overlay\.yaml"):
        check(changed(raw, "train.steps", -1), [CONFIG, overlay])
    with pytest.raises(UserError, match=r"config\.yaml"):
        check(changed(raw, "model.vocab_size", -1), [base, overlay])
    with pytest.raises(UserError, match=r"--config"):
        check(changed(raw, "train.speed", 1), [CONFIG, overlay])
    with pytest.raises(UserError, match=r"reset_period 60: .* \(--config\)$"):
        check(changed(raw, "train.checkpoint_offset", 1), [CONFIG])
    with pytest.raises(UserError, match=r"'lora' is not one of .* \(--config\)$"):
        check(changed(raw, "study.methods", ["lora"]), [CONFIG])


def test_numbers_that_yaml_reads_as_text(raw):
    assert check(changed(raw, "train.learning_rate", "3e-4"), [CONFIG]).train.learning_rate == 3e-4


def test_snakemakes_command_line_hands_text_over(raw):
    text = changed(changed(raw, "study.seeds", ["1", "2"]), "evaluation.minimal_pairs.start_token", "true")
    text = changed(text, "report.title", "Again: a title, [with] signs")
    study = check(changed(text, "train.learning_rate", "1e-4"), [CONFIG])
    assert study.report.title == "Again: a title, [with] signs"
    assert study.study.seeds == [1, 2] and study.evaluation.minimal_pairs.start_token is True
    assert study.train.learning_rate == 1e-4


def paths(section, before=()):
    """Every path into a nested mapping."""
    for key, value in section.items():
        yield (*before, key)
        if isinstance(value, dict):
            yield from paths(value, (*before, key))


RAW = yaml.safe_load(CONFIG.read_text())
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


CHANGES = st.lists(st.tuples(st.sampled_from(sorted(paths(RAW))), ANYTHING), min_size=1, max_size=3)


@settings(max_examples=400, deadline=None)
@example([(("data",), {"\n": None})])
@given(CHANGES)
def test_any_configuration_is_valid_or_refused_in_one_line_that_names_a_place(changes):
    check_mutated(changes)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@given(CHANGES)
def test_so_are_thousands(changes):
    check_mutated(changes)


def check_mutated(changes):
    mutated = copy.deepcopy(RAW)
    for path, value in changes:
        section = mutated
        for part in path[:-1]:
            section = section.get(part) if isinstance(section, dict) else None
        if isinstance(section, dict):
            section[path[-1]] = value
    try:
        cells(check(mutated, [CONFIG]))
    except UserError as error:
        assert "\n" not in str(error) and str(error).endswith(")")


def test_a_missing_key_is_named(raw):
    raw = copy.deepcopy(raw)
    del raw["train"]["steps"]
    with pytest.raises(UserError, match=r"train.steps: required key is missing"):
        check(raw, [CONFIG])


def test_cells_are_every_size_method_and_seed(raw):
    study = check(changed(raw, "study.seeds", [1, 2]), [CONFIG])
    assert len(cells(study)) == 2 * 3 * 2
    assert cells(study)["small-relora-s2"].size.d_model == 192


def test_the_default_pair_keeps_the_papers_proportions(raw):
    """The released code: widths 96 and 384, FFN 4 x, 12 heads over 4 groups, rank 16, equal depth."""
    study = check(raw, [CONFIG])
    tiny, small, relora = study.sizes["tiny"], study.sizes["small"], study.methods["relora"]
    assert small.d_model / tiny.d_model == 384 / 96
    assert tiny.num_hidden_layers == small.num_hidden_layers
    assert relora.reset_period is not None and study.train.steps == 10 * relora.reset_period
    for size, width in ((tiny, 96), (small, 384)):
        assert relora.rank / size.d_model == 16 / width
        assert size.intermediate_size / size.d_model == 4
        assert size.num_attention_heads / size.num_key_value_heads == 3
        assert size.head_dim == width // 12
