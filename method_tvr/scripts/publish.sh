#!/usr/bin/env bash
# Publish a trained model, so that others can load it wherever MODEL_DIR stands:
#   bash method_tvr/scripts/publish.sh MODEL_DIR OUT_DIR [--license ID]
#   bash method_tvr/scripts/publish.sh MODEL_DIR ORG/NAME [--license ID] [--private]
#   MODEL_DIR   a results folder: its path, its name, or a pattern such as 'tvr-video_sub_tef-reloclnet-*'
#   OUT_DIR     a folder that is made; it may be there if it is empty
#   ORG/NAME    a repository on the Hugging Face hub, with a token in HF_TOKEN; with a folder ORG here it is a folder in that
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need torch h5py

[ $# -ge 2 ] || fail "usage: publish.sh MODEL_DIR OUT_DIR|ORG/NAME [--license ID] [--private]"
exec python "$root/method_tvr/publish/publish.py" "$@" --results_root "$root/method_tvr/results"
