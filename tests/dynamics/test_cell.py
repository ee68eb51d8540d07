"""The whole table of a cell, from checkpoints written as the contract says, against NumPy on the same files."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from relora_study.config import cells, check
from relora_study.data.tokens import held_out_batch
from relora_study.dynamics import cell
from relora_study.dynamics.__main__ import app
from relora_study.dynamics.readings import Checkpoint, updates
from relora_study.errors import UserError
from relora_study.storage.files import read_yaml, sha256
from safetensors.numpy import load_file
from safetensors.torch import save_file
from scipy.linalg import subspace_angles
from studies import write_yaml
from transformers import LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

CONFIGURATION = Path(__file__).parents[2] / "config.yaml"
MODULES = {"w2": "mlp.down_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj"}
SCALE, RANK, STEPS = 2.0, 3, (0, 4, 5, 8, 9, 10)  # every 4 steps, one step later, and the last
CYCLE = 8
SETTINGS = {"batch_sequences": 4, "subspace_dimensions": 3, "cycle_steps": CYCLE}


def build_cell(folder, method):
    """A cell of random checkpoints: weights that drift, and adapters whose B is zero at step 0."""
    raw = read_yaml(CONFIGURATION)
    shape = {"d_model": 24, "intermediate_size": 48, "num_hidden_layers": 2}
    raw["sizes"]["tiny"] = {**shape, "num_attention_heads": 6, "num_key_value_heads": 2}
    raw["model"] |= {"vocab_size": 300, "context_length": 8}
    raw["methods"]["relora"] |= {"rank": RANK, "alpha": RANK * SCALE, "reset_offset": 0}
    raw["methods"]["relora_released"] |= {"rank": RANK, "reset_offset": 0}
    raw["train"] |= {"steps": 10, "checkpoint_every": 4, "checkpoint_offset": 1}
    raw["study"]["methods"] = ["full", "relora"]
    cell = cells(check(raw, []))[f"tiny-{method}-s42"]
    write_yaml(folder / "config.yaml", cell.model_dump())
    norms = [0.0, 0.0, 3.0, 1.0, 0.0, 0.0, 4.0, 0.0, 7.0, 7.0] if method != "full" else [None] * 10
    pd.DataFrame({"step": range(1, 11), "adapter_gradient_norm": norms}).to_csv(folder / "log.csv", index=False)
    torch.manual_seed(0)
    shape = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 300}
    model = LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=6, num_key_value_heads=2)).eval()
    for step in STEPS:
        save(model, folder / f"checkpoints/step-{step:06d}", step, method)
        for weight in model.parameters():
            weight.data += 0.01 * torch.randn_like(weight)


def save(base, folder, step, method):
    model = LlamaForCausalLM(base.config)
    model.load_state_dict(base.state_dict())
    adapters = {}
    if method != "full":
        for layer in range(2):
            for module in MODULES.values():
                name = f"model.layers.{layer}.{module}"
                weight = model.get_submodule(name).weight
                down = torch.randn(RANK, weight.shape[1])
                up = torch.randn(weight.shape[0], RANK) * (0.1 if step else 0)
                weight.data += SCALE * up @ down
                adapters |= {f"{name}.A": down, f"{name}.B": up}
    model.save_pretrained(folder)
    if adapters:
        save_file(adapters, folder / "adapters.safetensors")
    scale = SCALE if adapters else None
    content = {"step": step, "scale": scale, "method": method, "cell": f"tiny-{method}-s42"}
    (folder / "checkpoint.json").write_text(json.dumps(content))
    seal(folder)


def seal(folder):
    """Write the hashes of a checkpoint's files into its metadata."""
    content = json.loads((folder / "checkpoint.json").read_text())
    hashes = {file.name: sha256(file) for file in folder.iterdir() if file.name != "checkpoint.json"}
    (folder / "checkpoint.json").write_text(json.dumps(content | {"sha256": hashes}))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two cells, the fixed batch's text and the settings, in a folder whose name has a space."""
    root = tmp_path_factory.mktemp("some results")
    for method in ("full", "relora"):
        build_cell(root / f"cells/{method}", method)
    tokens = root / "data/tokens"
    tokens.mkdir(parents=True)
    ids = np.random.default_rng(0).integers(0, 300, 90).astype(np.uint16)
    for split in ("train", "held_out"):
        ids.tofile(tokens / f"{split}.bin")
    counts = {"tokens": 90, "documents": 1, "bytes": 180, "sha256": sha256(tokens / "train.bin")}
    manifest = {"dtype": "uint16", "vocab_size": 300, "end_of_text_id": 0, "train": counts, "held_out": counts}
    (tokens / "manifest.json").write_text(json.dumps(manifest | {"domains": {}, "tokenizer_sha256": "", "source": "t"}))
    write_yaml(root / "dynamics.yaml", SETTINGS)
    return root


