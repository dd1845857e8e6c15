#!/usr/bin/env bash
# What of a corpus is there, what is missing or defective, and what to do about it:
#   bash data/check.sh [tvr|mini|DIR|ANYTHING] [any option of method_tvr/data_check.py]
#   DIR        a folder with a corpus of your own, in the file forms of data/README.md
#   ANYTHING   another file or folder: what it is, and by which command it becomes ours
#   --quick    leaves out the search for NaN and Inf, which reads every value (minutes for TVR)
# Exit code 0: all that training and inference need is there; 2: something is not.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../method_tvr/scripts/common.sh"
need torch h5py

exec python "$root/method_tvr/data_check.py" "$@"
