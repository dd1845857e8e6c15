"""How much a result owes to luck: recall after each epoch, for several seeds of all chance or of one source of it.

    python tests/benchmarks/luck.py --seeds 2018 2019 2020 --epochs 4 --json LUCK.jsonl
    python tests/benchmarks/luck.py --vary kernels dropout --seeds 2018 2019 2020 --epochs 4 --json LUCK.jsonl
    python tests/benchmarks/luck.py --seeds 2018 2019 --epochs 8 --json LUCK.jsonl -- --recipe steady
    python tests/benchmarks/luck.py --table LUCK.jsonl --picture LUCK.png

Runs are of a model as small as the quickstart's, without its recipe, on the mini corpus; options after `--` are added.
A schedule of `--n_epoch` 8 is cut short after `--epochs`. What is counted is VCMR R@1 at IoU 0.5 of all val queries, of
those with even numbers, and of those with odd ones, so that settings can be chosen on one half and reported on the
other. Each run adds a line to the file.
"""

from __future__ import annotations

import argparse
import shlex
import tempfile
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import orjson
from matplotlib.figure import Figure

from method_tvr import train
from method_tvr.config import parse_train_options
from method_tvr.options.rules import ensure_dataset
from method_tvr.train import Trainer
from method_tvr.training.initial_model import initial_model
from standalone_eval.metrics import moment_iou
from utils.basic_utils import InputError, command_line, progress, read_json, read_jsonl
from utils.model_utils import named_generator, named_seed, seed_everything
from utils.tables import aligned

SMALL_RUN = shlex.split(
    "--dset_name mini --ctx_mode video_sub_tef --exp_id luck --hidden_size 128 --n_heads 2 --bsz 64 --lr 1e-3 "
    "--lw_st_ed 0.1 --trim_padding --num_workers 0 --n_epoch 8 --device -1 --max_es_cnt -1"
)
KERNELS, WEIGHTS, ORDER, NEGATIVES, DROPOUT = SOURCES = ("kernels", "weights", "order", "negatives", "dropout")
SOURCE_OF_NAME = {"initialisation": WEIGHTS, "shuffle": ORDER, "negatives": NEGATIVES}  # of a named generator
ALL = "all"
HALVES = ("all", "even", "odd")
PANELS_A_ROW = 3


@contextmanager
def drawn_by(seeds: Mapping[str, int]) -> Iterator[None]:
    """Have training draw from each of `SOURCES` by a seed of its own."""

    def seed_of(seed: int, name: str) -> int:
        source = SOURCE_OF_NAME.get(name.partition("/")[0])
        return seed if source is None else seeds[source]

    def first_model(config: Any, seed: int, span_init: str) -> Any:
        model, other = (initial_model(config, seeds[source], span_init) for source in (WEIGHTS, KERNELS))
        kernels = {name: x for name, x in other.state_dict().items() if "_st_predictor" in name or "_ed_pre" in name}
        model.load_state_dict(kernels, strict=False)
        return model

    def generator(seed: int, name: str, *where: Any) -> Any:
        return named_generator(seed_of(seed, name), name, *where)

    def for_dropout(_: int) -> None:
        seed_everything(seeds[DROPOUT])

    with (
        mock.patch.object(train, "initial_model", first_model),
        mock.patch.object(train, "named_seed", lambda seed, name: named_seed(seed_of(seed, name), name)),
        mock.patch.object(train, "named_generator", generator),
        mock.patch.object(train, "seed_everything", for_dropout),
    ):
        yield


def recalls(predictions: Path, annotations: str) -> list[float]:
    """VCMR R@1 at IoU 0.5 in percent, of `HALVES`."""
    said = read_json(predictions)
    first = {row["desc_id"]: row["predictions"][0] for row in said["VCMR"]}
    hits: dict[int, list[bool]] = defaultdict(list)
    for row in read_jsonl(annotations):
        video, *span = first[row["desc_id"]][:3]
        iou = moment_iou(np.array([[span]]), np.array([[row["ts"]]])).item()
        hits[row["desc_id"] % 2].append(video == said["video2idx"][row["vid_name"]] and iou >= 0.5)
    return [round(100 * float(np.mean(some)), 2) for some in (hits[0] + hits[1], hits[0], hits[1])]


