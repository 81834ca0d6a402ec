#!/usr/bin/env bash
# Runs a command inside the container and measures it there, so that the start of the container is not measured.
# Prints one line of JSON.
#
#   measure.sh NAMES COMMAND…   NAMES: comma-separated names of the programs whose peak memory is measured
set -euo pipefail

names=$1
shift
log=$(mktemp)
peaks=$(mktemp)
trap 'rm -f "$log" "$peaks"' EXIT

# VmHWM never falls, so the last sample of a process misses at most the last tenth of a second. The loop starts no
# program but sleep, because a program that runs here takes time from the measured one.
sample_peaks() {
    local -A peak=()
    local process name key value rest
    while :; do
        for process in /proc/[0-9]*; do
            { name=$(<"$process/comm"); } 2>/dev/null || continue
            [[ ,$names, == *",$name,"* ]] || continue
            while read -r key value rest; do
                if [[ $key == VmHWM: ]] && ((value > ${peak[$name]:-0})); then
                    peak[$name]=$value
                    printf '%s %s\n' "$name" "$value" >>"$peaks"
                fi
            done 2>/dev/null <"$process/status" || true
        done
        sleep 0.1
    done
}

sample_peaks &
sampler=$!
TIMEFORMAT='%R %U %S'
exec 9>&2
times=$({ time "$@" >"$log" 2>&1 9>&-; } 2>&1) && code=0 || code=$?
{ kill "$sampler" && wait "$sampler"; } 2>/dev/null || true
if ((code != 0)); then
    tail -n 5 "$log" >&2
    exit "$code"
fi
read -r wall user system <<<"$times"
printf '{"wall": %s, "user": %s, "system": %s' "$wall" "$user" "$system"
IFS=,
for name in $names; do
    kilobytes=$({ grep "^$name " "$peaks" || true; } | sort -n -k 2 | tail -n 1 | cut -d ' ' -f 2)
    printf ', "peak_kb_%s": %s' "$name" "${kilobytes:-0}"
done
printf '}\n'
