"""Searching a grown corpus by way of an index, exactly, and plainly: time to build, memory, latency, recall.

    python tests/benchmarks/grown_corpus.py --model_dir MINI_MODEL --out CORPUS --videos 21793
    python tests/benchmarks/bench_search.py --corpus CORPUS --index exact
    python tests/benchmarks/bench_search.py --corpus CORPUS --index faiss --index_kind ivf
    python tests/benchmarks/bench_search.py --corpus CORPUS --index milvus --index_uri http://127.0.0.1:19530 --data DIR

Each run measures one way of searching, so that its memory is its own. The exact answers are kept beside the corpus, and
the others compared with them: recall is that of the exact first 100 videos and of the exact first moment. Queries are
encoded already. DIR is the folder of a server's data, whose bytes are counted. `plain` is what a straightforward
implementation does: video by video, then all of them sorted.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from method_tvr.model_components import conv_predictors
from method_tvr.options.values import CERTIFIED, INDEX_KINDS, INDEXES, MILVUS, USUAL_KIND
from method_tvr.search.candidates import CandidateSettings, SearchIndex
from method_tvr.search.corpus_store import CorpusStore
from method_tvr.search.index.certified.certified_files import open_certified_index
from method_tvr.search.index.certified.certified_index import CertifiedIndex, Work
from method_tvr.search.index.faiss_index import FaissRecipe, open_faiss_index
from method_tvr.search.index.milvus_index import open_milvus_index
from method_tvr.search.index.recall import compare
from method_tvr.search.records import EncodedQueries, Moments, Proofs, RankedVideos, SearchSettings, Shortlist
from method_tvr.search.retrieval import Searcher
from method_tvr.search.stored_corpus import StoredCorpus
from method_tvr.zero_shot_model import StandingOut
from tests.benchmarks.common import AnswersDiffer, Report, Timing, benchmark_parser, measure_unit, start
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
        n_videos: the first of the corpus; None: all.
        zero_shot: moments are found as a model without training finds them.
    """

    def __init__(self, folder: Path, n_queries: int, n_videos: int | None = None, zero_shot: bool = False) -> None:
        self.store = CorpusStore(folder)
        self.corpus = StoredCorpus(self.store, list(self.store.where)[:n_videos], CPU)
        queries, kernels = load_queries(folder)
        self.predictors = [StandingOut(1.0, 1.0)] if zero_shot else conv_predictors(*kernels)
        asked = np.linspace(0, len(queries) - 1, n_queries).round().astype(np.int64)
        self.queries = queries.of(asked)
        self.others = np.delete(queries.for_videos.numpy(), asked, axis=0)  # such as a model was trained on
        self.name = "_".join(
            [folder.name, *([str(n_videos)] if n_videos else []), *(["zero_shot"] if zero_shot else [])]
        )
        self.exact_path = folder.with_name(f"{self.name}_exact_{n_queries}.pt")

    @property
    def n_clips(self) -> int:
        return int(self.corpus.n_clips.sum())

    def n_indexed(self, index: SearchIndex) -> int:
        """Clips that an index has."""
        if isinstance(index, CertifiedIndex):
            return sum(int(part.n_rows.sum()) for part in self.store.parts)
        return self.n_clips

    def searcher(self, index: SearchIndex | None) -> Searcher:
        """Searches by way of an index, or exactly."""
        return Searcher(self.corpus, self.predictors, SearchSettings(), index=index)

    def exact_answers(self) -> dict[str, Answers]:
        """Those of an earlier exact run to the queries together and alone, to compare with.

        Raises:
            InputError: there was none.
        """
        if not self.exact_path.exists():
            raise InputError(f"{self.exact_path}: is not there: run with --index exact first")
        return {
            name: [
                (Moments(*(part.numpy() for part in moments)), RankedVideos(*(part.numpy() for part in videos)))
                for moments, videos in answers
            ]
            for name, answers in torch.load(self.exact_path, weights_only=True).items()
        }

    def keep_as_exact(self, **answers: Answers) -> None:
        """Write exact answers down."""
        columns = {
            name: [tuple(list(map(torch.from_numpy, vars(part).values())) for part in block) for block in blocks]
            for name, blocks in answers.items()
        }
        torch.save(columns, self.exact_path)


def n_identical(answers: Answers, exact: Answers) -> int:
    """Queries whose answers are the same to the last bit."""
    equal = [
        np.logical_and.reduce([(a == b).all(axis=1) for a, b in zip(_columns(ours), _columns(theirs), strict=True)])
        for ours, theirs in zip(answers, exact, strict=False)
    ]
    return int(np.concatenate(equal).sum())


def _columns(answer: tuple[Moments, RankedVideos]) -> list[np.ndarray]:
    return [column for part in answer for column in vars(part).values()]


