"""One version: the code's, which CITATION.cff, the changelog and what is made from CITATION.cff repeat."""

import json
import re
import shutil
import subprocess

import pytest
from relora_study.storage.files import read_yaml
from relora_study.version import VERSION
from studies import ROOT

CITATION = read_yaml(ROOT / "CITATION.cff")
DATE = str(CITATION["date-released"])
MADE = ["codemeta.json", ".zenodo.json"]


def test_citation_and_changelog_name_the_codes_version_and_one_date():
    assert CITATION["version"] == VERSION
    changelog = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## (.+)$", changelog, re.MULTILINE)
    assert headings[:2] == ["Unreleased", f"{VERSION} ({DATE})"]


def test_what_is_made_from_the_citation_says_what_it_says():
    codemeta, zenodo = (json.loads((ROOT / name).read_text()) for name in MADE)
    for made, title, date in ((codemeta, "name", "datePublished"), (zenodo, "title", "publication_date")):
        assert (made[title], made["version"], made[date]) == (CITATION["title"], VERSION, DATE)
        assert made["keywords"] == CITATION["keywords"] and made["description"] == CITATION["abstract"]
    assert codemeta["license"].endswith(f"/{CITATION['license']}") and zenodo["license"] == {"id": CITATION["license"]}
    names = [author["name"] for author in CITATION["authors"]]
    assert names == [author["name"] for author in codemeta["author"]] == [one["name"] for one in zenodo["creators"]]
    assert {author["@type"] for author in codemeta["author"]} == {"Organization"}, "a group is no person"


def test_the_replicated_paper_is_cited_and_no_repository_is_invented():
    (paper,) = CITATION["references"]
    assert paper["doi"] == "10.48550/arXiv.2509.12960" and len(paper["authors"]) == 4
    origin = subprocess.run(["git", "-C", ROOT, "remote"], capture_output=True, text=True).stdout
    assert origin.strip() or not {"repository-code", "url"} & CITATION.keys()


@pytest.mark.long
def test_make_citation_finds_no_fault_and_gives_the_files_that_are_here(tmp_path):
    assert (ROOT / ".venv-metadata/bin/cffconvert").exists(), "make .venv-metadata makes the tool's environment"
    for name in ("Makefile", "requirements.in", "requirements-metadata.txt", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv-metadata").symlink_to(ROOT / ".venv-metadata")
    make = ["make", "citation", "--old-file=.venv-metadata"]
    done = subprocess.run(make, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "valid according to schema version 1.2.0" in done.stdout, done.stdout + done.stderr
    for name in MADE:
        assert (tmp_path / name).read_text() == (ROOT / name).read_text(), "run make citation"
    (tmp_path / "CITATION.cff").write_text((ROOT / "CITATION.cff").read_text().replace("type: software", "type: tool"))
    assert subprocess.run(make, cwd=tmp_path, capture_output=True).returncode != 0
