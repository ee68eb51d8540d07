"""Names that a user chose, for example of a domain, made safe for each format that the report writes."""

import re

LONGEST = 40  # characters: a label of a figure has no room for more


def plain_line(text: str) -> str:
    """``text`` in one line, with spaces for line breaks and control characters."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def figure_text(text: str) -> str:
    """``text`` for matplotlib, which reads text between two dollars as mathematics; a long text is cut."""
    line = plain_line(text)
    short = line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
    return short.replace("$", r"\$")


def rst(text: str) -> str:
    """``text`` for reStructuredText: characters of markup are escaped, but not an underscore inside a word."""
    line = re.sub(r"([\\*`|<>])", r"\\\1", plain_line(text))
    return re.sub(r"_(?![A-Za-z0-9])|(?<![A-Za-z0-9])_", r"\\_", line)


def markdown(text: str) -> str:
    """``text`` for a cell of a Markdown table."""
    return plain_line(text).replace("|", r"\|")
