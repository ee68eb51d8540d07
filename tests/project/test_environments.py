"""One source of versions: requirements.in, its lock, and what conda installs."""

import itertools
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = sorted((ROOT / "envs").glob("*.yaml"))
STAND_IN = runpy.run_path(str(ROOT / "tests/conda/bin/conda"))
ranges, pip_requirements = STAND_IN["ranges"], STAND_IN["pip_requirements"]
COMPILER = "c-compiler"  # no package of Python, and of any version
IMPORTED_AS = {"pyyaml": "yaml"}
STAGES = {"data": ["data"], "train": ["train", "evaluate", "dynamics"], "report": ["report"]}

WITHOUT_TORCH = """import importlib, sys
from importlib.machinery import PathFinder

class WithoutTorch(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name == "torch" else super().find_spec(name, path, target)

sys.meta_path = [WithoutTorch if finder is PathFinder else finder for finder in sys.meta_path]
"""


def pins(file: Path) -> dict[str, str]:
    found = re.findall(r"^([A-Za-z0-9_.-]+)(?:\[.*\])?==([^\s;]+)", file.read_text(), re.MULTILINE)
    return {name.lower(): version for name, version in found}


def outside(file: Path) -> set[str]:
    """The packages of a conda environment's ``file`` whose range excludes the version that pip installs."""
    locked = pins(ROOT / "requirements.in")
    return {name for name, versions in ranges(file).items() if locked[name] not in versions}


@pytest.mark.parametrize("file", ENVIRONMENTS, ids=lambda file: file.name)
def test_conda_may_install_pips_versions(file):
    environment = yaml.safe_load(file.read_text())
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    assert environment["dependencies"][0] == "python=3.11"
    assert len(ranges(file)) > 9 and outside(file) == set()


def test_a_package_has_one_range_in_all_environments():
    asked = {(name, str(versions)) for file in ENVIRONMENTS for name, versions in ranges(file).items()}
    assert len(asked) == len({name for name, _ in asked})


def environment_file(path: Path, *dependencies: str | dict) -> Path:
    path.write_text(yaml.safe_dump({"dependencies": list(dependencies)}))
    return path


def test_a_range_that_excludes_the_locks_version_is_found(tmp_path):
    """Above it, below it, and by conda's single ``=``."""
    excluding = "transformers>=5.24,<6", "typer>=0.26,<0.29", "numpy=2.5", "tqdm=4.7"
    file = environment_file(tmp_path / "x.yaml", "python=3.11", "pandas>=3.0.5,<4", "pytorch=2.13", *excluding)
    assert outside(file) == {"transformers", "typer", "numpy", "tqdm"}


def test_the_stand_in_reads_ranges_and_takes_the_lowest_or_the_locks_version(tmp_path):
    """conda's ``=2.4`` is 2.4 and all that begins with ``2.4.``."""
    asked = "python=3.11", "pip", "c-compiler", "pytorch=2.4", "matplotlib-base >=3.9.1,<4", "huggingface_hub>=1.31, <3"
    file = environment_file(tmp_path / "x.yaml", *asked, {"pip": ["typst==0.15.2"]})
    expected = {"torch": "==2.4.*", "matplotlib": ">=3.9.1,<4", "huggingface_hub": ">=1.31,<3", "typst": "==0.15.2"}
    assert ranges(file) == {name: SpecifierSet(versions) for name, versions in expected.items()}
    lowest = ["torch==2.4", "matplotlib==3.9.1", "huggingface_hub==1.31", "typst==0.15.2"]
    assert pip_requirements(file, None) == lowest
    lock = tmp_path / "lock"
    lock.write_text("".join(f"{line}.9\n" for line in lowest) + "snakemake[reports]==9\n")
    assert pip_requirements(file, lock) == [f"{line}.9" for line in lowest]


def test_the_environment_that_may_compile_holds_a_compiler():
    """Triton calls one. ``gcc`` alone is made for Linux, and would leave a Mac without an environment."""
    assert COMPILER in yaml.safe_load((ROOT / "envs/train.yaml").read_text())["dependencies"]


@pytest.mark.parametrize(
    "name", ["requirements", "requirements-dev", "requirements-bench", "requirements-metadata", "requirements-zero2"]
)
def test_the_lock_holds_what_is_asked_for(name):
    lock = pins(ROOT / f"{name}.txt")
    for package, version in pins(ROOT / f"{name}.in").items():
        assert package == "torch" or lock[package.replace("_", "-")] == version
    assert "+" not in "".join(lock.values()), "a local build's version names no release"


