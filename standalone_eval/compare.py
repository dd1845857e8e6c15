"""Are two submissions' recalls different, or is it luck? `python standalone_eval/compare.py A.json B.json --gt_path G`.

Every recall that eval.py reports is compared by a paired bootstrap over queries; see significance.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

if not __package__:  # run as a file, wherever this folder was copied
    import as_package

    __spec__ = as_package.SCRIPT

import numpy as np

from .check import EVALUATED, GT_HELP, PREDICTIONS_HELP, Annotations, add_recall_options
from .files.command import BadInput, command_line, positive_int
from .files.writing import refuse_input_as_output, write_json
from .metrics import Rule, as_percentage, recalls
from .outcomes import Outcomes, read_outcomes
from .ranking.evaluation import RankedResults, ranked_truth, ranking_of_file
from .ranking.ndcg import IOU_THDS, KS, NDCG
from .significance import LEVEL, N_RESAMPLES, SEED, Difference, holm, is_significant, paired_bootstrap

MOST_RESAMPLES = 10_000_000  # of which the smallest p is 0.0000001; more do not fit into memory at some point


@dataclass(frozen=True)
class Comparison:
    """One recall of A and of B, in %, such as 0.5-r1 of VCMR.

    `difference` has the interval and p of this recall alone; `corrected_p`, by Holm's method, is for all of them.
    """

    task: str
    metric: str
    a: float
    b: float
    difference: Difference
    corrected_p: float

    @property
    def significant(self) -> bool:
        """Whether A and B differ by more than luck, when all comparisons are taken together."""
        return is_significant(self.corrected_p)

    def as_json(self) -> dict[str, Any]:
        """What the saved file has of it."""
        return {
            "a": self.a,
            "b": self.b,
            "difference": round(self.difference.difference, 2),
            "interval": [round(self.difference.low, 2), round(self.difference.high, 2)],
            "p": self.difference.p,
            "p_holm": self.corrected_p,
            "significant": self.significant,
        }


def compare_outcomes(
    a: Mapping[str, Outcomes],
    others: Sequence[Mapping[str, Outcomes]],
    rule: Rule,
    n_resamples: int = N_RESAMPLES,
    seed: int = SEED,
) -> list[list[Comparison]]:
    """Compare the recalls of one submission with those of others; Holm's method corrects for all of them together.

    Args:
        a: {task: outcomes}.
        others: the same of each other one, on the same queries in the same order. Tasks that only one of the two has
            are left out.
        n_resamples, seed: see `paired_bootstrap`.
    """
    return _corrected([list(_each_alone(a, b, rule, n_resamples, seed)) for b in others])


def _each_alone(
    a: Mapping[str, Outcomes], b: Mapping[str, Outcomes], rule: Rule, n_resamples: int, seed: int
) -> Iterator[Comparison]:
    """The comparisons with one submission, p not corrected yet."""
    for task in (task for task in a if task in b):
        hits_a, hits_b = a[task].hits_at_k(rule), b[task].hits_at_k(rule)
        for (metric, recall_a), recall_b in zip(recalls(hits_a).items(), recalls(hits_b).values(), strict=True):
            difference = paired_bootstrap(hits_a[metric], hits_b[metric], n_resamples, seed)
            yield Comparison(task, metric, recall_a, recall_b, difference, difference.p)


def compare_rankings(
    a: RankedResults, others: Sequence[RankedResults], n_resamples: int = N_RESAMPLES, seed: int = SEED
) -> list[list[Comparison]]:
    """Compare NDCG, in %, of the queries that both of two files have answered; else as `compare_outcomes`."""
    return _corrected([list(_each_ranking_alone(a, b, n_resamples, seed)) for b in others])


def _each_ranking_alone(a: RankedResults, b: RankedResults, n_resamples: int, seed: int) -> Iterator[Comparison]:
    place_in_b = {query_id: number for number, query_id in enumerate(b.query_ids)}
    both = [(number, place_in_b[name]) for number, name in enumerate(a.query_ids) if name in place_in_b]
    if not both:
        raise BadInput("no query is answered by both files")
    of_a, of_b = np.array(both).T
    for metric, values in a.by_query.items():
        one, other = values[of_a], b.by_query[metric][of_b]
        difference = paired_bootstrap(one, other, n_resamples, seed)
        means = as_percentage(one.mean()), as_percentage(other.mean())
        yield Comparison(NDCG, metric, means[0], means[1], difference, difference.p)


def _corrected(alone: Sequence[Sequence[Comparison]]) -> list[list[Comparison]]:
    """Comparisons with each of several submissions, with p corrected for all of them together by Holm's method."""
    corrected = iter(holm([comparison.difference.p for comparisons in alone for comparison in comparisons]))
    return [[replace(one, corrected_p=next(corrected)) for one in comparisons] for comparisons in alone]


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """Comparisons as lines of text."""
    labels = [f"{comparison.task} {comparison.metric}" for comparison in comparisons]
    width = max(map(len, labels))
    interval = f"{LEVEL:.0%} interval".replace("%", " %")
    lines = [f"{'':{width}}{'A':>9}{'B':>9}{'A - B':>9}{interval:>19}{'p':>9}{'p, Holm':>9}"]
    for label, comparison in zip(labels, comparisons, strict=True):
        points = comparison.difference
        lines.append(
            f"{label:<{width}}{comparison.a:9.2f}{comparison.b:9.2f}{points.difference:+9.2f}"
            f"{f'[{points.low:+.2f}, {points.high:+.2f}]':>19}{points.p:9.4f}{comparison.corrected_p:9.4f}"
            f"  {'significant' if comparison.significant else 'not significant'}"
        )
    return "\n".join(lines)


