"""What a user's mistake or a full disk looks like: one line that names the thing, the place and the way out."""

import errno
import sys

import typer

REMEDIES = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room within your quota",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
    errno.EROFS: "choose a place that can be written",
    errno.EACCES: "change its permissions",
    errno.EPERM: "change its permissions",
    errno.ENOENT: "run snakemake, which makes what is missing",
}


class UserError(Exception):
    """A mistake that the user can mend; its message is one line and is shown without a traceback."""

    def __init__(self, message: str) -> None:
        """Keep ``message``, whose line breaks (a library's text, a key of the user's) become spaces."""
        super().__init__(" ".join(message.splitlines()))


def command_line(app: typer.Typer) -> None:
    """Run a stage's command line; a :class:`UserError` or the disk's refusal is one line on stderr and exit code 1."""
    try:
        app()
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {refusal(error)}")


def refusal(error: OSError) -> str:
    """What the system refused, where, and the way out, in one line."""
    remedy = REMEDIES.get(error.errno or 0, "see to that disk")
    said = " ".join((error.strerror or str(error)).split())
    return f"{error.filename or 'a file'}: {said}; {remedy}, and run the same command again: what is whole is kept"
