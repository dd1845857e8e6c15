"""Masked-LM fine-tuning as TVRetrieval did it with HuggingFace's run_lm_finetuning.py: one plain loop.

AdamW, learning rate falling linearly to 0, 15 % of the tokens to be guessed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from transformers import get_linear_schedule_with_warmup

from utils.basic_utils import InputError, progress
from utils.model_utils import named_generator, seed_everything
from utils.text_feature.command_lines.fine_tuning import Settings
from utils.text_feature.pretrained import Tokenizer, batches_by_length

IGNORED = -100  # label of a token that need not be guessed
MASK_SHARE, RANDOM_SHARE = 0.8, 0.1  # of the tokens to be guessed; the rest stay as they are
NOT_DECAYED = ("bias", "LayerNorm.weight", "layer_norm.weight")


def mask_tokens(
    ids: torch.Tensor,
    maskable: torch.Tensor,
    mask_id: int,
    n_tokens: int,
    probability: float,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose the tokens to be guessed: 80 % of them become the mask, 10 % any token, 10 % stay (BERT, section 3.1).

    Args:
        ids: (B, L) int64.
        maskable: (B, L) bool, false for special tokens, the first of each sequence among them, and for padding.
        n_tokens: size of the vocabulary.
        probability: that a maskable token is chosen.
        generator: on the CPU.

    Returns:
        what the model sees, (B, L) int64, and the labels, (B, L) int64: the token where it is to be guessed, else -100.
    """
    chance = torch.rand(ids.shape, generator=generator)
    chosen = maskable & (chance < probability)
    kind = torch.rand(ids.shape, generator=generator)
    anything = torch.randint(n_tokens, ids.shape, generator=generator)
    seen = torch.where(kind < MASK_SHARE, mask_id, torch.where(kind < MASK_SHARE + RANDOM_SHARE, anything, ids))
    return torch.where(chosen, seen, ids), torch.where(chosen, ids, IGNORED)


@dataclass(frozen=True)
class Batch:
    """Sequences ready for the model: ids, attention mask and labels, each (B, L) int64 on the CPU."""

    ids: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor


class Masker:
    """Makes batches of examples, which are lists of token ids without special tokens."""

    def __init__(self, tokenizer: Tokenizer, probability: float) -> None:
        mask_id = tokenizer.transformers.mask_token_id
        if mask_id is None:
            raise InputError("the tokenizer has no mask token: give a masked-LM model, such as roberta-base")
        self._tokenizer, self._probability, self._mask_id = tokenizer, probability, int(mask_id)

    def __call__(self, examples: Sequence[Sequence[int]], generator: torch.Generator) -> Batch:
        ids, mask = self._tokenizer.padded(examples)
        maskable = torch.zeros(ids.shape, dtype=torch.bool)
        first = len(self._tokenizer.before)
        for row, example in enumerate(examples):
            maskable[row, first : first + len(example)] = True
        n_tokens = len(self._tokenizer.transformers)
        seen, labels = mask_tokens(ids, maskable, self._mask_id, n_tokens, self._probability, generator)
        return Batch(seen, mask, labels)


def fine_tune(
    model: Any, tokenizer: Tokenizer, examples: Sequence[Sequence[int]], settings: Settings, device: torch.device
) -> list[float]:
    """Train `model` in place on examples in random order; returns the mean loss of each optimiser step.

    A last group of fewer than `accumulation_steps` batches makes a step as well, of their mean.

    Raises:
        InputError: the settings make no sense, or the loss stops being finite.
    """
    settings.check()
    seed_everything(settings.seed)  # dropout draws from the global generator
    masker = Masker(tokenizer, settings.mlm_probability)
    model.to(device).train()
    n_batches = math.ceil(len(examples) / settings.batch_size)
    n_steps = math.ceil(n_batches / settings.accumulation_steps) * settings.n_epochs
    optimizer = torch.optim.AdamW(_groups(model, settings), lr=settings.learning_rate, eps=settings.adam_epsilon)
    schedule = get_linear_schedule_with_warmup(optimizer, settings.warmup_steps, n_steps)
    losses: list[float] = []
    for group in progress(_step_groups(examples, masker, settings), "fine-tuning, steps", n_steps):
        loss = 0.0
        for batch in group:
            loss_sum, n_labels = _loss_sum(model, batch, device, settings.bf16)
            part = loss_sum / max(n_labels, 1) / len(group)
            part.backward()
            loss += part.item()
        if not math.isfinite(loss):
            raise InputError(f"the loss is {loss} at step {len(losses)}: try a lower --learning_rate")
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss)
    model.eval()
    return losses


@torch.no_grad()  # not inference_mode, in which weights that are moved could not be trained any more
def held_out_loss(
    model: Any, tokenizer: Tokenizer, examples: Sequence[Sequence[int]], settings: Settings, device: torch.device
) -> float:
    """Mean loss over the tokens to be guessed, which are the same ones on each call. Its exp is the perplexity."""
    masker = Masker(tokenizer, settings.mlm_probability)
    generator = named_generator(settings.seed, "held out")
    model.to(device).eval()
    total, count = 0.0, 0
    batches = list(batches_by_length([len(example) for example in examples], settings.batch_size))
    for chosen in progress(batches, "held-out part", len(batches)):
        batch = masker([examples[i] for i in chosen], generator)
        loss_sum, n_labels = _loss_sum(model, batch, device, settings.bf16)
        total += loss_sum.item()
        count += n_labels
    if not count:
        raise InputError("the held-out part is too small: not one of its tokens was chosen to be guessed")
    return total / count


def _step_groups(examples: Sequence[Sequence[int]], masker: Masker, settings: Settings) -> Iterator[list[Batch]]:
    """The batches of each optimiser step, epoch after epoch."""
    for epoch in range(settings.n_epochs):
        order = torch.randperm(len(examples), generator=named_generator(settings.seed, f"order/{epoch}")).tolist()
        generator = named_generator(settings.seed, f"masking/{epoch}")
        size = settings.batch_size
        per_step = size * settings.accumulation_steps
        for start in range(0, len(order), per_step):
            step = [examples[i] for i in order[start : start + per_step]]
            yield [masker(step[at : at + size], generator) for at in range(0, len(step), size)]


def _loss_sum(model: Any, batch: Batch, device: torch.device, bf16: bool) -> tuple[torch.Tensor, int]:
    """Cross entropy summed over the tokens to be guessed, 0 when there are none, and how many these are."""
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        logits = model(input_ids=batch.ids.to(device), attention_mask=batch.mask.to(device)).logits  # (B, L, V)
    labels = batch.labels.to(device)
    loss = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="sum")
    return loss, int((batch.labels != IGNORED).sum())


def _groups(model: Any, settings: Settings) -> list[dict[str, Any]]:
    """Parameters with weight decay, and those without: biases and layer norms."""
    named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    decayed = [value for name, value in named if not name.endswith(NOT_DECAYED)]
    others = [value for name, value in named if name.endswith(NOT_DECAYED)]
    return [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
