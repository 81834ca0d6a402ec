#!/usr/bin/env bash
# Runs the checks of `make test`, the quickest first. Stops at the first failure.
#
#   test.sh [test|lint|lint-quick|unit|media|e2e]   "test" runs all parts
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

tools=${VIDSTREAMX_TOOLS_DIR:-$PWD/.local}
bin=$tools/venv/bin
export PYTHONDONTWRITEBYTECODE=1

# check LABEL COMMAND…: shows the command's output and its duration. Exits if the command fails. bash
# ignores "set -e" in a command before "||", so the functions below chain their commands with "&&".
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

# rustfmt does not wrap comments, so this checks their width. Lines with a string literal may be longer.
lint_rust_lines() {
    ! git ls-files -z '*.rs' | LC_ALL=C.UTF-8 xargs -0 grep -nE '^.{111,}' | grep -v '"'
}

# .dockerignore lists the files that reach an image build. A crate that is missing there breaks the build.
lint_build_context() {
    local manifest
    git ls-files '*/Cargo.toml' | while read -r manifest; do
        if ! grep -qxF "!$manifest" .dockerignore || ! grep -qxF "!${manifest%/*}/src" .dockerignore; then
            echo ".dockerignore needs the lines !$manifest and !${manifest%/*}/src"
            return 1
        fi
    done
}

lint_shell() {
    git ls-files -z --cached --others --exclude-standard '*.sh' .ci/run | xargs -0 shellcheck
}

lint_python() {
    "$bin/ruff" check --quiet devtools tests &&
        "$bin/ruff" format --quiet --check devtools tests &&
        "$bin/mypy"
}

rust_tests() {
    if cargo nextest --version >/dev/null 2>&1; then
        cargo nextest run --workspace --locked --no-tests=pass --status-level fail --final-status-level fail &&
            cargo test --workspace --locked --doc --quiet
    else
        cargo test --workspace --locked --quiet
    fi
}

lint_quick() {
    check 'Rust formatting' cargo fmt --all --check
    check 'Rust line length' lint_rust_lines
    check 'build context of the images' lint_build_context
    check 'shell scripts' lint_shell
    check 'Python' lint_python
    check 'templates' "$bin/cfn-lint" infra/*.yaml
}

lint() {
    lint_quick
    if command -v cargo-deny >/dev/null; then
        check 'licences and advisories' cargo deny --all-features check
    else
        echo '== licences and advisories: skipped, cargo-deny is not installed'
    fi
    check 'clippy' cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
    check 'links in documentation comments' \
        env RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --document-private-items --locked --quiet
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

part=${1:-test}
case $part in
    test) parts=(lint unit media e2e) ;;
    lint-quick) parts=(lint_quick) ;;
    lint | unit | media | e2e) parts=("$part") ;;
    *)
        echo 'Usage: test.sh [test|lint|lint-quick|unit|media|e2e]' >&2
        exit 2
        ;;
esac
check 'set-up' infra/local/setup.sh "${part%-quick}"
for run in "${parts[@]}"; do "$run"; done
printf 'All checks passed after %d s.\n' "$SECONDS"
