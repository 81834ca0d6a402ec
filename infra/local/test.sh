#!/usr/bin/env bash
# `make test`: all checks, the quickest first. Stops at the first failure.
#
#   test.sh [lint|unit|media|e2e]   only this part; without an argument all of them
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

tools=${VIDSTREAMX_TOOLS_DIR:-$PWD/.local}
bin=$tools/venv/bin
export PYTHONDONTWRITEBYTECODE=1

# check LABEL COMMAND…: its output is shown as it comes, then the seconds it took.
# (bash ignores "set -e" in what "||" guards: such functions chain their commands with "&&".)
check() {
    local label=$1 start=$SECONDS
    shift
    printf '== %s\n' "$label"
    "$@" || {
        printf '== %s failed after %d s\n' "$label" $((SECONDS - start)) >&2
        exit 1
    }
    printf '== %s: ok, %d s\n' "$label" $((SECONDS - start))
}

lint_shell() {
    git ls-files -z --cached --others --exclude-standard '*.sh' .ci/run | xargs -0 shellcheck
}

# rustfmt does not wrap comments and strings, so its max_width needs a check of its own.
lint_rust_lines() {
    ! git ls-files -z '*.rs' | LC_ALL=C.UTF-8 xargs -0 grep -nE '^.{111,}'
}

rust_tests() {
    if cargo nextest --version >/dev/null 2>&1; then
        cargo nextest run --workspace --locked --no-tests=pass --status-level fail --final-status-level fail &&
            cargo test --workspace --locked --doc --quiet
    else
        cargo test --workspace --locked --quiet
    fi
}

lint() {
    check 'Rust formatting' cargo fmt --all --check
    check 'Rust lines of at most 110 columns' lint_rust_lines
    check 'shell scripts' lint_shell
    check 'templates' "$bin/cfn-lint" infra/*.yaml
    if command -v cargo-deny >/dev/null; then
        check 'licences and advisories' cargo deny --all-features check
    else
        echo '== licences and advisories: skipped, there is no cargo-deny'
    fi
    check 'clippy' cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
}

unit() {
    check 'unit and integration tests' rust_tests
}

media() {
    check 'streams of all kinds of files' "$bin/python" -m pytest -q tests/media
}

e2e() {
    check 'end to end' "$bin/python" -m pytest -q tests/e2e
}

total=$SECONDS
part=${1:-test}
case $part in
    test) parts=(lint unit media e2e) ;;
    lint | unit | media | e2e) parts=("$part") ;;
    *)
        echo 'Usage: test.sh [lint|unit|media|e2e]' >&2
        exit 2
        ;;
esac
check 'set-up' infra/local/setup.sh "$part"
for part in "${parts[@]}"; do "$part"; done
printf 'All green after %d s.\n' $((SECONDS - total))
