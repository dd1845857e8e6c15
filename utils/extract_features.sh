#!/usr/bin/env bash
# From a folder of videos, subtitle files and sentences to a dataset that training and inference read:
#   bash utils/extract_features.sh --videos DIR [--subtitles DIR] [--queries FILE …] --out data/NAME [options]
#   --videos     files (.mp4, .mkv, …), in subfolders too, or a folder of frames for each video; called as the file
#   --subtitles  .srt, .vtt, .ass or .json (whisper) files called as the videos; without them all is silent
#   --queries    lines {"desc": sentence, "vid_name": video, "ts": [start, end]}, or a csv or tsv table with a header;
#                without "ts" for searching only
#   --queries_from subtitles   subtitle lines are queries, too, where nobody has written sentences
#   --out        the folder of the dataset; its name begins the names of all files
# Several machines at once: --shard 1/4, 2/4, … each, then the same command without it.
# All options: bash utils/extract_features.sh --help. The same command goes on after a kill, and takes in what is new or
# has changed. Exit code 0: the dataset is there, what had to be left out is listed; 2: it is not.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../method_tvr/scripts/common.sh"
need torch h5py

exec python "$root/utils/extract_features.py" "$@"
