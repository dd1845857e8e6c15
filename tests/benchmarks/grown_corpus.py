"""Encoded corpora of any size, grown from a mini model's own encodings, to search in; and queries to search with.

    python tests/benchmarks/grown_corpus.py --model_dir MINI_MODEL --out DIR --videos 21793 [--clips 20] [--noise 0.5]

MINI_MODEL is a results folder of `train.sh mini video_sub_tef resnet_i3d` with the quickstart's settings and 20 epochs.
Models of the default size do not learn the mini corpus in that time, so that encodings of 128 numbers are turned into
ones of the default size by a fixed isometry: scores stay, and cost what they cost with 384 numbers. A model of the
default size, trained on other data, may stand in its place; `--splits` says which splits of these have videos.

Random vectors would make a search both too easy (nothing is near) and too hard (nothing is clustered). Here each new
video follows one of the mini corpus' videos clip by clip, and so clips of a video resemble each other as a model's do.
Noise is added to each row, in proportion to its length; `SHARED` of its power is one direction for all clips of the
video, the rest each clip's own. The more noise, the less the videos that grew from one resemble each other. Queries are
the mini corpus' val queries as the model encodes them, and the mini corpus' videos are in the corpus as they are.

Everything follows from the model, the numbers given and `SEED`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from method_tvr.config import parse_inference_options
from method_tvr.dataset.annotations import Entry, Video
from method_tvr.dataset.loading import BatchLoader
from method_tvr.search.corpus_store import CorpusRecipe
from method_tvr.search.corpus_writer import adding_to
from method_tvr.search.encoding import encode_queries, encode_videos
from method_tvr.search.records import EncodedQueries
from method_tvr.start_end_dataset import StartEndEvalDataset, prepare_batch_inputs
from method_tvr.trained.trained_model import open_model
from tests.benchmarks.synthetic import clip_counts
from utils.basic_utils import command_line, progress

SEED = 2021
HIDDEN_SIZE, MAX_CTX_L = 384, 128
NOISE_LEVELS = (0.25, 0.5, 1.0)  # length of the noise in lengths of the row
NOISE = 0.5
SHARED = 0.5  # of the noise's power: one direction for all clips of a video
BASE_SPLITS = ("train", "val", "test_public")
DRAWN_AT_A_TIME = 512  # videos
CLIP_LENGTH = 1.5  # seconds
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Base:
    """What a mini model makes of its corpus.

    Attributes:
        videos: each with its (L_i, M, D) encodings, padding left out.
        queries: those of val.
        kernels: (2, kernel) of the start and end predictors.
        recipe: how it was made.
    """

    videos: list[tuple[Video, torch.Tensor]]
    queries: EncodedQueries
    kernels: torch.Tensor
    recipe: CorpusRecipe


def isometry(small: int, large: int) -> torch.Tensor:
    """(small, large): products of vectors stay what they are."""
    drawn = torch.randn((large, small), generator=torch.Generator().manual_seed(SEED))
    return torch.linalg.qr(drawn).Q.t().contiguous()


def encoded_base(model_dir: str, splits: Sequence[str] = BASE_SPLITS) -> Base:
    """Encode the corpus of a model, val and other splits of it, in `HIDDEN_SIZE` numbers."""
    videos = []
    for split in splits:
        argv = ["--model_dir", model_dir, "--device", "-1", "--eval_split_name", split, "--feature_cache", "disk"]
        opt = parse_inference_options([*argv, "--num_workers", "0"])
        trained = open_model(opt)
        model = trained.model
        with trained.open_features() as features:
            listed = trained.inputs.listed_videos()
            entries = [Entry(video) for video in listed]
            batches = BatchLoader(
                StartEndEvalDataset([], entries, features, "context"), opt.eval_context_bsz, opt.trim_padding
            )
            encoded = encode_videos(model, progress(batches, f"encoding {split}"), CPU, opt.trim_padding)
            videos += [(video, rows[:n]) for video, (n, rows) in zip(listed, encoded, strict=True)]
            if split == "val":
                asked = trained.inputs.eval_split(features)
                dataset = StartEndEvalDataset(asked.queries, [], features, "query")
                loader = BatchLoader(dataset, opt.eval_query_bsz, opt.trim_padding)
                queries = EncodedQueries.concatenate(
                    [encode_queries(model, prepare_batch_inputs(batch, CPU)) for _, batch in loader]
                )
    kernels = torch.stack([kernel.detach().flatten() for kernel in model.span_kernels])
    larger = isometry(model.config.hidden_size, HIDDEN_SIZE)
    return Base(
        [(video, rows @ larger) for video, rows in videos],
        EncodedQueries(queries.for_videos @ larger, queries.for_spans @ larger),
        kernels,
        replace(trained.recipe("float16"), hidden_size=HIDDEN_SIZE, max_ctx_l=MAX_CTX_L),
    )


def grown(base: Sequence[torch.Tensor], n_clips: np.ndarray, noise: float, seed: int = SEED) -> Iterator[torch.Tensor]:
    """New videos: (L_i, M, D) float32 for each of `n_clips`.

    Args:
        base: (L, M, D) encodings of real clips, padding left out.
        n_clips: (Nv,) int64.
        noise: length of the noise that is added to a row, in lengths of the row.
        seed: of all of it.
    """
    lengths = np.array([len(rows) for rows in base])
    starts = np.cumsum(lengths) - lengths
    rows = torch.cat(list(base))  # (all, M, D)
    scale = noise * torch.linalg.vector_norm(rows, dim=-1, keepdim=True) / rows.shape[-1] ** 0.5
    for first in range(0, len(n_clips), DRAWN_AT_A_TIME):
        counts = n_clips[first : first + DRAWN_AT_A_TIME]
        rng = np.random.default_rng((seed, first))
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        of_base = rng.integers(len(base), size=len(counts))
        offset = (rng.random(len(counts)) * lengths[of_base]).astype(np.int64)
        video = np.repeat(np.arange(len(counts)), counts)
        clip = np.arange(len(video)) - np.repeat(np.cumsum(counts) - counts, counts)
        place = starts[of_base][video] + (offset[video] + clip) % lengths[of_base][video]  # round and round
        picked = torch.from_numpy(place)
        own = torch.randn((len(place), *rows.shape[1:]), generator=generator)
        shared = torch.randn((len(counts), *rows.shape[1:]), generator=generator)[torch.from_numpy(video)]
        drawn = own.mul_((1 - SHARED) ** 0.5).add_(shared, alpha=SHARED**0.5)
        yield from (drawn.mul_(scale[picked]).add_(rows[picked])).split(counts.tolist())


def write_grown(
    out: Path, model_dir: str, splits: Sequence[str], n_videos: int, clips: int | None, noise: float
) -> None:
    """Write an encoded corpus of `n_videos`, those of the model's own first, into a folder, and the queries beside it.

    Args:
        out: an empty folder, or one that a run which was stopped has left.
        model_dir: of the mini model, or another.
        splits: of its data, val among them.
        n_videos: of the whole corpus.
        clips: of each new video; None: numbers as in TVR.
        noise: see `grown`.
    """
    base = encoded_base(model_dir, splits)
    n_new = n_videos - len(base.videos)
    counts = np.full(n_new, clips) if clips else clip_counts(n_new, MAX_CTX_L, np.random.default_rng(SEED))
    new = grown([rows for _, rows in base.videos], counts.astype(np.int64), noise)
    queries = {"video": base.queries.for_videos, "span": base.queries.for_spans, "kernels": base.kernels}
    torch.save(queries, queries_path(out))
    with adding_to(out, base.recipe) as writer:
        for video, rows in base.videos:
            writer.add(video, len(rows), rows)
        for number, rows in enumerate(progress(new, "growing videos", n_new)):
            video = Video(f"grown_{number:07d}", len(rows) * CLIP_LENGTH, len(base.videos) + number)
            writer.add(video, len(rows), rows)


def queries_path(out: Path) -> Path:
    """Where the queries of a grown corpus lie."""
    return out.with_name(f"{out.name}_queries.pt")


def load_queries(out: Path) -> tuple[EncodedQueries, torch.Tensor]:
    """The queries of a grown corpus, and the (2, kernel) kernels of the model's predictors."""
    saved = torch.load(queries_path(out), weights_only=True)
    return EncodedQueries(saved["video"], saved["span"]), saved["kernels"]


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_dir", required=True, help="results folder of a model of the mini corpus")
    parser.add_argument("--splits", nargs="+", default=BASE_SPLITS, help="of the model's data: val, and others")
    parser.add_argument("--out", required=True, help="folder of the encoded corpus")
    parser.add_argument("--videos", type=int, default=21_793, help="how many, the mini corpus' own among them")
    parser.add_argument("--clips", type=int, help="of each new video (default: as many as TVR's have)")
    parser.add_argument("--noise", type=float, default=NOISE, help="length of the noise, in lengths of the row")
    args = parser.parse_args(argv)
    write_grown(Path(args.out), args.model_dir, args.splits, args.videos, args.clips, args.noise)


if __name__ == "__main__":
    main()
