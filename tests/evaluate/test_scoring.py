"""Evaluation against plain loops over transformers' own model, one sentence at a time."""

import gzip
import json
import math
import os
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
import torch
from relora_study.config.settings import MeasurementSettings
from relora_study.data.tokenizer import train_tokenizer
from relora_study.errors import UserError
from relora_study.evaluate import minimal_pairs
from relora_study.evaluate.minimal_pairs import accuracies, encode_pairs, missing_of_blimp, read_suite
from relora_study.evaluate.prefix_tree import log_probabilities, pack_trees
from relora_study.evaluate.tasks import evaluate_once, prepare, prepare_held_out
from relora_study.evaluate.templated import PARADIGMS, templated_suite
from relora_study.evaluate.texts import (
    Encoded,
    Texts,
    collect,
    measure,
    score,
    spelled_bytes,
    take_texts,
)
from relora_study.model.checkpoints import save_checkpoint
from relora_study.model.scoring import negative_log_likelihoods, windows
from relora_study.storage.files import read_yaml, sha256, write_json
from relora_study.train.run import start
from scipy.stats import norm
from torch.nn import functional
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).parents[2]
BLIMP = Path(os.environ.get("RELORA_BLIMP", ROOT.parent / "shared/data/blimp.zip"))
TEXTS = pd.Series(
    [f"The minister of city {number} said that the law was new, again and again." for number in range(60)]
)
TOKENIZER = train_tokenizer(TEXTS, 290)


@pytest.fixture
def checkpoint(make_cell, tmp_path):
    cell = make_cell("relora")
    model = start(cell, torch.device("cpu")).model
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    save_checkpoint(model, cell, 8, tmp_path)
    return tmp_path / "step-000008"


@pytest.fixture
def plain(checkpoint):
    """Transformers' own model of the checkpoint, with its own attention."""
    return AutoModelForCausalLM.from_pretrained(checkpoint).eval()


def plain_nll(model, ids) -> torch.Tensor:
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, :-1].double()
    return functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")


def random_ids(count, longest=30):
    random = np.random.default_rng(0)
    return [random.integers(0, 300, random.integers(2, longest)).tolist() for _ in range(count)]


@pytest.mark.parametrize("batch_tokens", [1, 50, 100_000])
def test_token_losses_equal_a_plain_loop_whatever_the_batch(plain, batch_tokens):
    sequences = random_ids(25)
    found = negative_log_likelihoods(plain, [*sequences, sequences[3]], batch_tokens)
    for ids, losses in zip([*sequences, sequences[3]], found, strict=True):
        torch.testing.assert_close(losses.double(), plain_nll(plain, ids), rtol=1e-5, atol=1e-6)


def test_perplexities_equal_their_definitions(plain):
    domains = {"a": take_texts(TEXTS[:9], TOKENIZER, 12, 10_000), "b": take_texts(TEXTS[9:20], TOKENIZER, 12, 10_000)}
    value = measure(None, score(plain, Encoded(domains, 16), 64)).set_index(["item", "metric"]).value
    nats, each, tokens, size = [], [], 0, 0
    for text in TEXTS[:9]:
        ids = TOKENIZER(text)["input_ids"][:12]
        losses = plain_nll(plain, ids)
        nats.append(losses.sum().item())
        each.append(math.exp(losses.mean().item()))
        tokens, size = tokens + 11, size + len(TOKENIZER.decode(ids[1:]).encode())
    assert value["a", "token_perplexity"] == pytest.approx(math.exp(sum(nats) / tokens), rel=1e-5)
    assert value["a", "mean_text_perplexity"] == pytest.approx(sum(each) / 9, rel=1e-5)
    assert value["a", "bits_per_byte"] == pytest.approx(sum(nats) / math.log(2) / size, rel=1e-5)
    assert (value["a", "texts"], value["a", "tokens"], value["overall", "texts"]) == (9, 99, 20)
    both = (value["a", "token_perplexity"] + value["b", "token_perplexity"]) / 2
    assert value["macro_average", "token_perplexity"] == pytest.approx(both)


