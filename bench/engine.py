"""
The engine beside what one would take instead, on the same rows in the same run; and whether it keeps its promises.

    python bench/engine.py --data folder [--seconds 2] [--quick] [--picture docs/pareto.png]

`folder` has glue/sst2/train.tsv.gz and dev.tsv.gz (columns sentence, label). Prints tables and ends with one JSON line;
every ratio is the peer's time over ours. Takes about a quarter of an hour; --quick leaves out batches and two threads.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import kernel
import numpy as np
import peers
import start
import torch
from numba import njit, typed
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from timing import ALLOWED, interleaved, machine, pin, today

from beexformer.model import checkpoint, kernels
from beexformer.model.engine import NO_STATES, Engine, Row
from beexformer.model.options import ExitOptions
from beexformer.report.vectors import static_model
from beexformer.training import data

SHIPPED = Path(checkpoint.__file__).parent / "checkpoints" / "sst2"
LENGTHS = (10, 25, 64, 128, 512)
AS_IT_SHIPS = ExitOptions()  # the exit options of the checkpoint
ROWS_OF_LOAD = 100_000

ACCURACY = {  # on SST-2 dev, which the picture needs beside what is measured here, and whether it was published
    "MiniLM-L6": (90.0, False),  # fine-tuned for this project, docs/log.md
    "BERT-base": (92.7, True),  # Sanh et al. 2019, not quantized
    "DistilBERT": (91.3, True),  # the same
}


class Bench:
    """What every part needs: the checkpoint, the rows, the peers."""

    def __init__(self, data_folder: Path, seconds: float, console: Console) -> None:
        self.seconds, self.console = seconds, console
        self.work = Path("runs/bench")
        self.checkpoint = checkpoint.read(SHIPPED)
        self.engine = Engine(self.checkpoint)
        config = replace(self.checkpoint.config, max_tokens=max(LENGTHS))
        self.long = replace(self.checkpoint, config=config)  # positions are a formula, so its window can be any
        self.long_engine = Engine(self.long)
        columns = data.Columns("sentence", None, "label")
        sst2 = data_folder / "glue" / "sst2"
        self.train, _ = data.read_rows(sst2 / "train.tsv.gz", columns, ["0", "1"])
        self.dev, _ = data.read_rows(sst2 / "dev.tsv.gz", columns, ["0", "1"])
        self.onnx, self.optimized = {}, []
        for name in peers.ENCODERS:
            files = peers.export(name, self.work)
            for kind in ("fp32", "int8") if name == "MiniLM-L6" else ("int8",):
                self.onnx[f"{name} {kind}"] = best = peers.fastest(files, kind, seconds)
                if "optimized" in best.name:
                    self.optimized.append(f"{name} {kind}")
        self.openvino = peers.in_openvino(peers.export("MiniLM-L6", self.work)["fp32"])
        self.static = static_model(self.work)
        self.on_static = LogisticRegression(C=10, max_iter=1000)
        self.lexical = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(C=10, max_iter=1000))
        self.lexical.fit(self.train.texts, self.train.labels)
        self.on_static.fit(self.static.encode(self.train.texts), self.train.labels)

    def row(self, tokens: int, seed: int = 0) -> Row:
        """Dev sentences joined and cut to exactly so many tokens, as a row that runs at delta."""
        texts = np.random.default_rng(seed).permutation(self.dev.texts).tolist()
        return replace(self.long_engine.encode(" ".join(texts)), ids=self._cut(texts, tokens))

    def _cut(self, texts: Sequence[str], tokens: int) -> np.ndarray:
        ids = self.long_engine.encode(" ".join(texts)).ids
        return np.concatenate([ids[: tokens - 1], ids[-1:]])  # the last one is [SEP]

    def at_lengths(self, threads: int, batch: int) -> dict[int, dict[str, float]]:
        """Milliseconds a row, by tokens and contestant."""
        pin(threads)
        torch.set_num_threads(threads)
        C = self.engine.config.n_block
        sessions = {name: peers.in_onnx(file, threads) for name, file in self.onnx.items()}
        if threads == 1:
            sessions["MiniLM-L6 OpenVINO"] = self.openvino
        sessions["torch fp32"] = peers.in_torch(self.long)
        sessions["torch full precision"] = peers.full_precision(self.long)
        result = {}
        with ThreadPoolExecutor(threads) as pool:

            def ours(rows: list[Row]) -> Callable[[], object]:
                if threads == 1 or batch == 1:
                    return lambda: self.long_engine.predict(rows)
                parts = [rows[i::threads] for i in range(threads)]
                return lambda: list(pool.map(self.long_engine.predict, parts))

            for tokens in track(LENGTHS, f"{threads} threads, batch {batch}", console=self.console, transient=True):
                rows = [self.row(tokens, seed) for seed in range(batch)]
                ids = np.stack([row.ids for row in rows]).astype(np.int64)
                words = [" ".join(self.dev.texts)[: 5 * tokens]] * batch
                calls: dict[str, Callable[[], object]] = {
                    "full depth": ours([full_depth(row, C) for row in rows]),
                    "as it ships": ours(rows),
                    "TF-IDF + LR": lambda words=words: self.lexical.predict_proba(words),
                    "Model2Vec + LR": lambda words=words: self.on_static.predict_proba(self.static.encode(words)),
                    **{name: (lambda call=call, ids=ids: call(ids)) for name, call in sessions.items()},
                }
                times = interleaved(calls, self.seconds)
                result[tokens] = {name: 1000 * spent / batch for name, spent in times.items()}
        table = Table(title=f"milliseconds a row: {threads} thread(s), batch of {batch}")
        for column in ("", *(f"{tokens} tokens" for tokens in LENGTHS)):
            table.add_column(column, justify="right")
        for name in result[LENGTHS[0]]:
            table.add_row(name, *(f"{result[tokens][name]:.3f}" for tokens in LENGTHS))
        self.console.print(table)
        return result

    def over_dev(self) -> dict[str, float]:
        """Mean milliseconds from text to answer over the dev sentences, by contender; in turns of 40 sentences."""
        pin(1)
        torch.set_num_threads(1)
        engine, C = self.engine, self.engine.config.n_block
        calls: dict[str, Callable[[str], object]] = {
            "as it ships": lambda text: engine.predict([engine.encode(text, options=AS_IT_SHIPS)]),
            "full depth": lambda text: engine.predict([engine.encode(text, options=ExitOptions(min_blocks=C))]),
            "TF-IDF + LR": lambda text: self.lexical.predict_proba([text]),
            "Model2Vec + LR": lambda text: self.on_static.predict_proba(self.static.encode([text])),
            "MiniLM-L6 OpenVINO": lambda text: self.openvino(self._ids(text)),
        }
        network = peers.in_torch(self.checkpoint)
        calls["torch fp32"] = lambda text: network(self._ids(text))
        for name, file in self.onnx.items():  # their vocabulary is the one of the shipped checkpoint, or as large
            session = peers.in_onnx(file, 1)
            calls[name] = lambda text, session=session: session(self._ids(text))
        chunks = [self.dev.texts[i : i + 40] for i in range(0, len(self.dev.texts), 40)]
        spent = dict.fromkeys(calls, 0.0)
        for chunk in track(chunks, "dev", console=self.console, transient=True):
            each = {
                name: (lambda call=call, chunk=chunk: [call(text) for text in chunk]) for name, call in calls.items()
            }
            for name, seconds in interleaved(each, 0).items():
                spent[name] += seconds
        means = {name: 1000 * seconds / len(self.dev.texts) for name, seconds in spent.items()}
        table = Table(title="from text to answer, mean over SST-2 dev, one thread")
        for column in ("", "ms", "times ours as it ships"):
            table.add_column(column, justify="right")
        for name, mean in sorted(means.items(), key=lambda item: item[1]):
            table.add_row(name, f"{mean:.3f}", f"{mean / means['as it ships']:.1f}")
        self.console.print(table)
        return means

    def _ids(self, text: str) -> np.ndarray:
        return self.engine.encode(text).ids[None].astype(np.int64)

    def flops_ratio(self) -> tuple[float, float]:
        """(time, FLOPs) of delta 1e-4 over full depth, over all dev rows; tokenizing apart."""
        pin(1)
        engine, C = self.engine, self.engine.config.n_block
        rows = [engine.encode(text, options=AS_IT_SHIPS) for text in self.dev.texts]
        deep = [full_depth(row, C) for row in rows]
        times = interleaved({"delta": lambda: engine.predict(rows), "full": lambda: engine.predict(deep)}, 10)
        answers = engine.predict(rows)
        spent = sum(answer.flops for answer in answers) / sum(answer.flops_full for answer in answers)
        return times["delta"] / times["full"], spent

    def python_share(self) -> dict[str, float]:
        """What isn't compiled kernels in requests of 25 tokens (all such dev sentences), tokenizing included."""
        pin(1)
        engine, C = self.engine, self.engine.config.n_block
        texts = [text for text in self.dev.texts if len(engine.encode(text).ids) == 25]
        rows = [engine.encode(text, options=AS_IT_SHIPS) for text in texts]
        scratch, result = engine.pool.take(25), {}
        for name, options in (("delta", AS_IT_SHIPS), ("full depth", ExitOptions(min_blocks=C))):
            exit = engine.resolve(options)
            ids = typed.List([row.ids for row in rows])
            fixed = (
                exit.delta,
                exit.entropy_threshold,
                exit.min_blocks,
                C,
                engine._table,
                *scratch.arguments,
                float(C),
                0,
                0,
                NO_STATES,
                scratch.integers,
            )

            def requests(options: ExitOptions = options) -> None:
                for text in texts:
                    engine.predict([engine.encode(text, options=options)])

            def kernels_alone(ids: list[np.ndarray] = ids, fixed: tuple = fixed) -> None:
                _in_turns(ids, scratch.done, *fixed)

            times = interleaved({"requests": requests, "kernels": kernels_alone}, 5)
            result[name] = 1 - times["kernels"] / times["requests"]
        return result

    def two_threads(self) -> float:
        """Throughput of two threads on rows of their own over that of one."""
        pin(2)
        engine = self.engine
        rows = [engine.encode(text, options=AS_IT_SHIPS) for text in self.dev.texts]
        with ThreadPoolExecutor(2) as pool:
            calls = {
                "one": lambda: engine.predict(rows),
                "two": lambda: list(pool.map(engine.predict, (rows, rows))),
            }
            times = interleaved(calls, 20)
        return 2 * times["one"] / times["two"]

    def batch(self) -> float:
        """What 16 short sentences, one by one, take over what they take in one call."""
        pin(1)
        rows = [self.engine.encode(text) for text in sorted(self.dev.texts, key=len)[100:116]]
        assert self.engine.predict(rows) == [self.engine.predict([row])[0] for row in rows]
        calls = {
            "single": lambda: [self.engine.predict([row]) for row in rows],
            "batch": lambda: self.engine.predict(rows),
        }
        times = interleaved(calls, 3)
        return times["single"] / times["batch"]

    def cost_model(self) -> tuple[float, float]:
        """(share of dev rows whose time is predicted within 15 %, median relative error). A row is predicted and then
        run, all rows one after another, nine times after a first; its error is the median of the nine."""
        pin(1)
        engine = self.engine
        rows = [engine.encode(text, options=AS_IT_SHIPS) for text in self.dev.texts]
        depths = [answer.exit_index for answer in engine.predict(rows)]
        errors = np.empty((9, len(rows)))
        for sweep in errors:
            for i, (row, depth) in enumerate(zip(rows, depths, strict=True)):
                predicted = engine.cost.milliseconds(len(row.ids), depth)
                start = time.perf_counter()
                engine.predict([row])
                sweep[i] = abs(predicted / (1000 * (time.perf_counter() - start)) - 1)
        of_row = np.median(errors, axis=0)
        return float(np.mean(of_row <= 0.15)), float(np.median(of_row))


