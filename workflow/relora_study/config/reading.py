"""Read a configuration from files, the files that they extend and the command line, and word mistakes in one line.

Here it is also checked that every cell can train, and that its corpus and its search are large enough.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ..errors import UserError
from ..storage.files import read_yaml
from .benchmark_names import BLIMP, is_blimp
from .cells import Cell
from .fields import SectionT
from .study import Study
from .variants import candidates, every_cell

EXTENDS = "extends"
PROJECT = Path(__file__).parents[3]
MISSING = object()
Files = dict[str, Any]  # a file's name -> its content, weakest first


def read_study(files: Sequence[str | Path], command_line: Mapping[str, Any] | None = None) -> Study:
    """Read a study from ``files``, weakest first, each over the files that it extends, and ``command_line`` last."""
    contents = _with_extended(files)
    return _validated(_merged([*contents.values(), dict(command_line or {})]), contents)


def check(raw: dict[str, Any], files: Sequence[str | Path], command_line: Mapping[str, Any] | None = None) -> Study:
    """Validate the configuration ``raw`` that Snakemake merged from ``files``, weakest first, and ``command_line``.

    Snakemake reads the files itself, but accepts a key that is given twice, and does not know `extends`. So this
    function reads them again, and merges them again if one extends another. It also needs them to name the place of a
    mistake. Raises :class:`UserError` with the key, the value, the allowed values and the file.
    """
    contents = _with_extended(files)
    if EXTENDS in raw:
        return _validated(_merged([*contents.values(), dict(command_line or {})]), contents)
    return _validated(raw, contents)


def _with_extended(files: Sequence[str | Path]) -> Files:
    """Return the content of ``files``, each after the files that it extends.

    A file that several extend stays where the first of them put it, because it would undo what lies between them. A
    file among ``files`` has its last place there.
    """
    contents: dict[Path, tuple[str, dict[str, Any]]] = {}
    for file in map(Path, files):
        for path, content in _lineage(file, ()):
            place = path.resolve()
            if path == file:
                contents.pop(place, None)
            contents.setdefault(place, (str(path), content))
    return dict(contents.values())


def _lineage(file: Path, extending: tuple[Path, ...]) -> list[tuple[Path, dict[str, Any]]]:
    """Return the content of ``file``, without its key `extends`, after the files that it extends, weakest first."""
    place = file.resolve()
    if place in extending:
        circle = " extends ".join(str(path) for path in (*extending[extending.index(place) :], place))
        raise UserError(f"extends: {circle}, which is a circle; remove one of these keys")
    content = read_yaml(file)
    if not isinstance(content, dict | None):
        raise UserError(f"{file} must hold keys and values, such as `train: {{steps: 600}}`")
    content = dict(content or {})
    if (extended := content.pop(EXTENDS, None)) is None:
        return [(file, content)]
    return [*_lineage(_extended_file(extended, file), (*extending, place)), (file, content)]


def _extended_file(extended: Any, file: Path) -> Path:
    """Return the file that `extends` names, in the folder of ``file``, this folder or the project's folder."""
    places = [folder / str(extended) for folder in (file.parent, Path(), PROJECT)]
    for place in places if isinstance(extended, str) else ():
        if place.is_file():
            return place
    raise UserError(f"extends = {extended!r}: no such file beside {file} or in the project ({file})")


