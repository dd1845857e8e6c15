#!/usr/bin/env bash
# All checks, from a bare machine: environment, lint, format, types, import layers, tests.
#
#     bash tests/run.sh [--quick] [pytest arguments]      for example: bash tests/run.sh tests/utils -x
#
# --quick is for every edit: the same checks, but of the tests only those that start no process, train no model, build no
# index and draw no report; tests/support/slow.py finds out which these are, by what they call. They compare with the reference's
# figures, too.
#
# Two processes share the tests, a file going to one of them as a whole; `-n 0` runs them in one.
#
# Every check runs even when an earlier one failed: a misplaced comma must not hide a wrong result. The exit code is
# non-zero when any failed, and the last lines say which.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

subset=()
if [ "${1:-}" = --quick ]; then
    subset=(-m "not slow")
    shift
fi

heading() { printf '\n=== %s ===\n' "$*"; }

failed=()
check() { # NAME COMMAND...
    heading "$1"
    "${@:2}" || failed+=("$1")
}

heading environment
SETUP_TESTS=1 source ./setup.sh
python -V

check "ruff check" python -m ruff check .
check "ruff format" python -m ruff format --check .
check mypy python -m mypy
check "import layers" lint-imports
check pytest python -m pytest -n 2 --dist loadfile --no-loadscope-reorder ${subset[@]+"${subset[@]}"} "$@"

heading result
if [ "${#failed[@]}" -gt 0 ]; then
    printf 'failed: %s\n' "${failed[@]}"
    exit 1
fi
echo "all checks passed"
