"""The text model that made the query features a model was trained on, found again so that new sentences can be asked.

Which one it was, a file says, and files come from anywhere: a language model named by one is only loaded once the user
has typed its name or said yes to it, or where it made a corpus of the user's own and is on this machine. The word
table of the mini corpus is code of this project, and needs no leave.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from method_tvr.ask.extraction_record import record_path, recorded
from method_tvr.inputs import Inputs
from method_tvr.options.saved import find_path
from method_tvr.trained.trained_model import TrainedModel
from utils.asking_user import agreed
from utils.basic_utils import InputError
from utils.feature_files.feature_file import FeatureFile
from utils.feature_files.provenance import contradictions, properties
from utils.mini_corpus import files as mini_files
from utils.mini_corpus.joint_space import JointSpace
from utils.mini_corpus.word_vectors import WordVectors, tokenise
from utils.pretrained.names import PROJECTED
from utils.storage.own_folder import others_hand

if TYPE_CHECKING:
    from utils.text_feature.text_encoder import TokenEncoder

COMPARED = ("weights", "layer")  # what has to be that of the record; a model may go by another name
LAYER = re.compile(r"-?\d{1,3}")


@dataclass(frozen=True)
class TextModel:
    """What encodes sentences."""

    name: str  # what it is called
    size: int  # of a token's features
    max_tokens: int  # a sentence's tokens after these are cut
    encode: Callable[[Sequence[str]], list[np.ndarray]]  # (n_tokens, size) float32 for each sentence
    n_tokens: Callable[[Sequence[str]], list[int]]  # of each sentence, before any are cut


def mini_text_model(seed: int, size: int, joint: bool = False) -> TextModel:
    """The word table that made the mini corpus of a seed, with tokens of that size or with sentences as one vector."""
    encode = JointSpace(seed).sentence if joint else WordVectors(seed, size).encode
    return TextModel(
        name=f"the mini corpus' word table, seed {seed}",
        size=size,
        max_tokens=sys.maxsize,
        encode=lambda sentences: [encode(sentence) for sentence in sentences],
        n_tokens=lambda sentences: [len(tokenise(sentence)) for sentence in sentences],
    )


def open_text_model(trained: TrainedModel, name: str | None) -> TextModel:
    """The text model that encodes sentences as the queries were that a model was trained on.

    `name` is what `--text_model` says. Where the checkpoint has no record, those of the feature files are looked at.

    Raises:
        InputError: nothing says which it is, the user has not agreed to it, it cannot be loaded, or it is another.
    """
    size, queries = trained.checkpoint.config.query_input_size, trained.inputs.desc_bert_path
    record = trained.checkpoint.features.get("query") or properties(_said_by(queries))
    if trained.checkpoint.config.compares_sentences:  # there may be no queries: it is the model of the pictures
        record = record or trained.checkpoint.features.get("video", {})
    if name is None:
        seed = None if "model" in record else _mini_seed(trained.inputs)
        if seed is not None:
            return mini_text_model(seed, size, _said_by(queries).get("vectors") == mini_files.JOINT)
        unknown = f"neither the model in {trained.model_dir} nor {queries} says which one it was"
        durations = trained.inputs.video_duration_idx_path
        suggested = _with_folder(record.get("model"), durations)
        name = suggested if _is_of_own_corpus(suggested, durations) else _agreed_name(suggested, unknown)
    if trained.checkpoint.config.compares_sentences and record.get("layer") == PROJECTED:
        return _sentence_model(name, record, trained.device)
    encoder = _load(name, record, trained.device)
    if encoder.size != size:
        raise InputError(
            f"--text_model {name}: its tokens have {encoder.size} features, but the model in {trained.model_dir} was "
            f"trained on {size}: give the text model that made those"
        )
    ids = encoder.tokenizer.ids
    return TextModel(name, size, encoder.max_tokens, encoder.encode, lambda sentences: list(map(len, ids(sentences))))


def _sentence_model(name: str, record: Mapping[str, Any], device: torch.device) -> TextModel:
    """The model of images and text whose vectors of sentences are compared with those of pictures."""
    from utils.text_feature.joint.text_tower import open_sentence_encoder

    encoder = open_sentence_encoder(name, record, device)
    ids = encoder.tokenizer.ids

    def encode(sentences: Sequence[str]) -> list[np.ndarray]:
        return [rows if rows.any() else rows[:0] for rows in encoder.sentences(sentences)]

    longest = encoder.most - encoder.tokenizer.n_special
    size = encoder.sentence_size
    return TextModel(name, size, longest, encode, lambda sentences: list(map(len, ids(sentences))))


def _said_by(path: str) -> dict[str, Any]:
    """The attributes of a feature file, if it is there."""
    place = find_path(path)
    if not place.is_file():
        return {}
    with FeatureFile(place) as file:
        return file.made_by()


def _mini_seed(inputs: Inputs) -> int | None:
    """The seed of the mini corpus, when the first feature file that is there was generated with it."""
    paths = (inputs.desc_bert_path, inputs.sub_bert_path, inputs.vid_feat_path)
    said = next((_said_by(path) for path in paths if path and find_path(path).is_file()), {})
    seed = said.get("seed")
    generated = said.get("made_by") == mini_files.MADE_BY and isinstance(seed, int | np.integer)
    return int(seed) if generated and seed is not None and seed >= 0 else None


def _with_folder(model: Any, video_duration_idx_path: str) -> Any:
    """A model on record, as the folder that it was in when the corpus was extracted, where that is on record too.

    Features record a folder's own name alone, which is that of many.
    """
    folder = recorded(video_duration_idx_path, "text_model")
    if folder is None or model not in (Path(folder).name, find_path(folder).resolve().name):
        return model
    return folder if Path(folder).is_absolute() or find_path(folder).is_dir() else model


def _is_of_own_corpus(model: Any, video_duration_idx_path: str) -> bool:
    """Whether a corpus of the user's own was extracted with a model that is on this machine, which is said if so.

    The corpus is the user's own if nobody else can write its folder and record. On this machine are a folder on record
    by its whole path, which nobody knows who sends a corpus, and models of the hub that were loaded here before.
    """
    record = record_path(video_duration_idx_path)
    if record is None or not isinstance(model, str) or recorded(video_duration_idx_path, "text_model") != model:
        return False
    if not (Path(model).is_dir() if Path(model).is_absolute() else _was_loaded(model)):
        return False
    why_not = others_hand([record, record.parent])
    said = f"sentences are encoded by {model}, which made this corpus by {record}: --text_model names another"
    if why_not is not None:
        said = f"{record}: it or its folder {why_not}, so that {model} is not loaded unasked"
    print(f"note: {said}", file=sys.stderr)
    return why_not is None


def _was_loaded(name: str) -> bool:
    """Whether a model of the hub lies in the user's cache."""
    from huggingface_hub import try_to_load_from_cache  # as heavy as transformers
    from huggingface_hub.utils import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except HFValidationError:  # a relative folder, for one
        return False


