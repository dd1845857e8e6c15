"""The parts of check.sh: each a process with a limit of its own, whose figures become rows of one table."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from utils.dataset_files import durations_path, release_path
from utils.mini_corpus.files import query_feature_path, sub_feature_path, video_feature_path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = sys.executable
NO_TIME = 5  # seconds under which a part is not begun

MACHINE = """
import platform, torch
p = torch.cuda.get_device_properties(0)
print("RESULT", f"{p.name}, {p.total_memory / 2**30:.0f} GiB, torch {torch.__version__}, "
      f"CUDA {torch.version.cuda}, Python {platform.python_version()}")
a = torch.randn(8192, 8192, device="cuda")
def rate(x, n):
    x @ x
    torch.cuda.synchronize(); s, e = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    s.record(); [x @ x for _ in range(n)]; e.record(); e.synchronize()
    return 2e-9 * n * 8192**3 / s.elapsed_time(e)
fp32 = rate(a, 5); torch.backends.cuda.matmul.allow_tf32 = True; tf32 = rate(a, 20)
print("RESULT", f"products of 8192: float32 {fp32:.0f}, tf32 {tf32:.0f}, bf16 {rate(a.bfloat16(), 20):.0f} TFLOP/s")
"""

COMPILER = """
import torch
from method_tvr.model import ReLoCLNet
from tests.gpu.small_batches import config_for, small_batch
for ctx_mode in ("video_sub_tef", "video_tef"):
    model = ReLoCLNet(config_for(ctx_mode)).to("cuda")
    loss, _ = model({name: x.to("cuda") for name, x in small_batch(9, model.modalities).items()})
    loss.backward()
