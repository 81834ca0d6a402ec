.DEFAULT_GOAL := help
.PHONY: help demo upload status down installed test lint unit media e2e bench bench-consumer bench-stream soak

local := infra/local
export VIDEO
export VIDSTREAMX_TOOLS_DIR ?= $(CURDIR)/.local
python := $(VIDSTREAMX_TOOLS_DIR)/venv/bin/python

help:
	@echo 'make demo [VIDEO=path]  the whole way from an upload to a playing video, on this machine'
	@echo 'make upload VIDEO=path  another video for the stack that "make demo" left running'
	@echo 'make status             what is running'
	@echo 'make down               stop everything that was started'
	@echo 'make test               formatting, lints, unit tests, and the end-to-end test with a browser'
	@echo 'make lint|unit|media|e2e  one part of make test'
	@echo 'make soak [SECONDS=600]  the simulation of the consumer with new seeds, for so long'
	@echo 'make bench              against the naive way: time, bytes, quality; writes its part of docs/BENCHMARKS.md'
	@echo "make bench-consumer     the consumer's memory, CPU time and launches; writes its part of docs/BENCHMARKS.md"
	@echo 'make bench-stream       how soon a stream plays, what an interruption costs; writes its part of docs/BENCHMARKS.md'

demo:
	@$(local)/setup.sh demo
	@$(python) -m vidstreamx_devtools.local.demo demo $(if $(VIDEO),"$$VIDEO")

upload: installed
	@test -n "$$VIDEO" || { echo 'usage: make upload VIDEO=path' >&2; exit 2; }
	@$(python) -m vidstreamx_devtools.local.demo upload "$$VIDEO"

status down: installed
	@$(python) -m vidstreamx_devtools.local.stack $@

installed:
	@test -x $(python) || { echo 'Nothing is set up here: begin with make demo.' >&2; exit 1; }
	@$(local)/setup.sh python

test:
	@$(local)/test.sh

lint unit media e2e:
	@$(local)/test.sh $@

bench:
	@$(local)/setup.sh bench
	@$(python) -m vidstreamx_devtools.bench.transcoder $(BENCH)

bench-consumer:
	@$(local)/setup.sh bench-consumer
	@$(python) -m vidstreamx_devtools.bench.consumer $(BENCH)

bench-stream:
	@$(local)/setup.sh bench-stream
	@$(python) -m vidstreamx_devtools.bench.stream $(BENCH)

soak:
	@VIDSTREAMX_SOAK_SECONDS=$(or $(SECONDS),600) cargo test --locked --quiet -p vidstreamx-consumer --test seeds soak -- --ignored --nocapture