def test_texts_without_a_finite_prediction_are_counted(plain):
    found = take_texts(pd.Series(["", "a", TEXTS[0], TEXTS[1], TEXTS[2]]), TOKENIZER, 20, 30)
    assert [len(ids) for ids in found.ids] == [0, 1, 20, 20]
    value = measure(None, score(plain, Encoded({"a": found}, 16), 100)).set_index(["item", "metric"]).value
    assert (value["a", "texts"], value["a", "skipped"], value["a", "non_finite"]) == (2, 2, 0)
    with torch.no_grad():
        plain.model.embed_tokens.weight[6] = torch.inf
    value = measure(None, score(plain, Encoded({"a": Texts([[2, 3], [5, 6, 7]], [1, 2])}, 16), 100))
    value = value.set_index(["item", "metric"]).value
    assert (value["a", "texts"], value["a", "skipped"], value["a", "non_finite"]) == (1, 0, 1)
    assert np.isfinite(value["a", "token_perplexity"])


@pytest.mark.parametrize(
    ("tokens", "length", "stride"), [(50, 16, 16), (50, 16, 5), (17, 16, 16), (18, 16, 1), (2, 9, 3)]
)
def test_windows_score_every_token_once_with_its_context(tokens, length, stride):
    ids, scored = list(range(tokens)), []
    for number, (window, new) in enumerate(windows(ids, length, stride)):
        assert len(window) <= length + 1 and (new <= stride or number == 0)
        scored += window[-new:]
    assert scored == ids[1:]


def test_a_long_text_is_scored_in_windows_as_a_plain_loop_does(plain):
    ids = random_ids(1, 3)[0] + np.random.default_rng(1).integers(0, 300, 60).tolist()
    found = score(plain, Encoded({"a": Texts([ids], [1])}, 5), 40).iloc[0]
    expected, done = 0.0, 0
    for begin in range(0, len(ids), 5):
        end = min(begin + 16, len(ids) - 1)
        if end > done:
            expected += plain_nll(plain, ids[begin : end + 1])[-(end - done) :].sum().item()
            done = end
    assert (found.tokens, done) == (len(ids) - 1, len(ids) - 1)
    assert found.nats == pytest.approx(expected, rel=1e-5)


def test_texts_come_from_a_folder_by_domain_or_as_ids(raw, tmp_path):
    from relora_study.config import Perplexity

    (tmp_path / "wiki").mkdir()
    pd.DataFrame({"ids": [[1, 2, 3], [4, 5]]}).to_parquet(tmp_path / "wiki/shard.parquet")
    chosen = raw["evaluation"]["perplexity"] | {"source": "path", "path": str(tmp_path), "text_column": "ids"}
    found = collected(Perplexity(**chosen))
    assert found.domain.tolist() == ["wiki", "wiki"]
    assert take_texts(found.text, TOKENIZER, 2, 100).ids == [[1, 2], [4, 5]]


def collected(settings):
    with TemporaryDirectory() as folder:
        TOKENIZER.save_pretrained(folder)
        return collect(settings, "evaluation.perplexity", Path(), Path(folder))


def perplexity_settings(raw, **chosen):
    from relora_study.config import Perplexity

    return Perplexity(**raw["evaluation"]["perplexity"] | chosen)


def test_the_papers_paloma_comes_from_a_local_copy_by_source_as_text_or_ids(raw, tmp_path):
    table = pd.DataFrame({"input_ids": [[4, 5, 6], [7, 8]], "text": ["One text.", "Another."], "source": ["c4", "mc4"]})
    (tmp_path / "data").mkdir()
    table.to_parquet(tmp_path / "data/val-00000-of-00001.parquet")
    chosen = perplexity_settings(raw, source="hub", path=str(tmp_path))
    found = collected(chosen)
    assert found.to_dict("list") == {"domain": ["c4", "mc4"], "text": ["One text.", "Another."]}
    found = collected(chosen.model_copy(update={"text_column": "input_ids", "domain_column": "text"}))
    assert found.domain.tolist() == ["One text.", "Another."]
    assert take_texts(found.text, TOKENIZER, 9, 100).ids == [[4, 5, 6], [7, 8]]
    with pytest.raises(UserError, match="has no column nothing; it has input_ids, text, source"):
        collected(chosen.model_copy(update={"text_column": "nothing"}))


