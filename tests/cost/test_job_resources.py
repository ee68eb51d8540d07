"""What jobs ask a scheduler for, and the commands that start a training."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from relora_study.config import Runtime, cells, check
from relora_study.cost.estimates import (
    parameter_count,
    pretrain_megabytes,
    pretrain_minutes,
    reading_megabytes,
    training_cores,
    training_minutes,
)
from relora_study.errors import UserError
from relora_study.model.build import first_model
from relora_study.model.relora import add_adapters
from relora_study.session.snakemake import launch_command, node_resources

ROOT = Path(__file__).parents[2]
METHODS = [
    ("full", {}),
    ("relora", {}),
    ("relora", {"targets": ["q_proj", "down_proj"]}),
    ("relora", {"trainable_scale": True}),
    ("factorized", {"factor_rank": 4, "targets": ["q_proj", "down_proj"]}),
    ("galore", {"update": "galore", "projection_rank": 4, "targets": ["q_proj", "down_proj"]}),
]


@pytest.mark.parametrize(("method", "switches"), METHODS)
def test_parameters_are_those_of_the_model(make_cell, method, switches):
    cell = make_cell(method, **switches)
    with torch.device("meta"):
        model = first_model(cell)
        if cell.method.rank:
            add_adapters(model, cell.method)
    assert parameter_count(cell) == sum(parameter.numel() for parameter in model.parameters())


def runtime(**changes) -> Runtime:
    default = yaml.safe_load((ROOT / "config.yaml").read_text())["runtime"]
    return Runtime(**(default | {"device": "cuda"} | changes))


def test_the_launch_command_fits_the_processes_and_nodes():
    assert launch_command(runtime(), 1) == "python -m"
    stops = "--shutdown-timeout=300 --signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
    assert launch_command(runtime(processes=4), 4) == f"torchrun {stops} --nproc-per-node=4 --standalone -m"
    srun, torchrun = launch_command(runtime(processes=8, nodes=2), 4).split(" torchrun ")
    assert srun == "srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --cpus-per-task=4"
    assert torchrun.startswith(f"{stops} --nproc-per-node=4 --nnodes=2 --rdzv-backend=c10d")
    assert torchrun.endswith(" -m")


def test_torchrun_has_the_options_that_it_is_given():
    shown = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--help"], capture_output=True, text=True)
    options = [word.partition("=")[0] for word in launch_command(runtime(processes=4), 4).split() if word[:2] == "--"]
    assert [option for option in options if option not in shown.stdout] == []


def test_a_process_with_a_gpu_gets_a_few_cores_and_one_without_gets_one():
    assert training_cores(runtime(processes=4, nodes=2)) == 8
    assert [training_cores(runtime(processes=4, device=device)) for device in ("cpu", "auto")] == [4, 4]


def test_every_node_of_a_job_is_told_the_same_meeting_place():
    command = launch_command(runtime(processes=2, nodes=2), 1)
    shown = subprocess.run(
        ["bash", "-c", f"echo {command}"], env={"SLURM_JOB_ID": "123456", "PATH": "/usr/bin:/bin"}, capture_output=True
    )
    host = subprocess.run(["hostname"], capture_output=True, text=True).stdout.strip()
    assert f"--rdzv-id=123456 --rdzv-endpoint={host}:23456 -m" in shown.stdout.decode()


def test_only_several_nodes_ask_slurm_for_tasks():
    assert node_resources(runtime(processes=4)) == {}
    assert node_resources(runtime(processes=4, nodes=2)) == {"mpi": "srun", "nodes": 2, "tasks": 2, "tasks_per_gpu": 0}


def test_processes_are_spread_evenly_over_nodes(raw):
    uneven = copy.deepcopy(raw)
    uneven["runtime"] |= {"processes": 4, "nodes": 3}
    with pytest.raises(UserError, match="processes 4 must be a multiple of nodes 3"):
        check(uneven, [])


def test_a_jobs_minutes_hold_its_time_limit_and_what_comes_before_and_after(make_cell):
    assert pretrain_minutes(make_cell("full")) == 60, "a training of seconds asks for the least"
    assert pretrain_minutes(make_cell("full", train={"time_limit": 1425.0})) == 1440
    longer = make_cell("full", train={"steps": 900_000, "batch_size": 136})
    assert pretrain_minutes(longer) >= training_minutes(longer) > 60


def test_what_a_job_asks_for_grows_with_the_model(raw):
    study = copy.deepcopy(raw)
    study["sizes"]["large"] = study["sizes"]["small"] | {"d_model": 768, "num_attention_heads": 12}
    study["study"] = {"sizes": ["small", "large"], "methods": ["full"], "seeds": [1]}
    small, large = cells(check(study, [])).values()
    assert pretrain_megabytes(large) > pretrain_megabytes(small)
    assert reading_megabytes(large, 2048) > reading_megabytes(small, 2048)
    assert training_minutes(large) > 4 * training_minutes(small)


TRAIN = """
import re, sys
from pathlib import Path
import torch
from relora_study.config import Cell, read_section
from relora_study.train.loop import train
cell = read_section(Cell, Path(sys.argv[1]) / "config.yaml")
ids = torch.randint(cell.model.vocab_size, (cell.train.batch_size, cell.model.context_length + 1))
train(cell, torch.device("cpu"), lambda _: ids, Path(sys.argv[1]))
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)  # not the parent's peak
"""


@pytest.mark.parametrize("vocabulary", [4096, pytest.param(50304, marks=pytest.mark.long)])
def test_a_training_stays_within_the_memory_it_asks_for(raw, tmp_path, vocabulary):
    study = copy.deepcopy(raw)
    study["model"] |= {"vocab_size": vocabulary, "context_length": 512}
    study["train"] |= {"steps": 2, "batch_size": 4, "micro_batch_size": 4}
    study["data"]["held_out_tokens_per_domain"] = 1000
    study["study"] = {"sizes": ["tiny"], "methods": ["relora"], "seeds": [1]}
    (cell,) = cells(check(study, [])).values()
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(cell.model_dump()))
    environment = {"PYTHONPATH": str(ROOT / "workflow"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", TRAIN, tmp_path], env=environment, capture_output=True, text=True)
    assert int(done.stdout) < pretrain_megabytes(cell) < 4 * int(done.stdout), done.stderr


def test_the_profile_names_only_options_that_snakemake_has():
    profile = yaml.safe_load((ROOT / "workflow/profiles/slurm/config.yaml").read_text())
    shown = subprocess.run([sys.executable, "-m", "snakemake", "--help"], capture_output=True, text=True).stdout
    assert [key for key in profile if f"--{key}" not in shown] == []
