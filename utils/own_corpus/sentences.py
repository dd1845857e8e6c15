"""Vectors of a dataset's queries and of what is said in its clips, which a search without training compares."""

from __future__ import annotations

from pathlib import Path

from utils.feature_files.feature_file import FeatureFile
from utils.own_corpus.files import check_sentences
from utils.own_corpus.new_dataset import Models, NewDataset
from utils.pretrained.names import PROJECTED
from utils.text_feature.joint.sentence_files import extract_clip_sentences, extract_query_sentences
from utils.text_feature.joint.text_tower import JointTextEncoder


def sentence_encoder(models: Models) -> JointTextEncoder | None:
    """What makes them; None where the text model has none that compare, or only with another model's images."""
    return models.text if isinstance(models.text, JointTextEncoder) and not why_they_do_not_compare(models) else None


def why_they_do_not_compare(models: Models) -> str | None:
    """A note on two models of images and text that are not the same, None where there is nothing to say."""
    image, text = models.image, models.text
    if not isinstance(text, JointTextEncoder) or image.layer != PROJECTED or image.weights == text.joint.digest:
        return None
    both = f"--image_model is {image.name} ({image.weights}), --text_model {text.joint.name} ({text.joint.digest})"
    return f"no sentence vectors are written: vectors of two models do not compare: {both}: give one model to both"


def extract_sentences(dataset: NewDataset) -> None:
    """Write them; what is there already and has not changed stays."""
    encoder, layout = sentence_encoder(dataset.models), dataset.layout
    assert encoder is not None
    with FeatureFile(layout.video) as video:
        n_clips = {name: video.form(name)[0] for name in sorted(dataset.durations)}
    cut_to = f"cut to {encoder.most} tokens, special ones too, in the vectors of sentences"
    cut = extract_clip_sentences(layout.subtitles, n_clips, layout.clip_length, encoder, layout.sub_sentences)
    dataset.note(f"videos with clips whose subtitle lines together were {cut_to}", cut)
    if dataset.queries:
        rows = [{"desc_id": query.desc_id, "desc": query.desc} for query in dataset.queries]
        dataset.note(f"queries {cut_to}", extract_query_sentences(rows, encoder, layout.query_sentences))


def checked_sentences(dataset: NewDataset) -> list[Path]:
    """Their files, none where they are not made; `InputError` when they do not agree with the others."""
    if sentence_encoder(dataset.models) is None:
        return []
    ids = [str(query.desc_id) for split in dataset.splits.values() for query in split.queries]
    return check_sentences(dataset.layout, dataset.n_clips, ids)