def test_paloma_itself_comes_from_a_local_copy_a_configuration_a_domain(raw, tmp_path):
    configurations = []
    for name in ("c4_en", "ptb"):
        for split in ("val", "test"):
            (tmp_path / name / split).mkdir(parents=True)
            with gzip.open(tmp_path / name / split / f"{split}.jsonl.gz", "wt") as stream:
                stream.write(json.dumps({"text": f"{split} of {name}.", "id": "0", "source": "other", "metadata": {}}))
        configurations += [f"- config_name: {name}", "  data_files:"]
        configurations += [f"  - {{split: {split}, path: {name}/{split}/*}}" for split in ("val", "test")]
    (tmp_path / "README.md").write_text("\n".join(["---", "configs:", *configurations, "---"]))
    found = collected(perplexity_settings(raw, source="hub", path=str(tmp_path)))
    assert found.to_dict("list") == {"domain": ["c4_en", "ptb"], "text": ["val of c4_en.", "val of ptb."]}


def test_bytes_are_those_that_the_scored_ids_spell_even_where_a_cut_splits_a_character():
    text = "日本 is a ☃ law, été"
    ids = TOKENIZER(text)["input_ids"]
    assert spelled_bytes(ids, TOKENIZER) == len(text.encode())
    for end in range(len(ids)):
        assert spelled_bytes(ids[:end], TOKENIZER) + spelled_bytes(ids[end:], TOKENIZER) == len(text.encode())
    assert take_texts(pd.Series([text]), TOKENIZER, 4, 100).scored_bytes == [spelled_bytes(ids[1:4], TOKENIZER)]


@pytest.mark.parametrize("batch_tokens", [24, 50, 400])
def test_no_forward_pass_holds_more_tokens_than_the_budget(plain, batch_tokens):
    held = []
    plain.model.register_forward_pre_hook(lambda *found: held.append(found[2]["input_ids"].numel()), with_kwargs=True)
    sentences = [tuple(ids[:20]) for ids in random_ids(60)] + alike()
    log_probabilities(plain, sentences, batch_tokens)
    negative_log_likelihoods(plain, [ids for ids in sentences if len(ids) > 1], batch_tokens)
    assert batch_tokens / 2 < max(held) <= batch_tokens


def pairs_of(*sentences) -> pd.DataFrame:
    rows = [
        {"sentence_good": good, "sentence_bad": bad, "UID": f"p{number % 2}", "pairID": str(number)}
        for number, (good, bad) in enumerate(sentences)
    ]
    return pd.DataFrame(rows).assign(linguistics_term="agreement")


def alike(count=60) -> list[tuple[int, ...]]:
    """Sentences that share beginnings of every length: some are others' beginnings, some the same, some empty."""
    random = np.random.default_rng(4)
    stems = [tuple(random.integers(0, 300, 12).tolist()) for _ in range(6)]
    found: list[tuple[int, ...]] = [(), (1,), (1, 2), (1, 2), (1, 2, 3)]
    for _ in range(count):
        stem = stems[random.integers(len(stems))]
        found.append(stem[: random.integers(0, 12)] + tuple(random.integers(0, 300, random.integers(0, 5)).tolist()))
    return found


@pytest.mark.parametrize("batch_tokens", [1, 40, 10_000])
def test_sentences_in_a_prefix_tree_score_as_they_do_alone(plain, batch_tokens):
    sentences = alike()
    found = log_probabilities(plain, sentences, batch_tokens)
    expected = [-plain_nll(plain, list(ids)).sum().item() if len(ids) > 1 else 0.0 for ids in sentences]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_beginning_that_sentences_share_runs_once_a_row():
    sentences = alike()
    (row,) = pack_trees(sentences, tree_tokens=10_000)
    beginnings = {ids[:end] for ids in sentences for end in range(1, len(ids))}
    assert len(row.inputs) == len(beginnings)
    assert len(row.targets) == len({ids[:end] for ids in sentences for end in range(2, len(ids) + 1)})
    assert all(len(row.inputs) <= 20 for row in pack_trees(sentences, tree_tokens=20))