def _agreed_name(suggested: Any, unknown: str) -> str:
    """The name on record, once the user has said yes to it; `unknown` says that there is none."""
    missing = "sentences are encoded by the text model that made the query features"
    if not isinstance(suggested, str):
        raise InputError(f"{missing}, and {unknown}: name it with --text_model")
    yes = agreed(
        f"The query features were made by {suggested}, according to the files.",
        f"Load {suggested} to encode the sentences? [y/N] ",
    )
    if yes is None:
        raise InputError(
            f"{missing}, {suggested} according to the files: give --text_model {shlex.quote(suggested)} if you trust "
            "it, or the folder that it is in"
        )
    if not yes:
        raise InputError("no text model was agreed to: name one with --text_model")
    return suggested


def _load(name: str, record: Mapping[str, Any], device: torch.device) -> TokenEncoder:
    """Load a language model as the features were made with it, and make sure that it is the one on record."""
    try:  # here, because transformers takes seconds to import, and few need it
        from utils.text_feature.joint.open_encoder import open_text_encoder
    except ImportError as err:
        raise InputError(f"--text_model {name}: {err}: pip install -r requirements.txt -c constraints.txt") from err
    layer, max_length = str(record.get("layer", "")), record.get("max_length")
    known: dict[str, Any] = {"layer": int(layer)} if LAYER.fullmatch(layer) else {}
    if type(max_length) is int:
        known["max_length"] = max_length
    encoder = open_text_encoder(name, device=device, **known)
    compared = {key: record[key] for key in COMPARED if key in record}
    for key, here, there in contradictions(encoder.properties(), compared):
        raise InputError(
            f"--text_model {name}: is not what made the query features: {key} {here} (theirs: {there}): give the text "
            "model that made them"
        )
    if "weights" not in compared:
        print(
            f"note: no record of the weights that made the query features: whether it was {name} cannot be told",
            file=sys.stderr,
        )
    return encoder
