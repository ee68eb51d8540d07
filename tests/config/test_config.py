import copy
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from relora_study.analysis.published_recipe import WIDTHS
from relora_study.config import PAPERS_SIZES, cells, check, read_study
from relora_study.errors import UserError
from relora_study.storage.files import read_yaml

CONFIG = Path(__file__).parents[2] / "config.yaml"


def changed(raw, key, value):
    raw = copy.deepcopy(raw)
    *path, last = key.split(".")
    section = raw
    for part in path:
        section = section[part]
    section[last] = value
    return raw


PROJECTED = {"rank": 0, "update": "galore", "projection_rank": 17, "targets": ["k_proj"], "schedule": "linear"}
PROJECTED |= {"warmup_steps": 1, "horizon_steps": 9}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("train.stepz", 3, "train.stepz = 3: unknown key"),
        ("train.steps", 1_000_000, "train.steps = 1000000: Input should be less than 1000000"),
        ("train.checkpoint_offset", 1, "must be above methods.relora.reset_offset and below its reset_period 60"),
        ("data.held_out_tokens", 1031, "data.held_out_tokens must hold dynamics.batch_sequences: at least 1032"),
        ("train.steps", "many", "train.steps = 'many': Input should be a valid integer"),
        ("train.steps", True, "train.steps = True: Input should be a valid integer"),
        ("train.learning_rate", "fast", "train.learning_rate = 'fast'"),
        ("sizes.tiny.d_model", 50, "sizes.tiny: d_model 50 must be num_attention_heads 6 times an even head size"),
        ("sizes.tiny.num_key_value_heads", 4, "must be a multiple of num_key_value_heads 4"),
        ("methods.relora.rank", 49, "methods.relora.rank 49 is above 48, the width of tiny"),
        (
            "methods.relora_repaired",
            PROJECTED,
            "methods.relora_repaired.projection_rank 17 is above 16, the smallest dimension of tiny",
        ),
        ("methods.relora.reset_period", 3, "reset_period 3 must be longer than rewarmup_steps"),
        ("data.held_out_tokens_per_domain", 128, "must hold one sequence"),
        ("study.methods", ["lora"], "study.methods: 'lora' is not one of full, relora, relora_released"),
        ("study.seeds", [1, 1], "twice"),
        ("study.seeds", [2**63], "study.seeds.0 = 9223372036854775808: Input should be less than 9223372036854775808"),
        ("study.seeds", 0, "study.seeds = 0"),
        ("study.seeds", True, "study.seeds = True"),
        ("study.baseline", "relora", "study.baseline: 'relora' has rank 8; name a method of full rank (--config)"),
        ("study.baseline", "lora", "study.baseline: 'lora' is not one of study.methods"),
        ("study.sizes", ["tiny", "mine"], "study.sizes: 'mine' is not one of tiny, small"),
        ("methods.relora.learning_rate", -1, "methods.relora.learning_rate = -1: Input should be greater than 0"),
        ("methods.relora.sizes", {"large": {}}, "methods.relora.sizes: 'large' is not one of tiny, small"),
        ("methods.relora.sizes", {"tiny": {"horizon_steps": 60}}, "methods.relora.sizes.tiny: warmup_steps 60 must be"),
        ("methods.relora.sizes", {"tiny": {"rank": 4}}, "methods.relora.sizes.tiny.rank = 4: unknown key"),
        ("sizes.tiny.betas", [0.9], "sizes.tiny.betas = [0.9]"),
        ("methods.relora.full_rank_steps", 600, "full_rank_steps 600 must be below train.steps 600"),
        ("train.weight_decay", float("inf"), "train.weight_decay = inf"),
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


@pytest.mark.long
@settings(max_examples=400, deadline=None)
@example([(("data",), {"\n": None})])
@example([(("methods", "relora_released", "targets"), {"²": ""})])
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
    assert len(cells(study)) == 2 * 4 * 2
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
        assert size.widths["head"] == width // 12


def test_published_curves_need_the_papers_sizes(raw):
    """A figure failed with a KeyError after all training where another size was overlaid."""
    overlay = changed(changed(raw, "sizes.mine", raw["sizes"]["tiny"]), "report.published", "overlay")
    with pytest.raises(UserError, match=r"^report.published overlay: .* tiny and small, and study.sizes has mine; "):
        check(changed(overlay, "study.sizes", ["tiny", "mine"]), [CONFIG])
    check(changed(overlay, "study.sizes", ["tiny"]), [CONFIG])
    assert tuple(WIDTHS) == PAPERS_SIZES


def test_the_rows_of_a_shard_bound_the_fixed_batch(raw):
    paper = read_study([CONFIG, CONFIG.parent / "workflow/presets/paper.yaml"])
    assert paper.data.hub_pretokenized.rows_per_shard == 20480
    with pytest.raises(UserError, match=r"dynamics.batch_sequences is above 20480, the rows of the shard"):
        read_study([CONFIG, CONFIG.parent / "workflow/presets/paper.yaml"], {"dynamics": {"batch_sequences": 20481}})