@pytest.mark.parametrize(("start_token", "leading_space"), [(False, False), (True, False), (True, True)])
def test_pair_decisions_equal_a_plain_loop(plain, start_token, leading_space):
    suite = pairs_of(*((f"The law was new {n}.", f"The law were new {n}.") for n in range(40)))
    judged = minimal_pairs.score(
        plain, minimal_pairs.Encoded(suite, encode_pairs(suite, TOKENIZER, start_token, leading_space)), 200
    )
    prefix = [TOKENIZER.eos_token_id] if start_token else []
    for row, pair in zip(judged.itertuples(), suite.itertuples(), strict=True):
        for total, count, text in (
            (row.good, row.good_tokens, pair.sentence_good),
            (row.bad, row.bad_tokens, pair.sentence_bad),
        ):
            losses = plain_nll(plain, prefix + TOKENIZER(" " * leading_space + text)["input_ids"])
            assert total == pytest.approx(-losses.sum().item(), rel=1e-5)
            assert count == len(losses)
    value = accuracies(judged).set_index(["item", "metric"]).value
    assert value["overall", "accuracy"] == (judged.good > judged.bad).mean()
    per_token = judged.good / judged.good_tokens > judged.bad / judged.bad_tokens
    assert value["overall", "accuracy_per_token"] == per_token.mean()


def test_ties_are_wrong_and_intervals_are_wilsons(plain):
    suite = pairs_of(("The law was new.", "The law was new."), *((f"City {n}.", f"Law {n}.") for n in range(9)))
    judged = minimal_pairs.score(plain, minimal_pairs.Encoded(suite, encode_pairs(suite, TOKENIZER, False)), 100)
    value = accuracies(judged).set_index(["item", "metric"]).value
    right, z = value["overall", "accuracy"], norm.ppf(0.975)
    centre = (right + z**2 / 20) / (1 + z**2 / 10)
    half = z * math.sqrt(right * (1 - right) / 10 + z**2 / 400) / (1 + z**2 / 10)
    assert value["overall", "ties"] == 1 and not judged.good[0] > judged.bad[0]
    assert value["overall", "accuracy_low"] == pytest.approx(max(0, centre - half))
    assert value["overall", "accuracy_high"] == pytest.approx(centre + half)
    assert value["paradigm/p0", "pairs"] + value["paradigm/p1", "pairs"] == value["overall", "pairs"] == 10


def make_data(raw, cell, batch_tokens=100, texts=3):
    read = {"held_out_tokens_per_domain": 100, "held_out_tokens": 80, "batch_tokens": batch_tokens}
    evaluation = MeasurementSettings.model_validate(raw["evaluation"] | read)
    suite = pairs_of(("The law was.", "The law were."), ("A city.", "An city."))
    tables = {"perplexity": pd.DataFrame({"domain": "a", "text": TEXTS[:texts]}), "minimal_pairs": suite}
    prepared = [
        prepare(name, settings, tables[name], TOKENIZER, evaluation, cell)
        for name, settings in evaluation.every_task.items()
    ]
    return [*prepared, prepare_held_out(Texts(random_ids(2), [9, 9]), batch_tokens)]


def test_a_checkpoint_is_measured_once_and_again_only_when_it_or_the_data_changes(
    checkpoint, tmp_path, monkeypatch, raw, make_cell
):
    from relora_study.evaluate import tasks as module

    measured, cell = [], make_cell("relora")
    for kind in ("texts", "minimal_pairs"):
        real = module.KINDS[kind].score
        monkeypatch.setattr(
            module.KINDS[kind], "score", lambda *a, kind=kind, real=real, **b: measured.append(kind) or real(*a, **b)
        )
    first = evaluate_once(make_data(raw, cell), checkpoint, tmp_path / "evaluation")
    again = evaluate_once(make_data(raw, cell, 50), checkpoint, tmp_path / "evaluation")
    pd.testing.assert_frame_equal(first, again)
    every = ["texts", "minimal_pairs", "texts"]  # the held-out documents are texts, too
    assert measured == every
    other = make_data(raw, cell, texts=5)
    evaluate_once(other, checkpoint, tmp_path / "evaluation")
    assert measured == [*every, "texts"], "a task whose texts are as they were keeps its scores"
    found = sorted(path.suffix for path in (tmp_path / "evaluation").iterdir())
    assert found == [".csv"] * 3 + [".parquet"] * 3
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    said = read_yaml(checkpoint / "checkpoint.json")
    write_json(checkpoint / "checkpoint.json", said | {"sha256": {"model.safetensors": sha256(weights)}})
    evaluate_once(other, checkpoint, tmp_path / "evaluation")
    assert measured[4:] == every


