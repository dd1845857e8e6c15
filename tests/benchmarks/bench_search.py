"""Searching a grown corpus by way of an index, exactly, and plainly: time to build, memory, latency, recall.

    python tests/benchmarks/grown_corpus.py --model_dir MINI_MODEL --out CORPUS --videos 21793
    python tests/benchmarks/bench_search.py --corpus CORPUS --index exact
    python tests/benchmarks/bench_search.py --corpus CORPUS --index faiss --index_kind ivf

Each run measures one way of searching, so that its memory is its own. The exact answers are kept beside the corpus, and
the others compared with them: recall is that of the exact first 100 videos and of the exact first moment. Queries are
encoded already. `plain` is what a straightforward implementation does: video by video, then all of them sorted.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from method_tvr.options.values import CERTIFIED, FAISS_KINDS, INDEXES
from method_tvr.search.candidates import CandidateSettings, SearchIndex
from method_tvr.search.corpus_store import CorpusStore
from method_tvr.search.index.certified.certified_files import open_certified_index
from method_tvr.search.index.faiss_index import FaissRecipe, open_faiss_index
from method_tvr.search.index.milvus_index import open_milvus_index
from method_tvr.search.index.recall import compare
from method_tvr.search.records import EncodedQueries, Moments, Proofs, RankedVideos, SearchSettings, Shortlist
from method_tvr.search.retrieval import Searcher
from method_tvr.search.stored_corpus import StoredCorpus
from tests.benchmarks.common import Report, Timing, benchmark_parser, measure_unit, start
from tests.benchmarks.grown_corpus import load_queries
from tests.benchmarks.peak_memory import PeakMemory
from utils.basic_utils import InputError, command_line

Answers = list[tuple[Moments, RankedVideos]]
PLAIN = "plain"
CPU = torch.device("cpu")


class GrownCorpus:
    """A corpus on disk with its queries, to be searched in any way.

    Args:
        folder: what `grown_corpus.py` wrote.
        n_queries: how many of the queries are asked, spread evenly.
    """

    def __init__(self, folder: Path, n_queries: int) -> None:
        self.store = CorpusStore(folder)
        self.corpus = StoredCorpus(self.store, list(self.store.where), CPU)
        queries, self.kernels = load_queries(folder)
        asked = np.linspace(0, len(queries) - 1, n_queries).round().astype(np.int64)
        self.queries = queries.of(asked)
        self.others = np.delete(queries.for_videos.numpy(), asked, axis=0)  # such as a model was trained on
        self.exact_path = folder.with_name(f"{folder.name}_exact_{n_queries}.pt")

    @property
    def n_clips(self) -> int:
        return int(self.corpus.n_clips.sum())

    def searcher(self, index: SearchIndex | None) -> Searcher:
        """Searches by way of an index, or exactly."""
        return Searcher(self.corpus, *self.kernels, SearchSettings(), index=index)

    def exact_answers(self) -> Answers:
        """Those of an earlier exact run, to compare with.

        Raises:
            InputError: there was none.
        """
        if not self.exact_path.exists():
            raise InputError(f"{self.exact_path}: is not there: run with --index exact first")
        return [
            (Moments(*(part.numpy() for part in moments)), RankedVideos(*(part.numpy() for part in videos)))
            for moments, videos in torch.load(self.exact_path, weights_only=True)
        ]

    def keep_as_exact(self, answers: Answers) -> None:
        """Write exact answers down."""
        columns = [
            (
                [torch.from_numpy(x) for x in vars(moments).values()],
                [torch.from_numpy(x) for x in (videos.entry, videos.score)],
            )
            for moments, videos in answers
        ]
        torch.save(columns, self.exact_path)


def open_index(args: argparse.Namespace, grown: GrownCorpus) -> tuple[SearchIndex, Path]:
    """The index that the options name, built if it is not there, and where it lies on disk."""
    settings = CandidateSettings(args.candidate_clips, args.candidate_videos, args.probes, args.prove)
    folder = Path(args.corpus)
    if args.index == "milvus":
        path = folder.with_name(f"{folder.name}_milvus.db")
        return open_milvus_index(str(path), None, "0" * 64, grown.corpus, 2, settings), path
    if args.index == CERTIFIED:
        path = folder.with_name(f"{folder.name}_certified")
        return open_certified_index(path, grown.store, grown.corpus, lambda: grown.others), path
    path = folder.with_name(f"{folder.name}_{args.index_kind}_{args.pq_bytes}")
    recipe = FaissRecipe(args.index_kind, folder.name, args.pq_bytes)
    return open_faiss_index(path, recipe, grown.corpus, 2, settings), path


def one_by_one(search: Callable[[EncodedQueries], Iterable[object]], queries: EncodedQueries) -> np.ndarray:
    """Seconds that each query takes alone."""
    seconds = []
    for number in range(len(queries)):
        begin = time.perf_counter()
        list(search(queries[number : number + 1]))
        seconds.append(time.perf_counter() - begin)
    return np.array(seconds)


def bytes_on_disk(path: Path) -> int:
    """Of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())