def run(place, method, output=None):
    output = output or place / f"cells/{method}/dynamics.csv"
    arguments = {
        "--settings": place / "dynamics.yaml",
        "--cell": place / f"cells/{method}",
        "--data": place / "data",
        "--threads": 1,
        "--output": output,
    }
    result = CliRunner().invoke(app, ["cell", *(str(word) for pair in arguments.items() for word in pair)])
    if result.exception:
        raise result.exception
    return output


@pytest.fixture(scope="module")
def tables(place):
    return {method: pd.read_csv(run(place, method), keep_default_na=False) for method in ("full", "relora")}


def pick(table, **wanted):
    for column, value in wanted.items():
        table = table[table[column] == value]
    return table


def value_of(table, **wanted):
    found = pick(table, **wanted)
    assert len(found) == 1, wanted
    return float(found["value"].item() or "nan")


def stored(place, method, step, layer, component, kind="model"):
    name = f"model.layers.{layer}.{MODULES[component]}"
    tensors = load_file(place / f"cells/{method}/checkpoints/step-{step:06d}/{kind}.safetensors")
    if kind == "model":
        return tensors[f"{name}.weight"].astype(np.float64)
    return tensors[f"{name}.B"].astype(np.float64) @ tensors[f"{name}.A"].astype(np.float64)


def oracle(matrix):
    values = np.linalg.svd(matrix, compute_uv=False)
    shares = values / values.sum()
    rank = math.exp(-(shares * np.log(shares)).sum())
    sizes = {"condition_number": values[0] / values[-1], "spectral_norm": values[0]}
    stable = np.linalg.norm(matrix) ** 2 / values[0] ** 2
    return {"per": rank / len(values), "effective_rank": rank, "stable_rank": stable, **sizes}


def agrees(table, matrix, **wanted):
    for metric, expected in oracle(matrix).items():
        assert value_of(table, **wanted, metric=metric) == pytest.approx(expected, rel=1e-6), (wanted, metric)


QUANTITIES = {
    "weights": {"w2", "ov_authors", "ov_circuit"},
    "effective_weights": {"w2", "ov_authors", "ov_circuit"},
    "updates": {"w2", "v", "o"},
    "gradients": {"w2", "v", "o"},
    "net_update": {"w2", "v", "o"},
    "cycle_update": {"w2", "v", "o"},
    "cumulative_update": {"w2", "v", "o"},
}


SPECTRAL = {
    "per",
    "condition_number",
    "effective_rank",
    "numerical_rank",
    "frobenius_norm",
    "spectral_norm",
    "stable_rank",
}


@pytest.mark.parametrize("method", ["full", "relora"])
def test_the_table_holds_every_reading_once_at_its_steps(tables, method):
    table = tables[method]
    assert not table.duplicated(["step", "component", "layer", "quantity", "metric"]).any()
    table = table[table.metric.isin([*SPECTRAL, "per_of_rank"]) & ~table.component.isin(["head", "layer_output"])]
    expected = QUANTITIES | ({"updates_exact": {"w2", "v", "o"}} if method == "relora" else {})
    assert list(table.columns) == ["step", "component", "layer", "quantity", "metric", "value", "reason"]
    assert {name: set(group["component"]) for name, group in table.groupby("quantity")} == expected
    for quantity, group in table.groupby("quantity"):
        fewer = {"net_update": {4, 8}, "cycle_update": {8}, "cumulative_update": set(STEPS) - {0}}
        steps = fewer.get(str(quantity), set(STEPS))
        assert set(group["step"]) == steps, quantity
        assert set(group["layer"]) == {0, 1}
        assert set(group["metric"]) >= SPECTRAL