def test_a_number_of_seeds_counts_from_the_papers(raw):
    assert check(changed(raw, "study.seeds", 5), [CONFIG]).study.seeds == [42, 43, 44, 45, 46]
    assert check(changed(raw, "study.seeds", "2"), [CONFIG]).study.seeds == [42, 43]
    assert check(changed(raw, "study.seeds", [5]), [CONFIG]).study.seeds == [5]


def test_a_recipe_is_the_methods_at_a_size_or_the_methods_or_the_sizes_or_the_studys(raw):
    raw = changed(raw, "methods.relora.sizes", {"small": {"learning_rate": "4e-3", "warmup_steps": 30}})
    raw = changed(raw, "methods.relora.learning_rate", 3e-2)
    raw = changed(raw, "sizes.small.learning_rate", 2e-2)
    raw = changed(raw, "sizes.small.weight_decay", 0.0)
    raw = changed(raw, "methods.relora_released.betas", [0.8, 0.9])
    raw = changed(raw, "study.methods", ["full", "relora", "relora_released"])
    found = cells(check(raw, [CONFIG]))
    rates = {name: cell.train.learning_rate for name, cell in found.items()}
    assert rates == {
        "tiny-full-s42": 3e-3,
        "tiny-relora-s42": 3e-2,
        "tiny-relora_released-s42": 3e-3,
        "small-full-s42": 2e-2,
        "small-relora-s42": 4e-3,
        "small-relora_released-s42": 2e-2,
    }
    assert found["small-relora-s42"].method.warmup_steps == 30 and found["tiny-relora-s42"].method.warmup_steps == 60
    assert [found[f"{size}-full-s42"].train.weight_decay for size in ("tiny", "small")] == [0.01, 0.0]
    assert found["tiny-relora_released-s42"].train.betas == [0.8, 0.9]


def test_a_cell_holds_its_recipe_once(raw):
    """What is set apart lies in `train`; nothing else of a cell changes, so that no other result loses its validity."""
    before = cells(check(raw, [CONFIG]))
    after = cells(check(changed(raw, "methods.relora.learning_rate", 3e-2), [CONFIG]))
    for name, cell in after.items():
        expected = before[name].model_dump()
        if cell.method_name == "relora":
            expected["train"]["learning_rate"] = 3e-2
        assert yaml.safe_dump(cell.model_dump(), sort_keys=False) == yaml.safe_dump(expected, sort_keys=False)


def test_a_cells_settings_keep_their_bytes(raw):
    """A key more, or another order, would make every trained cell another configuration's."""
    text = yaml.safe_dump(cells(check(raw, [CONFIG]))["small-relora_released-s42"].model_dump(), sort_keys=False)
    assert text == (Path(__file__).parent / "resolved_cell.yaml").read_text()


def write(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train: {steps: 3}\nmodel: {}\ntrain: {batch_size: 4}\n", "key 'train' is given twice, in lines 1 and 3;"),
        ("train:\n  eps: 1.0\n  steps: 3\n  eps: 2.0\n", "key 'eps' is given twice, in lines 2 and 4;"),
        ("train: {eps: 1.0, steps: 3, eps: 2.0}\n", "key 'eps' is given twice, in line 1;"),
        ("- a: [{b: 1,\n  b: 2}]\n", "key 'b' is given twice, in lines 1 and 2;"),
    ],
)
def test_a_key_given_twice_is_refused_with_its_lines(tmp_path, text, said):
    overlay = write(tmp_path / "overlay.yaml", text)
    with pytest.raises(UserError) as error:
        read_yaml(overlay)
    assert str(error.value).startswith(f"{overlay}: {said}") and "\n" not in str(error.value)


def test_a_merged_key_may_be_overridden(tmp_path):
    chain = "a: &a {x: 1, y: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b, x: 3}\nd: {<<: *b, y: 4}\n"
    found = read_yaml(write(tmp_path / "chain.yaml", chain))
    assert found == yaml.safe_load(chain) and found["c"] == {"x": 3, "y": 1}


def test_the_project_reads_yaml_in_one_way_alone():
    """But for the words of one value on the command line, which are no mapping of the user's."""
    package = CONFIG.parent / "workflow"
    sources = [*package.rglob("*.py"), *package.rglob("*.smk"), CONFIG.parent / "Snakefile"]
    loading = {path.name for path in sources if re.search(r"yaml\.(safe_load|load|full_load)\b", path.read_text())}
    assert loading == {"files.py", "reading.py"}
    assert "yaml.safe_load(value)" in (package / "relora_study/config/reading.py").read_text()


def test_an_overlay_builds_on_another(tmp_path):
    write(tmp_path / "base.yaml", "train: {steps: 1200, batch_size: 4, micro_batch_size: 2}\n")
    (tmp_path / "sub").mkdir()
    middle = write(tmp_path / "sub/middle.yaml", "extends: ../base.yaml\ntrain: {batch_size: 2}\n")
    top = write(tmp_path / "top.yaml", "extends: sub/middle.yaml\ntrain: {micro_batch_size: 1}\n")
    found = read_study([CONFIG, top]).train
    assert (found.steps, found.batch_size, found.micro_batch_size) == (1200, 2, 1)
    assert read_study([CONFIG, middle], {"train": {"steps": "600"}}).train.steps == 600, "the default's value, too"
    assert (
        read_study([CONFIG, write(tmp_path / "p.yaml", "extends: workflow/presets/paper.yaml\n")]).train.steps == 20_000
    )


