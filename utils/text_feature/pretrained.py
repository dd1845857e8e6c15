"""Language models and tokenizers of `transformers`, from a folder or from the hub, into folders that are whole.

No code that comes with a model is ever run, and weights are loaded as tensors, never unpickled.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import torch
import transformers
from torch import nn
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from utils.basic_utils import InputError, first_line, named_when_full, sync
from utils.feature_files.provenance import weights_digest

UNTRAINED_PARTS = ("pooler.",)  # of an encoder; no token feature passes through them


@dataclass(frozen=True)
class SpecialTokens:
    """What a tokenizer puts before and after the tokens of a sentence, as ids."""

    before: tuple[int, ...]
    after: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.before) + len(self.after)

    def around(self, ids: Sequence[int]) -> list[int]:
        """The ids that a model takes for a sentence."""
        return [*self.before, *ids, *self.after]


class Tokenizer:
    """A tokenizer, reduced to what feature tools need.

    Args:
        model_name_or_path: a folder, or a name on the hub.

    Raises:
        InputError: there is no such tokenizer.
    """

    def __init__(self, model_name_or_path: str) -> None:
        self.transformers = _loaded(AutoTokenizer.from_pretrained, model_name_or_path, "tokenizer")
        self.special = self._special_tokens(model_name_or_path)
        self.pad_id: int = self.transformers.pad_token_id or 0  # padded places are masked: any id does

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

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """Tokens as text, as the tokenizer writes them."""
        return list(self.transformers.convert_ids_to_tokens(list(ids)))

    def padded(self, sequences: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids (B, longest) int64 of sequences with special tokens, and the mask of the same shape, 1 = token."""
        length = max(map(len, sequences))
        ids = torch.full((len(sequences), length), self.pad_id, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = torch.tensor(sequence)
            mask[row, : len(sequence)] = 1
        return ids, mask

    def _special_tokens(self, model_name_or_path: str) -> SpecialTokens:
        encoded = self.transformers("a", return_special_tokens_mask=True)
        ids, is_special = encoded["input_ids"], encoded["special_tokens_mask"]
        if 0 not in is_special:
            raise InputError(f"{model_name_or_path}: its tokenizer makes no token of the word 'a': is it whole?")
        first = is_special.index(0)
        last = len(ids) - is_special[::-1].index(0)
        return SpecialTokens(tuple(ids[:first]), tuple(ids[last:]))


@dataclass(frozen=True)
class Pretrained:
    """A model in float32 and the name its features go by; `untrained` are the parameters its files do not have."""

    model: Any
    name: str
    untrained: frozenset[str]

    def digest(self) -> str:
        """Digest of the weights that were loaded; of no others, which are random."""
        return weights_digest(
            {name: value for name, value in self.model.named_parameters() if name not in self.untrained}
        )


def load_encoder(model_name_or_path: str) -> Pretrained:
    """A model without head, in evaluation mode.

    Raises:
        InputError: it cannot be loaded, or files lack weights of the encoder.
    """
    loaded = _load_model(AutoModel, model_name_or_path)
    lacking = [name for name in loaded.untrained if not name.startswith(UNTRAINED_PARTS)]
    config = loaded.model.config
    if config.is_encoder_decoder or not all(hasattr(config, name) for name in ("hidden_size", "num_hidden_layers")):
        raise InputError(f"{model_name_or_path}: is a {config.model_type}: give a text encoder, such as roberta-base")
    if lacking:
        raise InputError(f"{model_name_or_path}: has no weights for {sorted(lacking)[0]}: is it a text encoder?")
    return loaded


def load_masked_lm(model_name_or_path: str) -> Pretrained:
    """A model with a masked-LM head, which is untrained when the files have none.

    Raises:
        InputError: it cannot be loaded, or files lack weights of the encoder.
    """
    loaded = _load_model(AutoModelForMaskedLM, model_name_or_path)
    encoder = f"{loaded.model.base_model_prefix}."
    lacking = [
        name
        for name in loaded.untrained
        if name.startswith(encoder) and not name.removeprefix(encoder).startswith(UNTRAINED_PARTS)
    ]
    if lacking:
        raise InputError(f"{model_name_or_path}: has no weights for {sorted(lacking)[0]}: is it a masked-LM model?")
    return loaded


def longest_sequence(model: nn.Module) -> int | None:
    """Tokens that a model has positions for, special ones included; None where it does not say."""
    config: Any = model.config
    positions = getattr(config, "max_position_embeddings", None)
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


def save_model(model: Any, tokenizer: Tokenizer, folder: str | os.PathLike[str], record: dict[str, Any]) -> None:
    """Save model, tokenizer and `record` (as fine_tuning.json) into a new folder, or replace a whole one.

    Everything is written into a hidden folder beside, which is renamed when it is complete.

    Raises:
        InputError: there is no room, or nothing can be written there.
    """
    target = Path(folder)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    except OSError as err:
        raise InputError(f"{target}: cannot be written ({err.strerror}): name another folder") from err
    try:
        with named_when_full(target), _quiet():
            model.save_pretrained(part)
            tokenizer.transformers.save_pretrained(part)
            (part / "fine_tuning.json").write_bytes(orjson.dumps(record, option=orjson.OPT_INDENT_2))
            for path in part.rglob("*"):
                sync(path)
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(0o777 & ~umask)  # mkdtemp makes private folders; this is an ordinary one
        _put_in_place(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _put_in_place(part: Path, target: Path) -> None:
    """Rename a folder, after moving away what is in its place."""
    before = part.with_suffix(".before")
    if target.exists():
        target.rename(before)  # a kill before the next line leaves the old model whole, under this name
    part.rename(target)
    sync(target.parent)
    shutil.rmtree(before, ignore_errors=True)


def _load_model(kind: Any, model_name_or_path: str) -> Pretrained:
    model, info = _loaded(kind.from_pretrained, model_name_or_path, "model", output_loading_info=True)
    prefix = f"{model.base_model_prefix}."
    missing = {name.removeprefix(prefix) for name in info["missing_keys"]}
    untrained = {name for name, _ in model.named_parameters() if name.removeprefix(prefix) in missing}
    name = Path(model_name_or_path).resolve().name if os.path.isdir(model_name_or_path) else model_name_or_path
    # files may hold half precision, which newer versions of transformers keep
    return Pretrained(model.float().eval(), name, frozenset(untrained))


def _loaded(load: Any, model_name_or_path: str, what: str, **options: Any) -> Any:
    """What `load` makes of a folder or a name on the hub."""
    is_folder = os.path.isdir(model_name_or_path)
    if not is_folder and (Path(model_name_or_path).is_absolute() or model_name_or_path.startswith((".", "~"))):
        raise InputError(f"{model_name_or_path}: no such folder: give the folder of a model, or its name on the hub")
    if is_folder and not (Path(model_name_or_path) / "config.json").is_file():
        raise InputError(f"{model_name_or_path}: has no config.json: give a folder that save_pretrained has written")
    try:
        with _quiet():
            return load(model_name_or_path, trust_remote_code=False, **options)
    except Exception as err:  # whatever transformers raises on a folder that is damaged or holds something else
        remedy = (
            "is it a whole text model? Models that bring code of their own are not run"
            if is_folder
            else "give a folder, or the name of a model that is on the hub and can be reached or was loaded before"
        )
        raise InputError(f"{model_name_or_path}: its {what} cannot be loaded ({first_line(err)}): {remedy}") from err


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the tables that transformers prints of weights a model has more or less; we look at those ourselves."""
    logging = transformers.utils.logging
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
