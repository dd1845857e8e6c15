"""Words and numbers that options take, wherever they are asked about."""

from __future__ import annotations

TASKS = ("VCMR", "SVMR", "VR")
CTX_MODES = ("video_sub_tef", "video_sub", "video_tef", "video", "sub_tef", "sub")  # parts may come in any order
SPAN_INITS = ("drawn", "impulse", "edge")  # what kernels of start and end predictors begin as
OFF = -1  # value that switches an epoch, count or threshold off
SHOWN_NMS_THD = 0.5  # IoU above which of two moments of a video people are shown the better alone
NUMBERED = [0]  # --device_ids that name no device in particular: several processes take them in order
EXACT, CERTIFIED, FAISS, MILVUS = INDEXES = ("exact", "certified", "faiss", "milvus")
FAISS_KINDS = ("flat", "ivf", "ivfsq", "ivfpq")
MILVUS_KINDS = ("ivf", "ivfsq", "hnsw", "diskann")
KINDS = {FAISS: FAISS_KINDS, MILVUS: MILVUS_KINDS}  # of an index
INDEX_KINDS = tuple(dict.fromkeys(FAISS_KINDS + MILVUS_KINDS))
USUAL_KIND = {FAISS: "ivfsq", MILVUS: "ivf"}
PROVING_KINDS = ("flat", "ivf", "ivfsq")  # of faiss: they know what clips that they do not name are not above
