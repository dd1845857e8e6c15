#!/usr/bin/env bash
# Writes constraints.txt: for all requirement files together, the versions that setup.sh installs.
#
#     bash tests/write_constraints.sh              after a change of requirements: other versions stay as they are
#     bash tests/write_constraints.sh --upgrade    the newest versions of all packages
#
# Needs uv (pip install uv).
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

written="$(mktemp)"
trap 'rm -f "$written"' EXIT
cp constraints.txt "$written" 2>/dev/null || true # what it has is kept where it can be
# one file for all systems and every Python from the oldest on, with markers where these differ
git ls-files -z -- '*requirements.txt' |
    xargs -0 uv pip compile --quiet --universal --python-version 3.10 --no-config --no-header --no-annotate \
        --output-file "$written" "$@" >/dev/null
{
    cat <<'HEADER'
# The versions that setup.sh installs, of all packages in the requirement files and of what those need in turn: the
# tests have passed with them. Written by `bash tests/write_constraints.sh` and not by hand; CONTRIBUTING.md says when.
HEADER
    cat "$written"
} >constraints.txt
