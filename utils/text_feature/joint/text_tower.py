"""Sentences and subtitle lines -> token features, and vectors of whole sentences, of a model of images and text."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad

from utils.basic_utils import InputError
from utils.feature_files.provenance import contradictions
from utils.pretrained.joint_model import CLIP, JointModel, load_joint_model
from utils.pretrained.names import PROJECTED
from utils.text_feature.joint.neutral import NEUTRAL_SENTENCES
from utils.text_feature.pretrained import Tokenizer, batches_by_length
from utils.text_feature.text_encoder import TokenEncoder

LAYER = "last_hidden_state"  # of tokens


class JointTextEncoder(TokenEncoder):
    """Encodes text with the text tower of CLIP, SigLIP or SigLIP 2.

    Args:
        joint: the model; its image tower is let go.
        max_length: tokens of a sequence with special ones, at most as many as the model has positions for. Sentences
            are cut to these positions, whatever is given.
        bf16: compute in bfloat16 where that is safe (torch.autocast); the features stay float32, with its rounding.
    """

    def __init__(
        self,
        joint: JointModel,
        max_length: int = 32,
        device: torch.device | str = "cpu",
        batch_size: int = 64,
        bf16: bool = False,
    ) -> None:
        self.joint, self._model = joint, joint.model
        self._model.vision_model = None
        self._model.to(device)
        config = self._model.config.text_config
        self.most: int = config.max_position_embeddings  # tokens of a sequence, with special ones
        tokenizer = Tokenizer(joint.source.place, **joint.source.options)
        super().__init__(tokenizer, joint.name, config.hidden_size, self.most, max_length, device, batch_size, bf16)

    def _cut_to(self, max_length: int) -> None:
        super()._cut_to(min(max_length, self.most))

    def sentences(self, texts: Sequence[str]) -> np.ndarray:
        """(n, 2, D) float32, unit vectors of sentences, zeros of blank ones.

        Row 0 is the projected vector, which is compared with images. Row 1 is that less the mean of
        `NEUTRAL_SENTENCES`, which is compared with other text.
        """
        vectors = self._projected(texts)
        spoken = vectors.any(axis=1, keepdims=True)
        return np.stack([vectors, _unit((vectors - self._neutral) * spoken)], axis=1)

    def longer(self, texts: Sequence[str]) -> list[bool]:
        """Which texts have more tokens than `sentences` takes in, and lose their ends."""
        most = self.most - self.tokenizer.n_special
        return [len(ids) > most for ids in self.tokenizer.ids(texts)]

    def properties(self) -> dict[str, Any]:
        return {**self.joint.record(self.bf16), "layer": LAYER, "max_length": self.max_length}

    def sentence_properties(self) -> dict[str, Any]:
        """What decides the vectors of `sentences`."""
        return {**self.joint.record(self.bf16), "layer": PROJECTED, "max_length": self.most, "normalised": "L2"}

    @cached_property
    def _neutral(self) -> np.ndarray:
        """(D,) mean vector of sentences that say nothing."""
        return self._projected(NEUTRAL_SENTENCES).mean(axis=0)

    def _projected(self, texts: Sequence[str]) -> np.ndarray:
        """(n, D) float32 projected vectors of length 1, zeros of blank texts."""
        most = self.most - self.tokenizer.n_special
        ids = [found[:most] for found in self.tokenizer.ids(texts)]
        spoken = [i for i, found in enumerate(ids) if found]
        vectors: dict[int, np.ndarray] = {}
        for batch in batches_by_length([len(ids[i]) for i in spoken], self.batch_size):
            chosen = [spoken[i] for i in batch]
            vectors |= zip(chosen, self._run([ids[i] for i in chosen])[1], strict=True)
        nothing = np.zeros(self.sentence_size, np.float32)
        return _unit(np.stack([vectors.get(i, nothing) for i in range(len(ids))])) if ids else nothing[None][:0]

    @property
    def sentence_size(self) -> int:
        """Numbers of a sentence's vectors."""
        config = self._model.config
        return int(config.projection_dim if self._is_clip else config.text_config.projection_size)

    @property
    def _is_clip(self) -> bool:
        return self.joint.source.model_type == CLIP

    def _encode_batch(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        hidden, first = self._run(sequences)[0], len(self.tokenizer.before)
        return [hidden[row, first : first + len(ids)].copy() for row, ids in enumerate(sequences)]

    @torch.inference_mode()
    def _run(self, sequences: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        """Features (B, L, size) of tokens, special ones too, and (B, D) of the sentences.

        SigLIP has always seen sequences filled up to one length, and no mask of what fills them.
        """
        ids, mask = self.tokenizer.padded(sequences)
        if self._is_clip:
            given = {"input_ids": ids.to(self.device), "attention_mask": mask.to(self.device)}
        else:
            fill = self.tokenizer.transformers.pad_token_id or 0
            given = {"input_ids": pad(ids, (0, self.most - ids.shape[1]), value=fill).to(self.device)}
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            out = self._model.text_model(**given)
            projected = self._model.text_projection(out.pooler_output) if self._is_clip else out.pooler_output
        return out.last_hidden_state.float().cpu().numpy(), projected.float().cpu().numpy()


def open_sentence_encoder(
    name: str, record: Mapping[str, Any], device: torch.device | str = "cpu", batch_size: int = 64
) -> JointTextEncoder:
    """The encoder whose `sentences` go with features that have `record`, those of a file of sentences or of images.

    Raises:
        InputError: it cannot be loaded, or is not the model that made them.
    """
    encoder = JointTextEncoder(load_joint_model(name), device=device, batch_size=batch_size)
    theirs = {"weights": record["weights"]} if "weights" in record else {}
    if not theirs:
        print(f"note: the features do not say what made them: whether it was {name} cannot be told", file=sys.stderr)
    for _, here, there in contradictions(encoder.sentence_properties(), theirs):
        raise InputError(
            f"{name}: is not the model that made the features (weights {here}, theirs {there}): vectors of two models "
            "do not compare: give the one that made them"
        )
    return encoder


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Rows (n, D) of length 1; what is zero stays."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
