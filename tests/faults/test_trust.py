"""What the code may not do, read from its syntax; and names from outside that try to leave their folder."""

import ast
import json
import re
import zipfile
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
import yaml
from huggingface_hub import HfApi
from relora_study.config import Perplexity, Tokenizer, check
from relora_study.data.tokenizer import load_tokenizer
from relora_study.errors import UserError
from relora_study.evaluate import texts
from relora_study.evaluate.__main__ import app
from relora_study.evaluate.minimal_pairs import read_hub, read_suite
from relora_study.storage.files import StrictLoader, read_yaml
from transformers import AutoTokenizer
from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "workflow/relora_study").rglob("*.py"))
RULES = [ROOT / "Snakefile", *sorted((ROOT / "workflow/rules").glob("*.smk"))]

# A module or function whose use would run what a file holds, and a switch that would.
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "joblib", "marshal", "shelve", "cloudpickle"}
FORBIDDEN_CALLS = {
    "torch.load": "weights are safetensors",
    "yaml.load": "yaml.safe_load",
    "yaml.unsafe_load": "yaml.safe_load",
    "yaml.full_load": "yaml.safe_load",
    "pd.read_pickle": "parquet or csv",
    "eval": "no code from data",
    "exec": "no code from data",
    "os.system": "a list of arguments",
}
FORBIDDEN_NAMES = {"extractall", "extract", "to_pickle", "read_pickle"}
FORBIDDEN_SWITCHES = {"trust_remote_code": True, "allow_pickle": True, "shell": True, "weights_only": False}