def test_the_head_and_the_hidden_states_are_those_of_transformers_model(place, tables):
    model = LlamaForCausalLM.from_pretrained(place / "cells/full/checkpoints/step-000008").eval()
    agrees(tables["full"], model.lm_head.weight.detach().double().numpy(), step=8, component="head")
    kept = []
    model.model.layers[1].register_forward_hook(lambda module, inputs, output: kept.append(output))
    context = yaml.safe_load((place / "cells/full/config.yaml").read_text())["model"]["context_length"]
    model(torch.from_numpy(held_out_batch(place / "data/tokens", 4, context))[:, :-1])
    states = kept[0].detach().double().reshape(-1, kept[0].shape[-1]).numpy()
    expected = oracle(states - states.mean(0))["effective_rank"]
    wanted = {"step": 8, "layer": 1, "quantity": "hidden_states", "metric": "effective_rank"}
    assert value_of(tables["full"], **wanted) == pytest.approx(expected, rel=1e-4)


def test_weights_are_the_frozen_base_and_effective_weights_the_whole(place, tables):
    effective = stored(place, "relora", 8, 1, "w2")
    update = stored(place, "relora", 8, 1, "w2", "adapters")
    wanted = {"step": 8, "layer": 1, "component": "w2"}
    agrees(tables["relora"], effective - SCALE * update, quantity="weights", **wanted)
    agrees(tables["relora"], effective, quantity="effective_weights", **wanted)


def test_without_adapters_weights_and_effective_weights_are_one(tables):
    weights, effective = (
        pick(tables["full"], quantity=name).query("metric in @SPECTRAL").drop(columns="quantity")
        for name in ("weights", "effective_weights")
    )
    pd.testing.assert_frame_equal(weights.reset_index(drop=True), effective.reset_index(drop=True))


