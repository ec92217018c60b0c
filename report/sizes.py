"""
What a network's weights take, counted from its shape: for records of runs, which have no file.
"""

import numpy as np

from beexformer.model.config import BEEConfig
from beexformer.model.tensors import named_spec


def packed_bytes(config: BEEConfig) -> int:
    """Of a binary network's tensors without what fills up rows in its file; vocabulary and texts apart."""
    return sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for dtype, shape in named_spec(config).values())


def real_bytes(config: BEEConfig) -> int:
    """Of the same network in full precision: every weight a float32, no scales or thresholds."""
    count = config.vocab_size * config.d_model // 2
    for name, (dtype, shape) in named_spec(config).items():
        if not name.endswith((".alpha", ".beta", ".scale")) and not name.startswith("embedding."):
            count += int(np.prod(shape)) * (64 if dtype == "uint64" else 1)
    return 4 * count
