"""`python -m relora_study.config` (`make docs`): make three texts from the schema.

They are a JSON schema for editors, a page for readers, and the comments in config.yaml.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import typer
import yaml
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema

from ..errors import command_line
from ..storage.files import StrictLoader, read_yaml, write_text
from .fields import Section
from .reading import EXTENDS, PROJECT
from .study import Study

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

EXTENDS_SCHEMA = {
    "type": "string",
    "description": "File that this one builds on, seen from its own folder or from the project's.",
}
INTRODUCTION = """# Configuration

For those who look up a key: every key with its allowed values, its default and its meaning.
`make docs` makes this page from the schema, so do not edit it.

`config.yaml` holds the default study, of which an overlay (`--configfile mine.yaml`) changes some keys, and `--config`
changes single ones.
Mappings merge and lists replace: `config.yaml` first, then each overlay in the order given, then `--config`.
An overlay that begins with `extends: workflow/presets/paper.yaml` is read on top of that file.
Unknown keys, wrong types, impossible combinations and keys given twice stop a run before its first job.

A cell's recipe (`learning_rate`, `betas`, `eps`, `weight_decay`, `gradient_clipping`) is taken from
`methods.<name>.sizes.<size>`, else from `methods.<name>`, else from `sizes.<name>`, else from `train`.
`results/cells/<cell>/config.yaml` shows what a cell runs with.

Editors complete and check a configuration by its first line,
`# yaml-language-server: $schema=workflow/schemas/config.schema.json`.

The column *default* is the value in `config.yaml` or, where blocks have names of their own, the value of a key that a
block leaves out.
"""
BLOCKS = {"sizes": "<size>", "spaces": "<method>", "sobol": "<key>"}  # what users name below a section of theirs
HEADER = "| key | allowed | unit | default | meaning |\n|---|---|---|---|---|"


class _Untitled(GenerateJsonSchema):
    """Makes pydantic's JSON schema without titles, which would only repeat the keys."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def json_schema(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of config.yaml and of overlays; no key is required, because an overlay sets only some.

    ``defaults`` is the content of config.yaml.
    """
    schema = Study.model_json_schema(schema_generator=_Untitled)
    for part in (schema, *schema["$defs"].values()):
        part.pop("required", None)
    for kind, name, _, value in _with_values(Study, defaults):
        part = schema if kind is Study else schema["$defs"][kind.__name__]
        part["properties"][name]["default"] = value
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "Configuration",
        "properties": {EXTENDS: EXTENDS_SCHEMA, **schema["properties"]},
    }


def _with_values(kind: type[Section], values: Mapping[str, Any]) -> Iterator[tuple[type[Section], str, FieldInfo, Any]]:
    """Yield each field below ``kind`` with its value, without fields in blocks that users name and can repeat."""
    for name, field in kind.model_fields.items():
        inner, named = section_of(field.annotation)
        if name not in values or (inner and values[name] is None):
            continue
        if inner and not named:
            yield from _with_values(inner, values[name])
        elif not inner:
            yield kind, name, field, values[name]


def section_of(annotation: Any) -> tuple[type[Section] | None, bool]:
    """Return the section that a field of this type holds, or None, and whether it holds several by name."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation, False
    for part in get_args(annotation):
        inner, named = section_of(part)
        if inner:
            return inner, named or get_origin(annotation) is dict
    return None, False


def schema_text(defaults: Mapping[str, Any]) -> str:
    """Return the JSON schema as the text of its file."""
    return json.dumps(json_schema(defaults), indent=1, ensure_ascii=False) + "\n"


def page(defaults: Mapping[str, Any]) -> str:
    """Return the page of the configuration in Markdown, with a table for each section."""
    schema = json_schema(defaults)
    top = [_row(EXTENDS, EXTENDS_SCHEMA, "–", schema)]
    parts = [INTRODUCTION, "## Top level\n", HEADER, *top, *_rows(Study, schema, ()), ""]
    return "\n".join([*parts, *_sections(Study, schema, ())])


