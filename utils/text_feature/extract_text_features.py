"""Token features of queries, or of subtitles, with a hidden layer of a language model.

    python utils/text_feature/extract_text_features.py --model_name_or_path MODEL --query_file train.jsonl val.jsonl \\
        --tgt_h5_file query.h5
    python utils/text_feature/extract_text_features.py --model_name_or_path MODEL --sub_meta_path subtitles.jsonl \\
        --tgt_h5_file sub_tokens.h5

A killed extraction goes on where it was when the same command is given again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

if not all(map(find_spec, ("method_tvr", "numpy", "torch", "transformers", "h5py", "orjson", "tqdm"))):
    print("error: the project or its packages are missing: type `source setup.sh` in its folder first", file=sys.stderr)
    sys.exit(2)

from utils.basic_utils import parse_first
from utils.text_feature.command_lines.text_features import QUERY_LENGTH, SUB_LENGTH, options

if __name__ == "__main__":
    parse_first(options)

import numpy as np

from utils.basic_utils import (
    InputError,
    StrPath,
    command_line,
    first_few,
    progress,
    refuse_input_as_output,
    write_jsonl,
)
from utils.feature_files.provenance import made_with
from utils.feature_files.resumable_features import Extraction
from utils.model_utils import choose_device, named_when_out_of_memory
from utils.text_feature.chunks import chunk_lines, cut_lines
from utils.text_feature.joint.open_encoder import open_text_encoder
from utils.text_feature.text_encoder import TokenEncoder
from utils.text_feature.text_rows import LENGTHS_SUFFIX, Rows, query_texts, refuse_clashes, subtitle_lines, texts_digest

SCRIPT = "utils/text_feature/extract_text_features.py"
PACKAGES = ("torch", "transformers", "tokenizers")
QUERIES_AT_A_TIME, VIDEOS_AT_A_TIME = 512, 16  # enough to sort by length, few enough to lose to a kill


@dataclass
class Report:
    """What became of the queries or videos, by their names: desc_ids as text, or vid_names."""

    done: list[str]  # in the file
    failed: dict[str, str]  # why they are not
    cut: list[str]  # those done whose sentence, or a line of which, was too long and lost its last tokens


def extract_queries(
    queries: Rows, encoder: TokenEncoder, out_h5: StrPath, tokens_jsonl: StrPath | None = None
) -> Report:
    """Write `{desc_id: (n_tokens, size)}` float32; whole or not at all, and resumable.

    Args:
        queries: rows with `desc_id` and `desc`, or jsonl files of them.
        encoder: whose `max_length` cuts them.
        tokens_jsonl: file for `{"desc_id", "tokens": [str, …]}`, the tokens that the features belong to.

    Raises:
        InputError: a row lacks something, two queries have one desc_id, or no query has words.
    """
    texts = query_texts(queries)
    with _extraction(out_h5, "query", encoder) as features:
        todo = [name for name, text in texts.items() if not features.done(name, texts_digest(text))]
        for group in _groups(todo, QUERIES_AT_A_TIME, "queries"):
            ids, cut = cut_lines(encoder.tokenizer.ids([texts[name] for name in group]), encoder.max_tokens)
            for i, (name, array) in enumerate(zip(group, encoder.encode_ids(ids), strict=True)):
                if len(array):
                    features.put(name, {name: array}, texts_digest(texts[name]), {"cut": int(i in cut)})
                else:
                    features.failed(name, "has no words: write the query, or remove it")
        report = _report(features, texts)
    if not report.done:
        raise InputError(f"{out_h5}: not written, no query has words")
    if tokens_jsonl is not None:
        ids_of = zip(texts, encoder.tokenizer.ids(list(texts.values())), strict=True)
        written = encoder.tokenizer.transformers.convert_ids_to_tokens
        rows = ({"desc_id": int(name), "tokens": written(ids[: encoder.max_tokens])} for name, ids in ids_of)
        write_jsonl(rows, tokens_jsonl)
    return report


def extract_subtitles(
    subs: Rows, encoder: TokenEncoder, out_h5: StrPath, tokens_jsonl: StrPath | None = None
) -> Report:
    """Write `{vid_name}: (n_tokens, size)` float32, the tokens of all its lines, and `{vid_name}-lengths` int16.

    A video's lines are put together into chunks of whole lines that the encoder takes in at once. A line longer than a
    chunk is cut. Whole or not at all, and resumable.

    Args:
        subs: rows `{"vid_name", "sub": [{"text", "start", "end"}, …]}`, or a jsonl file of them; a video without lines
            has no tokens.
        encoder: whose `max_length` is that of a chunk.
        tokens_jsonl: file for `{"vid_name", "tokens": [[str, …] for each line]}`.

    Raises:
        InputError: a row lacks something, a video is there twice, or called as what is kept beside another.
    """
    texts_of = {name: [line["text"] for line in lines] for name, lines in subtitle_lines(subs).items()}
    refuse_clashes(texts_of)
    with _extraction(out_h5, "sub", encoder) as features:
        todo = [name for name, texts in texts_of.items() if not features.done(name, texts_digest(*texts))]
        for group in _groups(todo, VIDEOS_AT_A_TIME, "subtitles"):
            cut_of = {name: _line_ids(texts_of[name], encoder) for name in group}
            for name, array in _encode_lines({name: ids for name, (ids, _) in cut_of.items()}, encoder).items():
                ids, cut = cut_of[name]
                lengths = np.array([len(line) for line in ids], np.int16)
                arrays = {name: array, name + LENGTHS_SUFFIX: lengths}
                features.put(name, arrays, texts_digest(*texts_of[name]), {"cut": len(cut)})
        report = _report(features, texts_of)
    if tokens_jsonl is not None:
        lines_of = ((name, _line_ids(texts, encoder)[0]) for name, texts in texts_of.items())
        written = encoder.tokenizer.transformers.convert_ids_to_tokens
        rows = ({"vid_name": name, "tokens": [*map(written, ids)]} for name, ids in lines_of)
        write_jsonl(rows, tokens_jsonl)
    return report


def _line_ids(texts: Sequence[str], encoder: TokenEncoder) -> tuple[list[list[int]], list[int]]:
    """Token ids of each line of a video, and the positions of lines that were cut."""
    return cut_lines(encoder.tokenizer.line_ids(texts), encoder.max_tokens)


def _encode_lines(ids_of: Mapping[str, list[list[int]]], encoder: TokenEncoder) -> dict[str, np.ndarray]:
    """Features (n_tokens, size) of all lines of some videos; the chunks of all of them are batched together."""
    chunks = [
        (name, [token for line in chunk for token in ids[line]])
        for name, ids in ids_of.items()
        for chunk in chunk_lines([len(line) for line in ids], encoder.max_tokens)
    ]
    parts: dict[str, list[np.ndarray]] = {name: [np.zeros((0, encoder.size), np.float32)] for name in ids_of}
    for (name, _), array in zip(chunks, encoder.encode_ids([ids for _, ids in chunks]), strict=True):
        parts[name].append(array)
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def _report(features: Extraction, names: Iterable[str]) -> Report:
    failed = dict(features.failures)
    done = [name for name in names if name not in failed]
    return Report(done, failed, [name for name in done if features.about(name)["cut"]])


def _extraction(out_h5: StrPath, kind: str, encoder: TokenEncoder) -> Extraction:
    properties = encoder.properties()
    recipe = {"script": SCRIPT, "kind": kind, **properties}
    return Extraction(out_h5, recipe, made_with(SCRIPT, kind, PACKAGES, **properties))


def _groups(names: Sequence[str], size: int, desc: str) -> Iterator[Sequence[str]]:
    starts = range(0, len(names), size)
    return (names[start : start + size] for start in progress(starts, desc, len(starts)))


def _tell(report: Report, what: str, encoder: TokenEncoder) -> None:
    for name, reason in report.failed.items():
        print(f"left out: {name}: {reason}", file=sys.stderr)
    if report.cut:
        print(f"note: cut to {encoder.max_tokens} tokens: {what} {first_few(report.cut)}", file=sys.stderr)
    print(f"{len(report.done)} {what} written, {encoder.size} numbers a token; {len(report.failed)} left out")


def _run(opt: argparse.Namespace) -> None:
    max_length = opt.max_length or (QUERY_LENGTH if opt.query_file else SUB_LENGTH)
    device = choose_device(opt.device)
    read = opt.query_file or [opt.sub_meta_path]
    refuse_input_as_output("--tgt_h5_file", opt.tgt_h5_file, read)
    if opt.tokens_jsonl:
        refuse_input_as_output("--tokens_jsonl", opt.tokens_jsonl, [*read, opt.tgt_h5_file])
    check_source = query_texts if opt.query_file else subtitle_lines
    check_source(opt.query_file or opt.sub_meta_path)  # before a model is loaded
    encoder = open_text_encoder(opt.model_name_or_path, opt.layer, max_length, device, opt.batch_size, opt.bf16)
    if opt.query_file:
        _tell(extract_queries(opt.query_file, encoder, opt.tgt_h5_file, opt.tokens_jsonl), "queries", encoder)
    else:
        _tell(extract_subtitles(opt.sub_meta_path, encoder, opt.tgt_h5_file, opt.tokens_jsonl), "videos", encoder)


@command_line
def main() -> None:
    opt = options()
    with named_when_out_of_memory(vars(opt), ("batch_size", "bf16")):
        _run(opt)


if __name__ == "__main__":
    main()
