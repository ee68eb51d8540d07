"""Describe an archive of a study as an RO-Crate, by the profile Workflow Run Crate 0.5, which builds on RO-Crate 1.1.

Equal results give equal bytes: the only time in it is the end of the last training, from the cells' manifests.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from rocrate.model.contextentity import ContextEntity
from rocrate.rocrate import ROCrate

from ..config import Study
from ..storage.contracts import CellManifest
from ..storage.files import read_yaml
from ..version import VERSION
from .inputs import Input

ROOT = Path(__file__).parents[3]
METADATA = "ro-crate-metadata.json"
CODE = "archive/code"
SNAKEFILE, PUBLISHED, CONFIGURATION = f"{CODE}/Snakefile", f"{CODE}/resources/published", "settings/whole.yaml"
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": ("Workflow RO-Crate", "1.0"),
}
BIOSCHEMAS = "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"
SPDX = "https://spdx.org/licenses"
TERMS = {"sha256": "http://schema.org/sha256"}  # RO-Crate 1.1's context has no such term; later ones have this
FOLDERS = {
    "archive": "Hashes of all files, versions of all packages, the corpus's manifest, and the code",
    CODE: "The workflow's code and the tables that it reads, as they made the report",
    "benchmarks": "Time and memory of each job, as Snakemake measured them",
    "cells": "Each training, a folder a cell: settings, log, manifest, evaluation and spectra",
    "figures": "The figures",
    "logs": "The output of each job",
    "settings": "The settings that the jobs read",
    "tables": "The tables",
}
LISTED_WHOLE = (f"{CODE}/workflow", "benchmarks", "logs")  # of these folders, only SHA256SUMS lists each file
MEDIA_TYPES = {
    ".csv": "text/csv",
    ".json": "application/json",
    ".md": "text/markdown",
    ".parquet": "application/vnd.apache.parquet",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".rst": "text/x-rst",
    ".tex": "application/x-tex",
    ".yaml": "application/yaml",
}
RESULTS = {"readings": "cells", "figures": "figures", "tables": "tables", "paper": "paper.pdf"}


class Archive(NamedTuple):
    """What the crate describes: each file's content by name, and its SHA-256; the study, its cells and its inputs."""

    contents: Mapping[str, bytes]
    hashes: Mapping[str, str]
    study: Study
    manifests: Sequence[CellManifest]
    inputs: Sequence[Input]
    engine: str  # Snakemake's version


def metadata(archive: Archive) -> bytes:
    """Return the content of ro-crate-metadata.json for ``archive``."""
    crate = ROCrate(version="1.1")
    crate.metadata.extra_terms.update(TERMS)
    _describe_root(crate, archive)
    _describe_files(crate, archive)
    workflow = _workflow(crate, archive)
    read = [crate.get(CONFIGURATION), *(_input(crate, one) for one in archive.inputs)]
    names = ["configuration", *(one.parameter for one in archive.inputs)]
    if archive.study.report.kind == "replication":
        names, read = [*names, "published values"], [*read, _published(crate)]
    made = {name: crate.get(place) or crate.get(f"{place}/") for name, place in RESULTS.items()}
    made = {name: entity for name, entity in made.items() if entity}
    workflow["input"] = [_parameter(crate, name, entity) for name, entity in zip(names, read, strict=True)]
    workflow["output"] = [_parameter(crate, name, entity) for name, entity in made.items()]
    _action(crate, archive, workflow, read, list(made.values()))
    document = crate.metadata.generate()
    for entity in document["@graph"]:  # RO-Crate asks for a value where there is one
        entity |= {key: value[0] for key, value in entity.items() if isinstance(value, list) and len(value) == 1}
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def _add(crate: ROCrate, identifier: str, kind: str, **properties: Any) -> Any:
    """Add an entity that is no file of the crate, without the properties that are None."""
    known = {name: value for name, value in properties.items() if value is not None}
    return crate.add(ContextEntity(crate, identifier, {"@type": kind, **known}))


