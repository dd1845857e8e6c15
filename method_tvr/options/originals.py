"""Options of the published codes, ReLoCLNet's and TVRetrieval's, that are not options here, and why not."""

from __future__ import annotations

_UNREAD = "is read by nothing, in the published code either: leave it out"
_GLOVE = (
    "words are encoded by a language model alone, and the published code reads no GloVe vectors either: leave it out"
)

REFUSED = {
    "encoder_type": "encoders are transformers here, with either --model: leave it out",
    "add_pe_rnn": "is of recurrent encoders, and encoders are transformers here: leave it out",
    "pe_type": _UNREAD,
    "no_self_att": _UNREAD,
    "cross_att_drop": "is read by nothing, in the published code either: give --drop, which cross attention obeys",
    "span_predictor_type": "spans are predicted by convolutions; cat_linear's do not depend on the query, whose "
    "term is the same for all clips: leave it out",
    "stack_conv_predictor_conv_kernel_sizes": "gives checkpoints that the published code cannot load itself: give "
    "--conv_kernel_size, one for all",
    "use_glove": _GLOVE,
    "word2idx_path": _GLOVE,
    "vocab_size": _GLOVE,
    "glove_path": _GLOVE,
}
