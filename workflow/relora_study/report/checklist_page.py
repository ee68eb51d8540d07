"""The page of answers to checklists (report.reproducibility) as Markdown, and as HTML for the web report."""

import re
from collections.abc import Mapping, Sequence
from html import escape

import pandas as pd
from jinja2 import Environment

from .escape import markdown
from .reproducibility import Answer

INTRODUCTION = (
    "Snakemake made this page from the files of the run. Below each answer are the files that it comes from:"
    " seen from `results/`, or in brackets from the project's folder.",
    "The questions are in the sense of the Machine Learning Reproducibility Checklist (Pineau et al. 2021), of the"
    " NeurIPS paper checklist, of the ML Reproducibility Challenge, and of ACM's Artifact Review and Badging, version"
    " 1.1.",
)
MARKDOWN = """# Reproducibility of this run
{% for line in introduction %}
{{ line }}
{%- endfor %}
{% for heading, answers in sections.items() %}
## {{ heading }}
{% for answer in answers %}
### {{ answer.question }}
*{{ answer.asked_by }}*
{% for line in answer.said %}
- {{ line }}
{%- endfor %}
{% if answer.table is not none %}
{{ table(answer.table) }}
{% endif %}
{% if answer.files %}Files: {{ answer.files | map("code") | join(", ") }}
{% endif %}{% endfor %}
{%- endfor %}"""
HTML = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Reproducibility of this run</title>
<style>body {font-family: sans-serif; max-width: 60em; margin: auto; padding: 1em; background: white; color: black}
td, th {padding: 0.2em 1em 0.2em 0; text-align: left}</style></head><body>
<h1>Reproducibility of this run</h1>
{% for line in introduction %}<p>{{ line | marked | safe }}</p>
{% endfor %}{% for heading, answers in sections.items() %}<h2>{{ heading }}</h2>
{% for answer in answers %}<h3>{{ answer.question }}</h3>
<p><em>{{ answer.asked_by }}</em></p>
<ul>{% for line in answer.said %}<li>{{ line | marked | safe }}</li>{% endfor %}</ul>
{% if answer.table is not none %}{{ table(answer.table) | safe }}
{% endif %}{% if answer.files %}<p>Files: {{ answer.files | map("code") | join(", ") | marked | safe }}</p>
{% endif %}{% endfor %}{% endfor %}</body></html>
"""

Sections = Mapping[str, Sequence[Answer]]


def markdown_page(sections: Sections) -> str:
    """The page in Markdown."""
    environment = Environment(autoescape=False)
    environment.filters["code"] = _code
    return environment.from_string(MARKDOWN).render(introduction=INTRODUCTION, sections=sections, table=_rows) + "\n"


def html_page(sections: Sections) -> str:
    """The page in HTML, with every text escaped."""
    environment = Environment(autoescape=True)
    environment.filters |= {"code": _code, "marked": _marked}
    return environment.from_string(HTML).render(introduction=INTRODUCTION, sections=sections, table=_grid)


def _code(file: str) -> str:
    """``file`` as code; brackets around it, which mark a file of the project, stay outside."""
    return f"(`{file[1:-1]}`)" if file.startswith("(") else f"`{file}`"


def _marked(line: str) -> str:
    """``line`` escaped for HTML, with what stands between backticks as code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(line))


def _rows(table: pd.DataFrame) -> str:
    return str(table.astype(str).map(markdown).to_markdown(index=False, disable_numparse=True))


def _grid(table: pd.DataFrame) -> str:
    return str(table.map(lambda value: _marked(str(value))).to_html(index=False, escape=False, border=0))
