"""The end of the quickstart: what a trained model is worth, as a table and a picture in its results folder.

python method_tvr/report/quickstart.py --model_dir DIR --metrics M --nms_metrics M --nms_predictions P
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

if not all(map(find_spec, ("method_tvr", "numpy", "torch", "matplotlib", "easydict", "h5py", "orjson", "tqdm"))):
    print("error: the project or its packages are missing: type `source setup.sh` in its folder first", file=sys.stderr)
    sys.exit(2)

from method_tvr.command_lines.quickstart import options
from utils.basic_utils import parse_first

if __name__ == "__main__":
    parse_first(options)

import numpy as np

from method_tvr.config import inference_options
from method_tvr.inference import Evaluation, evaluate_rows, evaluation_of, predict
from method_tvr.model import ModelConfig
from method_tvr.models import name_of
from method_tvr.options.models import TITLES
from method_tvr.options.values import CTX_MODES, TASKS
from method_tvr.report.chance import chance_level
from method_tvr.report.examples import choose_examples
from method_tvr.report.plots import draw_run, read_curves
from method_tvr.trained.trained_model import TrainedModel, open_model
from method_tvr.training.initial_model import initial_model
from utils.basic_utils import command_line, read_json, whole_file, write_json
from utils.model_utils import named_when_out_of_memory

UNTRAINED_SEEDS = (1, 2, 3, 4, 5)
N_MOMENTS = 5  # predictions shown in a timeline

Recalls = Mapping[str, Mapping[str, float]]  # {task: {"{iou_thd}-r{k}" or "r{k}": percentage}}


def untrained_recalls(config: ModelConfig, evaluation: Evaluation, span_init: str) -> Sequence[Recalls]:
    """Recalls of models as training begins with them, for `initial_model`, one for each of `UNTRAINED_SEEDS`."""
    runs = []
    for seed in UNTRAINED_SEEDS:
        model = initial_model(config, seed, span_init).to(evaluation.device).eval()
        metrics = evaluate_rows(predict(model, evaluation, TASKS), evaluation)
        runs.append({task: metrics[task] for task in TASKS})
    return runs


def mean_recalls(runs: Sequence[Recalls]) -> Recalls:
    """The mean over runs of each recall."""
    return {
        task: {name: float(np.mean([run[task][name] for run in runs])) for name in names}
        for task, names in runs[0].items()
    }


def recall_table(columns: Mapping[str, Recalls], baseline: str, compared: str) -> str:
    """Recalls side by side, as lines of text: a row for each task, IoU threshold and k, percentages below the titles.

    Args:
        columns: {title: recalls}; a later one than the baseline's may lack some.
        baseline, compared: titles; the last column says how many times the baseline the compared one is.
    """
    titles = [*columns, f"{compared} / {baseline}"]

    def line(label: str, cells: Sequence[str]) -> str:
        return f"{label:22}" + "".join(
            f"  {cell:>{max(len(title), 8)}}" for title, cell in zip(titles, cells, strict=True)
        )

    lines = [line("", titles)]
    for task, recalls in columns[baseline].items():
        lines.append("")
        for name, expected in recalls.items():
            iou_thd, _, k = name.rpartition("r")
            label = f"{task:4}  " + (f"IoU {iou_thd.rstrip('-')}  " if iou_thd else " " * 9) + f"R@{k}"
            cells = []
            for title, column in columns.items():
                value = column.get(task, {}).get(name)
                cells.append("–" if value is None else f"{value:.{3 if title == baseline else 2}f}")
            times = f"{columns[compared][task][name] / expected:.1f}" if expected else "–"
            lines.append(line(label, [*cells, times]))
    return "\n".join(lines)


@command_line
@named_when_out_of_memory({}, ())
def main() -> None:
    args = options()
    metrics, nms_metrics = read_json(args.metrics), read_json(args.nms_metrics)
    predictions = read_json(args.nms_predictions)
    opt = inference_options(args.model_dir, device=args.device)
    trained = open_model(opt)
    results = trained.model_dir
    with trained.open_features() as features:
        split = trained.inputs.eval_split(features)
        evaluation = evaluation_of(opt, split, features, trained.device)

        print(f"answering with {len(UNTRAINED_SEEDS)} untrained models")
        untrained = untrained_recalls(trained.checkpoint.config, evaluation, opt.span_init)
        n_clips = {video.vid_name: features.n_clips(video.vid_name) for video in split.videos}
        band = opt.min_pred_l, opt.max_pred_l
        columns = {
            "chance": chance_level(split.queries, n_clips, evaluation.times, *band, evaluation.rule),
            "untrained": mean_recalls(untrained),
            "trained": metrics,
            "trained, NMS": nms_metrics,
        }
        caption = (
            f"Recalls, % of {len(split.queries):,} val queries over {len(split.videos):,} videos; "
            f"untrained: mean of {len(UNTRAINED_SEEDS)} initialisations"
        )
        table = f"{caption}\n\n{recall_table(columns, 'chance', 'trained')}\n"
        write_json({**columns, "untrained_runs": untrained}, results / "quickstart_table.json", indent=True)
        with whole_file(results / "quickstart_table.txt") as part:
            part.write_text(table)
        write_picture(trained, evaluation, predictions)
    print(f"\n{table}")


def write_picture(trained: TrainedModel, evaluation: Evaluation, predictions: Mapping[str, Any]) -> None:
    """Draw curves and example timelines into the results folder, `quickstart.png`."""
    inputs, iou_thd = trained.inputs, evaluation.rule.iou_thds[0]
    examples = choose_examples(trained.model, evaluation, predictions, iou_thd, N_MOMENTS)
    parts = f" ({inputs.ctx_mode})" if inputs.ctx_mode != CTX_MODES[0] else ""
    title = f"{TITLES[name_of(trained.checkpoint.config)]} on the {inputs.dset_name} corpus{parts}"
    curves = read_curves(trained.model_dir / "tensorboard_log")
    draw_run(trained.model_dir / "quickstart.png", title, curves, trained.checkpoint.epoch, examples, iou_thd)


if __name__ == "__main__":
    main()
