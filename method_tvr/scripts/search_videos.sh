#!/usr/bin/env bash
# Search a folder of videos in words, without training:
#   bash method_tvr/scripts/search_videos.sh VIDEOS_DIR ["sentence" …] [options]
#   VIDEOS_DIR   video files, in subfolders too; what is new since the last time is taken in first
# --page opens a page that plays what is found. --image_model hf/NAME chooses the model of images and text. More options:
# --help, and those of search.sh. All that is made lies in VIDEOS_DIR_search.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need torch h5py

[ $# -ge 1 ] || fail "usage: search_videos.sh VIDEOS_DIR [SENTENCE ...] [options]"
exec python "$root/method_tvr/ask/search_videos.py" "$@"