def full_depth(row: Row, blocks: int) -> Row:
    return replace(row, exit=replace(row.exit, min_blocks=blocks))


@njit(nogil=True)
def _in_turns(rows: list[np.ndarray], done: np.ndarray, *fixed: object) -> None:
    for ids in rows:
        done[:] = 0  # nothing yet
        kernels.early_exit_forward(ids, *fixed)


def avx2_times() -> float:
    """A row of 25 tokens at full depth with AVX2 over the same at the level of this process; processes take turns."""
    code = """
import sys, time
from pathlib import Path
from dataclasses import replace
import numpy as np
from beexformer.model.engine import Engine
engine = Engine.load(Path(sys.argv[1]))
row = engine.encode("ready", "ready" if engine.input == "pair" else None)
row = replace(row, ids=np.arange(1000, 1025, dtype=np.int32), exit=replace(row.exit, min_blocks=engine.config.n_block))
times = []
for _ in range(2000):
    start = time.perf_counter()
    engine.predict([row])
    times.append(time.perf_counter() - start)
print(sorted(times)[len(times) // 4])
"""
    result: dict[str, list[float]] = {"auto": [], "x86-64-v3": []}
    for _ in range(5):
        for level, times in result.items():
            done = subprocess.run(
                [sys.executable, "-c", code, str(SHIPPED)],
                env={**os.environ, "BEE_CPU": level},
                capture_output=True,
                text=True,
                check=True,
            )
            times.append(float(done.stdout))
    return float(np.median(result["x86-64-v3"]) / np.median(result["auto"]))