@pytest.mark.parametrize("spelling", ["base.yaml", "sub/../base.yaml"])
def test_what_two_overlays_build_on_undoes_neither(tmp_path, spelling):
    (tmp_path / "sub").mkdir()
    base = write(tmp_path / "base.yaml", "train: {steps: 1200, eps: 1.0e-6, weight_decay: 0.5}\n")
    first = write(tmp_path / "first.yaml", "extends: base.yaml\ntrain: {steps: 800}\n")
    second = write(tmp_path / "second.yaml", f"extends: {spelling}\ntrain: {{eps: 1.0e-7}}\n")
    third = write(tmp_path / "third.yaml", "extends: first.yaml\n")

    def read(*files):
        found = read_study([CONFIG, *files]).train
        return found.steps, found.eps, found.weight_decay

    assert read(first, second) == read(second, first) == read(base, first, second) == (800, 1e-7, 0.5)
    assert read(first, second, third) == read(third, second) == (800, 1e-7, 0.5), "through a third file, too"
    assert read(first, second, base) == (1200, 1e-6, 0.5), "named last, it is the strongest"


def test_a_mistake_in_an_extended_file_names_that_file(tmp_path):
    write(tmp_path / "base.yaml", "train: {steps: 0}\n")
    top = write(tmp_path / "top.yaml", "extends: base.yaml\ntrain: {batch_size: 2, micro_batch_size: 2}\n")
    with pytest.raises(UserError, match=r"^train.steps = 0: Input should be greater than 0 \(.*base.yaml\)$"):
        read_study([CONFIG, top])


def test_what_cannot_be_extended_is_named(tmp_path):
    one = write(tmp_path / "one.yaml", "extends: two.yaml\n")
    write(tmp_path / "two.yaml", "extends: one.yaml\n")
    with pytest.raises(
        UserError, match=r"^extends: .*one.yaml extends .*two.yaml extends .*one.yaml, which is a circle; remove"
    ):
        read_study([CONFIG, one])
    for wrong in ("nowhere.yaml", "[a.yaml]"):
        with pytest.raises(UserError, match=r"extends = .*: no such file beside .*lost.yaml or in the project"):
            read_study([CONFIG, write(tmp_path / "lost.yaml", f"extends: {wrong}\n")])
    with pytest.raises(UserError, match=r"must hold keys and values"):
        read_study([CONFIG, write(tmp_path / "list.yaml", "- 1\n")])


def test_snakemake_reads_overlays_as_the_project_does(tmp_path):
    """A key given twice is refused; `extends` lies under the overlay, and `--config` above both."""
    root = CONFIG.parent
    for name in ("Snakefile", "workflow", "config.yaml", "resources", "paper", "envs"):
        (tmp_path / name).symlink_to(root / name)
    write(tmp_path / "base.yaml", "train: {steps: 1200, eps: 1.0e-6}\n")
    write(tmp_path / "top.yaml", "extends: base.yaml\ntrain: {weight_decay: 0.5}\n")
    write(tmp_path / "twice.yaml", "train: {steps: 1200}\ntrain: {eps: 1.0e-6}\n")
    cell = "results/cells/tiny-full-s42/config.yaml"

    def run(overlay):
        command = [sys.executable, "-m", "snakemake", "--cores", "1", cell, "--configfile", overlay]
        options = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 300}
        return subprocess.run([*command, "--config", "train={steps: 600}"], **options)

    refused = run("twice.yaml")
    assert refused.returncode and "twice.yaml: key 'train' is given twice, in lines 1 and 2" in refused.stderr
    done = run("top.yaml")
    assert done.returncode == 0, done.stderr
    train = read_yaml(tmp_path / cell)["train"]
    assert (train["steps"], train["eps"], train["weight_decay"], train["batch_size"]) == (600, 1e-6, 0.5, 8)


def test_an_overlay_in_another_folder_lies_over_the_default_study(tmp_path):
    """`--directory`: a folder without a config.yaml of its own takes the default study's, and with one its own."""
    overlay = write(tmp_path / "mine.yaml", "train: {eps: 1.0e-6}\n")
    elsewhere, file = tmp_path / "else where", "results/cells/tiny-full-s42/config.yaml"
    elsewhere.mkdir()
    places = ["--snakefile", CONFIG.parent / "Snakefile", "--directory", elsewhere, "--configfile", overlay]

    def settings():
        command = [sys.executable, "-m", "snakemake", "--cores", "1", *places, "--", file]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return read_yaml(elsewhere / file)["train"]

    assert (settings()["eps"], settings()["steps"]) == (1e-6, 600)
    write(elsewhere / "config.yaml", CONFIG.read_text().replace("  steps: 600 ", "  steps: 660 "))
    assert (settings()["eps"], settings()["steps"]) == (1e-6, 660)