def _describe_root(crate: ROCrate, archive: Archive) -> None:
    root, sharing = crate.root_dataset, archive.study.sharing
    root["name"] = f"Results of the study “{archive.study.report.title}”"
    cells = f"{len(archive.manifests)} training(s): {', '.join(manifest.cell for manifest in archive.manifests)}"
    root["description"] = (
        f"Settings, measurements, tables, figures and paper of {cells}. Made by relora_study {VERSION}."
        " The archive holds no checkpoints and no texts."
    )
    root["datePublished"] = (_ended(archive) or datetime.now(UTC).isoformat())[:10]
    root["license"] = _licence(crate, sharing.licence) if sharing.licence else _no_licence(crate)
    root["conformsTo"] = [
        _add(crate, url, "CreativeWork", name=name, version=version) for url, (name, version) in PROFILES.items()
    ]
    if agent := _agent(crate, archive):
        root["author"] = agent


def _ended(archive: Archive) -> str | None:
    """Return the time at which the last training ended; None if a training of an earlier version does not say."""
    times = [manifest.ended for manifest in archive.manifests]
    return max((time for time in times if time), default=None) if all(times) else None


def _agent(crate: ROCrate, archive: Archive) -> Any:
    """Return the person whom the configuration names, or None: nobody is guessed."""
    sharing = archive.study.sharing
    if not sharing.run_by:
        return None
    place = f"https://orcid.org/{sharing.orcid}" if sharing.orcid else "#run-by"
    return crate.get(place) or _add(crate, place, "Person", name=sharing.run_by)


def _licence(crate: ROCrate, name: str) -> Any:
    return crate.get(f"{SPDX}/{name}") or _add(crate, f"{SPDX}/{name}", "CreativeWork", name=name)


def _no_licence(crate: ROCrate) -> Any:
    said = "Whoever packed these results chose no licence for them. The code in archive/code is Apache-2.0."
    return _add(crate, "#no-licence", "CreativeWork", name="No licence chosen", description=said)


def _describe_files(crate: ROCrate, archive: Archive) -> None:
    """Describe the folders, and each file but those of folders that SHA256SUMS lists whole."""
    folders: dict[str, Any] = {}
    for name in sorted(archive.contents):
        whole = next((folder for folder in LISTED_WHOLE if name.startswith(f"{folder}/")), None)
        part = _folder(crate, folders, PurePosixPath(whole)) if whole else _file(crate, archive, name)
        parent = PurePosixPath(whole or name).parent
        if parent.name:
            _has_part(_folder(crate, folders, parent), part)


def _folder(crate: ROCrate, folders: dict[str, Any], place: PurePosixPath) -> Any:
    """Return the folder at ``place``; the first time, add it and the folders around it."""
    name = place.as_posix()
    if name not in folders:
        said = {"description": FOLDERS[name]} if name in FOLDERS else {}
        properties = {"name": name, **said}
        if name == CODE:
            properties["license"] = _licence(crate, "Apache-2.0")
        folders[name] = crate.add_dataset(dest_path=name, properties=properties)
        if place.parent.name:
            _has_part(_folder(crate, folders, place.parent), folders[name])
    return folders[name]


def _has_part(folder: Any, part: Any) -> None:
    if part not in folder.get("hasPart", []):
        folder.append_to("hasPart", part)


def _file(crate: ROCrate, archive: Archive, name: str) -> Any:
    properties = {
        "name": name,
        "contentSize": str(len(archive.contents[name])),
        "sha256": archive.hashes[name],
        "encodingFormat": MEDIA_TYPES.get(PurePosixPath(name).suffix, "text/plain"),
    }
    if name == SNAKEFILE:
        engine = {"lang": "snakemake", "lang_version": archive.engine}
        return crate.add_workflow(dest_path=name, properties=properties, main=True, **engine)
    return crate.add_file(dest_path=name, properties=properties)


def _workflow(crate: ROCrate, archive: Archive) -> Any:
    """Complete the workflow: its version, its authors by CITATION.cff, its licence, and what it ran with."""
    workflow, citation = crate.mainEntity, read_yaml(ROOT / "CITATION.cff")
    workflow["name"] = citation["title"]
    workflow["version"] = VERSION
    workflow["conformsTo"] = _add(crate, BIOSCHEMAS, "CreativeWork", name="Bioschemas ComputationalWorkflow")
    workflow["license"] = _licence(crate, citation["license"])
    workflow["creator"] = [_author(crate, author) for author in citation["authors"]]
    versions = {pair for manifest in archive.manifests for pair in manifest.versions.items()}
    required = [_software(crate, name, version) for name, version in sorted(versions) if name != "relora_study"]
    workflow["softwareRequirements"] = required
    return workflow


