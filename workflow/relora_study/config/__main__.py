"""`python -m relora_study.config` (`make docs`): write the files that are made from the schema."""

from pathlib import Path

import typer

from ..errors import command_line
from ..storage.files import read_yaml, write_text
from .reading import PROJECT
from .schema_docs import commented, page, schema_text

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


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
