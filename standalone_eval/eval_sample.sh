#!/usr/bin/env bash
# Evaluate the sample submission and compare the result with the metrics that belong to it.
# Exit code: 0 they agree, 1 they differ, 2 the sample cannot be evaluated.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python="$(command -v python || command -v python3)" || { echo "error: there is no python here: install one" >&2 && exit 2; }
expected="$here/sample_val_predictions_metrics.json"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT

"$python" "$here/eval.py" \
  --submission_path "$here/sample_val_predictions.json" \
  --gt_path "$here/sample_val_release.jsonl" \
  --save_path "$scratch/metrics.json"

"$python" - "$expected" "$scratch/metrics.json" <<'PYTHON'
import json
import sys
from pathlib import Path

expected, found = (json.loads(Path(path).read_text(encoding="utf-8")) for path in sys.argv[1:])
differing = [
    f"{task} {key}: expected {value}, found {found.get(task, {}).get(key)}"
    for task, values in expected.items()
    for key, value in values.items()
    if found.get(task, {}).get(key) != value
]
print("\n".join(differing))
print(f"differs from {sys.argv[1]}" if differing else f"agrees with {sys.argv[1]}")
sys.exit(bool(differing))
PYTHON