def _merged(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge ``parts`` as Snakemake does: mappings merge, and any other value replaces the earlier one."""
    whole: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            both = isinstance(value, Mapping) and isinstance(whole.get(key), Mapping)
            whole[key] = _merged([whole[key], value]) if both else value
    return whole


def _validated(raw: dict[str, Any], contents: Files) -> Study:
    typed = _typed(raw, [], list(contents.values()))
    try:
        study = Study.model_validate(typed)
    except ValidationError as error:
        problems = [_describe(dict(problem), typed, contents) for problem in error.errors()]
        raise UserError("; ".join(problems)) from error
    for problem in problems_of_cells(study):
        raise UserError(_describe({"loc": (), "msg": problem, "type": "value_error", "input": {}}, typed, contents))
    return _with_suite(study)


def _with_suite(study: Study) -> Study:
    """Record in ``study`` that the user's files are BLiMP, because a report may be made where the files are missing."""
    pairs = study.evaluation.minimal_pairs
    if study.report.suite or pairs.path is None or not is_blimp(pairs):
        return study
    return study.model_copy(update={"report": study.report.model_copy(update={"suite": BLIMP})})


def _typed(value: Any, path: list[str], known: list[Any]) -> Any:
    """Give ``value`` the types of YAML, because Snakemake passes every nested value of `--config` as text."""
    if isinstance(value, dict):
        return {key: _typed(inner, [*path, str(key)], known) for key, inner in value.items()}
    if isinstance(value, list):
        return [_typed(inner, [*path, str(index)], known) for index, inner in enumerate(value)]
    if not isinstance(value, str) or any(_at(content, path) == value for content in known):
        return value
    try:
        typed = yaml.safe_load(value)
    except yaml.YAMLError:
        return value
    return typed if isinstance(typed, int | float | None) else value


def _describe(problem: dict[str, Any], raw: dict[str, Any], files: Files) -> str:
    path = [str(part) for part in problem["loc"] if part != "[key]"]  # what pydantic adds where a name is wrong
    key, message = ".".join(path), problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = "unknown key; see docs/configuration.md for all keys"
    elif problem["type"] == "missing":
        return f"{key}: required key is missing ({_origin(raw, path[:-1], files)})"
    value = "" if isinstance(problem["input"], dict | BaseModel) else f" = {problem['input']!r}"
    named = path or message.split()[0].rstrip(":").split(".")  # a message about several sections begins with a key
    place = _origin(raw, path if _at(raw, named) is MISSING else named, files)
    return f"{key}{value}: {message} ({place})" if key else f"{message} ({place})"


def _origin(raw: dict[str, Any], path: list[str], files: Files) -> str:
    """Return the strongest file that sets the value at ``path``, or `--config` if no file does."""
    value = _at(raw, path)
    for file, content in reversed(files.items()):
        in_file = _at(content, path)
        if in_file is not MISSING and (in_file == value or isinstance(value, dict)):
            return file
    return "--config"


def _at(content: Any, path: Sequence[str]) -> Any:
    """Return the value of ``content`` at ``path``, or MISSING."""
    for part in path:
        if isinstance(content, list) and part.isdecimal() and int(part) < len(content):
            content = content[int(part)]
            continue
        found = [value for key, value in content.items() if str(key) == part] if isinstance(content, dict) else []
        if not found:
            return MISSING
        content = found[0]
    return content


def read_section(kind: type[SectionT], path: Path) -> SectionT:
    """Read a settings file that the workflow wrote, such as a cell's config.yaml, as ``kind``.

    Raises :class:`UserError` if the file is missing or does not hold a ``kind``.
    """
    try:
        return kind.model_validate(read_yaml(path))
    except ValidationError as error:
        raise UserError(f"{path} does not hold a valid {kind.__name__}: {error.errors()[0]['msg']}") from error


def problems_of_cells(study: Study) -> Iterator[str]:
    """Yield why a cell of the study, of a sweep or of the search cannot train, or too little data for the longest."""
    try:
        longest = max(every_cell(study), key=lambda cell: cell.train.sequences)
    except UserError as error:
        yield str(error)
        return
    yield from _too_little_data(study, longest)
    yield from _alike(study)


def _too_little_data(study: Study, longest: Cell) -> Iterator[str]:
    """Yield a problem if the configuration alone shows that the corpus has too few rows for its ``longest`` cell."""
    shards, needed, fixed = study.data.hub_pretokenized, longest.train.sequences, study.dynamics
    if study.data.source == "hub_pretokenized":
        if (rows := shards.shards * shards.rows_per_shard) < needed:
            yield (
                f"data.hub_pretokenized.shards {shards.shards} hold {rows} rows, and train.steps times"
                f" train.batch_size are {needed} in {longest.name}: raise shards"
            )
        if fixed.batch_sequences > shards.rows_per_shard:
            yield f"dynamics.batch_sequences is above {shards.rows_per_shard}, the rows of the shard that is held out"
        return
    scores_held_out = study.evaluation.perplexity.source == "held_out"
    if scores_held_out and study.data.held_out_tokens_per_domain < study.model.context_length + 1:
        yield "data.held_out_tokens_per_domain must hold one sequence: above model.context_length"
    fixed_tokens = fixed.batch_sequences * (study.model.context_length + 1)
    if study.data.held_out_tokens < fixed_tokens:
        yield f"data.held_out_tokens must hold dynamics.batch_sequences: at least {fixed_tokens}"


def _alike(study: Study) -> Iterator[str]:
    """Yield a problem for each search of which candidates would train alike: it would be smaller than the others."""
    for method in study.study.methods if study.tuning else ():
        assert study.tuning is not None
        space = study.tuning.space_of(method)
        found = candidates(study, study.study.sizes[0], method).values()
        tried, distinct = len(space.candidates()), len({variant.cell.method_name for variant in found})
        if distinct < tried:
            yield (
                f"tuning: of the {tried} candidates of {method}, only {distinct} differ, because it does not use every"
                f" one of {', '.join(space.keys)}; give it a space of its own in tuning.spaces"
            )