@command_line
def main() -> None:
    """Compare the two submissions named on the command line, and print what was found."""
    parser = argparse.ArgumentParser(
        description="Is the difference between two submissions' recalls more than luck? Paired bootstrap over queries."
    )
    parser.add_argument("a", metavar="A", help=PREDICTIONS_HELP)
    parser.add_argument("b", metavar="B", help="another one, for the same queries")
    parser.add_argument("--gt_path", required=True, help=GT_HELP)
    parser.add_argument("--save_path", help="where the comparison goes, JSON (default: it is only printed)")
    add_recall_options(parser)
    parser.add_argument("--n_resamples", type=positive_int, default=N_RESAMPLES, help="resamples of the bootstrap")
    parser.add_argument("--seed", type=int, default=SEED, help="of the resamples")
    args = parser.parse_args()
    refuse_input_as_output(args.save_path, [args.a, args.b, args.gt_path])
    if args.seed < 0:
        raise BadInput(f"--seed {args.seed} must not be negative")
    if args.n_resamples > MOST_RESAMPLES:
        raise BadInput(f"--n_resamples {args.n_resamples} must be at most {MOST_RESAMPLES}")
    if (graded := ranked_truth(args.gt_path)) is not None:
        one, other = (
            ranking_of_file(path, graded).results(args.iou_thds or IOU_THDS, args.ks or KS) for path in (args.a, args.b)
        )
        n_queries = len(set(one.query_ids) & set(other.query_ids))
        (comparisons,) = compare_rankings(one, [other], args.n_resamples, args.seed)
        report(args, comparisons, n_queries)
        return
    annotations = Annotations.read(args.gt_path, kept=EVALUATED)
    rule = Rule.typed(args.iou_thds, args.ks, annotations.least_right(args.several))
    a, b = (
        read_outcomes(path, annotations, rule, args.max_pred, first=path is args.a).by_task()
        for path in (args.a, args.b)
    )
    n_queries = len(annotations.rows)
    if not a.keys() & b.keys():
        raise BadInput(f"{args.a} has {', '.join(a)}, and {args.b} has {', '.join(b)}: no task is in both")
    if a.keys() != b.keys():
        print(f"note: {', '.join(sorted(a.keys() ^ b.keys()))} left out: only one file has it", file=sys.stderr)
    (comparisons,) = compare_outcomes(a, [b], rule, args.n_resamples, args.seed)
    report(args, comparisons, n_queries)


def report(args: argparse.Namespace, comparisons: Sequence[Comparison], n_queries: int) -> None:
    """Print comparisons, and save them where the command line says."""
    if args.save_path:
        metrics: dict[str, dict[str, Any]] = {}
        for comparison in comparisons:
            metrics.setdefault(comparison.task, {})[comparison.metric] = comparison.as_json()
        settings = {"n_queries": n_queries, "n_resamples": args.n_resamples, "seed": args.seed, "level": LEVEL}
        write_json({"a": args.a, "b": args.b, **settings, "metrics": metrics}, args.save_path)
    print(f"A: {args.a}\nB: {args.b}\n\n{comparison_table(comparisons)}\n")
    print(
        f"{n_queries} queries, {args.n_resamples} resamples. Intervals and p are of each recall alone; p, Holm and the "
        f"verdict allow for {len(comparisons)} of them being compared at once."
    )


if __name__ == "__main__":
    main()
