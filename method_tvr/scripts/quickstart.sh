#!/usr/bin/env bash
# From a bare machine to a trained model, its recalls and a picture, in one command:
#   bash method_tvr/scripts/quickstart.sh [--ctx_mode CTX_MODE] [any training option of method_tvr/config.py]
#   CTX_MODE   video_sub_tef (if left out) or what else train.sh takes, such as video_tef for the video-only model, which
#              gets the mini corpus without subtitles
# Every command that it runs is shown as one would type it, in the project's folder after `source setup.sh`.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"

# A small model on a small corpus: two cores must be done in five minutes. TVR itself wants the defaults. A run of so few
# steps learns where moments begin and end only if the span loss weighs more than in the paper (0.01), and would learn
# anything by luck alone if it were not for the recipe, which bears a higher rate.
# Padding is trimmed, because it takes more than half of the time.
settings=(--hidden_size 128 --n_heads 2 --bsz 64 --recipe steady --lr 2e-3 --lw_st_ed 0.1 --trim_padding --num_workers 0)
nms_thd=0.5
# Threads that spin while they wait make a machine that is not all ours several times slower.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"

ctx_mode=video_sub_tef
options=()
while [ $# -gt 0 ]; do
  case "$1" in
    --ctx_mode=*) ctx_mode="${1#*=}" ;;
    --ctx_mode)
      [ $# -ge 2 ] || { echo "error: --ctx_mode needs a value, such as video_tef" >&2 && exit 2; }
      ctx_mode="$2"
      shift
      ;;
    --dset_name* | --exp_id* | --results_root* | --eval_* | --debug | --m??_pred_l* | --no_core_driver | --feature_cache* | --device*)
      echo "error: ${1%%=*} is what the quickstart decides: use method_tvr/scripts/train.sh to choose it" >&2
      exit 2
      ;;
    *) options+=("$1") ;;
  esac
  shift
done

dset_name=mini n_epoch=10 # with one modality an epoch takes less than half the time
case "$ctx_mode" in
  *video*sub* | *sub*video*) n_epoch=4 ;;
  *video*) dset_name=mini_video ;;
esac
settings+=(--n_epoch "$n_epoch")

stage() { printf '\n== %s  [%d s since the start]\n' "$1" "$SECONDS"; }
run() { # COMMAND...: shown relative to the project, and run
  printf '$ %s\n' "${*//"$root/"/}"
  "$@"
}

stage "1/6 environment: make the project importable, install what is missing"
echo '$ source setup.sh'
# shellcheck source=../../setup.sh
source "$root/setup.sh"
SECONDS=0 # an installation, if there was one, is not part of the run

stage "2/6 training on the $dset_name corpus (generated on first use), evaluated after each epoch, the best kept"
made="$(mktemp)" # train.py writes its folder's path there: the newest folder may be another run's
trap 'rm -f "$made"' EXIT
RELOCLNET_MADE="$made" run bash "$root/method_tvr/scripts/train.sh" "$dset_name" "$ctx_mode" resnet_i3d \
  --exp_id quickstart --eval_untrained "${settings[@]}" ${options[@]+"${options[@]}"}
model_dir="$(cat "$made")"

stage "3/6 inference: rank the moments of all val videos for each val query, without and with temporal NMS"
run bash "$root/method_tvr/scripts/inference.sh" "$model_dir" val --nms_thd "$nms_thd" \
  --num_workers 0

stage "4/6 evaluation of the prediction file"
predictions="$model_dir/inference_${dset_name}_val_quickstart_predictions_VCMR_SVMR_VR"
metrics="$model_dir/quickstart_metrics.json"
run bash "$root/method_tvr/scripts/eval.sh" val "$predictions.json" "$metrics"

stage "5/6 evaluation of the prediction file after NMS"
nms_predictions="${predictions}_nms_thd_$nms_thd.json"
nms_metrics="$model_dir/quickstart_nms_metrics.json"
run bash "$root/method_tvr/scripts/eval.sh" val "$nms_predictions" "$nms_metrics"

stage "6/6 what it is worth: chance level, untrained models, a table and a picture"
run python "$root/method_tvr/report/quickstart.py" --model_dir "$model_dir" --metrics "$metrics" \
  --nms_metrics "$nms_metrics" --nms_predictions "$nms_predictions"

cat <<END
== done in $SECONDS s. In ${model_dir#"$root/"}:
  quickstart.png                     curves over epochs, and what the model sees in a few videos
  quickstart_table.txt, .json        the table above
  model.ckpt, opt.json               the model and its options
  inference_*.json                   predictions and metrics
  tensorboard_log                    tensorboard --logdir method_tvr/results

To try next:
  bash method_tvr/scripts/quickstart.sh --lw_fcl 0 --lw_vcl 0       without the two contrastive losses
  bash method_tvr/scripts/quickstart.sh --ctx_mode video_tef        the video-only model, without subtitles
  bash method_tvr/scripts/inference.sh '$dset_name-*-quickstart-*' test   predictions for a split without ground truth
  bash method_tvr/scripts/search.sh '$dset_name-*-quickstart-*' "Nora opens the drawer."     ask it in words; without a sentence, it asks you
  pip install -r method_tvr/web/requirements.txt -c constraints.txt && bash method_tvr/scripts/serve.sh '$dset_name-*-quickstart-*'     a page to ask on, and to learn from mistakes
  bash method_tvr/scripts/report.sh ${predictions#"$root/"}.json     a report to read and to send
  bash method_tvr/scripts/train.sh tvr video_sub_tef resnet_i3d --exp_id reloclnet     TVR itself: README.md says how
END
