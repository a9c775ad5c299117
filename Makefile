# make study                             the demonstration study, from nothing to reports/demo/index.html
# make study STUDY=params/smoke.yaml     another study; PROFILE=slurm sends its steps to a cluster
# make small_lesions                     seven arms on phantoms rich in small lesions, at most an hour on two cores
# make test                              style, types and tests, in TEST_PROCESSES processes (2)
# make coverage                          what the tests without the slow ones run of the package
# make paper SCORES=folder               the paper's printed numbers beside those of its released score files
# make bill                              docs/dependencies.md: every pinned package, its version, its licence
# make faults                            plays faults against miniature studies and writes docs/reliability.md
# make lab                               JupyterLab with this environment
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

PYTHON ?= python3
STUDY ?= params/demo.yaml
PROFILE ?= local
PYTEST_ARGS ?=
TEST_PROCESSES ?= 2
SCORES ?=
PAPER := work/paper_reanalysis

BIN := .venv/bin
READY := .venv/.installed
# pip warns of every location that a machine's own configuration names and that is not there; errors stay, and so does
# pip's exit status
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-warn-script-location
HUSH := 2> >(grep -v '^WARNING: Location' >&2 || true)

.PHONY: study small_lesions test coverage faults bill paper lab

study: $(READY)
	@$(BIN)/brainmets study $(STUDY) --profile $(PROFILE)

small_lesions: $(READY)
	@$(BIN)/brainmets study params/small_lesions.yaml --profile $(PROFILE)

# one thread for each process: several of several threads each would wait for one another
test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy src
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

coverage: $(READY)
	$(BIN)/python -m pytest -m "not slow" --cov --cov-report=term $(PYTEST_ARGS)

bill: $(READY)
	@$(BIN)/python docs/renew_dependencies.py

faults: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/faults.py --write

# The environment's own kernel comes before one of the user's; nothing asks the network for news or extensions.
lab: $(READY)
	@$(BIN)/python -m brainmets.review.lab_extension
	@JUPYTER_PATH="$(CURDIR)/.venv/share/jupyter$${JUPYTER_PATH:+:$$JUPYTER_PATH}" JUPYTER_PREFER_ENV_PATH=1 \
	$(BIN)/jupyter lab --ServerApp.root_dir="$(CURDIR)" --LabApp.extension_manager=readonly \
	$(if $(filter 0,$(shell id -u)),--allow-root)

paper: $(READY)
	@test -d "$(SCORES)" || { echo "make paper SCORES=folder: '$(SCORES)' is no folder. Give the folder of the paper's score" \
	"files (scores_<arm>_<strategy>.csv), which its authors publish at https://github.com/luumsk/BrainMetaSeg" >&2; exit 1; }
	@mkdir -p $(PAPER)
	@JUPYTER_PATH="$(CURDIR)/.venv/share/jupyter" JUPYTER_PREFER_ENV_PATH=1 \
	$(BIN)/python -m papermill --no-progress-bar --log-level ERROR notebooks/paper_reanalysis.ipynb \
	$(PAPER)/paper_reanalysis.ipynb -r scores_dir "$$(cd "$(SCORES)" && pwd)" -r out_dir "$(PAPER)"
	@cat $(PAPER)/summary.txt
	@echo "Tables and the executed notebook: $(PAPER)/"

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "BrainMets needs Python 3.11 or later; '$(PYTHON)' is not one. Name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Making the environment in .venv: once, about 3 minutes, a download of 1.5 GB or more, 3.6 GB on disk ..."
	@$(PYTHON) -m venv .venv
	@$(PIP) -r requirements.lock $(HUSH)
	@$(PIP) --no-deps --editable . $(HUSH)
	@$(BIN)/jupyter labextension disable --level=sys_prefix "@jupyterlab/apputils-extension:announcements" 2> /dev/null
	@$(BIN)/python -m brainmets.review.lab_extension
	@touch $@
	@echo "The environment is ready."
