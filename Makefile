# Everything needs Python 3.11 and pip only; `make newest` and `make accelerators` Python 3.12 as well.
PYTHON ?= python3.11
# A Python of this version, on the PATH or of pyenv.
find = $(shell python$(1) -V >/dev/null 2>&1 && echo python$(1) || eval ls ~$$(id -un)/.pyenv/versions/$(1).*/bin/python 2>/dev/null | tail -n 1)
PYTHON_NEWEST ?= $(call find,3.12)
WHEEL_PYTHONS ?= $(or $(call find,3.11),python3.11) $(or $(call find,3.12),python3.12) $(or $(call find,3.13),python3.13)
VENV := .venv
NEWEST := .venv-newest
ROADS := .venv-roads
ACCELERATORS := .venv-accelerators
ACCELERATORS_NEWEST := .venv-accelerators-newest
LIBRARY := one_pass/libonepass.so
JOBS ?= 2
PYTEST := $(VENV)/bin/python -m pytest -n $(JOBS)

.PHONY: parity test bench docs lint exhaustive newest roads browser accelerators wheels clean

parity: $(VENV)/.installed $(LIBRARY)  ## the main job: every optimizer, row and stream, bit for bit
	$(VENV)/bin/optparity check --plot out/parity.png --json out/parity.json

test: $(VENV)/.installed $(LIBRARY) lint  ## what CI runs first; then `make roads` and `make accelerators`
	$(PYTEST)

bench: $(VENV)/.installed $(LIBRARY)  ## what a step costs, against optax and torch.optim; `python -m benchmarks --help`
	$(VENV)/bin/python -m benchmarks

docs: $(VENV)/.installed  ## the site, into out/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict --quiet

lint: $(VENV)/.installed
	$(VENV)/bin/pre-commit run --all-files --config .pre-commit-config.yaml

exhaustive: $(VENV)/.installed $(LIBRARY)  ## every test, with every row x dtype x stream x context on every size of leaf; about 40 minutes
	mkdir -p out
	$(PYTEST) --exhaustive --durations=5 2>&1 | tee out/exhaustive.log

wheels: $(VENV)/.installed  ## the wheel, installed and tried on Python 3.11, 3.12 and 3.13; torch on 3.11
	$(VENV)/bin/python -m tools.wheels $(WHEEL_PYTHONS) --torch 3.11

newest: $(NEWEST)/.installed  ## the newest jax, without torch: the committed hashes, and the canaries
	$(NEWEST)/bin/optparity golden check
	$(NEWEST)/bin/python -m pytest parity_tests/parity/test_canaries.py -k "not torch"

roads: $(ROADS)/.installed  ## checkpoints of transformers and lightning, which only this environment has
	$(ROADS)/bin/python -m pytest parity_tests/roads --roads

browser: $(VENV)/.installed  ## reports in headless Chromium: apt-get install chromium
	$(VENV)/bin/python -m pytest parity_tests/report --browser -m browser

accelerators: $(ACCELERATORS)/.installed $(ACCELERATORS_NEWEST)/.installed  ## what XLA makes of the rules for GPUs and TPUs; none is needed
	$(ACCELERATORS)/bin/python -m pytest parity_tests/accelerators --accelerators -n $(JOBS) --dist loadscope
	$(ACCELERATORS_NEWEST)/bin/python -m pytest parity_tests/accelerators --accelerators -n $(JOBS) --dist loadscope -m every_jax

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[torch,cli,train,convert,docs,dev]'
	touch $@

# The installation builds it. This does so when its sources have changed since, and goes on where there is no compiler.
$(LIBRARY): one_pass/build.py $(wildcard one_pass/native/*.* one_pass/native/rules/*.*)
	-$(VENV)/bin/python -m one_pass.build

$(NEWEST)/.installed $(ACCELERATORS_NEWEST)/.installed: need_newest = @test -n "$(PYTHON_NEWEST)" || \
	{ echo "make $(MAKECMDGOALS): no Python 3.12 was found; say PYTHON_NEWEST=/path/to/python3.12"; exit 2; }

$(NEWEST)/.installed: pyproject.toml constraints.txt
	$(need_newest)
	$(PYTHON_NEWEST) -m venv $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[cli]' pytest
	touch $@

$(ROADS)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(ROADS)
	$(ROADS)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[torch,cli,train,convert,roads]' pytest
	touch $@

$(ACCELERATORS)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(ACCELERATORS)
	$(ACCELERATORS)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[cli,accelerators]' pytest pytest-xdist
	touch $@

$(ACCELERATORS_NEWEST)/.installed: pyproject.toml constraints.txt
	$(need_newest)
	$(PYTHON_NEWEST) -m venv $(ACCELERATORS_NEWEST)
	$(ACCELERATORS_NEWEST)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[cli,accelerators]' pytest pytest-xdist
	touch $@

clean:
	rm -rf $(VENV) $(NEWEST) $(ROADS) $(ACCELERATORS) $(ACCELERATORS_NEWEST) $(LIBRARY) out
