# Two commands: `make up` runs sansfilm on this machine, `make check` proves it. `make help` lists the rest.
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
VIEWER_VERSION := 3.12.10
KAFKA_VERSION := 4.2.0

.PHONY: help up demo cluster-up cluster-demo check crash crash-matrix bench docs lock clean viewer kafka
.DEFAULT_GOAL := help

help:  ## list these targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

up: $(VENV)/.installed viewer  ## run edge, worker and web on this machine (Ctrl-C drains and stops)
	@exec $(BIN)/sansfilm up

demo: $(VENV)/.installed  ## in a second terminal: send a synthetic brain MR and print the link that opens it
	@exec $(BIN)/sansfilm demo

cluster-up: $(VENV)/.installed-dev viewer kafka  ## a region: three Kafka brokers, PostgreSQL, S3, two edges, a worker a lane, a keeper, web
	@exec $(BIN)/python -m region up

cluster-demo: $(VENV)/.installed-dev  ## in a second terminal: send a synthetic brain MR to the region's first edge
	@exec $(BIN)/python -m region demo

check: $(VENV)/.installed-dev viewer kafka  ## lint, types, import directions and every test
	@bash .ci/tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest

crash: $(VENV)/.installed-dev  ## kill -9 the running system 100 times (CRASH_KILLS=, CRASH_SEED=) and account for everything
	SANSFILM_CRASH_KILLS=$(or $(CRASH_KILLS),100) SANSFILM_CRASH_SEED=$(CRASH_SEED) $(BIN)/pytest tests/crash -s

crash-matrix: $(VENV)/.installed-dev viewer kafka  ## 300 faults of a data centre on a region (MATRIX_FAULTS=, MATRIX_SEED=); writes docs/fault-matrix.md
	SANSFILM_MATRIX_FAULTS=$(or $(MATRIX_FAULTS),300) SANSFILM_MATRIX_SEED=$(MATRIX_SEED) SANSFILM_MATRIX_TABLE=docs/fault-matrix.md \
	  $(BIN)/pytest tests/matrix -s

bench: $(VENV)/.installed-dev  ## measure beside DCMTK, pynetdicom and Orthanc (BENCH="--rounds 5 ..."); never part of check
	$(BIN)/python -m benchmarks.ingest $(BENCH)

$(VENV)/.installed: requirements.txt .ci/environment
	@PYTHON="$(PYTHON)" bash .ci/environment $(VENV) requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	@PYTHON="$(PYTHON)" bash .ci/environment $(VENV) requirements-dev.txt
	@touch $@

viewer:  ## fetch the OHIF viewer's package once (needs npm; without it sansfilm runs and says so)
	@bash .ci/viewer $(VIEWER_VERSION)

kafka:  ## fetch a Kafka broker once, for the tests (needs Java 17 and Maven)
	@bash .ci/kafka $(KAFKA_VERSION)

docs: $(VENV)/.installed  ## write the generated pages: settings, metrics, commands
	@$(BIN)/python -m cli.reference

lock:  ## renew the hash-locked requirement lists (needs uv)
	uv pip compile --generate-hashes --no-emit-index-url --no-header -q --python-version 3.11 requirements.in -o requirements.txt
	uv pip compile --generate-hashes --no-emit-index-url --no-header -q --python-version 3.11 requirements-dev.in -o requirements-dev.txt

clean:  ## remove the environment, the viewer and the broker; never the data
	rm -rf $(VENV) viewer kafka
