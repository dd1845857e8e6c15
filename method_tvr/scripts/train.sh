#!/usr/bin/env bash
# Train a model, with the settings of the paper unless an option says otherwise:
#   bash method_tvr/scripts/train.sh DSET CTX_MODE VID_FEAT_TYPE --exp_id ID [any option of method_tvr/config.py]
#   DSET           tvr | tvr_ranking | anet_cap | charades_sta | didemo | qvhighlights | tacos | mini | mini_video |
#                  mini_ranking (these three generated on first use) | custom (all from options); data/README.md,
#                  Datasets, says what each of them brings
#   CTX_MODE       video_sub_tef | video_sub | video_tef | video | sub_tef | sub: what the model sees of a video, of
#                  which the files of the others need not be there; tef says where in its video a clip lies
#   VID_FEAT_TYPE  resnet | i3d | resnet_i3d, or what else there is of the dataset: c3d | vgg | clip_slowfast | slowfast | clip
# or on a corpus of one's own, by what extraction left in its folder (the same as DSET custom with these words and --settings):
#   bash method_tvr/scripts/train.sh own DATA_DIR --exp_id ID [options]
#   DATA_DIR       the folder that utils/extract_features.sh made (its --out)
# or go on with a run that was stopped:
#   bash method_tvr/scripts/train.sh --resume MODEL_DIR [options of where it runs]
#   MODEL_DIR      its results folder: a path, a name under method_tvr/results, or a pattern
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need torch h5py
help_of method_tvr/train.py "$@"

if [ "${1:-}" = --resume ]; then
  exec python "$root/method_tvr/train.py" --results_root "$root/method_tvr/results" "$@"
fi
usage="usage: train.sh DSET CTX_MODE VID_FEAT_TYPE --exp_id ID [options], or train.sh own DATA_DIR --exp_id ID [options], or train.sh --resume MODEL_DIR"
if [ "${1:-}" = own ]; then
  [ $# -ge 2 ] || fail "$usage"
  of_model=()
  [[ " $* " != *" --model zero_shot "* ]] || of_model=(--zero_shot)
  words="$(python "$root/method_tvr/options/own_preset.py" ${of_model[@]+"${of_model[@]}"} -- "$2")"
  shift 2
  preset=()
  while IFS= read -r word; do preset+=("$word"); done <<<"$words"
  set -- "${preset[@]}" "$@" # what is typed comes last and wins
fi
[ $# -ge 3 ] || fail "$usage"
dset_name="$1" ctx_mode="$2" vid_feat_type="$3"
shift 3

normalised=()
if [ "$vid_feat_type" = resnet_i3d ]; then
  normalised=(--no_norm_vfeat) # its halves were normalised when they were joined
fi

exec python "$root/method_tvr/train.py" --dset_name "$dset_name" --ctx_mode "$ctx_mode" \
  --vid_feat_type "$vid_feat_type" ${normalised[@]+"${normalised[@]}"} \
  --results_root "$root/method_tvr/results" "$@"
