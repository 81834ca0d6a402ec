.DEFAULT_GOAL := help
.PHONY: help demo upload status down installed test lint lint-quick unit media e2e steady fuzz soak bench bench-consumer bench-stream

local := infra/local
export VIDEO
export VIDSTREAMX_TOOLS_DIR ?= $(CURDIR)/.local
python := $(VIDSTREAMX_TOOLS_DIR)/venv/bin/python
devtools := $(python) -m vidstreamx_devtools

help:
	@echo 'make demo [VIDEO=path]   starts a local stack, uploads a video and transcodes it'
	@echo 'make upload VIDEO=path   uploads another video to the stack of "make demo"'
	@echo 'make status              shows the state of the local stack'
	@echo 'make down                stops the local stack'
	@echo 'make test                runs all checks: lint, unit, media and e2e'
	@echo 'make lint                runs formatters, linters and type checkers'
	@echo 'make lint-quick          runs make lint without clippy, cargo doc and cargo-deny, for a pre-commit hook'
	@echo 'make unit                runs the Rust tests'
	@echo 'make media               transcodes all kinds of files, checks the streams and plays them in a browser'
	@echo 'make e2e                 runs the end-to-end tests on a local stack'
	@echo 'make steady [RUNS=10] [PART=test]  repeats tests without the corpus, twice beside two busy loops'
	@echo 'make fuzz [SECONDS=600]  tests the MP4 reader with mutated files for this time'
	@echo 'make soak [SECONDS=600]  simulates the consumer with new random seeds for this time'
	@echo 'make bench               compares speed, size and quality with a naive implementation'
	@echo "make bench-consumer      measures the consumer's memory, CPU time and launches"
	@echo 'make bench-stream        measures the time to first playback and the cost of interruptions'
	@echo 'Benchmarks write a section of docs/BENCHMARKS.md. BENCH=--help shows their options.'

demo:
	@$(local)/setup.sh demo
	@$(devtools).local.demo demo $(if $(VIDEO),"$$VIDEO")

upload: installed
	@test -n "$$VIDEO" || { echo 'usage: make upload VIDEO=path' >&2; exit 2; }
	@$(devtools).local.demo upload "$$VIDEO"

status down: installed
	@$(devtools).local.stack $@

installed:
	@test -x $(python) || { echo 'Nothing is installed yet: run make demo first.' >&2; exit 1; }
	@$(local)/setup.sh python

test lint lint-quick unit media e2e:
	@$(local)/test.sh $@

steady:
	@$(local)/steady.sh $(or $(RUNS),10) $(or $(PART),test)

fuzz:
	@VIDSTREAMX_FUZZ_SECONDS=$(or $(SECONDS),600) cargo test --locked --quiet -p vidstreamx-isobmff --test mutations fuzz -- --ignored --nocapture

soak:
	@VIDSTREAMX_SOAK_SECONDS=$(or $(SECONDS),600) cargo test --release --locked --quiet -p vidstreamx-consumer --test random_simulation soak -- --ignored --nocapture

bench:
	@$(local)/setup.sh bench
	@$(devtools).bench.transcoder $(BENCH)

bench-consumer:
	@$(local)/setup.sh bench-consumer
	@$(devtools).bench.consumer $(BENCH)

bench-stream:
	@$(local)/setup.sh bench-stream
	@$(devtools).bench.stream $(BENCH)
