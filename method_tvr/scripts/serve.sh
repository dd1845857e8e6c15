#!/usr/bin/env bash
# Serve a trained model, a page in the browser and an HTTP API:
#   bash method_tvr/scripts/serve.sh MODEL_DIR [--videos DIR] [any option of method_tvr/web/serve.py]
#   MODEL_DIR   a results folder: its path, its name, or a pattern such as 'tvr-video_sub_tef-reloclnet-*'; or a published
#               model: its folder, or org/name[@revision] on the Hugging Face hub
# It prints the address to open, http://127.0.0.1:7860 if --port and --host do not say otherwise, and runs until Ctrl-C.
# --videos DIR holds the videos' files (NAME.mp4, …), which are shown; --eval_split_name SPLIT says whose videos are searched
# (val, if left out; of a corpus of one's own, all).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need torch h5py
help_of method_tvr/web/serve.py "$@"

[ $# -ge 1 ] || fail "usage: serve.sh MODEL_DIR [--videos DIR] [options]"
model_dir="$1"
shift

exec python "$root/method_tvr/web/serve.py" --model_dir "$model_dir" --results_root "$root/method_tvr/results" "$@"
