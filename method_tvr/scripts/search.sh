#!/usr/bin/env bash
# Search the videos of a split in words:
#   bash method_tvr/scripts/search.sh MODEL_DIR ["sentence" …] [any option of method_tvr/ask/search.py]
#   MODEL_DIR   a results folder: its path, its name, or a pattern such as 'tvr-video_sub_tef-reloclnet-*'; or a published
#               model: its folder, or org/name[@revision] on the Hugging Face hub
# Without a sentence it asks for one after another. --eval_split_name SPLIT says whose videos (val, if left out; of a corpus
# of one's own, all); they are encoded on first use. --json is for programs, --index faiss|milvus for corpora that are too large to look at every clip.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need torch h5py
help_of method_tvr/ask/search.py "$@"

[ $# -ge 1 ] || fail "usage: search.sh MODEL_DIR [SENTENCE ...] [options]"
model_dir="$1"
shift

exec python "$root/method_tvr/ask/search.py" --model_dir "$model_dir" --results_root "$root/method_tvr/results" "$@"