def _author(crate: ROCrate, author: Mapping[str, str]) -> Any:
    """Add an author of CITATION.cff: a group, or a person."""
    if "name" in author:
        return _add(crate, author.get("website", "#authors"), "Organization", name=author["name"])
    name = " ".join(author[part] for part in ("given-names", "family-names") if part in author)
    return _add(crate, author.get("orcid", f"#{name.replace(' ', '-')}"), "Person", name=name)


def _software(crate: ROCrate, name: str, version: str) -> Any:
    """Add a package that the cells trained with, by its page on PyPI."""
    release = f"https://www.python.org/downloads/release/python-{version.replace('.', '')}/"
    page = release if name == "python" else f"https://pypi.org/project/{name}/{version.partition('+')[0]}/"
    return _add(crate, page, "SoftwareApplication", name=name, softwareVersion=version, url=page)


def _input(crate: ROCrate, one: Input) -> Any:
    """Add an input: a file or a data set at its public address, or the hash of what only the user has."""
    if one.url is None:
        value = f"sha256:{one.sha256}" if one.sha256 else "not kept"
        said = f"{one.name}, which is not in the archive. The value is the hash of {one.hashed}."
        identifier = f"#{one.parameter.replace(' ', '-')}"
        return _add(crate, identifier, "PropertyValue", name=one.parameter, value=value, description=said)
    properties: dict[str, Any] = {"name": one.name}
    if one.sha256:
        said = f"{one.note} The SHA-256 is of {one.hashed}.".strip()
        properties |= {"sha256": one.sha256, "description": said}
    if one.licence:
        properties["license"] = _licence(crate, one.licence)
    if one.origins:
        properties["isBasedOn"] = [_origin(crate, **origin) for origin in one.origins]
    if not one.is_file:
        return crate.add_dataset(one.url, properties=properties)
    return crate.add_file(one.url, properties=properties | {"encodingFormat": "application/zip"})  # a wheel is one, too


def _origin(crate: ROCrate, name: str, url: str, licence: str | None = None) -> Any:
    return _add(crate, url, "CreativeWork", name=name, license=_licence(crate, licence) if licence else None)


def _published(crate: ROCrate) -> Any:
    """Say of the published values, which lie in the code, where they come from."""
    known, folder = read_yaml(ROOT / "resources" / "licences.yaml")["published"], crate.get(f"{PUBLISHED}/")
    folder["description"] = known["name"]
    folder["license"] = _licence(crate, known["licence"])
    folder["isBasedOn"] = _origin(crate, known["name"], known["url"])
    return folder


def _parameter(crate: ROCrate, name: str, entity: Any) -> Any:
    """Add the workflow's parameter called ``name``, of which ``entity`` is the value in this run."""
    kinds = [entity.type] if isinstance(entity.type, str) else entity.type
    identifier = f"#parameter-{name.replace(' ', '-')}"
    parameter = _add(crate, identifier, "FormalParameter", name=name, additionalType=kinds[0], workExample=entity)
    entity["exampleOfWork"] = parameter
    return parameter


def _action(crate: ROCrate, archive: Archive, workflow: Any, read: Iterable[Any], made: Iterable[Any]) -> None:
    """Add the run itself."""
    trainers = sorted({manifest.versions.get("relora_study", "before 1.0") for manifest in archive.manifests})
    action = _add(
        crate,
        "#run",
        "CreateAction",
        name="The run of the study",
        description=f"The cells were trained by relora_study {', '.join(trainers)}, the report was made by {VERSION}."
        " The end is the last training's. Evaluation and report come after it.",
        actionStatus="http://schema.org/CompletedActionStatus",
        instrument=workflow,
        object=list(read),
        result=list(made),
        endTime=_ended(archive),
        agent=_agent(crate, archive),
    )
    crate.root_dataset["mentions"] = [action]