def test_an_id_outside_the_vocabulary_and_half_a_checkpoint_are_named(plain, checkpoint, tmp_path, raw, make_cell):
    with pytest.raises(UserError, match="token id 999 is outside the model's vocabulary of 300"):
        negative_log_likelihoods(plain, [[1, 999]], 100)
    (checkpoint / "model.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match="step-000008 is not a whole checkpoint"):
        evaluate_once(make_data(raw, make_cell("relora")), checkpoint, tmp_path / "evaluation")
    assert not list((tmp_path / "evaluation").glob("*"))


PAIR = {"sentence_good": "a", "sentence_bad": "b", "linguistics_term": "t", "UID": "u", "pairID": "0"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["{"], r"u\.jsonl, line 1: not JSON \(Expecting property name"),
        ([json.dumps(PAIR), json.dumps({"UID": "u"})], r"line 2: not a minimal pair \(sentence_good is missing\)"),
        ([json.dumps(PAIR)] * 2, "paradigm u has pairID 0 twice"),
        ([], "holds no .jsonl file with minimal pairs"),
    ],
)
def test_a_bad_suite_names_the_file_and_the_line(tmp_path, lines, message):
    (tmp_path / "u.jsonl").write_text("\n".join(lines))
    with pytest.raises(UserError, match=message):
        read_suite(tmp_path)


def test_a_zip_and_a_folder_hold_the_same_suite(tmp_path):
    (tmp_path / "u.jsonl").write_text(json.dumps(PAIR))
    with zipfile.ZipFile(tmp_path / "suite.zip", "w") as archive:
        archive.write(tmp_path / "u.jsonl", "data/u.jsonl")
    pd.testing.assert_frame_equal(read_suite(tmp_path / "suite.zip"), read_suite(tmp_path))
    (tmp_path / "bad.zip").write_text("no zip")
    with pytest.raises(UserError, match=r"cannot read .*bad\.zip"):
        read_suite(tmp_path / "bad.zip")


@pytest.mark.skipif(not BLIMP.exists(), reason=f"{BLIMP} is absent; set RELORA_BLIMP to BLiMP's zip to run this")
def test_blimp_is_67_paradigms_of_1000_pairs():
    suite = read_suite(BLIMP)
    assert suite.UID.value_counts().unique().tolist() == [1000]
    assert (suite.UID.nunique(), suite.linguistics_term.nunique()) == (67, 13)
    assert missing_of_blimp(suite) == ""
    fewer = suite[(suite.UID != "causative") & ~((suite.UID == "wh_island") & (suite.pairID == "3"))]
    assert missing_of_blimp(fewer) == "no causative; 999 pairs, not 1000, of wh_island"
    assert missing_of_blimp(pairs_of(("a", "b"))) == ""


def test_a_download_with_another_hash_is_refused_and_not_kept(tmp_path, monkeypatch):
    (tmp_path / "other.zip").write_bytes(b"not BLiMP")
    monkeypatch.setattr(minimal_pairs, "BLIMP_URL", (tmp_path / "other.zip").as_uri())
    with pytest.raises(UserError, match="sha256"):
        minimal_pairs.download_blimp(tmp_path / "suite")
    assert not any((tmp_path / "suite").iterdir())


def test_the_templated_suite_is_ten_paradigms_whose_sentences_differ():
    suite = templated_suite(TEXTS)
    assert list(suite) == list(PARADIGMS) and len(suite) == 10
    for pairs in suite.values():
        assert len({pair["sentence_good"] for pair in pairs}) > 100
        assert all(pair["sentence_good"] != pair["sentence_bad"] for pair in pairs)
        assert not {pair["sentence_good"] for pair in pairs} & {pair["sentence_bad"] for pair in pairs}
    assert templated_suite(TEXTS) == suite