@pytest.mark.parametrize("name", ["requirements", "requirements-dev", "requirements-metadata"])
def test_every_locked_package_has_a_hash_and_torch_is_not_among_them(name):
    """torch's builds differ by site; make installs it by its version, behind all that it needs."""
    text = (ROOT / f"{name}.txt").read_text().replace("\\\n", "")
    lines = [line for line in text.splitlines() if re.match(r"\S+==", line)]
    assert len(lines) > 40 and all(re.search(r"--hash=sha256:[0-9a-f]{64}", line) for line in lines)
    assert not {"torch", "triton"} & pins(ROOT / f"{name}.txt").keys()
    assert not re.search(r"https?://(?!pypi)|file://", text), "no mirror's address"


def test_make_installs_what_runs_and_tests_by_hash_alone_but_torch():
    plan = subprocess.run(["make", "-n", "-B", ".venv/test"], cwd=ROOT, capture_output=True, text=True).stdout
    installs = [line for line in plan.splitlines() if "pip install" in line]
    by_hash = [line for line in installs if "--require-hashes --no-deps --requirement requirements" in line]
    (rest,) = set(installs) - set(by_hash)
    assert len(by_hash) == 2 and rest.endswith(f" torch=={pins(ROOT / 'requirements.in')['torch']}")


def imported_by(files: list[Path]) -> set[str]:
    """The packages beyond the standard library and our own that ``files`` import at their top."""
    code = "\n".join(file.read_text() for file in files)
    found = set(re.findall(r"^(?:import|from) ([a-z_0-9]+)", code, re.MULTILINE))
    return found - set(sys.stdlib_module_names) - {"relora_study"}


def test_what_the_code_imports_is_asked_for():
    asked = {IMPORTED_AS.get(name, name.replace("-", "_")) for name in pins(ROOT / "requirements.in")}
    assert imported_by([*(ROOT / "workflow/relora_study").rglob("*.py")]) <= asked


@pytest.mark.parametrize("name", STAGES)
def test_a_stages_code_imports_only_what_its_environment_holds(name):
    held = ranges(ROOT / f"envs/{name}.yaml")
    package = ROOT / "workflow/relora_study"
    modules = [file for stage in STAGES[name] for file in sorted((package / stage).rglob("*.py"))]  # lazy ones, too
    imports = "".join(
        f"import relora_study.{'.'.join(one.relative_to(package).with_suffix('').parts)}\n" for one in modules
    )
    listing = (
        "import sys\nfor name in list(sys.modules):\n if name[:12] == 'relora_study': print(sys.modules[name].__file__)"
    )
    environment = {"PYTHONPATH": str(ROOT / "workflow")}
    found = subprocess.run([sys.executable, "-c", imports + listing], capture_output=True, text=True, env=environment)
    files = [Path(line) for line in found.stdout.splitlines()]
    assert len(files) > 5, found.stderr
    assert imported_by(files) <= {IMPORTED_AS.get(package, package) for package in held}


@pytest.mark.parametrize("name", ["data", "report"])
def test_a_stage_without_torch_runs_none_and_says_nothing(name):
    """Torch cannot be found here, as in the stage's environment; a tokenizer is used, for its late imports."""
    package = ROOT / "workflow/relora_study"
    modules = [f"relora_study.{name}.{file.stem}" for file in (package / name).glob("*.py") if file.stem[:1] != "_"]
    code = f"{WITHOUT_TORCH}\nfor name in {modules}: importlib.import_module(name)\n"
    code += f"import relora_study.{name}.__main__\n"
    if name == "data":
        code += "from relora_study.data.tokenizer import train_tokenizer\n"
        code += "print(train_tokenizer(['a text', 'a word'], 300)('a text')['input_ids'])\n"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT / "workflow")}
    )
    assert (done.returncode, done.stderr) == (0, "") and len(modules) > 5


@pytest.mark.parametrize(
    "name", ["requirements", "requirements-dev", "requirements-bench", "requirements-metadata", "requirements-zero2"]
)
def test_every_hash_of_a_lock_belongs_to_a_package(name):
    lines = (ROOT / f"{name}.txt").read_text().splitlines()
    assert [line for before, line in itertools.pairwise(lines) if "--hash" in line and before[-1:] != "\\"] == []