def test_ov_readings_are_taken_head_by_head(place, tables):
    value, output = (stored(place, "full", 5, 0, component) for component in "vo")
    groups = [value[4 * (head // 3) : 4 * (head // 3) + 4] for head in range(6)]
    heads = [output[:, 4 * head : 4 * head + 4] for head in range(6)]
    wanted = {"step": 5, "layer": 0, "quantity": "weights"}
    blocks = [group @ head for group, head in zip(groups, heads, strict=True)]
    agrees(tables["full"], np.concatenate(blocks, axis=1), component="ov_authors", **wanted)
    spectra = [np.linalg.svd(head @ group)[1][:4] for group, head in zip(groups, heads, strict=True)]
    ranks = [math.exp(-(s / s.sum() * np.log(s / s.sum())).sum()) for s in spectra]
    for metric, expected in {
        "effective_rank": np.mean(ranks),
        "per": np.mean(ranks) / 24,
        "per_of_rank": np.mean(ranks) / 4,
        "condition_number": np.mean([s[0] / s[3] for s in spectra]),
        "numerical_rank": 4,
        "frobenius_norm": np.mean([np.linalg.norm(s) for s in spectra]),
    }.items():
        found = value_of(tables["full"], component="ov_circuit", metric=metric, **wanted)
        assert found == pytest.approx(expected, rel=1e-6), metric


def test_adapter_updates_are_read_as_published_and_exactly(place, tables):
    product = stored(place, "relora", 9, 0, "v", "adapters")
    values = np.linalg.svd(product)[1][:RANK]
    wanted = {"step": 9, "layer": 0, "component": "v"}

    def exact(metric):
        return value_of(tables["relora"], quantity="updates_exact", metric=metric, **wanted)

    assert exact("condition_number") == pytest.approx(values[0] / values[-1], rel=1e-6)
    assert exact("numerical_rank") == RANK
    assert exact("per_of_rank") * RANK == pytest.approx(exact("effective_rank"))
    assert exact("per") * min(product.shape) == pytest.approx(exact("effective_rank"))
    published = {
        metric: value_of(tables["relora"], quantity="updates", metric=metric, **wanted)
        for metric in ("per", "condition_number", "frobenius_norm")
    }
    assert published["per"] == pytest.approx(exact("per"), rel=1e-4)
    assert published["frobenius_norm"] == pytest.approx(np.linalg.norm(product), rel=1e-5)
    assert 1e5 < published["condition_number"] < 1e12  # float32's round-off; float64's would be beyond


def test_adapters_that_have_not_moved_are_zero_matrices(tables):
    for quantity in ("updates", "updates_exact"):
        rows = pick(tables["relora"], quantity=quantity, step=0)
        assert set(rows["reason"]) == {"zero matrix"}
        assert set(rows["value"]) == {""}
    lost = pick(tables["relora"], quantity="merge", metric="update_lost", step=0)
    assert lost["reason"].item() == "nothing to compare"
    others = tables["relora"].query("not (quantity in ['updates', 'updates_exact', 'merge'] and step == 0)")
    assert set(others["reason"]) == {""}


def test_full_rank_updates_are_the_gradients(tables):
    updates, gradients = (
        pick(tables["full"], quantity=name, metric="per")["value"].astype(float).to_numpy()
        for name in ("updates", "gradients")
    )
    np.testing.assert_allclose(updates, gradients, rtol=1e-4)


@pytest.mark.parametrize("method", ["full", "relora"])
def test_gradients_are_those_of_the_effective_model_on_the_first_rows(place, tables, method):
    model = LlamaForCausalLM.from_pretrained(place / f"cells/{method}/checkpoints/step-000009")
    batch = torch.from_numpy(np.fromfile(place / "data/tokens/held_out.bin", dtype=np.uint16)[:36].astype(int))
    model(batch.reshape(4, 9), labels=batch.reshape(4, 9)).loss.backward()  # transformers' own shift and mean
    for component, module in MODULES.items():
        expected = np.linalg.norm(model.get_submodule(f"model.layers.1.{module}").weight.grad.numpy())
        wanted = {"step": 9, "layer": 1, "quantity": "gradients", "metric": "frobenius_norm", "component": component}
        assert value_of(tables[method], **wanted) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("method", ["full", "relora"])
def test_net_and_cumulative_updates_are_differences_of_effective_weights(place, tables, method):
    first, middle, last = (stored(place, method, step, 0, "o") for step in (0, 4, 8))
    wanted = {"step": 8, "layer": 0, "component": "o"}
    agrees(tables[method], last - middle, quantity="net_update", **wanted)
    agrees(tables[method], last - first, quantity="cycle_update", **wanted)
    agrees(tables[method], last - first, quantity="cumulative_update", **wanted)


@pytest.mark.parametrize("method", ["full", "relora"])
def test_a_window_overlaps_with_the_one_before_it(place, tables, method):
    first, middle, last = (stored(place, method, step, 1, "w2") for step in (0, 4, 8))
    tops = [np.linalg.svd(moved)[0][:, :3] for moved in (last - middle, middle - first)]
    found = value_of(tables[method], step=8, layer=1, quantity="net_update", component="w2", metric="overlap_left")
    assert found == pytest.approx((np.cos(subspace_angles(*tops)) ** 2).mean())


def test_a_cycle_as_long_as_the_checkpoints_distance_is_read_under_both_names(place, tmp_path):
    subject = cell.open_subject(place / "cells/relora", torch.zeros(1, 9, dtype=torch.int64), 3, 4)
    found = cell.tabulate((8, reading) for reading in cell.movements(subject, 8, subject.stored(8)))
    net, cycle = (pick(found, quantity=name).drop(columns="quantity") for name in ("net_update", "cycle_update"))
    assert {"per", "overlap_right"} < set(net["metric"])
    pd.testing.assert_frame_equal(net.reset_index(drop=True), cycle.reset_index(drop=True))


def test_an_update_that_is_none_overlaps_with_nothing(place, tmp_path):
    """As in the dead first cycle of the released code, whose next cycle has nothing to be compared with."""
    shutil.copytree(place / "cells/full", tmp_path / "full")
    shutil.copy(tmp_path / "full/checkpoints/step-000000/model.safetensors", tmp_path / "full/checkpoints/step-000004")
    seal(tmp_path / "full/checkpoints/step-000004")
    subject = cell.open_subject(tmp_path / "full", torch.zeros(1, 9, dtype=torch.int64), 3, CYCLE)
    found = cell.tabulate((8, reading) for reading in cell.movements(subject, 8, subject.stored(8)))
    overlaps = found[found["metric"].str.startswith("overlap")]
    assert len(overlaps) == 12 and overlaps["value"].isna().all()
    assert set(overlaps["reason"]) == {"nothing to compare"}


def test_the_adapters_gradients_of_a_whole_cycle_come_from_the_training_log(tables):
    wanted = {"step": 8, "quantity": "adapter_gradients", "component": "model", "layer": -1}
    assert value_of(tables["relora"], metric="mean_norm", **wanted) == 1.0
    assert value_of(tables["relora"], metric="largest_norm", **wanted) == 4.0
    assert set(pick(tables["relora"], quantity="adapter_gradients")["step"]) == {8}
    assert pick(tables["full"], quantity="adapter_gradients").empty


def test_the_same_files_give_the_same_bytes(place, tmp_path):
    first = run(place, "relora", tmp_path / "a.csv")
    shutil.rmtree(place / "cells/relora/dynamics")
    assert first.read_bytes() == run(place, "relora", tmp_path / "b.csv").read_bytes()


def test_only_what_changed_is_read_again(place, tmp_path, monkeypatch):
    build_cell(tmp_path / "cells/relora", "relora")
    (tmp_path / "data").symlink_to(place / "data")
    write_yaml(tmp_path / "dynamics.yaml", SETTINGS)
    read = []
    monkeypatch.setattr(cell, "read_step", lambda subject, step: read.append(step) or iter([]))
    run(tmp_path, "relora")
    assert read == list(STEPS)
    run(tmp_path, "relora")
    assert read == list(STEPS), "nothing changed"
    read.clear()
    file = tmp_path / "cells/relora/checkpoints/step-000004/model.safetensors"
    tensors = {name: torch.from_numpy(tensor) + 1 for name, tensor in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})
    seal(file.parent)
    run(tmp_path, "relora")
    assert read == [4, 8], "the checkpoint, and the one whose window it begins"
    read.clear()
    monkeypatch.setattr(cell, "code_version", lambda *_: "another")
    run(tmp_path, "relora")
    assert read == list(STEPS)


def test_broken_weights_are_reasons_not_crashes(place, tmp_path):
    build_cell(tmp_path / "cells/relora", "relora")
    file = tmp_path / "cells/relora/checkpoints/step-000008/model.safetensors"
    tensors = {name: torch.from_numpy(tensor) for name, tensor in load_file(file).items()}
    tensors["model.layers.1.mlp.down_proj.weight"][0, 0] = torch.nan
    save_file(tensors, file, metadata={"format": "pt"})
    seal(file.parent)
    (tmp_path / "data").symlink_to(place / "data")
    write_yaml(tmp_path / "dynamics.yaml", SETTINGS)
    table = pd.read_csv(run(tmp_path, "relora"), keep_default_na=False)
    broken = pick(table, step=8, component="w2", layer=1, quantity="weights")
    assert set(broken["reason"]) == {"non-finite values"}
    assert set(pick(table, step=8, component="w2", layer=0, quantity="weights")["reason"]) == {""}
    assert set(pick(table, step=8, quantity="gradients")["reason"]) == {"non-finite values"}


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("adapters.safetensors", None),
        ("adapters.safetensors", b"half"),
        ("checkpoint.json", b"{"),
        ("model.safetensors", None),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_named_and_no_table_is_written(place, tmp_path, file, content):
    """Without the check, a lost adapters.safetensors would be read as full-rank training."""
    shutil.copytree(place, tmp_path / "copy", ignore=shutil.ignore_patterns("dynamics", "dynamics.csv", "full"))
    broken = tmp_path / "copy/cells/relora/checkpoints/step-000008" / file
    broken.unlink() if content is None else broken.write_bytes(content)
    with pytest.raises(UserError, match="step-000008 is missing or damaged; delete"):
        run(tmp_path / "copy", "relora")
    assert not (tmp_path / "copy/cells/relora/dynamics.csv").exists()


def test_a_cell_without_its_first_checkpoint_says_so(place, tmp_path):
    checkpoints = tmp_path / "cells/full/checkpoints"
    checkpoints.mkdir(parents=True)
    (tmp_path / "data").symlink_to(place / "data")
    write_yaml(tmp_path / "dynamics.yaml", SETTINGS)
    write_yaml(tmp_path / "cells/full/config.yaml", read_yaml(place / "cells/full/config.yaml"))
    (checkpoints / "step-000004").symlink_to(place / "cells/full/checkpoints/step-000004")
    with pytest.raises(UserError, match="step-000000 is missing or damaged"):
        run(tmp_path, "full")


def test_a_window_begins_at_its_own_checkpoint_or_not_at_all(make_cell):
    folders = {step: Path() for step in (0, 40, 80, 120, 180)}
    sparse = cell.Subject(make_cell("full"), folders, torch.zeros(1, 17, dtype=torch.int64), 3, 60)
    assert sparse.begins(120, 60) == [], "0 would be two windows away"
    assert sparse.begins(180, 60) == [120] and sparse.begins(120, 40) == [80, 40]


def test_adapters_on_none_of_the_read_components_are_not_read_as_gradients():
    matrices = {component: torch.ones(1, 4, 4) for component in ("w2", "v", "o")}
    shape = {"step": 0, "head_dim": 2, "effective": matrices, "base": matrices, "gradients": matrices}
    assert list(updates(Checkpoint(**shape, adapted=True))) == []
    assert {reading.component for reading in updates(Checkpoint(**shape))} == set(matrices)
