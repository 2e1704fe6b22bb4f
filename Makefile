# All that one does in this checkout. Needs Python >= 3.10 with pip and venv, git and make; the rest goes into .venv.

PYTHON ?= python3
JOBS ?= 2
BENCH ?= # such as: --only moons --quick
NOTEBOOKS = $(wildcard examples/*.ipynb)
BIN = .venv/bin
PIP = $(BIN)/python -m pip --quiet --disable-pip-version-check install
MESSAGE = printf '\n%s\n\n' # what went wrong, or what takes so long

.PHONY: help demo test fuzz soak interrupt curve lint format notebooks bench bench-peers bench-eager bench-jit \
	bench-calls bench-threads bench-elementary bench-import clean
.DELETE_ON_ERROR:

help:  ## list these targets (the default)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.demo  ## train a network on the moons, draw what it learned: moon_mlp.png, gout.svg
	@$(BIN)/micrograd demo

test: .venv/.test  ## run every test: tests/, the examples in docstrings, the notebooks
	$(BIN)/python -m pytest -n $(JOBS)

fuzz: .venv/.test  ## 2000 random programs in guarded memory, eager against compiled; make fuzz SEED=1 PROGRAMS=100 for certain ones
	$(BIN)/python tests/jit/fuzz.py --programs $(or $(PROGRAMS),2000) $(addprefix --seed ,$(SEED))

soak: .venv/.test  ## a million calls, 300 compilations, 8 threads: no leak, no race; some minutes
	SOAK=1 $(BIN)/python -m pytest tests/jit/test_leaks.py tests/jit/test_threads.py

interrupt: .venv/.test  ## Ctrl-C and forks at random moments of compilations, calls and assignments; some minutes
	$(BIN)/python tests/jit/interrupt.py $(addprefix --seconds ,$(SECONDS)) $(addprefix --seed ,$(SEED))

curve: .venv/.test  ## 50 steps of microgpt, eager against compiled in f64: the losses side by side, equal to 1e-9
	$(BIN)/python tests/curve.py

lint: .venv/.lint  ## check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict

format: .venv/.lint  ## put the code into its one format, mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

notebooks: .venv/.test  ## run the notebooks and write their outputs into them
	$(BIN)/python -m pytest --overwrite $(NOTEBOOKS)

bench: bench-peers bench-eager bench-calls bench-threads bench-import  ## run every benchmark

bench-peers: .venv/bench/.installed .venv/karpathy  ## every workload beside JAX, PyTorch, CasADi...: benchmarks/RESULTS.md, *.svg
	.venv/bench/bin/python benchmarks/suite.py $(BENCH)

bench-eager: .venv/karpathy  ## how many times as fast as Karpathy's micrograd 0.1.0, in one run
	$(BIN)/python benchmarks/eager.py .venv/karpathy

bench-jit: .venv/.jit  ## how long a network takes to compile, and how many times as fast it is then
	$(BIN)/python benchmarks/jit.py

bench-calls: .venv/.jit  ## what a call of compiled code costs from Python, by kinds of arguments and answers
	$(BIN)/python benchmarks/calls.py

bench-threads: .venv/.jit  ## what more threads make of a vmap over many rows
	$(BIN)/python benchmarks/threads.py

bench-elementary: .venv/.test  ## exp, log, tanh... on vectors, as a later compiler will inline them, beside numpy
	$(BIN)/python benchmarks/elementary.py

bench-import: .venv/pyvenv.cfg  ## how long `import micrograd.engine` takes
	$(BIN)/python benchmarks/imports.py

clean:  ## remove .venv and all that tools left behind
	rm -rf .venv .pytest_cache .hypothesis .mypy_cache .ruff_cache dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { $(MESSAGE) \
		'micrograd needs Python >= 3.10, and "$(PYTHON)" is not one. Name another: make PYTHON=python3.12 ...' >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; $(MESSAGE) \
		'"$(PYTHON) -m venv" failed. Debian and Ubuntu have it in a package of its own: apt install python3-venv' >&2; exit 1; }

# A stamp for each of the optional extras in pyproject.toml, installed anew when that file changes.
.venv/.%: .venv/pyvenv.cfg pyproject.toml
	@$(MESSAGE) 'Installing micrograd[$*] into .venv: once, some minutes.'
	$(PIP) --editable '.[$*]'
	@touch $@

# The peers of bench-peers have an environment of their own: they are large, and the tests need none of them.
.venv/bench/.installed: .venv/pyvenv.cfg pyproject.toml
	@$(MESSAGE) 'Installing micrograd[bench], the peers, into .venv/bench: once, some minutes.'
	$(BIN)/python -m venv .venv/bench
	.venv/bench/bin/python -m pip --quiet --disable-pip-version-check install --editable '.[bench]'
	@touch $@

.venv/karpathy: .venv/pyvenv.cfg
	$(PIP) --no-deps --target $@ micrograd==0.1.0
