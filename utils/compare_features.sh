#!/usr/bin/env bash
# How close two feature files are, for example an extraction of your own and a released one:
#   bash utils/compare_features.sh OURS.h5 THEIRS.h5 [--json FILE]
# Cosines row by row, numbers of rows, keys that one of them lacks, sizes, and what made them.
# Exit code 0: compared; 2: a file cannot be read, or they have nothing in common.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../method_tvr/scripts/common.sh"
need numpy h5py

exec python "$root/utils/feature_files/compare_features.py" "$@"
