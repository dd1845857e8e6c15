"""Encoding a split's videos for inference at TVR's lengths, padded and trimmed; and straightforwardly.

python tests/benchmarks/bench_encoding.py [--videos 2179]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from method_tvr.dataset.loading import Batch
from method_tvr.model import ModelConfig, ReLoCLNet
from method_tvr.search.encoding import encode_corpus
from method_tvr.search.memory_corpus import EncodedCorpus
from tests.benchmarks.common import AnswersDiffer, benchmark_parser, start
from tests.benchmarks.floors import context_macs
from tests.benchmarks.reference_model import ReferenceModel
from tests.benchmarks.synthetic import clip_counts, context_batch, unit_rows
from utils.basic_utils import command_line

SAME_ROW = 1e-4  # of encodings, whose entries are about 1


class ContextBatches:
    """Batches of videos, in file order as at inference; made on the fly, since all of them are a gigabyte.

    Args:
        config: input sizes.
        n_clips: (Nv,) int64.
        batch_size: videos at a time.
        seed: of the features.
    """

    def __init__(self, config: ModelConfig, n_clips: np.ndarray, batch_size: int, seed: int) -> None:
        self.config = config
        self.parts = np.split(n_clips, range(batch_size, len(n_clips), batch_size))
        self.generator = torch.Generator().manual_seed(seed)
        self.pool = {
            m: unit_rows((len(self.parts[0]), config.max_ctx_l, config.input_sizes[m]), self.generator)
            for m in config.modalities
        }

    def __iter__(self) -> Iterator[Batch]:
        for part in self.parts:
            yield [], context_batch(self.config, part, self.generator, self.pool)


@torch.inference_mode()
def encode_straightforwardly(
    model: ReferenceModel, batches: ContextBatches, device: torch.device
) -> list[dict[str, torch.Tensor]]:
    """{modality: (N, L, D)} of each batch, padded."""
    encoded = []
    for _, batch in batches:
        context = model.encode_context({name: tensor.to(device) for name, tensor in batch.items()})
        encoded.append({m: h3 for m, (_, h3) in context.items()})
    return encoded


def largest_difference(corpus: EncodedCorpus, expected: list[dict[str, torch.Tensor]]) -> float:
    """Largest difference of a row that the corpus keeps: those of clips, and of the padding that scores need.

    Raises:
        AnswersDiffer: it is more than rounding.
    """
    worst, entry = 0.0, 0
    for batch in expected:
        for video in torch.stack(list(batch.values()), dim=2):  # (L, M, D)
            rows = corpus.rows_of(entry)
            worst = max(worst, float((rows - video[: len(rows)]).abs().max()))
            if not worst <= SAME_ROW:
                raise AnswersDiffer(f"video {entry}: an encoding differs by {worst}")
            entry += 1
    return worst


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Command line of this benchmark."""
    parser = benchmark_parser(__doc__, repeats=1)
    add = parser.add_argument_group("sizes").add_argument
    add("--videos", type=int, default=2179, help="videos of the split")
    add("--reference_videos", type=int, default=200, help="videos encoded straightforwardly as well, 0: none")
    add("--batch", type=int, default=200, help="videos encoded at a time")
    add("--max_ctx_l", type=int, default=128, help="clips that videos are padded to")
    add("--input_sizes", type=int, nargs=2, default=[514, 386], help="video and subtitles, with tef")
    add("--hidden_size", type=int, default=384, help="D")
    args = parser.parse_args(argv)

    report, stopwatch = start("encoding", f"encoding {args.videos:,} videos for inference", args)
    device = stopwatch.device
    config = ModelConfig(
        visual_input_size=args.input_sizes[0],
        sub_input_size=args.input_sizes[1],
        hidden_size=args.hidden_size,
        max_ctx_l=args.max_ctx_l,
    )
    model = ReLoCLNet(config, torch.Generator().manual_seed(args.seed)).to(device).eval()
    n_clips = clip_counts(args.videos, args.max_ctx_l, np.random.default_rng(args.seed))
    floors = {False: context_macs(config, np.full(args.videos, args.max_ctx_l)), True: context_macs(config, n_clips)}
    print(f"clips {n_clips.mean():.1f} of {args.max_ctx_l}")

    note, n_reference = "", min(args.reference_videos, args.videos)
    if n_reference:
        few = ContextBatches(config, n_clips[:n_reference], args.batch, args.seed)
        reference = ReferenceModel(config).to(device).eval()
        reference.load_state_dict(model.state_dict())
        timing, expected = stopwatch.time(lambda: encode_straightforwardly(reference, few, device), warm_up=False)
        floor = context_macs(config, np.full(n_reference, args.max_ctx_l))
        report.add(f"straightforward, {n_reference:,} of them", timing, n_reference, "videos", floor)
        note = f"rows equal, {largest_difference(encode_corpus(model, few, device), expected):.0e}"
        del expected
    batches = ContextBatches(config, n_clips, args.batch, args.seed)
    for trim_padding in (False, True):
        timing, _ = stopwatch.time(
            lambda trim=trim_padding: encode_corpus(model, batches, device, trim_padding=trim),  # type: ignore[misc]
            warm_up=False,
        )
        name = "--trim_padding" if trim_padding else "default"
        report.add(name, timing, args.videos, "videos", floors[trim_padding], "" if trim_padding else note)
    report.finish(args.json)


if __name__ == "__main__":
    main()
