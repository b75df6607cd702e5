# Each target makes what it needs: a virtual environment, then the job.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test test-torch test-long bench study study-quick docs \
	rehearse-release format clean

help:
	@echo "make demo       train a small transformer with and without warmup (2 minutes)"
	@echo "make test       lint, types, tests, coverage"
	@echo "make test-long  the checks that take longer"
	@echo "make test-torch  all tests with another torch: TORCH=2.6.0 PYTHON=python3.12"
	@echo "make bench      what a step costs, against every peer (10 minutes)"
	@echo "make study      the core grid of docs/study.md (4 core-hours; resumes; Python 3.11)"
	@echo "make study-quick  a small grid: begun, killed, resumed, rendered (1 minute)"
	@echo "make docs       this library's site, in build/docs"
	@echo "make rehearse-release  build, upload to an index on this machine, install, run the README"
	@echo "make format     let ruff format the code"
	@echo "make clean      remove the virtual environment and all that was built"
	@echo "PYTHON=python3.11 chooses the interpreter (3.10 or newer)"

demo: .venv/installed-cli
	$(BIN)/python -m warmopt demo

test: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --cov --numprocesses auto --dist loadgroup -rxs

# Another torch, in an environment of its own. What torch itself needs is not pinned.
# It runs all tests but those of this repository's own tools, which `make test` runs.
TOOLS = benchmarks cli demo gpu packaging site study study_aligned typing versions
TORCH ?= 2.6.0
OTHER = build/torch-$(TORCH)
test-torch: $(OTHER)/installed
	$(OTHER)/bin/python -m pytest --numprocesses auto --dist loadgroup -rxs \
		$(patsubst %,--ignore=tests/project/test_%.py,$(TOOLS)) \
		--write-record=tests/records/torch-$(TORCH).json

# An environment takes 2 to 6 GB: remove it when it is no longer needed.
$(OTHER)/installed: pyproject.toml constraints.txt tests/support/no-deps.txt
	rm -rf $(OTHER)
	$(PYTHON) -m venv $(OTHER)
	grep -vE '^(torch|sympy|setuptools)==' constraints.txt > $(OTHER)/constraints.txt
	$(OTHER)/bin/python -m pip install --quiet --constraint $(OTHER)/constraints.txt \
		torch==$(TORCH) --editable '.[test]'
	$(OTHER)/bin/python -m pip install --quiet --no-deps --requirement tests/support/no-deps.txt
	# transformers fails where a torchao is installed that wants another torch.
	$(OTHER)/bin/python -c 'import torchao.optim' || $(OTHER)/bin/python -m pip uninstall --quiet --yes torchao
	[ -z "$(WITH)" ] || $(OTHER)/bin/python -m pip install --quiet $(WITH)
	touch $@

test-long: .venv/installed-test
	$(BIN)/python -m pytest -m long

bench: .venv/installed-bench
	$(BIN)/python -m benchmarks.overhead

study: .venv/installed-bench
	$(BIN)/python -m benchmarks.study benchmarks/study/core.toml
	$(BIN)/python -m benchmarks.study benchmarks/study/core.toml --report

study-quick: .venv/installed-bench
	$(BIN)/python -m benchmarks.study.quick

docs: .venv/installed-docs
	$(BIN)/python -m sphinx --quiet --fail-on-warning docs build/docs
	@echo "The site begins at build/docs/index.html."

rehearse-release: .venv/installed-release
	$(BIN)/python -u -m tests.support.rehearse_release

format: .venv/installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build dist *.egg-info .coverage .hypothesis .*_cache

# A stamp is newer than what it was installed from, so a second run starts at once.
.venv/installed-%: pyproject.toml constraints.txt tests/support/no-deps.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$*]'
	[ $* = cli ] || $(BIN)/python -m pip install --quiet --no-deps --requirement tests/support/no-deps.txt
	touch $@
