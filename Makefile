# One verb a line or two; each sets up what it needs in .venv. PYTHON is any Python from 3.11 on.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: serve test check train bench image clean

serve: .venv/serve  ## set up without torch, then serve the shipped checkpoint on 127.0.0.1:8000
	$(BIN)/beexformer serve

test: .venv/dev check  ## set up with torch, then every check and every test
	$(BIN)/pytest

check: .venv/dev  ## format, lint and types, no tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

train: .venv/dev  ## train what ships: make train BEE_DATA=folder
	$(BIN)/beexformer train --recipe recipes/sst2.toml --data $(BEE_DATA) --out model/checkpoints/sst2

bench: .venv/dev  ## tokens a second of training
	$(BIN)/python bench/train.py

image:  ## build the serving image
	docker compose build

.venv/serve: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) -e .
	touch $@

.venv/dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) -e ".[train,dev]"
	touch $@ .venv/serve

clean:
	rm -rf .venv
