"""What package.smk, common.smk and session.smk leave to the package: each part by itself."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from relora_study.errors import UserError, mistakes_in_one_line
from relora_study.session.snakemake import (
    conda_prefix,
    cost_of_run,
    lead_jobs_to,
    make_web_report,
    short_interpreter,
    web_report_is_due,
)


def test_a_mistake_and_a_refusal_of_the_disk_end_in_one_line():
    with pytest.raises(SystemExit, match=r"^error: rank is too large$"), mistakes_in_one_line():
        raise UserError("rank is too\nlarge")
    with (
        pytest.raises(SystemExit, match=r"^error: results: No space left on device; make room"),
        mistakes_in_one_line(),
    ):
        raise OSError(28, "No space left on device", "results")


def test_a_run_begins_with_its_cost():
    assert cost_of_run(1, 0, 0.6).startswith("1 cell: about 1 min on 2 CPU cores")
    assert cost_of_run(6, 0, None).startswith("6 cells: `make plan` tells their GPU hours.\n")
    assert cost_of_run(6, 24, None).startswith("6 cells and 24 candidates of searches: ")


def test_the_web_report_is_due_where_the_study_is_whole_and_the_page_is_not_newer(tmp_path):
    paper, page = tmp_path / "paper.pdf", tmp_path / "report.html"
    assert not web_report_is_due([paper], paper, page)
    paper.write_text("")
    assert web_report_is_due([paper], paper, page)
    page.write_text("")
    for age, due in ((-1, True), (1, False)):
        os.utime(page, (paper.stat().st_mtime + age,) * 2)
        assert web_report_is_due([paper], paper, page) is due
    assert not web_report_is_due([paper, tmp_path / "missing"], paper, page)


def test_the_web_report_is_made_in_a_folder_whose_name_reads_as_a_variable(tmp_path, monkeypatch):
    folder = tmp_path / "a $HOME ${HOME} b"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name, text in (("made.txt", "made"), ("settings.yaml", "{}"), ("style.css", "i {color: #123456}")):
        (folder / name).write_text(text)
    (folder / "Snakefile").write_text("rule made:\n    output: report('made.txt')\n    shell: 'exit 1'\n")
    page, log = Path("report.html"), Path("report.log")
    found = make_web_report(str(folder / "Snakefile"), Path("settings.yaml"), folder / "style.css", page, log)
    assert found, log.read_text()
    assert "#123456" in page.read_text()


def test_a_job_finds_the_package_and_the_interpreter_by_its_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    folder = tmp_path / "a folder"
    (folder / "relora_study").mkdir(parents=True)
    (folder / "relora_study/__init__.py").write_text("")
    lead_jobs_to(folder)
    code = "import relora_study, sys; print(relora_study.__file__, sys.prefix, sep='|')"
    done = subprocess.run(["python", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{folder}/relora_study/__init__.py|{sys.prefix}"


@pytest.mark.parametrize("given", [None, "kept"])
def test_in_a_conda_environment_the_prefix_restores_the_package_and_the_environments_python(tmp_path, given):
    folder = tmp_path / "a {place}"
    prefix = conda_prefix(folder).format()
    told = [shutil.which("bash"), "-c", prefix + 'echo "$PYTHONPATH|$PATH"']
    environment = {"CONDA_PREFIX": "/env", "PATH": "/venv/bin"} | ({"PYTHONPATH": given} if given else {})
    done = subprocess.run(told, env=environment, capture_output=True, text=True, check=True)
    expected = f"{folder}|/env/bin:/venv/bin" if given is None else "kept|/venv/bin"
    assert done.stdout.strip() == expected


def test_an_interpreter_whose_path_has_a_space_is_called_by_its_name():
    assert short_interpreter("/my venv/bin/python3") == "python3"
    plain = str(Path("/venv/bin/python3"))
    assert shlex.quote(short_interpreter(plain)) == plain
