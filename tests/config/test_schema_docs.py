"""What is made from the schema: the JSON schema, the page, the comments in config.yaml."""

import copy
from pathlib import Path
from typing import Literal, get_args, get_origin

import jsonschema
import pytest
from relora_study.config import Section, Study
from relora_study.config.__main__ import comment, commented, json_schema, made, section_of
from relora_study.config.fields import Unit
from relora_study.storage.files import read_yaml

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config.yaml"
OVERLAYS = [
    *sorted((ROOT / "workflow/presets").glob("*.yaml")),
    ROOT / "tests/tiny.yaml",
    ROOT / "tests/slurm/study.yaml",
]


def every_field(kind: type[Section] = Study, path: tuple[str, ...] = ()):
    for name, field in kind.model_fields.items():
        yield (*path, name), field
        inner, _ = section_of(field.annotation)
        if inner:
            yield from every_field(inner, (*path, name))


FIELDS = {".".join(path): field for path, field in every_field()}


def types_of(annotation):
    """The types in an annotation, unions and lists opened."""
    if get_origin(annotation) is Literal:
        return [annotation]
    return [annotation, *(inner for part in get_args(annotation) for inner in types_of(part))]


@pytest.mark.parametrize("path", made(ROOT), ids=lambda path: path.name)
def test_what_is_made_from_the_schema_is_up_to_date(path):
    assert path.read_text(encoding="utf-8") == made(ROOT)[path], "run make docs"


def test_a_changed_comment_is_found_and_one_about_the_study_stays():
    text = CONFIG.read_text()
    first = comment(FIELDS["train.learning_rate"])
    assert f"learning_rate: 3.0e-3 # {first}\n" in text
    assert commented(text.replace(first, "of a colleague")) == text
    assert commented(text.replace(f" # {first}", "")) == text
    assert "\n  # Ten reset cycles.\n  steps: 600 # " in commented(text)


def test_every_key_is_described_and_shown():
    shown = read_yaml(CONFIG)
    for key, field in FIELDS.items():
        assert field.description and len(comment(field)) <= 90, key
        parts = key.split(".")
        named_by_users = parts[0] in ("sizes", "methods", "sweeps", "tuning") or parts[:2] == ["evaluation", "tasks"]
        if not named_by_users or len(parts) == 1:
            section = shown
            for part in parts[:-1]:
                section = section[part]
            assert parts[-1] in section, f"{key} is not in config.yaml"
    assert all(len(line) <= 120 for line in CONFIG.read_text().splitlines())


@pytest.mark.parametrize("key", FIELDS)
def test_a_description_names_the_values_and_the_unit(key):
    field = FIELDS[key]
    text = " ".join((field.description or "").split())
    literals = [part for part in types_of(field.annotation) if get_origin(part) is Literal]
    for value in (value for part in literals for value in get_args(part) if isinstance(value, str)):
        assert value in text, f"{key} allows {value}, and does not say so"
    units = [item.name for item in field.metadata if isinstance(item, Unit)]
    if units and units != ["tokens"] and "rows" not in units:
        assert units[0].split()[-1].lower() in comment(field).lower(), f"{key} is in {units[0]}"


@pytest.mark.parametrize("path", [CONFIG, *OVERLAYS], ids=lambda path: path.name)
def test_what_the_project_holds_fits_the_schema(path):
    schema = json_schema(read_yaml(CONFIG))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(read_yaml(path))


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("train", "stepz", 1),
        ("train", "steps", "many"),
        ("train", "steps", 0),
        ("train", "learning_rate", 0),
        ("train", "betas", [0.9, 1.0]),
        ("data", "held_out_fraction", 1),
        ("data", "source", "somewhere"),
        ("study", "seeds", [-1]),
        ("study", "seeds", 0),
        ("methods", "full", {"rank": -1}),
        ("methods", "full", {"sizes": {"tiny": {"learning_rate": -1}}}),
        ("sizes", "tiny", {"width": 3}),
    ],
)
def test_an_editor_sees_a_mistake(section, key, value):
    schema = json_schema(read_yaml(CONFIG))
    wrong = copy.deepcopy(read_yaml(CONFIG))
    wrong[section][key] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema)


def test_editors_find_the_schema_and_it_offers_defaults():
    for path in [CONFIG, *sorted((ROOT / "workflow/presets").glob("*.yaml"))]:
        first = path.read_text().splitlines()[0]
        assert first.startswith("# yaml-language-server: $schema="), path
        assert (path.parent / first.partition("=")[2]).resolve() == ROOT / "workflow/schemas/config.schema.json"
    properties = json_schema(read_yaml(CONFIG))["$defs"]["Train"]["properties"]
    assert properties["steps"]["default"] == 600 and properties["steps"]["x-unit"] == "optimizer steps"