def dangers(code: str) -> list[str]:
    """The lines of ``code`` that this project does not allow, each with what is wrong."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [name.name for name in node.names]
            found += [f"{node.lineno}: {name}" for name in names if name.split(".")[0] in FORBIDDEN_MODULES]
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            switches = {word.arg: getattr(word.value, "value", "not a constant") for word in node.keywords}
            bad = [key for key, value in FORBIDDEN_SWITCHES.items() if key in switches and switches[key] != (not value)]
            if name == "yaml.load" and ast.unparse(node.args[-1]) == "StrictLoader":
                continue
            if name in FORBIDDEN_CALLS or name.split(".")[-1] in FORBIDDEN_NAMES or bad:
                found.append(f"{node.lineno}: {name} {bad}")
            if name.startswith("Auto") and name.endswith(".from_pretrained") and "trust_remote_code" not in switches:
                found.append(f"{node.lineno}: {name} without trust_remote_code=False")
            if name.endswith("ForCausalLM.from_pretrained") and switches.get("use_safetensors") is not True:
                found.append(f"{node.lineno}: {name} without use_safetensors")
    return found


def test_the_strict_loader_of_yaml_is_a_safe_one():
    assert issubclass(StrictLoader, yaml.SafeLoader)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT / "workflow")))
def test_no_module_runs_what_a_file_holds(module):
    assert dangers(module.read_text()) == []


def test_the_rules_do_not_either():
    code = "\n".join(path.read_text() for path in RULES)
    assert not re.search(
        r"pickle|trust_remote_code|yaml\.(unsafe_|full_)?load\(|\beval\(|\bexec\(|\bcurl\b|\bwget\b", code
    )


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from torch import x\ntorch.load(f)",
        "yaml.load(f)",
        "f(trust_remote_code=True)",
        "f(trust_remote_code=value)",
        "np.load(f, allow_pickle=True)",
        "subprocess.run('x', shell=True)",
        "archive.extractall(place)",
        "LlamaForCausalLM.from_pretrained(path)",
        "AutoModelForCausalLM.from_pretrained(path, trust_remote_code=False)",
        "AutoTokenizer.from_pretrained(path)",
    ],
)
def test_what_is_not_allowed_is_seen(code):
    assert len(dangers(code)) == 1


def test_yaml_that_would_build_an_object_is_refused(tmp_path):
    (tmp_path / "evil.yaml").write_text("!!python/object/apply:os.system ['touch ran']")
    with pytest.raises(UserError, match=r"evil\.yaml"):
        read_yaml(tmp_path / "evil.yaml")


def test_every_file_fetched_by_its_address_is_pinned_by_its_hash():
    """All that fetches: pip with --require-hashes, and one file whose hash is compared."""
    fetchers = [path for path in MODULES if re.search(r"urlretrieve|urlopen|requests\.|\"download\"", path.read_text())]
    assert sorted(path.name for path in fetchers) == ["minimal_pairs.py", "sources.py"]
    assert "--require-hashes" in fetchers[0].read_text() and "BLIMP_SHA256" in fetchers[1].read_text()
    pins = yaml.safe_load((ROOT / "resources/datasets.yaml").read_text())
    assert all(re.fullmatch("[0-9a-f]{64}", pin["sha256"]) for pin in pins.values())


@pytest.fixture
def hub(monkeypatch):
    """A Hub that tells the newest commit of any repository; what is loaded from it is noted."""
    loaded = []
    monkeypatch.setattr(HfApi, "repo_info", lambda self, name, repo_type: SimpleNamespace(sha="ab" * 20))
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda name, **pins: loaded.append(pins) or ["default"])
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, split, **pins: loaded.append(pins) or stop_here())
    monkeypatch.setattr(
        AutoTokenizer,
        "from_pretrained",
        lambda name, trust_remote_code, **pins: loaded.append(pins) or stop_here(),
    )
    return loaded


def stop_here():
    raise ValueError("no more is needed")


@pytest.mark.parametrize("kind", ["tokenizer", "perplexity", "minimal_pairs"])
def test_nothing_comes_from_the_hub_but_from_a_commit_that_is_named(raw, hub, kind, monkeypatch):
    monkeypatch.setattr(texts, "open_tokenizer", lambda folder: SimpleNamespace(get_vocab=dict))

    def load(revision):
        if kind == "tokenizer":
            load_tokenizer(Tokenizer(source="hub", name="owner/name", revision=revision), 300)
        elif kind == "perplexity":
            chosen = Perplexity(**raw["evaluation"]["perplexity"] | {"source": "hub", "revision": revision})
            texts.collect(chosen, "evaluation.perplexity", Path(), Path())
        else:
            read_hub("owner/name", revision)

    with pytest.raises(UserError, match=rf"{kind}\.revision must be a commit; the newest of .*/.* is {'ab' * 20}$"):
        load(None)
    assert hub == []
    with pytest.raises(UserError, match="no more is needed"):
        load("cd" * 20)
    assert hub and all(pins == {"revision": "cd" * 20} for pins in hub)


CLIMBING = ["../evil", "a/b", "/tmp/evil", "..", ".hidden", "a\x00b", "a\nb", "relora\n", "A", "", "ü"]


@pytest.mark.parametrize("name", CLIMBING)
@pytest.mark.parametrize("section", ["sizes", "methods"])
def test_no_name_in_the_configuration_leaves_the_results(raw, section, name):
    block = next(iter(raw[section].values()))
    changed = raw | {section: raw[section] | {name: block}}
    with pytest.raises(UserError, match=section) as caught:
        check(changed, [])
    assert "\n" not in str(caught.value)


PAIR = {"sentence_good": "a", "sentence_bad": "b", "linguistics_term": "t", "pairID": "1"}


def suite_of(names: list[str]) -> str:
    return "\n".join(json.dumps(PAIR | {"UID": name}) for name in names) + "\n"


@pytest.mark.parametrize("name", ["../../evil", "/tmp/evil", "..", ".hidden", "a/b", ""])
def test_a_paradigm_whose_name_climbs_out_of_the_folder_is_refused(tmp_path, raw, name):
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite/pairs.jsonl").write_text(suite_of(["fine", name]))
    asked = raw["evaluation"]["minimal_pairs"] | {"source": "path", "path": str(tmp_path / "suite")}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(raw["evaluation"] | {"minimal_pairs": asked}))
    places = {"--settings": "settings.yaml", "--documents": "none", "--tokenizer": "none", "--output": "one/two/pairs"}
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    done = CliRunner().invoke(
        app, ["collect", "--task", "minimal_pairs", *(str(x) for k, v in places.items() for x in (k, tmp_path / v))]
    )
    assert isinstance(done.exception, UserError) and "in its name" in str(done.exception)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before, "nothing was written"


def test_a_zip_whose_members_climb_writes_nothing_outside(tmp_path):
    """Members are read in memory: their names never become paths."""
    place = tmp_path / "inner"
    place.mkdir()
    with zipfile.ZipFile(place / "suite.zip", "w") as archive:
        archive.writestr("../../evil.jsonl", suite_of(["fine"]))
        archive.writestr("/absolute.jsonl", suite_of(["other"]))
    assert read_suite(place / "suite.zip").UID.tolist() == ["fine", "other"]
    assert [path.name for path in tmp_path.rglob("*")] == ["inner", "suite.zip"]
