"""all-MiniLM-L6-v2 as an ONNX graph with int8 matrix products, written down node by node from its weights.

An exporter traces the model in torch: 24 s and 0.9 GB here, against about 2 s and no torch for this. Writing the graph
also decides what is quantised and how (docs/adr/0003-encoder.md has the measurements):

* every linear layer is ``DynamicQuantizeMatMul``: weights int8 with one scale per output, activations uint8 at run time;
* its input rows are divided by their largest value first and its output rows multiplied by it, so that a row keeps its
  precision whatever stands beside it in the batch (mean cosine to float32 0.998 instead of 0.994);
* attention and layer norm are plain operators: the fused contrib kernels took twice and nine times as long;
* mean pooling and L2 normalisation are in the graph, of the last layer and of the third: what is said, and how it is worded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_CONTRIB = "com.microsoft"
_OPSET = 17
_IR_VERSION = 8
_EARLY_LAYER = 2
"""Whose output is pooled beside the last one's: half-way up, wording has not yet given way to meaning. Of six layers the third and
the fourth told experts apart best."""


class _Graph:
    """Nodes and constants of one graph, in the order in which they are added."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, value: Array) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, op: str, inputs: list[str], output: str | list[str], *, domain: str = "", **attributes: Any) -> str:
        """Append one node and name its first output."""
        from onnx import helper

        outputs = [output] if isinstance(output, str) else output
        self.nodes.append(helper.make_node(op, inputs, outputs, domain=domain, **attributes))
        return outputs[0]


