# `make demo` and `make test` are all that a newcomer needs; both set up .venv on their first run.
# Behind a mirror, or for another build of torch:
#   make test PIP_FLAGS="--index-url https://mirror.example/simple"
#   make demo TORCH=torch==2.9.1
PYTHON ?= python3.11
PIP_FLAGS ?=
TORCH ?= torch==2.13.0

BIN := .venv/bin
READY := .venv/.ready
# What fetches a model with pip, such as the demo, asks the same index.
export SI_PIP_FLAGS := $(PIP_FLAGS)

.DEFAULT_GOAL := help
.PHONY: help demo test test-all fuzz kernels lint style quality speed

help:  ## Show this list.
	@sed -n 's/^\([a-z-]*\):.*##/\1\t/p' $(MAKEFILE_LIST) | expand -t 10

demo: $(READY)  ## Prune a real language model, export it and show what was gained.
	$(BIN)/optimum-cli si demo

# Kernels are compiled on all cores before tests share these, and once instead of by each worker.
COMPILE = from optimum_si.onnx.kernels import library_path; library_path()
PYTEST = $(BIN)/pytest -n 2 --dist worksteal --durations 20

test: lint kernels  ## Lint, type check and test every claim at its smallest (minutes).
	$(PYTEST) -m "not slow"

test-all: $(READY) kernels  ## The tests that `make test` leaves out: sanitizers, packaging, all families, docs.
	$(PYTEST) -m slow

fuzz: $(READY) kernels  ## Try what nobody would write, for MINUTES=30.
	$(BIN)/python tests/fuzz/run.py --minutes $(or $(MINUTES),30)

kernels: $(READY)
	-@$(BIN)/python -c '$(COMPILE)'

lint: $(READY)  ## Check style, types, and which package imports which.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy optimum_si
	$(BIN)/lint-imports --no-cache

style: $(READY)  ## Fix what the linter can fix.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

quality: $(READY)  ## Measure accuracy against sparsity.
	$(BIN)/python benchmarks/quality.py

speed: $(READY)  ## Measure time and memory.
	$(BIN)/python benchmarks/speed.py

# torch first, so that no other package picks a build of it. The two sources are here because an editable install
# copies the one and records the other.
$(READY): pyproject.toml optimum_si/version.py optimum_si/commands/register_si.py | $(BIN)/pip
	$(BIN)/pip install $(PIP_FLAGS) "$(TORCH)"
	$(BIN)/pip install $(PIP_FLAGS) -e ".[onnx,datasets,report,demo,realmodels,dev]"
	@touch $@

$(BIN)/pip:
	@for python in "$(PYTHON)" python3; do \
	  if "$$python" -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; then \
	    echo "Setting up .venv with $$python"; exec "$$python" -m venv .venv; \
	  fi; \
	done; \
	echo "error: Python 3.11 or newer is needed; name it with: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1
