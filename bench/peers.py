"""
Whom the engine is measured against, each as a function from token ids [B, L] int64 to logits [B, 2], and each as fast
as it can be made here.

- this network in torch float32: the same signs held as real numbers, and in full precision (random weights)
- BERT-shaped encoders in ONNX Runtime: MiniLM-L6 with the weights of its package, BERT-base and DistilBERT of random
  weights (time doesn't feel them); fp32 and dynamic int8, with all of the runtime's own optimizations, and, where that
  is faster, after its separate optimizer for transformers (`fastest`)
- MiniLM-L6 in OpenVINO, in the precision that OpenVINO chooses for the CPU
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.optimizer import optimize_model
from timing import interleaved
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, BertConfig, DistilBertConfig

from beexformer.model.checkpoint import Checkpoint
from beexformer.training.binarize import BinaryLinear
from beexformer.training.encoders import locate
from beexformer.training.export import network_of
from beexformer.training.network import BEExformer

Peer = Callable[[np.ndarray], np.ndarray]
TYPICAL = 25
ENCODERS = {
    "MiniLM-L6": None,  # from its package
    "BERT-base": BertConfig(),
    "DistilBERT": DistilBertConfig(),
}


class _Frozen(nn.Module):
    """A BinaryLinear as torch would serve it: the signs of its weights are there already."""

    def __init__(self, layer: BinaryLinear) -> None:
        super().__init__()
        self.weight, self.alpha, self.bias = layer.weight, layer.alpha, layer.bias
        self.threshold = -layer.beta.detach()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.where(x < self.threshold, -1.0, 1.0), self.weight) * self.alpha + self.bias


def in_torch(checkpoint: Checkpoint) -> Peer:
    """The same network at full depth, float32, attention too: torch's own is what integers are measured against."""
    network = network_of(replace(checkpoint, config=replace(checkpoint.config, attention="real")))
    for name, layer in list(network.binary_layers()):
        parent, _, attribute = name.rpartition(".")
        setattr(network.get_submodule(parent), attribute, _Frozen(layer))
    return _call(network)


def full_precision(checkpoint: Checkpoint) -> Peer:
    """The network of real weights and activations at full depth, float32."""
    return _call(BEExformer(replace(checkpoint.config, binary=False)).eval())


def _call(network: nn.Module) -> Peer:
    @torch.inference_mode()
    def call(ids: np.ndarray) -> np.ndarray:
        return network(torch.from_numpy(ids), torch.ones(ids.shape, dtype=torch.bool))[:, -1].numpy()

    return call


class _Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


KINDS = ("fp32", "int8", "fp32 optimized", "int8 optimized")


def export(name: str, folder: Path) -> dict[str, Path]:
    """An encoder with a head of two classes as ONNX files, by KINDS; made once in `folder`."""
    files = {kind: folder / f"{name}-{kind.replace(' ', '-')}.onnx" for kind in KINDS}
    if all(file.exists() for file in files.values()):
        return files
    logging.getLogger().setLevel(logging.ERROR)  # the quantizer advises on the root logger
    folder.mkdir(parents=True, exist_ok=True)
    if config := ENCODERS[name]:
        model = AutoModelForSequenceClassification.from_config(config)
    else:
        place = locate("minilm", folder)
        model = AutoModelForSequenceClassification.from_pretrained(place, num_labels=2, local_files_only=True)
    ids = torch.randint(1000, 2000, (2, TYPICAL))
    axes = {0: "batch", 1: "tokens"}
    torch.onnx.export(
        _Logits(model.eval()),
        (ids, torch.ones_like(ids)),
        files["fp32"],
        input_names=["input_ids", "attention_mask"],
        output_names=["logits"],
        dynamic_axes={"input_ids": axes, "attention_mask": axes, "logits": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )
    heads, width = model.config.num_attention_heads, model.config.hidden_size
    optimize_model(str(files["fp32"]), "bert", heads, width).save_model_to_file(str(files["fp32 optimized"]))
    for kind in ("fp32", "fp32 optimized"):
        quantize_dynamic(
            files[kind],
            files[kind.replace("fp32", "int8")],
            weight_type=QuantType.QInt8,
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},  # the optimizer's own operators state none
        )
    return files


def fastest(files: dict[str, Path], kind: str, seconds: float) -> Path:
    """The file of "fp32" or "int8", with or without the optimizer for transformers, that answers 25 tokens sooner."""
    ids = np.random.default_rng(0).integers(1000, 2000, (1, TYPICAL))
    calls = {}
    for each in (kind, f"{kind} optimized"):
        call = in_onnx(files[each], 1)
        calls[each] = lambda call=call: call(ids)
    times = interleaved(calls, seconds)
    return files[min(times, key=times.__getitem__)]


def in_openvino(file: Path) -> Peer:
    """One thread, tuned for the time of a single answer."""
    options = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    request = openvino.Core().compile_model(str(file), "CPU", options).create_infer_request()

    def call(ids: np.ndarray) -> np.ndarray:
        return request.infer({"input_ids": ids, "attention_mask": np.ones_like(ids)})["logits"]

    return call


def in_onnx(file: Path, threads: int) -> Peer:
    """A session with so many threads in an operation."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]

    def call(ids: np.ndarray) -> np.ndarray:
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        return session.run(None, {name: given[name] for name in names})[0]

    return call
