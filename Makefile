# `make run` runs the default study, `make test` the tests; both make .venv first, from the exact pins.
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)
.PHONY: help run test test-slurm drill pack bench bench-train bench-dynamics bench-eval plan check lock clean
.DEFAULT_GOAL := help

help: ## show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/'

.venv/run: requirements.txt
	@echo "Making .venv (about a minute with warm mirrors; torch is the large one)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	@touch $@

.venv/test: .venv/run requirements-dev.txt
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements-dev.txt
	@touch $@

run: .venv/run ## run the default study (config.yaml) to results/paper.pdf and results/report.html
	@snakemake --cores all

test: .venv/test ## run the tests, the end-to-end one included
	@python -m pytest

test-slurm: .venv/test ## run a small study on a SLURM that this machine brings up (root and Debian's packages; docs/cluster.md)
	@python -m pytest -m slurm -s tests/slurm

pack: .venv/run ## pack results without checkpoints into results/archive.tar.gz (CONFIG=... as it was run)
	@snakemake --cores all $(if $(CONFIG),--configfile $(CONFIG)) -- archive

drill: .venv/test ## run the drills of docs/reliability.md that take minutes
	@python -m pytest -m slow -s

bench: bench-train bench-dynamics bench-eval ## run every benchmark; results/benchmarks/*.csv

bench-train: .venv/test ## time training steps against transformers'
	@PYTHONPATH=workflow python benchmarks/train.py

bench-dynamics: .venv/test ## time spectra against a full SVD a metric; memory of a checkpoint's readings
	@PYTHONPATH=workflow python benchmarks/dynamics.py

.venv-bench: requirements.txt requirements-bench.txt
	@$(PYTHON) -m venv $@
	@$@/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt --requirement requirements-bench.txt
	@touch $@

BLIMP ?= ../shared/data/blimp.zip
bench-eval: .venv-bench ## minimal pairs against lm_eval: same decisions, pairs/s (BLIMP=path/to/blimp.zip)
	@PYTHONPATH=workflow .venv-bench/bin/python benchmarks/evaluate.py --blimp $(BLIMP)

CONFIG ?=
plan: .venv/run ## what a configuration will cost (CONFIG=workflow/presets/audit.yaml, MEASURE=--measure)
	@PYTHONPATH=workflow python -m relora_study.plan config.yaml $(CONFIG) $(MEASURE)

check: .venv/test ## formatting, lint and types
	ruff format --check .
	ruff check .
	snakefmt --check Snakefile workflow/rules
	mypy
	snakemake --lint

lock: .venv/test ## pin what is installed in .venv again, from requirements.in and requirements-dev.in
	python -m pip install --quiet pip-tools
	python -m piptools compile --quiet --strip-extras --no-emit-find-links --no-emit-index-url --output-file requirements.txt requirements.in
	python -m piptools compile --quiet --strip-extras --no-emit-find-links --no-emit-index-url --output-file requirements-dev.txt requirements-dev.in
	python -m piptools compile --quiet --strip-extras --no-emit-find-links --no-emit-index-url --output-file requirements-bench.txt requirements-bench.in
	sed -i 's/^\(torch==[0-9.]*\)+.*/\1/' requirements.txt requirements-dev.txt requirements-bench.txt # a local build's tag names no release

clean: ## delete the results and Snakemake's notes; keeps .venv
	rm -rf .snakemake && git clean -fdxq results
