#!/usr/bin/env bash
# All checks, from a bare machine: environment, lint, format, types, tests.
#
#     bash tests/run.sh [pytest arguments]      for example: bash tests/run.sh tests/utils -x
#
# Every check runs even when an earlier one failed: a misplaced comma must not hide a wrong result. The exit code is
# non-zero when any failed, and the last lines say which.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

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
check pytest python -m pytest "$@"

heading result
if [ "${#failed[@]}" -gt 0 ]; then
    printf 'failed: %s\n' "${failed[@]}"
    exit 1
fi
echo "all checks passed"
