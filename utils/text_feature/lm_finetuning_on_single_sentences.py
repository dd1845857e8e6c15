"""Fine-tune a masked language model on a dataset's queries, or on its queries and subtitles.

    python utils/text_feature/lm_finetuning_on_single_sentences.py --mode sub_query \\
        --train_data_file tvr_train_release.jsonl --sub_meta_path subtitles.jsonl --output_dir roberta_sub_query

Modes: `query_only`, each query an example of up to 32 tokens; `sub_query`, the subtitles of the queries' videos as
well, in chunks of whole lines of up to 256 tokens, and four batches a step.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

if not all(map(find_spec, ("method_tvr", "numpy", "torch", "transformers", "orjson", "tqdm"))):
    print("error: the project or its packages are missing: type `source setup.sh` in its folder first", file=sys.stderr)
    sys.exit(2)

from utils.basic_utils import parse_first
from utils.text_feature.command_lines.fine_tuning import MODES, Mode, Settings, options

if __name__ == "__main__":
    parse_first(options)

from utils.basic_utils import InputError, command_line
from utils.model_utils import choose_device, named_when_out_of_memory
from utils.text_feature.chunks import chunk_lines, cut_lines
from utils.text_feature.masked_lm import fine_tune, held_out_loss
from utils.text_feature.pretrained import Tokenizer, load_masked_lm, longest_sequence, save_model
from utils.text_feature.text_rows import named_rows, query_texts, subtitle_lines

SCRIPT = "utils/text_feature/lm_finetuning_on_single_sentences.py"


def query_examples(queries: str, tokenizer: Tokenizer, block_size: int) -> list[list[int]]:
    """Token ids of each query, at most `block_size` with special tokens; blank queries left out."""
    lines, _ = cut_lines(tokenizer.ids(list(query_texts(queries).values())), block_size - tokenizer.n_special)
    return [line for line in lines if line]


def subtitle_examples(subs: str, queries: str, tokenizer: Tokenizer, block_size: int) -> list[list[int]]:
    """Token ids of the chunks of the subtitles of the queries' videos, which have to be named, and to have some."""
    videos: dict[str, None] = {}
    for where, row in named_rows(queries):
        if not isinstance(row.get("vid_name"), str):
            raise InputError(f"{where}: has no vid_name, whose subtitles are wanted: or choose --mode query_only")
        videos[row["vid_name"]] = None
    lines_of = subtitle_lines(subs)
    if not any(name in lines_of for name in videos):
        raise InputError(f"{subs}: has subtitles of none of the videos of {queries}: other names?")
    max_tokens = block_size - tokenizer.n_special
    examples = []
    for name in videos:
        ids, _ = cut_lines(tokenizer.line_ids([line["text"] for line in lines_of.get(name, [])]), max_tokens)
        for chunk in chunk_lines([len(line) for line in ids], max_tokens, drop_short_last=True):
            examples.append([token for line in chunk for token in ids[line]])
    return [example for example in examples if example]


def read_examples(
    mode: str, queries: str, subs: str | None, tokenizer: Tokenizer, block_size: int
) -> dict[str, list[list[int]]]:
    """Examples by what they are: "queries" and, in sub_query, "chunks of subtitles"."""
    examples = {"queries": query_examples(queries, tokenizer, block_size)}
    if MODES[mode].subtitles:
        if subs is None:
            raise InputError("--mode sub_query needs --sub_meta_path, the jsonl of preprocess_subtitles.py")
        examples["chunks of subtitles"] = subtitle_examples(subs, queries, tokenizer, block_size)
    if not any(examples.values()):
        raise InputError(f"{queries}: has not one query with words")
    return examples


def held_out_table(rows: Sequence[tuple[str, float]]) -> str:
    """A table of losses on the held-out part and their perplexities."""
    lines = [f"{'held-out part':<20}{'loss':>10}{'perplexity':>14}"]
    lines += [f"{name:<20}{loss:>10.4f}{math.exp(min(loss, 700.0)):>14.2f}" for name, loss in rows]
    return "\n".join(lines)


