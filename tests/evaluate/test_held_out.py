"""The held-out loss: every token of every document once, after an end of text, against the model's own forward pass."""

import numpy as np
import pandas as pd
import pytest
import torch
from relora_study.analysis.losses import Losses
from relora_study.data.tokenizer import train_tokenizer
from relora_study.data.tokens import open_documents, row_order
from relora_study.errors import UserError
from relora_study.evaluate.texts import Texts, document_losses, held_out_texts, mean_loss
from relora_study.storage.contracts import Manifest, Split, read_manifest, write_manifest
from relora_study.storage.files import sha256, write_csv
from transformers import LlamaConfig, LlamaForCausalLM

END = 7
STREAM = [1, 2, 3, END, 4, 5, END, END, 6, 8, 9, 10, 11]


def write_tokens(folder, ids, documents=3):
    folder.mkdir(exist_ok=True)
    np.asarray(ids, dtype="<u2").tofile(folder / "held_out.bin")
    split = Split(documents=documents, tokens=len(ids), sha256=sha256(folder / "held_out.bin"))
    settings = {"source": "t", "dtype": "uint16", "vocab_size": 20, "end_of_text_id": END, "tokenizer_sha256": ""}
    write_manifest(folder, Manifest(**settings, train=split, held_out=split))
    return folder


def test_documents_end_at_an_end_of_text_and_begin_after_one(tmp_path):
    found = open_documents(write_tokens(tmp_path / "tokens", STREAM), "held_out", 12, 4)
    ends = [[END, 1, 2, 3, END], [END, 4, 5, END], [END, END], [END, 6, 8, 9, 10]]
    assert [ids.tolist() for ids in found] == ends, "the last is cut at the most tokens"
    assert sum(len(ids) - 1 for ids in found) == 12, "each token of the file is scored once"


def test_rows_of_shards_end_documents_too(tmp_path):
    found = open_documents(write_tokens(tmp_path / "tokens", STREAM[:10], documents=None), "held_out", 100, 4)
    assert [ids.tolist() for ids in found] == [[END, 1, 2, 3, END], [END, 4], [END, 5, END], [END, END], [END, 6, 8]]


@pytest.fixture
def model():
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=20, max_position_embeddings=8, **shape)).eval()


def test_a_documents_loss_is_the_models_own_in_parts_of_a_context(model):
    """transformers' own loss is the oracle; a document of 12 scored ids is read as one of 8 and one of 4."""
    short, long = [END, 1, 2, 3, END], [END, *range(8, 19), END]
    found = document_losses(model, Texts([short, long], [3, 11]), 64)

    def nats(ids):
        part = torch.tensor([ids])
        return model(input_ids=part, labels=part).loss.item() * (len(ids) - 1)

    assert found.nats.tolist() == pytest.approx([nats(short), nats(long[:9]) + nats(long[8:])], rel=1e-5)
    assert found.tokens.tolist() == [4, 12] and found.bytes.tolist() == [3, 11]
    assert mean_loss(found) == pytest.approx(found.nats.sum() / 16)


def test_an_end_of_text_spells_no_bytes(tmp_path):
    tokenizer = train_tokenizer(["a city of the law"] * 3, 290)
    folder = write_tokens(tmp_path / "tokens", [*tokenizer("a city")["input_ids"], tokenizer.eos_token_id])
    manifest = read_manifest(folder).model_copy(update={"end_of_text_id": tokenizer.eos_token_id})
    write_manifest(folder, manifest)
    assert held_out_texts(folder, 100, 8, tokenizer).scored_bytes == [len("a city")]


@pytest.mark.parametrize("seed", [None, 42])
def test_an_order_reads_each_row_once_a_pass_and_does_not_depend_on_the_length(seed):
    row_at = row_order(seed, 50)
    first, second = ([row_at(place) for place in range(start, start + 50)] for start in (0, 50))
    assert sorted(first) == sorted(second) == list(range(50))
    assert (first == list(range(50))) is (seed is None) and (first == second) is (seed is None)
    assert [row_order(seed, 50)(place) for place in (99, 0, 50)] == [second[-1], first[0], second[0]]


def test_seeds_draw_orders_of_their_own():
    orders = {tuple(map(row_order(seed, 50), range(50))) for seed in (42, 43, 44)}
    assert len(orders) == 3


def of_cell(place, nats, tokens=(10, 30)):
    place.mkdir(parents=True)
    write_csv(place / "held_out.csv", pd.DataFrame({"document": [0, 1], "tokens": tokens, "bytes": 9, "nats": nats}))


def test_losses_weigh_documents_by_tokens_and_come_back_from_their_table(tmp_path):
    of_cell(tmp_path / "a", [20.0, 90.0])
    of_cell(tmp_path / "b", [np.nan, np.nan])
    losses = Losses.read(tmp_path, ["a", "b"])
    assert losses.of("a") == pytest.approx(110 / 40) and np.isnan(losses.of("b"))
    again = Losses.of_table(losses.table)
    assert again.of("a") == losses.of("a") and again.table.equals(losses.table)
    assert losses.difference([("a", "a"), ("a", "b")]).seeds == 1, "the pair with a diverged cell is left out"


def test_losses_of_other_text_do_not_mix(tmp_path):
    of_cell(tmp_path / "a", [20.0, 90.0])
    of_cell(tmp_path / "b", [20.0, 90.0], tokens=(10, 31))
    with pytest.raises(UserError, match=r"b/held_out.csv is of other held-out text than the others; delete it"):
        Losses.read(tmp_path, ["a", "b"])
