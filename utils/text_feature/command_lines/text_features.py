"""The command line of extract_text_features.py."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

QUERY_LENGTH, SUB_LENGTH = 32, 256  # with special tokens, as in TVRetrieval


def options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of the program."""
    parser = argparse.ArgumentParser(description="Token features of queries or subtitles")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--query_file", nargs="+", help="jsonl files with desc_id and desc; all go into one h5 file")
    source.add_argument("--sub_meta_path", help="jsonl of preprocess_subtitles.py")
    add = parser.add_argument
    add("--tgt_h5_file", required=True, help="h5 file to write")
    add("--tokens_jsonl", help="jsonl to write the tokens to")
    add("--model_name_or_path", default="roberta-base", help="folder, or name on the hub (%(default)s)")
    add("--layer", type=int, help="hidden layer (default -2, second to last); of CLIP and SigLIP always the last")
    lengths = f"of a query (default {QUERY_LENGTH}), of a chunk of lines ({SUB_LENGTH})"
    add("--max_length", type=int, help=f"tokens with special ones: {lengths}")
    add("--batch_size", type=int, default=64, help="sequences at a time (default %(default)s)")
    add("--device", type=int, default=0, help="CUDA device (default 0), -1 for the CPU")
    add("--bf16", action="store_true", help="compute in bfloat16: faster, features are rounded")
    return parser.parse_args(argv)
