"""Tiny models of images and text in one space, drawn at random, saved as the hub would hold them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from tests.support.text_models import sentences

# SigLIP 2 is younger than the oldest transformers that is taken
KINDS = ("clip", "siglip", *(["siglip2"] if hasattr(transformers, "Siglip2Model") else []))
SIZE = 32  # of a token
PROJECTED = {"clip": 24, "siglip": 32, "siglip2": 32}  # of a picture, or of a sentence
LONGEST = 16  # tokens with special ones
SIDE, PATCH, MOST_PATCHES = 32, 8, 16  # of pictures; siglip2 takes any shape of at most so many patches
_START, _END = "<|startoftext|>", "<|endoftext|>"
_TOWER = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "hidden_size": SIZE}
_MEAN, _STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]  # of CLIP


def tiny_joint_model(folder: Path, kind: str, seed: int = 0) -> Path:
    """Save a model of `KINDS` with its tokenizer and how pictures are prepared; another seed draws other weights.

    CLIP's tokenizer is a CLIPTokenizer. That of SigLIP is a PreTrainedTokenizerFast, because SiglipTokenizer needs
    sentencepiece. That of SigLIP 2 is saved as one too, and transformers from 5 on reads it as its Siglip2Tokenizer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    n_tokens, special = _save_clip_tokenizer(folder) if kind == "clip" else _save_siglip_tokenizer(folder, kind)
    (folder / "preprocessor_config.json").write_text(json.dumps(_preparation(kind)))
    text = {**_TOWER, "vocab_size": n_tokens, "max_position_embeddings": LONGEST, **special}
    vision: dict[str, Any] = {**_TOWER, "patch_size": PATCH}
    vision |= {"num_patches": MOST_PATCHES} if kind == "siglip2" else {"image_size": SIDE}
    name = {"clip": "CLIP", "siglip": "Siglip", "siglip2": "Siglip2"}[kind]
    more = {"projection_dim": PROJECTED[kind]} if kind == "clip" else {}
    config = getattr(transformers, f"{name}Config")(text_config=text, vision_config=vision, **more)
    torch.manual_seed(seed)
    model = getattr(transformers, f"{name}Model")(config).eval()
    for weight in model.parameters():
        if weight.dim() >= 2:
            torch.nn.init.normal_(weight, std=0.2)  # initial features of different words would hardly differ
    model.save_pretrained(folder)
    return folder


def _save_clip_tokenizer(folder: Path) -> tuple[int, dict[str, int]]:
    tokenizer = Tokenizer(models.BPE(unk_token=_END, end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, end_of_word_suffix="</w>")
    tokenizer.train_from_iterator(sentences(24), trainer)
    tokens = json.loads(tokenizer.to_str())["model"]
    for letter in alphabet:  # each also at the end of a word, or it would be unknown there
        tokens["vocab"].setdefault(f"{letter}</w>", len(tokens["vocab"]))
    vocab = {**tokens["vocab"], _START: len(tokens["vocab"]), _END: len(tokens["vocab"]) + 1}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokens["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    about = {"tokenizer_class": "CLIPTokenizer", "model_max_length": LONGEST, "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    return len(vocab), {"bos_token_id": vocab[_START], "eos_token_id": vocab[_END], "pad_token_id": vocab[_END]}


def _save_siglip_tokenizer(folder: Path, kind: str) -> tuple[int, dict[str, int]]:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=kind == "siglip2"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    end = "<eos>" if kind == "siglip2" else "</s>"
    special = ["<pad>", end, "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    letters = [chr(code) for code in range(33, 127)]
    trainer = trainers.BpeTrainer(vocab_size=390, special_tokens=special, initial_alphabet=letters)
    tokenizer.train_from_iterator(sentences(24), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {end}", special_tokens=[(end, 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token=end,
        bos_token="<bos>",
        unk_token="<unk>",
        padding_side="right",
        model_max_length=LONGEST,
        model_input_names=["input_ids"],  # as those on the hub: padded places are seen, as in training
    )
    fast.save_pretrained(folder)
    return len(fast), {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}


def _preparation(kind: str) -> dict[str, Any]:
    """What `preprocessor_config.json` holds."""
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_normalize": True}
    common = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255}
    if kind == "siglip2":
        sizes = {"patch_size": PATCH, "max_num_patches": MOST_PATCHES}
        return {**common, **half, **sizes, "resample": 2, "image_processor_type": "Siglip2ImageProcessor"}
    if kind == "siglip":
        size = {"height": SIDE, "width": SIDE}
        return {**common, **half, "size": size, "resample": 3, "image_processor_type": "SiglipImageProcessor"}
    crop = {"do_center_crop": True, "crop_size": {"height": SIDE, "width": SIDE}, "size": {"shortest_edge": SIDE}}
    norm = {"image_mean": _MEAN, "image_std": _STD, "do_normalize": True, "do_convert_rgb": True}
    return {**common, **norm, **crop, "resample": 3, "image_processor_type": "CLIPImageProcessor"}
