"""A user's words, such as the name of a domain or a suite, made safe for each format that the report writes."""

import re

LONGEST = 40  # characters that a label of a figure has room for


def plain_line(text: str) -> str:
    """``text`` in one line: line breaks and control characters become spaces."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def figure_text(text: str) -> str:
    """``text`` for matplotlib, which reads what lies between two dollars as mathematics; a long one is cut."""
    line = plain_line(text)
    short = line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
    return short.replace("$", r"\$")


def rst(text: str) -> str:
    """``text`` for reStructuredText: what could begin or end markup is escaped; an underscore inside a word is not."""
    line = re.sub(r"([\\*`|<>])", r"\\\1", plain_line(text))
    return re.sub(r"_(?![A-Za-z0-9])|(?<![A-Za-z0-9])_", r"\\_", line)


def markdown(text: str) -> str:
    """``text`` for a cell of a Markdown table."""
    return plain_line(text).replace("|", r"\|")
