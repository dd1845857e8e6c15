"""Options of the published codes, ReLoCLNet's and TVRetrieval's, that are not options here, and why not."""

from __future__ import annotations

_XML = "is of XML, TVRetrieval's model, which this project does not train: leave it out"
_UNREAD = "is read by nothing, in the published code either: leave it out"
_GLOVE = (
    "words are encoded by a language model alone, and the published code reads no GloVe vectors either: leave it out"
)

REFUSED = {
    "encoder_type": "ReLoCLNet's encoders are transformers, and others are XML's: leave it out",
    "add_pe_rnn": _XML,
    "pe_type": _UNREAD,
    "no_self_att": _UNREAD,
    "cross_att_drop": "is read by nothing, in the published code either: give --drop, which cross attention obeys",
    "no_cross_att": f"{_XML}; for one modality give --ctx_mode",
    "no_merge_two_stream": f"{_XML}; for one modality give --ctx_mode",
    "no_modular": _XML,
    "span_predictor_type": "spans are predicted by convolutions, and by other layers in XML alone: leave it out",
    "stack_conv_predictor_conv_kernel_sizes": "is of XML: give --conv_kernel_size, one for all",
    "external_inference_vr_res_path": "videos are found by the model itself, and by others in XML alone: leave it out",
    "use_glove": _GLOVE,
    "word2idx_path": _GLOVE,
    "vocab_size": _GLOVE,
    "glove_path": _GLOVE,
}
