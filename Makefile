# The whole life of the companion. `make book` and `make test` set up what they need.
PROFILE ?= cpu
PORT ?= 8000
GPUS ?= 1
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name) 2>/dev/null)))
BIN := .venv/bin

# A copy of the released data beside the checkout is used instead of the network.
EM_COMPANION_MIRROR ?= $(abspath $(wildcard ../shared/upstream))
export EM_COMPANION_MIRROR
export INCLUDE_RESPONSES
# SCALE=smoke shrinks any profile to what shows that it runs, in minutes; its numbers mean nothing.
export EM_COMPANION_SCALE := $(or $(SCALE),$(EM_COMPANION_SCALE))
# Without this, tiny forward passes are up to a hundred times slower on few cores.
export OMP_WAIT_POLICY := PASSIVE
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: setup grow book test test-book test-smoke notebook replot bench fetch sync serve clean

setup: .venv/.installed

# The last install brings what a platform needs besides, such as the CUDA libraries of torch.
.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || { echo "Python 3.11 to 3.13 is needed; set PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $$(grep -o 'torch==[0-9.]*' requirements.lock)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -e .
	$(BIN)/python -m ipykernel install --sys-prefix --name python3 --display-name "Python 3 (ipykernel)" --env OMP_WAIT_POLICY PASSIVE >/dev/null
	@touch $@

# Make what is missing, then build. Nothing is executed twice, and a failure leaves the last good book in place.
book: setup
	em-companion build --profile $(PROFILE) --cores $(CORES) --gpus $(GPUS)

# Grow the committed base and chat model anew, from nothing; the old ones stay until the new ones are whole.
grow: setup
	em-companion grow --from-nothing --profile $(PROFILE)

notebook: setup
	@test -n "$(NAME)" || { echo "Which one? make notebook NAME=s3-2-steering"; exit 2; }
	em-companion run $(NAME) --profile $(PROFILE)

# Draw every figure again from stored models and responses, and build; trains nothing.
replot: setup
	for path in notebooks/*.py; do em-companion run $$(basename $$path .py) --profile $(PROFILE) --force || exit 1; done
	em-companion book --profile $(PROFILE)

test: setup
	pytest -n auto
	em-companion sync --check
	ruff check .
	lint-imports --no-cache

# What can only be seen on a built book, in a real browser where a Chromium is installed.
test-book: setup
	pytest -n auto -m book

# Every page under profiles with a published model, or a stand-in of it, on a handful of answers.
test-smoke: setup
	pytest -n auto -m slow tests/build/test_smoke.py -k "$(SMOKE)"

fetch: setup
	em-companion fetch --all

sync: setup
	em-companion sync

# NAME=gpu runs the one that needs a large card.
bench: setup
	python benchmarks $(NAME)

serve: setup
	$(BIN)/python -m http.server $(PORT) --directory _build/html --bind 127.0.0.1

clean:
	rm -rf _build artifacts .snakemake book/notebooks book/figures book/_generated book/_extra
