"""One source of versions: requirements.in, its lock, and what conda installs."""

import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = sorted((ROOT / "envs").glob("*.yaml"))
CONDA_NAMES = {"torch": "pytorch"}
COMPILER = "c-compiler"  # no package of Python, and of any version
IMPORTED_AS = {"pyyaml": "yaml", "pytorch": "torch"}
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


def versions(dependencies: list) -> dict[str, str]:
    """Names, as pip knows them where conda's differ only in packaging, and versions of a conda environment."""
    flat = [line for line in dependencies if isinstance(line, str) and line not in {"pip", COMPILER}]
    flat += [line.replace("==", "=") for nested in dependencies if isinstance(nested, dict) for line in nested["pip"]]
    return {name.removesuffix("-base"): version for name, version in (line.split("=") for line in flat)}


@pytest.mark.parametrize("file", ENVIRONMENTS, ids=lambda file: file.name)
def test_conda_installs_pips_versions(file):
    wanted = {CONDA_NAMES.get(name, name): version for name, version in pins(ROOT / "requirements.in").items()}
    environment = yaml.safe_load(file.read_text())
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    found = versions(environment["dependencies"])
    assert found.pop("python")
    assert found == {name: wanted[name] for name in found}


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
    held = versions(yaml.safe_load((ROOT / f"envs/{name}.yaml").read_text())["dependencies"])
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
