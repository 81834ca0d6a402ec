#!/usr/bin/env bash
# `make test`: everything that must be green, the quickest first. Stops at the first failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

tools=${VIDSTREAMX_TOOLS_DIR:-$PWD/.local}
python=$tools/venv/bin/python
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

lint_python() {
    "$python" - <<'PYTHON'
import pathlib, sys
for folder in ("infra", "tests", "bench"):
    for path in sorted(pathlib.Path(folder).rglob("*.py")):
        try:
            compile(path.read_bytes(), str(path), "exec")
        except SyntaxError as error:
            sys.exit(f"{path}:{error.lineno}: {error.msg}")
PYTHON
}

rust_tests() {
    if cargo nextest --version >/dev/null 2>&1; then
        cargo nextest run --workspace --locked --no-tests=pass --status-level fail --final-status-level fail &&
            cargo test --workspace --locked --doc --quiet
    else
        cargo test --workspace --locked --quiet
    fi
}

total=$SECONDS
check 'set-up' infra/local/setup.sh test
check 'formatting' cargo fmt --all --check
check 'shell scripts' lint_shell
check 'Python syntax' lint_python
check 'templates' "$tools/venv/bin/cfn-lint" infra/*.yaml
if command -v cargo-deny >/dev/null; then
    check 'licences and advisories' cargo deny --all-features check
else
    echo '== licences and advisories: skipped, there is no cargo-deny'
fi
check 'clippy' cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
check 'unit and integration tests' rust_tests
check 'streams of all kinds of files' "$python" -m pytest -q tests/media
if [[ -d tests/e2e ]]; then
    check 'end to end' "$python" -m pytest -q tests/e2e
fi
printf 'All green after %d s.\n' $((SECONDS - total))
