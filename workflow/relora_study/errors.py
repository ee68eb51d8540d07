"""What a user's mistake looks like: one line that names the thing, the place and the way out."""

import sys

import typer


class UserError(Exception):
    """A mistake that the user can mend; its message is one line and is shown without a traceback."""

    def __init__(self, message: str) -> None:
        """Keep ``message``, whose line breaks (a library's text, a key of the user's) become spaces."""
        super().__init__(" ".join(message.splitlines()))


def command_line(app: typer.Typer) -> None:
    """Run a stage's command line; a :class:`UserError` becomes one line on stderr and exit code 1."""
    try:
        app()
    except UserError as error:
        sys.exit(f"error: {error}")
