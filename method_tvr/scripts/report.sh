#!/usr/bin/env bash
# Write a report about a prediction file: recalls, curves, groups of queries, examples; one HTML file that needs nothing else:
#   bash method_tvr/scripts/report.sh PREDICTIONS.json [OTHER.json ...] [any option of method_tvr/report/report.py]
#   PREDICTIONS.json   in a results folder, where annotations and recalls are those of the run; elsewhere --gt GT.jsonl is needed
#   OTHER.json         files for the same queries, which it is compared with
# --out REPORT.html says where it goes (PREDICTIONS_report.html beside the file, if left out).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need numpy orjson h5py

[ $# -ge 1 ] || fail "usage: report.sh PREDICTIONS.json [OTHER.json ...] [--gt GT.jsonl] [--out REPORT.html] [options]"
exec python "$root/method_tvr/report/report.py" "$@"
