"""Sentences and subtitle lines -> token features of a language model's hidden layer."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch

from utils.basic_utils import InputError
from utils.text_feature.pretrained import Tokenizer, batches_by_length, load_encoder, longest_sequence

DEFAULT_LAYER = -2  # as in TVRetrieval

Encoder = TypeVar("Encoder", bound="TokenEncoder")


class TokenEncoder(ABC):
    """Turns sentences into features of their tokens, whatever the model.

    Args:
        name: of the model, for messages.
        size: of a token's features.
        longest: tokens of a sequence, with special ones, that the model takes; None for any number.
        max_length: of a sequence with special tokens; longer ones are cut.
        bf16: compute in bfloat16 where that is safe (torch.autocast); the features stay float32, with its rounding.

    Raises:
        InputError: the model has no positions for `max_length` tokens, or a number makes no sense.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        name: str,
        size: int,
        longest: int | None,
        max_length: int,
        device: torch.device | str,
        batch_size: int,
        bf16: bool,
    ) -> None:
        self.tokenizer, self.name, self.size, self.longest = tokenizer, name, size, longest
        self.device, self.batch_size, self.bf16 = torch.device(device), batch_size, bf16
        self._cut_to(max_length)
        if batch_size < 1:
            raise InputError(f"--batch_size {batch_size}: expected at least 1")

    def _cut_to(self, max_length: int) -> None:
        self.max_length = max_length
        self.max_tokens = max_length - self.tokenizer.n_special  # without special ones
        if self.max_tokens < 1 or (self.longest is not None and max_length > self.longest):
            lengths = f"{self.tokenizer.n_special + 1} to {self.longest or 'any number of'} tokens"
            raise InputError(f"--max_length {max_length}: {self.name} takes {lengths}")

    def cut_to(self: Encoder, max_length: int) -> Encoder:
        """An encoder with the same model, for sequences of another length."""
        other = copy.copy(self)
        other._cut_to(max_length)
        return other

    def encode(self, sentences: Sequence[str]) -> list[np.ndarray]:
        """Token features (n_tokens, size) float32 of each sentence, in the order given, special tokens removed.

        What is longer than `max_tokens` is cut, a blank sentence has no tokens. The features are the same however
        sentences are batched (up to 1e-5).
        """
        return self.encode_ids([ids[: self.max_tokens] for ids in self.tokenizer.ids(sentences)])

    def encode_ids(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Token features of sequences of token ids without special tokens, at most `max_tokens` each: see `encode`."""
        features = [np.zeros((0, self.size), np.float32) for _ in sequences]
        positions = [i for i, ids in enumerate(sequences) if len(ids)]
        for batch in batches_by_length([len(sequences[i]) for i in positions], self.batch_size):
            chosen = [positions[i] for i in batch]
            for i, array in zip(chosen, self._encode_batch([sequences[i] for i in chosen]), strict=True):
                features[i] = array
        return features

    @abstractmethod
    def _encode_batch(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Token features (n_tokens, size) float32 of one batch of sequences, none of which is empty."""

    @abstractmethod
    def properties(self) -> dict[str, Any]:
        """What decides the features, see `provenance`: model, weights, layer, max_length; and the precision."""


class TextEncoder(TokenEncoder):
    """Encodes text with a hidden layer of any text encoder of `transformers`.

    Args:
        model_name_or_path: a folder that `save_pretrained` has written, or a name on the hub. No code of it is run.
        layer: which hidden layer, -1 the last, -2 the one before, as in TVRetrieval; 0 the embeddings.
        max_length, bf16: see `TokenEncoder`.

    Raises:
        InputError: the model cannot be loaded, has no such layer, or no positions for `max_length` tokens.
    """

    def __init__(
        self,
        model_name_or_path: str,
        layer: int = DEFAULT_LAYER,
        max_length: int = 32,
        device: torch.device | str = "cpu",
        batch_size: int = 64,
        bf16: bool = False,
    ) -> None:
        tokenizer = Tokenizer(model_name_or_path)
        self._pretrained = load_encoder(model_name_or_path)
        self._model, self.layer = self._pretrained.model.to(device), layer
        n_layers = self._model.config.num_hidden_layers
        if not -n_layers - 1 <= layer <= n_layers:
            raise InputError(
                f"--layer {layer}: {model_name_or_path} has {n_layers}: give {-n_layers - 1} to {n_layers}"
            )
        size, longest = self._model.config.hidden_size, longest_sequence(self._model)
        super().__init__(tokenizer, model_name_or_path, size, longest, max_length, device, batch_size, bf16)

    @torch.inference_mode()
    def _encode_batch(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        ids, mask = self.tokenizer.padded(sequences)  # (B, longest)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            out = self._model(
                input_ids=ids.to(self.device), attention_mask=mask.to(self.device), output_hidden_states=True
            )
        hidden = out.hidden_states[self.layer].float().cpu().numpy()  # (B, longest, size)
        first = len(self.tokenizer.before)
        return [hidden[row, first : first + len(ids)].copy() for row, ids in enumerate(sequences)]

    def properties(self) -> dict[str, Any]:
        return {
            "model": self._pretrained.name,
            "weights": self._pretrained.digest,
            "layer": str(self.layer),
            "max_length": self.max_length,
            "precision": "bfloat16" if self.bf16 else "float32",
        }
