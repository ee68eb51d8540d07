# `make run` runs the default study, `make test` the tests; both make .venv first, from the exact pins.
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)
# Every package is installed from the hash in its lock; torch alone from its version, because PyPI's and a site's builds
# of it (CPU, CUDA) share that and nothing else. It comes last: all it needs is there but the NVIDIA libraries of its build.
PIP := -m pip install -qq --disable-pip-version-check
LOCKED := $(PIP) --require-hashes --no-deps --requirement
TORCH := $(shell grep '^torch==' requirements.in)
.PHONY: audit citation help run test test-all test-conda test-slurm drill pack bench bench-train bench-methods bench-dynamics bench-eval bench-zero2 plan docs findings sample picture notebook check lock clean
.DEFAULT_GOAL := help

help: ## show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/'

.venv/run: requirements.txt
	@echo "Making .venv (about a minute with warm mirrors; torch is the large one)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@.venv/bin/python $(LOCKED) requirements.txt
	@.venv/bin/python $(PIP) $(TORCH)
	@touch $@

.venv/test: .venv/run requirements-dev.txt
	@.venv/bin/python $(LOCKED) requirements-dev.txt
	@touch $@

run: .venv/run ## run the default study (config.yaml) to results/paper.pdf and results/report.html
	@snakemake --cores all

# Two processes share the tests; tests that need one study, or another fixture that takes long, share a process.
PYTEST := python -m pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder
test: .venv/test ## run the tests in minutes, a study from its corpus to the paper included
	@$(PYTEST)

test-all: .venv/test .venv-metadata ## run what `make test` leaves out: kills, archives, modules, the paper of the published values
	@$(PYTEST) -m long

test-conda: .venv/test ## run the tiny study with --use-conda, in environments that a stand-in builds by pip (3 GB, minutes; END=lowest or locked)
	@python -m pytest -m conda $(if $(END),-k $(END)) tests/conda

test-slurm: .venv/test ## run a small study on a SLURM that this machine brings up (root and Debian's packages; docs/cluster.md)
	@python -m pytest -m slurm -s tests/slurm

pack: .venv/run ## pack results without checkpoints into results/archive.tar.gz (CONFIG=... as it was run)
	@snakemake --cores all $(if $(CONFIG),--configfile $(CONFIG)) -- archive

# An environment of its own: these packages ask for older releases than the other locks hold (requirements-metadata.in).
.venv-metadata: requirements-metadata.txt
	@$(PYTHON) -m venv $@
	@$@/bin/python $(LOCKED) requirements-metadata.txt
	@touch $@

# cffconvert calls every author a person. Ours is a group.
citation: .venv-metadata ## check CITATION.cff, and make codemeta.json and .zenodo.json from it
	@.venv-metadata/bin/cffconvert --validate
	@.venv-metadata/bin/cffconvert --format codemeta | sed 's/"Person"/"Organization"/' >codemeta.json
	@.venv-metadata/bin/cffconvert --format zenodo >.zenodo.json

drill: .venv/test ## run the drills of docs/reliability.md that take minutes
	@python -m pytest -m slow -s

bench: bench-train bench-methods bench-dynamics bench-eval bench-zero2 ## run every benchmark; results/benchmarks/*.csv

bench-train: .venv/test ## time training steps against transformers'
	@PYTHONPATH=workflow python benchmarks/train.py

bench-methods: .venv/test ## measure what each method of a preset holds and costs (PRESET=fair, DIFFERENCES=a study's table)
	@PYTHONPATH=workflow python benchmarks/methods.py --preset $(or $(PRESET),fair) --differences $(or $(DIFFERENCES),results/tables/differences.csv)

bench-dynamics: .venv/test ## time spectra against a full SVD a metric; memory of a checkpoint's readings
	@PYTHONPATH=workflow python benchmarks/dynamics.py

.venv-bench: requirements.txt requirements-bench.txt
	@$(PYTHON) -m venv $@
	@$@/bin/python $(LOCKED) requirements.txt
	@$@/bin/python $(PIP) $(TORCH)
	@$@/bin/python $(LOCKED) requirements-bench.txt
	@touch $@