def open_index(args: argparse.Namespace, grown: GrownCorpus) -> tuple[SearchIndex, Path]:
    """The index that the options name, built if it is not there, and where it lies on disk."""
    settings = CandidateSettings(args.candidate_clips, args.candidate_videos, args.probes, args.prove)
    folder = Path(args.corpus)
    kind = args.index_kind or USUAL_KIND.get(args.index)
    if args.index == MILVUS:
        path = folder.with_name(f"{grown.name}_milvus.db")
        uri, seal = args.index_uri or str(path), hashlib.sha256(grown.name.encode()).hexdigest()
        index = open_milvus_index(uri, args.index_token, kind, seal, grown.corpus, 2, settings)
        return index, Path(args.data) if args.data else path
    if args.index == CERTIFIED:
        path = folder.with_name(f"{folder.name}_certified")  # of all parts, whatever is searched
        return open_certified_index(path, grown.store, grown.corpus, lambda: grown.others), path
    path = folder.with_name(f"{grown.name}_{kind}_{args.pq_bytes}")
    recipe = FaissRecipe(kind, grown.name, args.pq_bytes)
    return open_faiss_index(path, recipe, grown.corpus, 2, settings), path


def one_by_one(
    search: Callable[[EncodedQueries], Iterable[tuple[Moments, RankedVideos]]], queries: EncodedQueries
) -> tuple[np.ndarray, Answers]:
    """Seconds that each query takes alone, and the answers."""
    seconds, answers = [], []
    for number in range(len(queries)):
        begin = time.perf_counter()
        answers += search(queries[number : number + 1])
        seconds.append(time.perf_counter() - begin)
    return np.array(seconds), answers


def bytes_on_disk(path: Path) -> int:
    """Of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())


def measure(report: Report, args: argparse.Namespace) -> None:
    """Lines of one way of searching: building, one query at a time, all at once."""
    grown, memory = GrownCorpus(Path(args.corpus), args.queries, args.videos, args.zero_shot), PeakMemory()
    unit, n_clips = measure_unit(CPU), grown.n_clips
    report.settings["clips"] = n_clips
    index, name = None, args.index
    if args.index in INDEXES[1:]:
        building, begin = PeakMemory(), time.perf_counter()
        with building.watched():
            index, path = open_index(args, grown)
        name = " ".join(filter(None, (args.index, args.index_kind or USUAL_KIND.get(args.index))))
        per_clip = bytes_on_disk(path) / grown.n_indexed(index)
        built = Timing(time.perf_counter() - begin, unit, measure_unit(CPU))
        report.add(f"{name}: build or open", built, n_clips, "clips", note=f"{per_clip:.0f} bytes a clip; {building}")
    searcher = grown.searcher(index)
    if args.index == PLAIN:
        searcher = PlainSearcher(grown.corpus, grown.predictors, SearchSettings())
    with memory.watched():
        next(searcher.search(grown.queries[:1]))  # files are compared with their digests
        begin = time.perf_counter()
        shortlist = searcher.shortlist(grown.queries)
        answers = list(searcher.search(grown.queries, given=shortlist))
        together = time.perf_counter() - begin
        if isinstance(index, CertifiedIndex):
            index.work = Work()
        # of a search that has been going on for a while
        alone, alone_answers = one_by_one(searcher.search, grown.queries[: args.alone])
    after = measure_unit(CPU)
    p50, p99 = np.percentile(alone, [50, 99])
    note = f"p50 {1e3 * p50:.1f} ms, p99 {1e3 * p99:.1f} ms of {len(alone)}; {memory}"
    report.add(f"{name}: one query", Timing(float(p50), unit, after), 1, "queries", note=note)
    if args.index == INDEXES[0]:
        grown.keep_as_exact(together=answers, alone=alone_answers)
    proofs = None if shortlist.looks is None else Proofs.of(shortlist.looks)
    found = "" if args.index == INDEXES[0] else str(compare(answers, grown.exact_answers()["together"], proofs))
    all_of_them = Timing(together, unit, after)
    report.add(f"{name}: {args.queries} queries at once", all_of_them, args.queries, "queries", note=found)
    if isinstance(index, CertifiedIndex):
        prove_identical(grown, index, answers, alone_answers)


def prove_identical(grown: GrownCorpus, index: CertifiedIndex, together: Answers, alone: Answers) -> None:
    """Say that the answers to queries together and alone are the exact ones, bit by bit, and what the latter read."""
    exact = grown.exact_answers()
    n, n_alone = n_identical(together, exact["together"]), n_identical(alone, exact["alone"])
    if n < len(grown.queries) or n_alone < min(len(alone), len(exact["alone"])):
        raise AnswersDiffer(f"{n} of {len(grown.queries)} answers together and {n_alone} alone are the exact ones")
    print(f"{n} answers together and {n_alone} alone are the exact ones to the last bit; alone, {index.said()}")


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
    add("--videos", type=int, help="the first of the corpus (default: all)")
    add("--index", choices=(*INDEXES, PLAIN), default=INDEXES[0], help="the way of searching")
    add("--index_kind", choices=INDEX_KINDS, help="of faiss and of milvus")
    add("--index_uri", help="of milvus: a server's (default: a local file beside the corpus)")
    add("--index_token", help="of milvus: what the server asks for")
    add("--data", metavar="FOLDER", help="of milvus: the server's data, to count its bytes")
    add("--pq_bytes", type=int, default=48, help="of a clip and modality, for ivfpq")
    add(
        "--candidate_clips",
        type=int,
        default=CandidateSettings.n_clips,
        help="nearest clips asked for, in each modality",
    )
    add("--candidate_videos", type=int, default=CandidateSettings.n_entries, help="videos scored")
    add("--probes", type=int, default=CandidateSettings.n_probes, help="cells looked into")
    add("--zero_shot", action="store_true", help="find moments as a model without training does")
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
