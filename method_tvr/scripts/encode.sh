#!/usr/bin/env bash
# Encode the videos of a split with a trained model and keep them on disk, for inference.sh … --encoded_corpus CORPUS_DIR:
#   bash method_tvr/scripts/encode.sh MODEL_DIR SPLIT_NAME CORPUS_DIR [any option of method_tvr/config.py]
#   MODEL_DIR   a results folder: its path, its name, or a pattern such as 'tvr-video_sub_tef-reloclnet-*'; or a published
#               model: its folder, or org/name[@revision] on the Hugging Face hub
#   SPLIT_NAME  whose videos in --video_duration_idx_path: val | test (test_public) | …
#   CORPUS_DIR  made, or added to: videos that it has are left alone
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need torch h5py
help_of method_tvr/ask/encode_corpus.py "$@"

[ $# -ge 3 ] || fail "usage: encode.sh MODEL_DIR SPLIT_NAME CORPUS_DIR [options]"
model_dir="$1" split_name="$2" corpus_dir="$3"
shift 3

exec python "$root/method_tvr/ask/encode_corpus.py" --model_dir "$model_dir" --eval_split_name "$split_name" \
  --out "$corpus_dir" --results_root "$root/method_tvr/results" "$@"