def memory() -> dict[str, float]:
    """Megabytes of a process with nothing but the engine: peak, and growth from the first tenth of the load on."""
    code = f"""
import sys
from pathlib import Path
from beexformer.model.engine import Engine
def status(name):
    return int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1]) / 1024
engine = Engine.load(Path(sys.argv[1]))
words = "a warm , funny and moving film that knows its people well".split()
after = []
for i in range({ROWS_OF_LOAD}):
    engine.predict([engine.encode(" ".join(words[: 1 + i % 12] * (1 + i % 3)))])
    if i in ({ROWS_OF_LOAD} // 10, {ROWS_OF_LOAD} - 1):
        after.append(status("VmRSS"))
print(status("VmHWM"), after[1] - after[0])
"""
    done = subprocess.run([sys.executable, "-c", code, str(SHIPPED)], capture_output=True, text=True, check=True)
    peak, growth = map(float, done.stdout.split())
    return {"peak_mb": round(peak, 1), "growth_mb": round(growth, 2)}


def picture(bench: Bench, means: dict[str, float], file: Path) -> None:
    """Accuracy against milliseconds, the area of a point being its megabytes."""
    import matplotlib.pyplot as plt
    from adjustText import adjust_text
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    evaluated = bench.checkpoint.evaluation["dev"]
    of_static = bench.on_static.predict(bench.static.encode(bench.dev.texts))
    vectors = 100 * float(np.mean(of_static == bench.dev.labels))
    lexical = 100 * float(np.mean(bench.lexical.predict(bench.dev.texts) == bench.dev.labels))
    vectorizer, regression = bench.lexical[0], bench.lexical[1]
    size = sum(map(len, vectorizer.vocabulary_)) + 8 * regression.coef_.size + 8 * len(vectorizer.vocabulary_)
    points = [
        (
            "BEExformer, as it ships",
            means["as it ships"],
            100 * evaluated["score"],
            bench.checkpoint.size_bytes / 1e6,
            False,
        ),
        (
            "BEExformer, full depth",
            means["full depth"],
            100 * evaluated["full_depth_score"],
            bench.checkpoint.size_bytes / 1e6,
            False,
        ),
        ("TF-IDF + LR", means["TF-IDF + LR"], lexical, size / 1e6, False),
        ("Model2Vec + LR", means["Model2Vec + LR"], vectors, bench.static.embedding.nbytes / 1e6, False),
        ("MiniLM-L6 OpenVINO", means["MiniLM-L6 OpenVINO"], *_of("MiniLM-L6", bench.onnx["MiniLM-L6 fp32"])),
    ]
    for name, path in bench.onnx.items():
        points.append((name, means[name], *_of(name.split()[0], path)))
    figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
    texts = []
    for name, ms, score, megabytes, published in points:
        color = "#e8a200" if name.startswith("BEE") else "#5b6b7b"
        face = "none" if published else color
        axes.scatter(ms, score, s=8 * megabytes, color=face, edgecolors=color, alpha=0.8, linewidths=1.5)
        texts.append(axes.text(ms, score, f"{name}\n{ms:.2f} ms, {megabytes:.0f} MB", fontsize=8, ha="center"))
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(min(ms for _, ms, *_ in points) / 2.2, max(ms for _, ms, *_ in points) * 2.2)
    low, high = min(score for _, _, score, *_ in points), max(score for _, _, score, *_ in points)
    axes.set_ylim(low - 2.5, high + 2)
    axes.set(
        xlabel="milliseconds from text to answer, one thread, mean over SST-2 dev",
        ylabel="accuracy on SST-2 dev, %",
        title=f"Area: megabytes on disk; hollow: accuracy as published\n{machine()}, {today()}",
    )
    axes.grid(alpha=0.25, which="both")
    figure.draw_without_rendering()  # only now a point has its place on paper
    adjust_text(
        texts,
        [ms for _, ms, *_ in points],
        [score for _, _, score, *_ in points],
        ax=axes,
        expand=(1.2, 2.0),
        arrowprops={"arrowstyle": "-", "color": "0.7", "lw": 0.5},
        iter_lim=500,
    )
    figure.savefig(file, dpi=150)


