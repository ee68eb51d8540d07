# How the package reaches Snakemake and every job. The package is not installed: each process runs it in place.
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

# What a study runs and packs.
SHIPPED = ["workflow", "resources", "paper", "Snakefile", "config.yaml", "CITATION.cff", "LICENSE"]


def root_of_workflow():
    """The folder that holds this workflow's files, whichever Snakefile includes them."""
    root = workflow.current_basedir.join("../..")
    return Path(root.get_path_or_uri(secret_free=True)) if root.is_local else unpacked(root.hosted_repo.repo, root.ref)


def unpacked(clone, ref):
    """The files at ``ref`` of a workflow on GitHub or GitLab, unpacked in the working folder, once a commit.

    Snakemake has a bare clone of such a workflow, in a cache of this machine. Jobs on other nodes need files.
    """
    folder = Path(".snakemake", "relora_study", clone.commit(ref).hexsha).absolute()
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as place:
            with (Path(place) / "files.tar").open("wb") as stream:
                clone.archive(stream, ref, path=SHIPPED)
            careful = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python 3.11.4 and newer
            shutil.unpack_archive(Path(place) / "files.tar", Path(place) / "files", **careful)
            (Path(place) / "files").rename(folder)
    return folder


ROOT = root_of_workflow()
PACKAGE = ROOT / "workflow" / "relora_study"
sys.path.insert(0, str(PACKAGE.parent))

from relora_study.session.snakemake import conda_prefix, lead_jobs_to, short_interpreter

lead_jobs_to(PACKAGE.parent)
shell.prefix(conda_prefix(PACKAGE.parent))
sys.executable = short_interpreter(sys.executable)
