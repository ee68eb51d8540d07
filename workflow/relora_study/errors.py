"""Show a user's mistake or a full disk as one line that names the thing, the place and the way out."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

REMEDIES = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room within your quota",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
    errno.EROFS: "choose a place that can be written",
    errno.EACCES: "change its permissions",
    errno.EPERM: "change its permissions",
    errno.ENAMETOOLONG: "choose a place that takes such a name",
    errno.ENOENT: "run snakemake, which makes what is missing",
}


class UserError(Exception):
    """A mistake that the user can mend. Its message is one line, shown without a traceback."""

    def __init__(self, message: str) -> None:
        """Keep ``message`` with its line breaks turned into spaces: quoted keys and library messages can have some."""
        super().__init__(" ".join(message.splitlines()))


@contextmanager
def mistakes_in_one_line() -> Iterator[None]:
    """End the process with one line and exit code 1 at a :class:`UserError` or :class:`OSError`."""
    try:
        yield
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {refusal(error)}")


def command_line(app: typer.Typer) -> None:
    """Run a stage's command line."""
    with mistakes_in_one_line():
        app()


def refusal(error: OSError) -> str:
    """Say in one line which file the system refused, why, and how to go on."""
    remedy = REMEDIES.get(error.errno or 0, "see to that disk")
    reason = " ".join((error.strerror or str(error)).split())
    return f"{error.filename or 'a file'}: {reason}; {remedy}, and run the same command again: finished files are kept"