def _of(encoder: str, file: Path) -> tuple[float, float, bool]:
    """(accuracy, megabytes, whether the accuracy was published)."""
    score, published = ACCURACY[encoder]
    return score, file.stat().st_size / 1e6, published


def main() -> None:
    warnings.filterwarnings("ignore")  # of exporters
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=2, help="time for each cell of a table (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="one thread and batches of one only")
    parser.add_argument("--picture", type=Path, help="where to draw accuracy against milliseconds")
    arguments = parser.parse_args()
    console = Console(width=150)
    bench = Bench(arguments.data, arguments.seconds, console)
    pin(1)
    torch.set_num_threads(1)
    product = kernel.measure(0.3, console)
    alone = bench.at_lengths(threads=1, batch=1)
    if not arguments.quick:
        for threads, batch in ((1, 16), (2, 1), (2, 16)):
            bench.at_lengths(threads, batch)
    means = bench.over_dev()
    time_ratio, flops_ratio = bench.flops_ratio()
    share = bench.python_share()
    within, median = bench.cost_model()
    used = memory()
    pin(len(ALLOWED))  # a service has them all, and who asks whether it is ready takes no time from it
    used |= start.measure()
    if arguments.picture:
        picture(bench, means, arguments.picture)
    print(
        json.dumps(
            {
                **product,
                "full_depth_vs_torch_fp32": round(alone[25]["torch fp32"] / alone[25]["full depth"], 2),
                "full_depth_vs_torch_full_precision": round(
                    alone[25]["torch full precision"] / alone[25]["full depth"], 2
                ),
                "full_depth_vs_minilm_int8": round(alone[25]["MiniLM-L6 int8"] / alone[25]["full depth"], 2),
                "by_length_vs_minilm_int8": {
                    tokens: round(cell["MiniLM-L6 int8"] / cell["full depth"], 2) for tokens, cell in alone.items()
                },
                "delta_vs_minilm_int8": round(means["MiniLM-L6 int8"] / means["as it ships"], 2),
                "delta_vs_bert_base_int8": round(means["BERT-base int8"] / means["as it ships"], 2),
                "delta_vs_minilm_openvino": round(means["MiniLM-L6 OpenVINO"] / means["as it ships"], 2),
                "delta_vs_model2vec": round(means["Model2Vec + LR"] / means["as it ships"], 2),
                "optimizer_helped": bench.optimized,
                "batch16_vs_single": round(bench.batch(), 2),
                "avx2_times_this_level": round(avx2_times(), 2),
                "delta_ms": round(means["as it ships"], 3),
                "full_depth_ms_by_length": {tokens: round(cell["full depth"], 3) for tokens, cell in alone.items()},
                "time_ratio": round(time_ratio, 3),
                "flops_ratio": round(flops_ratio, 3),
                "two_threads": round(bench.two_threads(), 2),
                "python_share": round(share["full depth"], 3),
                "python_share_delta": round(share["delta"], 3),
                "cost_model_within_15pct": round(within, 3),
                "cost_model_median_error": round(median, 3),
                **used,
                "d_model": bench.engine.config.d_model,
                "machine": machine(),
                "date": today(),
            }
        )
    )


if __name__ == "__main__":
    main()
