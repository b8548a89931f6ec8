# Needs Python >= 3.11, git and make. Every target first makes .venv, and again when pyproject.toml changed.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
# make CONSTRAINTS= installs the newest versions instead
CONSTRAINTS ?= constraints.txt
# Where this is set, every one of the many kernels would compile torch's sources again: 5 to 15 s each.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help reproduce test lab explore docs notebooks bench gpu
help:
	@echo "make reproduce   execute every notebook (profile quick) and write build/report.html"
	@echo "make test        lint, types, unit tests, notebook contract, smoke runs, nbval"
	@echo "make lab         open the notebooks in JupyterLab"
	@echo "make explore     serve the explorers as a web page on this machine"
	@echo "make docs        the site, into build/docs: notebooks as committed, figures, how-to pages, the API"
	@echo "make bench       time training against a textbook implementation, the bare convolutions, and side by side"
	@echo "make gpu         on a machine with CUDA, in ten minutes: compare it with the CPU, time compiled training steps"
	@echo "make notebooks   execute the committed notebooks again, in place"

$(READY): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "capsnb needs Python 3.11 or newer, and '$(PYTHON)' is not: name one with make PYTHON=python3.11." >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --python $(BIN)/python $(addprefix -c ,$(CONSTRAINTS)) -e '.[test]' || $(BIN)/pip install -e '.[test]'
	@touch $@

# The report is written after a failing notebook too; the status stays that of the run.
reproduce: $(READY)
	@status=0; $(BIN)/capsnb run --profile quick || status=$$?; $(BIN)/capsnb report || exit $$?; exit $$status

# The smoke runs of pytest and of nbval share one fresh folder of trained runs. A process per core, each on one thread:
# threads of several processes wait for each other. A file, or a notebook, stays with one process, which takes 1 GB.
SIDE_BY_SIDE := -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder
NBVAL := --nbval-current-env --nbval-cell-timeout=300
# drawn from the evidence store: every text and table is compared with a fresh execution, without any trained network;
# of the others the marked cells are, at smoke. Before, pytest runs all of them at smoke, a reader's routing beside theirs
RECORDED := $(wildcard $(shell grep -ls '^OPENS = "long"' notebooks/plans/*.py | sed 's|.*plans/\(.*\).py|notebooks/*_\1.ipynb|'))
LIVE := $(filter-out $(RECORDED),$(wildcard notebooks/*.ipynb))
test: export CAPSNB_RUNS = $(CURDIR)/build/test-runs
test: export OMP_NUM_THREADS = 1
test: $(READY)
	@rm -rf build/test-runs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest $(SIDE_BY_SIDE)
	CAPSNB_PROFILE=smoke $(BIN)/pytest $(SIDE_BY_SIDE) --nbval-lax $(NBVAL) $(LIVE)
	CAPSNB_RUNS=build/no-runs $(BIN)/pytest $(SIDE_BY_SIDE) --nbval $(NBVAL) $(RECORDED)

lab: $(READY)
	$(BIN)/jupyter lab notebooks

# The figures for readers without a kernel, and the checks, are left out of the page.
explore: $(READY)
	@$(BIN)/jupyter nbconvert --log-level WARN --to notebook --output-dir build/explore notebooks/06_explorer.ipynb \
		--TagRemovePreprocessor.enabled=True --TagRemovePreprocessor.remove_cell_tags=static
	$(BIN)/voila build/explore/06_explorer.ipynb --ip=127.0.0.1 $(VOILA)

# Nothing is executed; a warning is an error.
docs: $(READY)
	@$(BIN)/python -c 'import myst_nb' 2>/dev/null \
		|| $(BIN)/uv pip install --python $(BIN)/python $(addprefix -c ,$(CONSTRAINTS)) -e '.[docs]'
	$(BIN)/python -m sphinx -W --keep-going -j auto docs build/docs

notebooks: $(READY)
	$(BIN)/capsnb run --in-place

# Ratios of one alternating run; a machine that does nothing else meanwhile gives the narrowest spread.
bench: $(READY)
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/jobs.py

# Ends with status 2 and a sentence where there is no CUDA.
gpu: $(READY)
	@$(BIN)/python benchmarks/gpu.py
