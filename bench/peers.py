"""
Whom the engine is measured against, each as a function from token ids [B, L] int64 to logits [B, 2].

- this network in torch float32: the same signs held as real numbers, and in full precision (random weights)
- BERT-shaped encoders in ONNX Runtime: MiniLM-L6 with the weights of its package, BERT-base and DistilBERT of random
  weights (time doesn't feel them); fp32 and dynamic int8, with all of the runtime's own optimizations (its separate
  optimizer for transformers was tried and made the int8 ones slower)
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, BertConfig, DistilBertConfig

from beexformer.model.checkpoint import Checkpoint
from beexformer.training.binarize import BinaryLinear
from beexformer.training.encoders import locate
from beexformer.training.export import network_of
from beexformer.training.network import BEExformer

Peer = Callable[[np.ndarray], np.ndarray]
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
    """The same network at full depth, float32."""
    network = network_of(checkpoint)
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


def export(name: str, folder: Path) -> dict[str, Path]:
    """An encoder with a head of two classes as ONNX files, {"fp32": ..., "int8": ...}; made once in `folder`."""
    files = {kind: folder / f"{name}-{kind}.onnx" for kind in ("fp32", "int8")}
    if all(file.exists() for file in files.values()):
        return files
    logging.getLogger().setLevel(logging.ERROR)  # the quantizer advises on the root logger
    folder.mkdir(parents=True, exist_ok=True)
    if config := ENCODERS[name]:
        model = AutoModelForSequenceClassification.from_config(config)
    else:
        place = locate("minilm", folder)
        model = AutoModelForSequenceClassification.from_pretrained(place, num_labels=2, local_files_only=True)
    ids = torch.randint(1000, 2000, (2, 25))
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
    quantize_dynamic(files["fp32"], files["int8"], weight_type=QuantType.QInt8)
    return files


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
