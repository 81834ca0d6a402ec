#!/usr/bin/env bash
# Repeats a part of the checks on generated clips alone, as a clone without the corpus runs them, to see that they do
# not fail at random. The last two runs are beside two busy loops.
#
#   steady.sh [RUNS] [test|lint|unit|media|e2e]   ten runs of "test" by default
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

runs=${1:-10} part=${2:-test}
export VIDSTREAMX_CORPUS=$PWD/target/no-corpus VIDSTREAMX_FAULTS=$PWD/target/no-faults
loops=()
trap '((${#loops[@]} == 0)) || kill "${loops[@]}"' EXIT

for ((run = 1; run <= runs; run++)); do
    if ((run > runs - 2 && ${#loops[@]} == 0)); then
        for _ in 1 2; do
            while :; do :; done &
            loops+=($!)
        done
    fi
    printf '== run %d of %d%s\n' "$run" "$runs" "${loops[*]:+, beside two busy loops}"
    infra/local/test.sh "$part"
done
