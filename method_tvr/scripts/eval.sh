#!/usr/bin/env bash
# Evaluate a prediction file:
#   bash method_tvr/scripts/eval.sh SPLIT_NAME SUBMISSION SAVE_PATH [any option of standalone_eval/eval.py]
# Of a prediction file in a results folder, SPLIT_NAME is one of the run's dataset, and recalls are those it reports. Elsewhere it
# is train or val of TVR. In both cases it may be the path of a jsonl with annotations; --gt_path PATH says that too.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need numpy

[ $# -ge 3 ] || fail "usage: eval.sh SPLIT_NAME SUBMISSION SAVE_PATH [--gt_path PATH] [--iou_thds T ...] [--ks K ...]"
split_name="$1" submission="$2" save_path="$3"
shift 3

own_gt_path=no
for option in "$@"; do
  case "$option" in --gt_path | --gt_path=*) own_gt_path=yes ;; esac
done

model_dir="$(dirname "$submission")"
options=() meant="TVR's, as $submission lies in no results folder"
if [ -f "$model_dir/opt.json" ] && [ "$own_gt_path" = no ]; then
  need h5py
  words="$(python "$root/method_tvr/report/evaluation_options.py" "$model_dir" "$split_name")"
  while IFS= read -r word; do options+=("$word"); done <<<"$words"
  meant="as $model_dir/opt.json says, from the current folder on"
elif [ "$own_gt_path" = no ]; then # else the one given comes with the other options
  case "$split_name" in
    train | val) options=(--gt_path "$root/data/tvr_${split_name}_release.jsonl") ;;
    test | test_public)
      fail "$split_name has no public ground truth: send it to the CodaLab server (standalone_eval/README.md), or give --gt_path" ;;
    *)
      [ -f "$split_name" ] || fail "SPLIT_NAME is train, val or the path of a jsonl with annotations, not '$split_name'"
      options=(--gt_path "$split_name") ;;
  esac
fi

if [ "$own_gt_path" = no ]; then
  gt_path="${options[${#options[@]} - 1]}"
  [ -e "$gt_path" ] || fail "$gt_path: annotations of $split_name are not there ($meant): name them with --gt_path PATH"
fi
exec python "$root/standalone_eval/eval.py" --submission_path "$submission" --save_path "$save_path" \
  ${options[@]+"${options[@]}"} "$@"
