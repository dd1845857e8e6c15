"""Language models and tokenizers of `transformers`, from a folder or from the hub, into folders that are whole.

No code that comes with a model is ever run, and weights are loaded as tensors, never unpickled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from standalone_eval.files.parts import part_folder
from utils.basic_utils import InputError, StrPath, first_line, named_when_full
from utils.feature_files.provenance import weights_digest
from utils.pretrained.loading import loaded, quiet
from utils.pretrained.names import short_name
from utils.storage.whole_folder import put_in_place

UNTRAINED_PART = "pooler."  # of an encoder; no token feature passes through it


class Tokenizer:
    """A tokenizer, reduced to what feature tools need; `InputError` when there is no such one.

    It puts special tokens around those of a sentence, with the ids `before` and `after`, `n_special` in all. `options`
    go to transformers, such as the `revision` on the hub.
    """

    def __init__(self, model_name_or_path: str, **options: str) -> None:
        self.transformers = loaded(AutoTokenizer.from_pretrained, model_name_or_path, "tokenizer", **options)
        encoded = self.transformers("a", return_special_tokens_mask=True)
        ids, is_special = encoded["input_ids"], encoded["special_tokens_mask"]
        if 0 not in is_special:
            raise InputError(f"{model_name_or_path}: its tokenizer makes no token of the word 'a': is it whole?")
        self.before: list[int] = ids[: is_special.index(0)]
        self.after: list[int] = ids[len(ids) - is_special[::-1].index(0) :]
        self.n_special = len(self.before) + len(self.after)

    def ids(self, sentences: Sequence[str]) -> list[list[int]]:
        """Token ids of each sentence, without special tokens, not cut; none for a blank sentence."""
        stripped = [sentence if sentence.strip() else "" for sentence in sentences]
        if not stripped:
            return []
        found = self.transformers(stripped, add_special_tokens=False, verbose=False)["input_ids"]
        return [list(ids) if sentence else [] for ids, sentence in zip(found, stripped, strict=True)]

    def line_ids(self, lines: Sequence[str]) -> list[list[int]]:
        """Token ids of subtitle lines that will follow one another in one sequence.

        Each begins with a space, and ends with none, so that tokenizers that see spaces, as RoBERTa's, do not take a
        line's first word for the end of the word before.
        """
        return self.ids([f" {line.strip()}" for line in lines])

    def padded(self, sequences: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids (B, longest) int64 of sequences, to which special tokens are added, and the mask of them, 1 = token."""
        rows = [torch.tensor([*self.before, *sequence, *self.after], dtype=torch.int64) for sequence in sequences]
        pad_id = self.transformers.pad_token_id or 0  # padded places are masked: any id does
        ids = pad_sequence(rows, batch_first=True, padding_value=pad_id)
        return ids, pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)


@dataclass(frozen=True)
class Pretrained:
    """A model in float32 and the name its features go by; `untrained` are the parameters its files do not have."""

    model: Any
    name: str
    untrained: frozenset[str]

    @cached_property
    def digest(self) -> str:
        """Digest of the weights that were loaded; of no others, which are random."""
        named = self.model.named_parameters()
        return weights_digest({name: value for name, value in named if name not in self.untrained})


def load_encoder(model_name_or_path: str) -> Pretrained:
    """A model without head; `InputError` when it cannot be loaded, or files lack weights of it."""
    loaded = _load_model(AutoModel, model_name_or_path)
    config = loaded.model.config
    if config.is_encoder_decoder or not all(hasattr(config, name) for name in ("hidden_size", "num_hidden_layers")):
        raise InputError(f"{model_name_or_path}: is a {config.model_type}: give a text encoder, such as roberta-base")
    _check_trained(loaded, model_name_or_path, "", "a text encoder")
    return loaded


def load_masked_lm(model_name_or_path: str) -> Pretrained:
    """A model with a masked-LM head, untrained when the files have none; `InputError` as for `load_encoder`."""
    loaded = _load_model(AutoModelForMaskedLM, model_name_or_path)
    _check_trained(loaded, model_name_or_path, f"{loaded.model.base_model_prefix}.", "a masked-LM model")
    return loaded


def _check_trained(loaded: Pretrained, model_name_or_path: str, encoder: str, what: str) -> None:
    """Refuse files that lack weights of the encoder, whose names begin with `encoder`."""
    of_encoder = (name for name in loaded.untrained if name.startswith(encoder))
    lacking = [name for name in of_encoder if not name.removeprefix(encoder).startswith(UNTRAINED_PART)]
    if lacking:
        raise InputError(f"{model_name_or_path}: has no weights for {min(lacking)}: is it {what}?")


def longest_sequence(model: nn.Module) -> int | None:
    """Tokens that a model has positions for, special ones included; None where it does not say."""
    positions: Any = getattr(model.config, "max_position_embeddings", None)
    if positions is None:
        return None
    # RoBERTa and its kin count positions from the padding id on
    embeddings = getattr(getattr(model, "base_model", model), "embeddings", None)
    offset = getattr(getattr(embeddings, "position_embeddings", None), "padding_idx", None)
    return int(positions) - (0 if offset is None else offset + 1)


def batches_by_length(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Positions of sequences in batches of like length, the longest first, so that a lack of memory shows at once."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def save_model(model: Any, tokenizer: Tokenizer, folder: StrPath, record: dict[str, Any]) -> None:
    """Save model, tokenizer and `record` (as fine_tuning.json) as a new folder or in place of one, or `InputError`."""
    target = Path(folder)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part_folder(target.parent, f".{target.name}.") as part, named_when_full(target), quiet():
            _save_pretrained((model, tokenizer.transformers), part)
            (part / "fine_tuning.json").write_bytes(orjson.dumps(record, option=orjson.OPT_INDENT_2))
            put_in_place(part, target, gives_way=lambda: True)
    except OSError as err:
        raise InputError(f"{target}: cannot be written ({err.strerror or err}): name another folder") from err


def _save_pretrained(parts: Sequence[Any], folder: Path) -> None:
    """Have a model and a tokenizer write their files, or raise an `OSError`."""
    try:
        for part in parts:
            part.save_pretrained(folder)
    except OSError:
        raise
    except Exception as err:  # safetensors and tokenizers have kinds of their own, the latter none but this
        raise OSError(first_line(err)) from err


def _load_model(kind: Any, model_name_or_path: str) -> Pretrained:
    model, info = loaded(kind.from_pretrained, model_name_or_path, "model", output_loading_info=True)
    prefix = f"{model.base_model_prefix}."
    missing = {name.removeprefix(prefix) for name in info["missing_keys"]}
    untrained = {name for name, _ in model.named_parameters() if name.removeprefix(prefix) in missing}
    # files may hold half precision, which newer versions of transformers keep
    return Pretrained(model.float().eval(), short_name(model_name_or_path), frozenset(untrained))