def run(seeds: Mapping[str, int], epochs: int, options: Sequence[str]) -> list[list[float]]:
    """`recalls` after each of so many epochs."""
    found: list[list[float]] = []
    real = train.evaluate_split

    def evaluated(model: Any, evaluation: Any, tasks: Any, path: Path) -> Any:
        metrics = real(model, evaluation, tasks, path)
        found.append(recalls(path, opt.eval_path))
        return metrics

    with tempfile.TemporaryDirectory() as folder, drawn_by(seeds):
        opt = parse_train_options([*SMALL_RUN, *options])
        if epochs > opt.n_epoch:
            raise InputError(f"--epochs {epochs}: the schedule ends after {opt.n_epoch}: give -- --n_epoch {epochs}")
        ensure_dataset(opt)
        opt.results_dir = f"{folder}/run"
        with Trainer(opt) as trainer, mock.patch.object(train, "evaluate_split", evaluated):
            for _ in range(epochs):
                trainer._train_epoch()
                trainer._end_epoch()
    return found


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Of each set of runs that differ by chance alone: mean, deviation, worst and best after each epoch."""
    rows = [["options, what is drawn anew", "runs", *(f"epoch {n}" for n in range(_longest(lines)))]]
    for name, runs in _sets(lines).items():
        after = np.array([[of_epoch[0] for of_epoch in line["recalls"]] for line in runs])
        figures = [f"{x.mean():.2f} ± {_deviation(x):.2f} ({x.min():.2f} to {x.max():.2f})" for x in after.T]
        rows.append([name, str(len(runs)), *figures, *[""] * (len(rows[0]) - 2 - len(figures))])
    return aligned(rows)


def _deviation(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def _longest(lines: Sequence[Mapping[str, Any]]) -> int:
    return max(len(line["recalls"]) for line in lines)


def _sets(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Runs of the same options, of whose chance the same was drawn anew; as long as the shortest of them."""
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for line in lines:
        found[f"{shlex.join(line['options']) or 'defaults'}, {line['vary']}"].append(line)
    for runs in found.values():
        n = min(len(line["recalls"]) for line in runs)
        runs[:] = [{**line, "recalls": line["recalls"][:n]} for line in runs]
    return found


def draw(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A panel for each set of runs, with a line for each run."""
    sets = _sets(lines)
    n_columns = min(len(sets), PANELS_A_ROW)
    n_rows = -(-len(sets) // n_columns)
    figure = Figure(figsize=(3.2 * n_columns, 2.6 * n_rows), layout="constrained")
    panels = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
    for panel in panels.flat[len(sets) :]:
        panel.remove()
    for panel, (name, runs) in zip(panels.flat, sets.items(), strict=False):
        for line in runs:
            values = [of_epoch[0] for of_epoch in line["recalls"]]
            panel.plot(range(len(values)), values, marker="o", markersize=3)
        panel.set_title(textwrap.shorten(name, 90, placeholder=" …"), fontsize=8, wrap=True)
        panel.grid(alpha=0.3)
    for panel in panels[-1]:
        panel.set_xlabel("epoch")
    for panel in panels[:, 0]:
        panel.set_ylabel("VCMR R@1, IoU 0.5 (%)")
    figure.savefig(path, dpi=110)


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Command line of this benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--vary", choices=(ALL, *SOURCES), nargs="+", default=[ALL], help="what the seeds are of, one set of runs "
        "after another; the rest is drawn by the first of them")  # fmt: skip
    add("--seeds", type=int, nargs="+", default=[2018], help="one run for each")
    add("--epochs", type=int, default=4, help="of each run (%(default)s)")
    add("--json", type=Path, metavar="FILE", help="add a line for each run to this file")
    add("--table", type=Path, metavar="FILE", help="print what is in such a file instead")
    add("--picture", type=Path, metavar="FILE.png", help="with --table: draw it, too")
    add("options", nargs="*", help="after --, more options of training")
    args = parser.parse_args(argv)
    if args.table is not None:
        lines = list(read_jsonl(args.table))
        print(table(lines))
        if args.picture is not None:
            draw(lines, args.picture)
        return
    if args.epochs < 1:
        raise InputError(f"--epochs {args.epochs}: at least 1")
    lines: list[dict[str, Any]] = []
    done: dict[tuple[int, ...], list[list[float]]] = {}  # by seeds: that of the first is one run for all sources
    for vary, seed in progress(list(product(args.vary, args.seeds)), "runs"):
        varied = SOURCES if vary == ALL else (vary,)
        seeds = dict.fromkeys(SOURCES, args.seeds[0]) | dict.fromkeys(varied, seed)
        chance = tuple(seeds.values())
        if chance not in done:
            done[chance] = run(seeds, args.epochs, args.options)
        lines.append({"vary": vary, "options": args.options, "seed": seed, "recalls": done[chance]})
        if args.json is not None:
            with args.json.open("ab") as file:
                file.write(orjson.dumps(lines[-1]) + b"\n")
    print(table(lines))


if __name__ == "__main__":
    main()