class MiniLMGraph:
    """Builds the graph from a BERT folder (``config.json``, ``model.safetensors``).

    *weight_range* is the largest integer weight: 127, or 63 for processors whose 8-bit products saturate (AVX2 without
    VNNI). None leaves everything in float32, which is what the quantised graph is checked against.
    """

    def __init__(self, folder: Path, *, weight_range: int | None = 127) -> None:
        from safetensors.numpy import load_file

        config = json.loads((folder / "config.json").read_text())
        if config.get("model_type") != "bert" or config.get("hidden_act") != "gelu":
            raise ValueError(f"{folder} is no BERT model with GELU: this graph cannot be built from it")
        self._weights: Mapping[str, Array] = load_file(folder / "model.safetensors")
        self._num_layers: int = config["num_hidden_layers"]
        self._num_heads: int = config["num_attention_heads"]
        self._hidden: int = config["hidden_size"]
        self._epsilon: float = config["layer_norm_eps"]
        self._range = weight_range
        self._graph = _Graph()

    def build(self, metadata: Mapping[str, str]) -> bytes:
        """The serialised model: int64 ``input_ids`` and ``attention_mask`` (batch, tokens) → float32 ``vector`` and ``early``
        (batch, hidden).

        The same weights and metadata give the same bytes.
        """
        from onnx import TensorProto, helper

        hidden = self._embed()
        self._mask()
        early = hidden
        for layer in range(self._num_layers):
            hidden = self._layer(layer, hidden)
            if layer == _EARLY_LAYER:
                early = hidden
        self._pool(hidden, "vector")
        self._pool(early, "early")
        inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in ("input_ids", "attention_mask")]
        outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", self._hidden]) for name in ("vector", "early")]
        graph = helper.make_graph(self._graph.nodes, "minilm", inputs, outputs, self._graph.constants)
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_CONTRIB, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
        helper.set_model_props(model, dict(metadata))
        serialised: bytes = model.SerializeToString()
        return serialised

    # --- parts ------------------------------------------------------------------------------------------------------

    def _embed(self) -> str:
        """Word (int8, one scale per word), position and type embeddings, normalised."""
        from onnx import TensorProto

        g, words = self._graph, self._weights["embeddings.word_embeddings.weight"]
        if self._range is None:
            x = g.add("Gather", [g.constant("words", words), "input_ids"], "words.float")
        else:
            scale = np.maximum(np.abs(words).max(axis=1, keepdims=True), 1e-12) / 127
            g.constant("words", np.rint(words / scale).astype(np.int8))
            g.constant("words.scale", scale.astype(np.float32))
            g.add("Gather", ["words", "input_ids"], "words.rows")
            g.add("Cast", ["words.rows"], "words.cast", to=TensorProto.FLOAT)
            g.add("Gather", ["words.scale", "input_ids"], "words.row_scale")
            x = g.add("Mul", ["words.cast", "words.row_scale"], "words.float")
        # Every token is of type 0, so that its type embedding can be part of the positions.
        positions = self._weights["embeddings.position_embeddings.weight"] + self._weights["embeddings.token_type_embeddings.weight"][0]
        g.add("Shape", ["input_ids"], "num_tokens", start=1, end=2)
        start = g.constant("zero", np.array([0], np.int64))
        g.constant("one", np.array([1], np.int64))
        place = g.add("Slice", [g.constant("positions", positions), start, "num_tokens", start], "positions.used")
        x = g.add("Add", [x, place], "embeddings")
        return self._norm(x, "embeddings.LayerNorm", "embeddings.norm")

    def _mask(self) -> None:
        """What is added to attention scores: 0 for tokens, a large negative number for padding; (batch, 1, 1, tokens)."""
        from onnx import TensorProto

        g = self._graph
        g.add("Cast", ["attention_mask"], "mask", to=TensorProto.FLOAT)
        g.add("Sub", ["mask", g.constant("mask.one", np.array(1, np.float32))], "mask.minus")
        g.add("Mul", ["mask.minus", g.constant("mask.large", np.array(1e4, np.float32))], "mask.bias")
        g.add("Unsqueeze", ["mask.bias", g.constant("mask.axes", np.array([1, 2], np.int64))], "mask.scores")

    def _layer(self, layer: int, x: str) -> str:
        g, source, to = self._graph, f"encoder.layer.{layer}", f"layer{layer}"
        attended = self._attention(layer, x)
        out = self._linear(attended, *self._dense(f"{source}.attention.output.dense"), name=f"{to}.projection")
        x = self._norm(g.add("Add", [out, x], f"{to}.residual"), f"{source}.attention.output.LayerNorm", f"{to}.norm")
        weight, bias = self._dense(f"{source}.intermediate.dense")
        wide = self._linear(x, weight, None, name=f"{to}.wide")
        active = g.add("BiasGelu", [wide, g.constant(f"{to}.wide.bias", bias)], f"{to}.gelu", domain=_CONTRIB)
        out = self._linear(active, *self._dense(f"{source}.output.dense"), name=f"{to}.narrow")
        return self._norm(g.add("Add", [out, x], f"{to}.residual2"), f"{source}.output.LayerNorm", f"{to}.norm2")

    def _attention(self, layer: int, x: str) -> str:
        g, to, size = self._graph, f"layer{layer}.attention", self._hidden // self._num_heads
        parts = [self._dense(f"encoder.layer.{layer}.attention.self.{part}") for part in ("query", "key", "value")]
        weight, bias = (np.concatenate([part[i] for part in parts], axis=-1) for i in (0, 1))
        y = self._linear(x, weight, bias, name=f"{to}.qkv")
        g.add("Reshape", [y, g.constant(f"{to}.heads", np.array([0, 0, 3, self._num_heads, size], np.int64))], f"{to}.split")
        g.add("Transpose", [f"{to}.split"], f"{to}.by_part", perm=[2, 0, 3, 1, 4])
        names = [f"{to}.{part}" for part in ("query", "key", "value")]
        g.add("Split", [f"{to}.by_part"], [f"{name}.1" for name in names], axis=0)
        for name in names:
            g.add("Squeeze", [f"{name}.1", "zero"], name)
        g.add("FusedMatMul", names[:2], f"{to}.scores", domain=_CONTRIB, transB=1, alpha=size**-0.5)
        g.add("Add", [f"{to}.scores", "mask.scores"], f"{to}.masked")
        g.add("Softmax", [f"{to}.masked"], f"{to}.shares", axis=-1)
        g.add("MatMul", [f"{to}.shares", names[2]], f"{to}.mixed")
        g.add("Transpose", [f"{to}.mixed"], f"{to}.by_token", perm=[0, 2, 1, 3])
        return g.add("Reshape", [f"{to}.by_token", g.constant(f"{to}.flat", np.array([0, 0, self._hidden], np.int64))], to)

    def _pool(self, x: str, name: str) -> None:
        """Mean over the tokens that are not padding; the length normalisation makes dividing by their number needless."""
        g = self._graph
        g.add("Unsqueeze", ["mask", "one"], f"{name}.mask")
        g.add("MatMul", [f"{name}.mask", x], f"{name}.sum")
        g.add("Squeeze", [f"{name}.sum", "one"], f"{name}.flat")
        g.add("LpNormalization", [f"{name}.flat"], name, axis=1, p=2)

    # --- layers -----------------------------------------------------------------------------------------------------

    def _dense(self, name: str) -> tuple[Array, Array]:
        """Weight (in, out) and bias of a linear layer."""
        return self._weights[f"{name}.weight"].T, self._weights[f"{name}.bias"]

    def _norm(self, x: str, source: str, name: str) -> str:
        g = self._graph
        gain = g.constant(f"{name}.gain", self._weights[f"{source}.weight"])
        shift = g.constant(f"{name}.shift", self._weights[f"{source}.bias"])
        return g.add("LayerNormalization", [x, gain, shift], name, epsilon=self._epsilon)

    def _linear(self, x: str, weight: Array, bias: Array | None, *, name: str) -> str:
        g, product = self._graph, f"{name}.product" if bias is not None else name
        if self._range is None:
            g.add("MatMul", [x, g.constant(f"{name}.weight", weight)], product)
        else:
            scale = np.maximum(np.abs(weight).max(axis=0), 1e-12) / self._range
            g.constant(f"{name}.weight", np.rint(weight / scale).astype(np.int8))
            g.constant(f"{name}.scale", scale.astype(np.float32))
            g.constant(f"{name}.zero", np.zeros(scale.shape, np.int8))
            g.add("Abs", [x], f"{name}.abs")
            g.add("ReduceMax", [f"{name}.abs"], f"{name}.row_max", axes=[-1], keepdims=1)
            g.add("Div", [x, f"{name}.row_max"], f"{name}.rows")
            g.add(
                "DynamicQuantizeMatMul",
                [f"{name}.rows", f"{name}.weight", f"{name}.scale", f"{name}.zero"],
                f"{name}.unit",
                domain=_CONTRIB,
            )
            g.add("Mul", [f"{name}.unit", f"{name}.row_max"], product)
        if bias is None:
            return product
        return g.add("Add", [product, g.constant(f"{name}.bias", bias)], name)