def measure(report: Report, args: argparse.Namespace) -> None:
    """Lines of one way of searching: building, one query at a time, all at once."""
    grown, memory = GrownCorpus(Path(args.corpus), args.queries), PeakMemory()
    unit, n_clips = measure_unit(CPU), grown.n_clips
    index, name = None, args.index
    if args.index in INDEXES[1:]:
        building, begin = PeakMemory(), time.perf_counter()
        with building.watched():
            index, path = open_index(args, grown)
        name = f"{args.index} {args.index_kind}" if args.index == "faiss" else args.index
        per_clip = bytes_on_disk(path) / n_clips
        built = Timing(time.perf_counter() - begin, unit, measure_unit(CPU))
        report.add(f"{name}: build or open", built, n_clips, "clips", note=f"{per_clip:.0f} bytes a clip; {building}")
    searcher = grown.searcher(index)
    if args.index == PLAIN:
        searcher = PlainSearcher(grown.corpus, *grown.kernels, SearchSettings())
    with memory.watched():
        next(searcher.search(grown.queries[:1]))  # files are compared with their digests
        begin = time.perf_counter()
        shortlist = searcher.find(grown.queries)
        answers = list(searcher.search(grown.queries, given=shortlist))
        together = time.perf_counter() - begin
        alone = one_by_one(
            searcher.search, grown.queries[: args.alone]
        )  # of a search that has been going on for a while
    after = measure_unit(CPU)
    p50, p99 = np.percentile(alone, [50, 99])
    note = f"p50 {1e3 * p50:.1f} ms, p99 {1e3 * p99:.1f} ms of {len(alone)}; {memory}"
    report.add(f"{name}: one query", Timing(float(p50), unit, after), 1, "queries", note=note)
    if args.index == INDEXES[0]:
        grown.keep_as_exact(answers)
    proofs = None if shortlist.looks is None else Proofs.of(shortlist.looks)
    found = "" if args.index == INDEXES[0] else str(compare(answers, grown.exact_answers(), proofs))
    all_of_them = Timing(together, unit, after)
    report.add(f"{name}: {args.queries} queries at once", all_of_them, args.queries, "queries", note=found)


class PlainSearcher(Searcher):
    """Sorts all videos, and all spans of those kept, whole."""

    def find(self, queries: EncodedQueries, allowed: np.ndarray | None = None) -> Shortlist:
        scores = torch.empty((len(queries), len(self.corpus)))
        for entry in range(len(self.corpus)):
            scores[:, entry] = self.match_scores(queries, entry).mean(dim=1)
        best = scores.sort(dim=1, descending=True)
        keep = self.settings.max_vcmr_video
        kept = best.indices[:, :keep], best.values[:, :keep]
        return Shortlist(*kept, *kept)


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Command line of this benchmark."""
    parser = benchmark_parser(__doc__, repeats=1)
    add = parser.add_argument_group("what").add_argument
    add("--corpus", required=True, metavar="FOLDER", help="what grown_corpus.py wrote")
    add("--index", choices=(*INDEXES, PLAIN), default=INDEXES[0], help="the way of searching")
    add("--index_kind", choices=FAISS_KINDS, default="ivfsq", help="of faiss")
    add("--pq_bytes", type=int, default=48, help="of a clip and modality, for ivfpq")
    add(
        "--candidate_clips",
        type=int,
        default=CandidateSettings.n_clips,
        help="nearest clips asked for, in each modality",
    )
    add("--candidate_videos", type=int, default=CandidateSettings.n_entries, help="videos scored")
    add("--probes", type=int, default=CandidateSettings.n_probes, help="cells looked into")
    add("--prove", action="store_true", help="have faiss look further until answers are proved complete")
    add("--queries", type=int, default=200, help="queries asked")
    add("--alone", type=int, default=100, help="queries asked one at a time")
    args = parser.parse_args(argv)
    corpus = Path(args.corpus).name
    report, _ = start(f"search_{corpus}_{args.index}", f"searching {corpus} by {args.index}", args)
    measure(report, args)
    report.finish(args.json)


if __name__ == "__main__":
    main()