torch.cuda.synchronize()
print("RESULT losses and gradients without a compiler on PATH")
"""

# Epochs of one run in one go, and of the same run stopped by SIGTERM and gone on with. The models' bytes are compared.
RESUME = """
import hashlib, os, signal, subprocess, sys, time
from pathlib import Path
folder, steps = Path(sys.argv[1]), []
train = [sys.executable, "method_tvr/train.py"]
options = [*sys.argv[2:], "--n_epoch", "6", "--max_es_cnt", "-1"]
def run(name, argv, stop=False):
    child = subprocess.Popen([*train, *argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in child.stdout:
        print(name, line, end="")
        if stop and line.startswith("epoch 002:"):
            child.send_signal(signal.SIGTERM)
    return child.wait()
assert run("whole", [*options, "--results_root", str(folder / "whole")]) == 0
code = run("stopped", [*options, "--results_root", str(folder / "stopped")], stop=True)
(stopped,) = (folder / "stopped").iterdir()
assert code == 143, code
assert run("resumed", ["--resume", str(stopped)]) == 0
(whole,) = (folder / "whole").iterdir()
digests = [hashlib.sha256((path / "model.ckpt").read_bytes()).hexdigest()[:12] for path in (whole, stopped)]
print("RESULT stopped by SIGTERM (exit code 143) and resumed:", "the same model.ckpt, byte for byte"
      if digests[0] == digests[1] else f"another model.ckpt ({digests[0]}, {digests[1]})")
"""

NAN = """
import subprocess, sys
from pathlib import Path
folder = Path(sys.argv[1])
done = subprocess.run([sys.executable, "method_tvr/train.py", *sys.argv[2:], "--lr", "1e30", "--n_epoch", "60",
                       "--results_root", str(folder)], capture_output=True, text=True)
print(done.stdout[-500:], done.stderr[-1500:])
assert done.returncode == 2 and "is not finite" in done.stderr, done.returncode
assert list(folder.glob("*/not_finite.json"))
print("RESULT", done.stderr.strip().splitlines()[-1][:60] + " …: exit code 2, not_finite.json")
"""


@dataclass(frozen=True)
class Part:
    """A process, and how its output becomes rows.

    Attributes:
        name: what it shows.
        limit: most seconds, of 8 minutes.
        command: what runs.
        rows: of its output.
        needs: a package without which it is left out.
    """

    name: str
    limit: int
    command: Sequence[str]
    rows: Callable[[str], list[str]]
    needs: str | None = None


def results(output: str) -> list[str]:
    """What was printed behind RESULT."""
    return re.findall(r"^RESULT (.*)$", output, re.MULTILINE)


def last_line(output: str) -> list[str]:
    return output.strip().splitlines()[-1:]


def no_rows(output: str) -> list[str]:
    """For parts that others need."""
    return ["done"]


def tables(output: str) -> list[str]:
    """Lines of Markdown tables, and the unit."""
    return [line for line in output.splitlines() if line.startswith(("|", "unit", "{"))]


def parts(folder: Path) -> list[Part]:
    """All of them, in order of value; they leave their files in a folder."""
    corpus, tiny = folder / "tvr", folder / "tiny"
    tiny_paths = {
        "train_path": release_path(tiny, "mini", "train"),
        "eval_path": release_path(tiny, "mini", "val"),
        "video_duration_idx_path": durations_path(tiny, "mini"),
        "vid_feat_path": video_feature_path(tiny, "mini", "resnet_i3d"),
        "sub_bert_path": sub_feature_path(tiny, "mini"),
        "desc_bert_path": query_feature_path(tiny, "mini"),
    }
    tiny_run = ["--dset_name", "mini", "--exp_id", "check", "--no_norm_vfeat", "--bsz", "32", "--lr", "1e-3"]
    tiny_run += ["--hidden_size", "64", "--n_heads", "2"]
    tiny_run += [word for name, path in tiny_paths.items() for word in (f"--{name}", str(path))]
    mini = f"utils/mini_tvr.py --out {tiny} --n_train 120 --n_val 20 --vid_feat_size 48 --text_feat_size 32"
    inference = f"bench_val_inference.py --annotations {corpus} --features {corpus}/tvr_feature_release --device 0"
    search = "bench_retrieval.py 2179 20000 --queries 256 --dense_queries 4 --device 0"
    no_compiler = ["env", "PATH=", "TRITON_CACHE_DIR=/nonexistent", PYTHON, "-c", COMPILER]
    compared = [PYTHON, *["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/gpu/test_same_as_cpu.py"]]
    return [
        Part("machine", 25, [PYTHON, "-c", MACHINE], results),
        Part("GPU and CPU compared", 80, compared, last_line, "pytest"),
        Part("corpus of TVR's widths", 60, benchmark(f"generated_tvr.py --out {corpus} --share 0.12"), no_rows),
        Part("steps", 150, benchmark(f"bench_epoch.py --corpus {corpus} --device 0"), tables),
        Part("inference on val, 2,179 videos and 10,895 queries", 60, benchmark(inference), tables),
        Part("one query, 1.1 million clips", 30, benchmark("bench_retrieval.py 21793 --one_query --device 0"), tables),
        Part("without a compiler", 30, no_compiler, results),
        Part("tiny corpus", 20, [PYTHON, *mini.split()], no_rows),
        Part("NaN", 40, [PYTHON, "-c", NAN, str(folder / "nan"), *tiny_run], results),
        Part("stopped and resumed", 90, [PYTHON, "-c", RESUME, str(folder / "resumed"), *tiny_run], results),
        Part("search", 45, benchmark(search), tables),
        Part("extraction", 60, benchmark("bench_extraction.py --device 0"), tables, "av"),
    ]


def benchmark(words: str) -> list[str]:
    """The command of a benchmark."""
    name, *options = words.split()
    return [PYTHON, f"tests/benchmarks/{name}", *options]


def run(part: Part, seconds: float, log: Path) -> list[str]:
    """The rows of a part; its output goes to the log."""
    if part.needs and importlib.util.find_spec(part.needs) is None:
        return [f"left out: {part.needs} is not installed"]
    if seconds < NO_TIME:
        return ["left out: no time"]
    begun = time.monotonic()
    try:
        done = subprocess.run(part.command, cwd=ROOT, timeout=seconds, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output, ended = done.stdout, "" if done.returncode == 0 else f"exit code {done.returncode}"
    except subprocess.TimeoutExpired as err:
        output, ended = err.stdout or b"", f"stopped after {seconds:.0f} s"
    text = output.decode(errors="replace")
    with open(log, "a", encoding="utf-8") as lines:
        print(f"\n##### {part.name} ({time.monotonic() - begun:.0f} s) {ended}\n{text}", file=lines)
    return [*([f"**{ended}**: {' '.join(last_line(text))[:200]}"] if ended else []), *part.rows(text)]


def main() -> None:
    """Run all parts, and write the table."""
    parser = argparse.ArgumentParser(description="What only a GPU can show.")
    parser.add_argument("minutes", nargs="?", type=float, default=8.0, help="for all of it (%(default)s)")
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD", help="parts whose names hold one of these")
    args = parser.parse_args()
    end = time.monotonic() + 60 * args.minutes
    out = Path(os.environ.get("OUT", "."))
    table, log = out / "gpu_check.md", out / "gpu_check.log"
    log.unlink(missing_ok=True)
    lines = [f"`bash tests/gpu/check.sh {args.minutes:g}`, {date.today()}", ""]
    with tempfile.TemporaryDirectory() as folder:
        for part in parts(Path(folder)):
            if not any(word in part.name for word in args.only):
                continue
            limit = min(part.limit * max(1.0, args.minutes / 8), end - time.monotonic())
            rows = run(part, limit, log)
            in_table = [row for row in rows if row.startswith("|")]
            shown = [f"**{part.name}**: {'; '.join(row for row in rows if row not in in_table)}", "", *in_table]
            lines += [*shown, ""]
            table.write_text("\n".join(lines), encoding="utf-8")
            print("\n".join(shown), flush=True)
    print(f"{table} and {log}")


if __name__ == "__main__":
    main()
