"""
BEExformer: text classification on a plain CPU with a 1-bit transformer that exits early.

    import beexformer

    sst2 = beexformer.load("sst2")
    answer = sst2.classify("a warm, funny film", delta=1e-4)
    print(answer.label, answer.score, answer.exit_index)

Importing this loads nothing else; numba and the checkpoint come with `load`, torch never.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beexformer.classifier import Classifier, load
    from beexformer.model.answer import Answer
    from beexformer.model.errors import BEEError, CheckpointError, InputError

__all__ = ["Answer", "BEEError", "CheckpointError", "Classifier", "InputError", "load"]
_HOMES = {
    "beexformer.classifier": ("Classifier", "load"),
    "beexformer.model.answer": ("Answer",),
    "beexformer.model.errors": ("BEEError", "CheckpointError", "InputError"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