BLIMP ?= ../shared/data/blimp.zip
bench-eval: .venv-bench ## minimal pairs against lm_eval: same decisions, pairs/s (BLIMP=path/to/blimp.zip)
	@PYTHONPATH=workflow .venv-bench/bin/python benchmarks/evaluate.py --blimp $(BLIMP)

# DeepSpeed comes as source: it is built here, with the locked setuptools and without its compiled operations.
.venv-zero2/done: requirements.txt requirements-zero2.txt
	@$(PYTHON) -m venv .venv-zero2
	@.venv-zero2/bin/python $(LOCKED) requirements.txt
	@.venv-zero2/bin/python $(PIP) $(TORCH)
	@DS_BUILD_OPS=0 DS_ACCELERATOR=cpu .venv-zero2/bin/python $(LOCKED) requirements-zero2.txt --no-build-isolation \
	  2>.venv-zero2/pip.log || { echo "bench-zero2: DeepSpeed cannot be installed here: \
	  $$(grep -i error .venv-zero2/pip.log | tail -n 1) (.venv-zero2/pip.log)" >&2; exit 1; }
	@touch $@

bench-zero2: .venv-zero2/done ## ReLoRA's restart under DeepSpeed's real ZeRO-2, on CPUs, against our methods (docs/audit.md)
	@DS_ACCELERATOR=cpu PYTHONPATH=workflow .venv-zero2/bin/python benchmarks/zero2.py

CONFIG ?=
plan: .venv/run ## what a configuration will cost (CONFIG=workflow/presets/audit.yaml, MEASURE=--measure)
	@PYTHONPATH=workflow python -m relora_study.cost config.yaml $(CONFIG) $(MEASURE)

docs: .venv/run ## make docs/configuration.md, the JSON schema and config.yaml's comments from the schema, and draw docs/relora_cycle.png
	@PYTHONPATH=workflow python -m relora_study.config
	@PYTHONPATH=workflow python -m relora_study.readme
	@PYTHONPATH=workflow python docs/relora_cycle.py

PROMPTS ?=
sample: .venv/run ## print what the trained models write (PROMPTS='"The minister" "She said"')
	@PYTHONPATH=workflow python -m relora_study.evaluate sample $(PROMPTS)

picture: .venv/run ## draw README's picture again, from the default study in results/
	@snakemake --cores all results/figures/gap_over_training.png
	@cp results/figures/gap_over_training.png docs/

findings: .venv/run ## draw the figures of docs/findings.md again, from docs/results
	@PYTHONPATH=workflow python -m relora_study.report findings

notebook: .venv/test ## run docs/notebook.ipynb on results/ and keep what it shows
	@jupyter execute --inplace docs/notebook.ipynb

check: .venv/test ## formatting, lint and types
	ruff format --check .
	ruff check .
	snakefmt --check Snakefile workflow/Snakefile workflow/rules
	mypy
	snakemake --lint

COMPILE := -m piptools compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-emit-find-links --no-emit-index-url
# torch comes by its version alone, and what the optimizers' packages ask for beyond torch no test imports.
UNLOCKED := (torch==|triton==|nvidia-|cuda-|bitsandbytes==|tensorly==)
lock: .venv/test ## pin what is installed in .venv again, with hashes, from requirements*.in (minutes: every file is hashed)
	python $(PIP) pip-tools
	for name in requirements requirements-dev requirements-bench requirements-metadata requirements-zero2; do \
	  python $(COMPILE) --output-file $$name.txt $$name.in && \
	  awk '/^[a-z#]/ {unlocked = /^$(UNLOCKED)/} !unlocked' $$name.txt >$$name.new && mv $$name.new $$name.txt || exit 1; \
	done

audit: .venv/test ## ask PyPI for known vulnerabilities of the locked packages (needs PyPI itself: a mirror has no such list, which fails)
	python $(PIP) pip-audit
	python -m pip_audit --strict --disable-pip --require-hashes --requirement requirements.txt

clean: ## delete the results and Snakemake's notes; keeps .venv
	find results -mindepth 1 -maxdepth 1 ! -name README.md -exec rm -rf {} +
	rm -rf .snakemake
