"""A user's words reach CSV, figures, Markdown and reStructuredText as they are, and never as markup."""

import pandas as pd
import pytest
from docutils.core import publish_parts
from matplotlib import pyplot
from relora_study.report.escape import figure_text, markdown, rst
from relora_study.report.figures import FIGURES
from relora_study.report.style import finish
from relora_study.report.summary import outcome
from relora_study.report.templates import render

WORDS = [
    "NA",
    "null",
    "None",
    "nan",
    "",
    "$bad_{$",
    "my_domain",
    "a|b",
    "*x*",
    "x_",
    "`q`",
    "<a>",
    "a\\b",
    "two\nlines",
]


FIRST = ("NA", "$bad_{$", "a|b", "two\nlines")  # the others, in minutes
DRAWN = [pytest.param(word, marks=[] if word in FIRST else pytest.mark.long) for word in WORDS if word]


@pytest.mark.parametrize("word", DRAWN)
def test_a_domain_is_drawn_by_its_name(results, tmp_path, word):
    for name in results.cells:
        path = results.folder / name / "evaluation.csv"
        rows = pd.read_csv(path)
        rows["item"] = rows["item"].replace("a.com", word)
        rows.to_csv(path, index=False)
    table = results.table("evaluation.csv")
    assert word in set(table["item"]) and table["item"].notna().all()
    figure = FIGURES["perplexity_by_domain"](results)
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert figure_text(word) in shown and "b.com" in shown
    finish(figure, tmp_path / "figure")
    assert figure_text(word).count("$") == figure_text(word).count(r"\$"), "no mathematics"
    pyplot.close(figure)


@pytest.mark.parametrize("word", [word for word in WORDS if word])
def test_a_suite_is_named_on_the_first_page_as_it_is(unchanged, word):
    named = type(unchanged)(unchanged.folder, unchanged.cells, suite=word)
    html = publish_parts(render("first_page.rst", outcome(named) | {"image": "AAAA"}), writer="html")["html_body"]
    assert "system-message" not in html and "problematic" not in html
    text = word.replace("\n", " ").replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert f"The minimal pairs are {text}." in html


def test_a_bar_does_not_end_a_cell_and_an_underscore_inside_a_word_is_left():
    assert markdown("a|b") == r"a\|b" and rst("x86_64 glibc_ _a") == r"x86_64 glibc\_ \_a"
    assert figure_text("x" * 100) == "x" * 39 + "…"