def check_output(folder: str, overwrite: bool) -> None:
    """Refuse, before hours of training, a folder that is there: only a model's folder is replaced, and if asked to."""
    path = Path(folder)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not overwrite:
        raise InputError(f"{folder}: is there already: name another --output_dir, or give --overwrite_output_dir")
    if not (path / "config.json").is_file():
        raise InputError(f"{folder}: is no model's folder, and is not overwritten: name another --output_dir")


def _run(opt: argparse.Namespace) -> None:
    check_output(opt.output_dir, opt.overwrite_output_dir)
    mode = MODES[opt.mode]
    block_size = mode.block_size if opt.block_size is None else opt.block_size
    settings = _settings(opt, mode)
    settings.check()
    device = choose_device(-1 if opt.no_cuda else opt.device)
    tokenizer = Tokenizer(opt.model_name_or_path)
    if block_size <= tokenizer.n_special:
        raise InputError(f"--block_size {block_size}: leaves no room between the special tokens")
    train = read_examples(opt.mode, opt.train_data_file, opt.sub_meta_path, tokenizer, block_size)
    held_out = None
    if opt.eval_data_file is not None:
        parts = read_examples(opt.mode, opt.eval_data_file, opt.sub_meta_path, tokenizer, block_size)
        held_out = [*chain.from_iterable(parts.values())]
    loaded = load_masked_lm(opt.model_name_or_path)
    _check_model(opt, loaded.model, loaded.untrained, block_size)
    print(", ".join(f"{len(examples)} {what}" for what, examples in train.items()), flush=True)
    table = [("before", held_out_loss(loaded.model, tokenizer, held_out, settings, device))] if held_out else []
    losses = fine_tune(loaded.model, tokenizer, [*chain.from_iterable(train.values())], settings, device)
    if held_out:
        table.append(("after", held_out_loss(loaded.model, tokenizer, held_out, settings, device)))
        print(held_out_table(table))
    record = {
        "made_by": SCRIPT,
        "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers")},
        "model": loaded.name,
        "mode": opt.mode,
        "block_size": block_size,
        **asdict(settings),
        "examples": {what: len(rows) for what, rows in train.items()},
        "losses": losses,
        "held_out": dict(table),
    }
    save_model(loaded.model, tokenizer, opt.output_dir, record)
    tenth = max(len(losses) // 10, 1)
    print(
        f"{len(losses)} steps, training loss {sum(losses[:tenth]) / tenth:.4f} in the first tenth, "
        f"{sum(losses[-tenth:]) / tenth:.4f} in the last; saved in {opt.output_dir}"
    )


def _check_model(opt: argparse.Namespace, model: Any, untrained: frozenset[str], block_size: int) -> None:
    longest = longest_sequence(model)
    if longest is not None and block_size > longest:
        raise InputError(f"--block_size {block_size}: {opt.model_name_or_path} takes {longest} tokens at most")
    if opt.model_type is not None and opt.model_type != model.config.model_type:
        raise InputError(f"--model_type {opt.model_type}: {opt.model_name_or_path} is a {model.config.model_type}")
    if untrained:
        print(f"note: {opt.model_name_or_path} has no masked-LM head: a new one is trained", flush=True)


def _settings(opt: argparse.Namespace, mode: Mode) -> Settings:
    steps = opt.gradient_accumulation_steps
    return Settings(
        n_epochs=opt.num_train_epochs,
        batch_size=opt.per_gpu_train_batch_size,
        accumulation_steps=mode.accumulation_steps if steps is None else steps,
        learning_rate=opt.learning_rate,
        adam_epsilon=opt.adam_epsilon,
        weight_decay=opt.weight_decay,
        warmup_steps=opt.warmup_steps,
        max_grad_norm=opt.max_grad_norm,
        mlm_probability=opt.mlm_probability,
        seed=opt.seed,
        bf16=opt.bf16,
    )


@command_line
def main() -> None:
    opt = options()
    with named_when_out_of_memory(vars(opt), ("per_gpu_train_batch_size", "block_size", "bf16")):
        _run(opt)


if __name__ == "__main__":
    main()
