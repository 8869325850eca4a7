# Two commands set everything up: `make run` and `make test`. They need Python 3.11 or later, and make.
PYTHON ?= python3
BIN := .venv/bin

# A PostgreSQL each; more than four would wait for one disk.
SIDE_BY_SIDE := --numprocesses=auto --maxprocesses=4 --dist=worksteal

.PHONY: run test test-faults check format bench bench-ingest bench-metrics openapi numbers dashboard clean
.DELETE_ON_ERROR:

run: .venv/.installed ## set up and serve on 127.0.0.1:8080 with the built-in PostgreSQL
	exec $(BIN)/python -m app.cli serve

test: .venv/.installed ## the whole suite
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

test-faults: .venv/.installed ## kills, cuts, floods, a full disk, a failover: with real processes, some minutes
	$(BIN)/python -m pytest tests/faults

check: .venv/.installed ## types, style, direction of imports, the committed contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m app.cli openapi | diff -u openapi.yaml - || (echo "openapi.yaml is stale: make openapi" && exit 1)

bench: bench-ingest bench-metrics ## all measurements; some twenty minutes, best on an idle machine

bench-ingest: .venv/.installed ## how fast alerts are taken, beside Alertmanager and PostgreSQL alone
	$(BIN)/python -m bench.ingest

bench-metrics: .venv/.installed ## how long numbers and scrapes take, and how that grows with history
	$(BIN)/python -m bench.metrics

format: .venv/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

openapi: .venv/.installed ## write openapi.yaml anew
	$(BIN)/python -m app.cli openapi openapi.yaml

numbers: .venv/.installed ## write the reference in docs/numbers.md anew
	$(BIN)/python -m app.cli numbers

dashboard: .venv/.installed ## write deploy/grafana/aftermath.json anew
	$(BIN)/python -m deploy.grafana.dashboard

lock: ## pin the dependencies anew: of the tests, and the part of them that the image installs
	$(LOCK) --group dev pyproject.toml -o requirements.lock
	$(LOCK) --constraint requirements.lock pyproject.toml -o requirements-run.lock
LOCK := $(BIN)/uv pip compile --generate-hashes --no-emit-index-url --universal --python-version 3.11 --no-header

clean:
	rm -rf .venv .data

.venv/.installed: requirements.lock
	$(PYTHON) -c 'import sys; sys.exit("Aftermath needs Python 3.11 or later, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	touch $@
