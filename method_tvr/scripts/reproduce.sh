#!/usr/bin/env bash
# The paper's setting with three seeds, then mean and deviation of the recalls on val:
#   bash method_tvr/scripts/reproduce.sh [tvr|mini] [any option of method_tvr/config.py]
# Needs TVR's features (data/README.md) and, at TVR's size, a GPU. Compare with the tables of the paper.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need torch h5py

dset_name="tvr"
case "${1:-}" in
  tvr | mini)
    dset_name="$1"
    shift
    ;;
esac

for option in "$@"; do
  case "$option" in
    --dset_name* | --ctx_mode* | --exp_id* | --results_root* | --seed*)
      fail "${option%%=*} is what this script decides: use method_tvr/scripts/train.sh to choose it"
      ;;
  esac
done

made="$(mktemp)" # train.py writes its folder's path there: the newest folder may be another run's
trap 'rm -f "$made"' EXIT
model_dirs=()
for seed in 2018 2019 2020; do
  echo "== seed $seed"
  RELOCLNET_MADE="$made" bash "$root/method_tvr/scripts/train.sh" "$dset_name" video_sub_tef resnet_i3d \
    --exp_id "reproduce_seed$seed" --seed "$seed" "$@"
  model_dirs+=("$(cat "$made")")
done

echo "== mean and deviation over the seeds"
python "$root/method_tvr/report/summary.py" "${model_dirs[@]}"