def _sections(kind: type[Section], schema: dict[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """Yield a heading, a sentence and a table for each section below ``kind``."""
    for name, field in kind.model_fields.items():
        inner, named = section_of(field.annotation)
        if inner:
            place = (*path, name, BLOCKS.get(name, "<name>") if path else "<name>") if named else (*path, name)
            yield f"## {'.'.join(place)}\n\n{_sentence(field)}\n\n{HEADER}"
            yield from _rows(inner, schema, place)
            yield ""
            yield from _sections(inner, schema, place)


def _rows(kind: type[Section], schema: dict[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """Yield the rows of the keys of ``kind`` that are not sections, required keys first."""
    properties = (schema if kind is Study else schema["$defs"][kind.__name__])["properties"]
    fields = [(name, field) for name, field in kind.model_fields.items() if not section_of(field.annotation)[0]]
    for name, field in sorted(fields, key=lambda pair: not pair[1].is_required()):
        known = "default" in properties[name] and not any(part.startswith("<") for part in path)
        default = "required" if field.is_required() and not known else _code(properties[name]["default"])
        yield _row(name, properties[name], default, schema)


def _row(name: str, field_schema: Mapping[str, Any], default: str, schema: dict[str, Any]) -> str:
    meaning = " ".join(field_schema["description"].split()).replace("|", "\\|")
    units = [part["x-unit"] for part in (field_schema, *field_schema.get("anyOf", ())) if "x-unit" in part]
    return f"| `{name}` | {allowed(field_schema, schema)} | {' '.join(units)} | {default} | {meaning} |"


def _sentence(field: FieldInfo) -> str:
    return " ".join((field.description or "").split())


def _code(value: Any) -> str:
    """Format ``value`` as YAML in a cell of a Markdown table."""
    text = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return f"`{text.strip().removesuffix('...').strip()}`"


def allowed(part: Mapping[str, Any], schema: dict[str, Any]) -> str:
    """Say in words which values ``part`` of the JSON ``schema`` allows."""
    if "$ref" in part:
        return allowed(schema["$defs"][part["$ref"].rpartition("/")[2]], schema)
    if "anyOf" in part:
        return " or ".join(allowed(option, schema) for option in part["anyOf"])
    if values := part.get("enum", [part["const"]] if "const" in part else []):
        return ", ".join(f"`{value}`" for value in values)
    if "type" not in part:
        return "value"
    if part["type"] == "array":
        length = f"{part['minItems']} of " if part.get("minItems") == part.get("maxItems", 0) else ""
        return f"list of {length}{allowed(part['items'], schema)}"
    if part.get("pattern", "").endswith("{40}$"):
        return "40 hexadecimal digits"
    kind = {"string": "text", "boolean": "`true`, `false`", "object": "mapping"}.get(part["type"], part["type"])
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {part[key]:,}" for key, sign in signs.items() if key in part]
    return " ".join([kind, " and ".join(bounds)]).strip()


def commented(text: str) -> str:
    """Return ``text``, a config.yaml, with a comment at the first place of each key: its description's first line.

    Lines that hold only a comment are about the study, and stay.
    """
    lines = text.splitlines()
    seen: set[tuple[str, str]] = set()
    for place, (kind, name, field), end in _places(yaml.compose(text, StrictLoader), Study):
        code = lines[place][:end] if end else lines[place].partition(" #")[0].rstrip()
        known = (kind.__name__, name) in seen
        lines[place] = code if known else f"{code} # {comment(field)}"
        seen.add((kind.__name__, name))
    return "\n".join(lines) + "\n"


def comment(field: FieldInfo) -> str:
    """Return the first line of a field's description, without its full stop."""
    return (field.description or "").partition("\n")[0].removesuffix(".")


Place = tuple[int, tuple[type[Section], str, FieldInfo], int | None]


def _places(node: Any, kind: type[Section]) -> Iterator[Place]:
    """Yield for each key below ``node`` its line, its field, and the column where a value on this line ends."""
    for key, value in node.value:
        if (field := kind.model_fields.get(key.value)) is None:
            continue
        line, block = key.start_mark.line, isinstance(value, yaml.MappingNode) and not value.flow_style
        yield line, (kind, key.value, field), None if block else value.end_mark.column
        inner, named = section_of(field.annotation)
        if inner and block:
            for part in [block_node for _, block_node in value.value] if named else [value]:
                yield from _places(part, inner)


def made(project: Path) -> dict[Path, str]:
    """Return the text of each file that is made from the schema and config.yaml."""
    config = project / "config.yaml"
    defaults = read_yaml(config)
    return {
        config: commented(config.read_text(encoding="utf-8")),
        project / "workflow/schemas/config.schema.json": schema_text(defaults),
        project / "docs/configuration.md": page(defaults),
    }


@app.command()
def write() -> None:
    """Write the JSON schema, docs/configuration.md and the comments in config.yaml."""
    for path, text in made(PROJECT).items():
        write_text(path, text)


if __name__ == "__main__":
    command_line(app)
