"""The evaluator on prediction files of any size, in a process of its own: seconds, CPU and memory.

python tests/benchmarks/bench_large_evaluation.py --queries 10895 100000
python tests/benchmarks/bench_large_evaluation.py --queries 1000000 --tasks VCMR --folder DIR_WITH_4_GB
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from method_tvr.search.predictions import MAX_PREDICTIONS
from standalone_eval.eval import eval_retrieval
from tests.benchmarks.bench_evaluation import TASKS, check_equal
from tests.benchmarks.common import benchmark_parser, made_folder, start
from tests.benchmarks.generated_predictions import write_large
from utils.basic_utils import command_line, read_json, read_jsonl

ROOT = Path(__file__).resolve().parents[2]
WATCHED = """
import time
from standalone_eval.eval import main
from tests.benchmarks.peak_memory import PeakMemory
memory = PeakMemory()
with memory.watched():
    main()
print(f"{time.process_time():.1f} s of CPU, {memory}")
"""


def evaluate(predictions: Path, truth: Path, metrics: Path) -> str:
    """Evaluate as the command does; returns what it took."""
    files = {"--submission_path": predictions, "--gt_path": truth, "--save_path": metrics}
    arguments = [str(part) for option in files.items() for part in option]
    command = [sys.executable, "-c", WATCHED, *arguments, "--not_verbose"]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return done.stdout.strip()


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Command line of this benchmark."""
    parser = benchmark_parser(__doc__, repeats=1)
    add = parser.add_argument_group("sizes").add_argument
    add("--queries", type=int, nargs="+", default=[10_895, 100_000], help="queries of each prediction file")
    add("--tasks", nargs="+", choices=TASKS, default=TASKS, help="tasks of each")
    add("--videos", type=int, default=2179, help="videos of the split")
    add("--rows", type=int, default=MAX_PREDICTIONS, help="predictions a query and task")
    add("--folder", type=made_folder, help="where the files lie for a while (default: the system's folder for such)")
    add("--checked", type=int, default=20_000, help="up to so many queries the file is loaded as well, and compared")
    args = parser.parse_args(argv)

    what = f"{args.rows} predictions a query and task; {', '.join(args.tasks)}"
    report, stopwatch = start("large_evaluation", what, args)
    for n in args.queries:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            metrics = Path(folder) / "metrics.json"
            predictions, truth = write_large(Path(folder), n, args.videos, args.tasks, args.rows, args.seed)
            timing, note = stopwatch.time(lambda files=(predictions, truth, metrics): evaluate(*files), warm_up=False)
            if n <= args.checked:
                loaded = eval_retrieval(read_json(predictions), read_jsonl(truth))
                check_equal("metrics", json.loads(metrics.read_text()), loaded)
            size = f"{predictions.stat().st_size / 1e6:,.0f} MB"
            report.add(f"evaluate {n:,} queries", timing, n, "queries", note=f"{size}, {note}")
    report.finish(args.json)


if __name__ == "__main__":
    main()
