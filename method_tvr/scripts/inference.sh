#!/usr/bin/env bash
# Predict and evaluate with a trained model:
#   bash method_tvr/scripts/inference.sh MODEL_DIR SPLIT_NAME [any option of method_tvr/config.py]
# or ask in words, without a file of queries:
#   bash method_tvr/scripts/inference.sh MODEL_DIR SPLIT_NAME --query "a sentence" [--query "another"] [--query_file FILE.txt]
#   MODEL_DIR   a results folder: its path, its name, or a pattern such as 'tvr-video_sub_tef-reloclnet-*'; or a published
#               model: its folder, or org/name[@revision] on the Hugging Face hub
#   SPLIT_NAME  val | test (of TVR and mini: test_public), or any that --video_duration_idx_path has
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need torch h5py
help_of method_tvr/inference.py "$@"

[ $# -ge 2 ] || fail "usage: inference.sh MODEL_DIR SPLIT_NAME [options]"
model_dir="$1" split_name="$2"
shift 2

exec python "$root/method_tvr/inference.py" --model_dir "$model_dir" --eval_split_name "$split_name" \
  --results_root "$root/method_tvr/results" "$@"
