"""
A full-precision teacher: a pretrained encoder fine-tuned on the task, then asked about text that has no labels.

The paper trains without a teacher; this is an option on top (docs/design.md) and what it did is written into the
checkpoint's provenance. Everything lands in one folder and resumes: the fine-tuned weights after every epoch, the
answers in shards.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoModel, get_linear_schedule_with_warmup

from beexformer.model.folders import replacing
from beexformer.training import resumable
from beexformer.training.batches import length_batches, pad, sorted_batches
from beexformer.training.data import Rows
from beexformer.training.network import mean_state
from beexformer.training.progress import Report

SHARD = 8192  # rows a file of answers holds: what a kill can lose
WARMUP = 0.06  # share of the steps over which the rate rises
AT_ONCE = 64 * 128  # tokens of a batch that is asked, padding included, at most


class Teacher(nn.Module):
    """Encoder, mean over real tokens, linear head: token ids and mask [B, L] -> logits [B, m] (float32). Texts are cut
    to `max_tokens`."""

    def __init__(self, encoder: Path, n_class: int, max_tokens: int = 128) -> None:
        super().__init__()
        # on a CPU, the fused attention's backward pass and dropout's random numbers cost more than the products
        self.encoder = AutoModel.from_pretrained(
            encoder,
            local_files_only=True,
            attn_implementation="eager",
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        self.encoder.embeddings.requires_grad_(False)  # half the weights, and one task has little to teach them
        self.n_class = n_class
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Linear(self.encoder.config.hidden_size, n_class))
        self.tokenizer = Tokenizer.from_file(str(encoder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.max_tokens = max_tokens
        self.tokenizer.enable_truncation(max_tokens)

    def encode(self, texts: list[str], pairs: list[str] | None) -> list[list[int]]:
        inputs = list(zip(texts, pairs, strict=True)) if pairs else texts
        return [encoding.ids for encoding in self.tokenizer.encode_batch(inputs)]

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        ids = torch.where(mask, ids, self.encoder.config.pad_token_id)
        states = self.encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state.float()
        return self.head(mean_state(states, mask)).float()


def _forward(teacher: Teacher, rows: list[list[int]], dtype: torch.dtype) -> Tensor:
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        return teacher(*pad(rows))


class _FineTuning:
    """A teacher with its optimizer (AdamW) and schedule (linear warm-up and decay), and the epochs it has had."""

    def __init__(self, teacher: Teacher, train: Rows, epochs: int, learning_rate: float, batch_size: int) -> None:
        self.teacher = teacher
        self.ids, self.labels = teacher.encode(train.texts, train.pairs), torch.from_numpy(train.labels)
        self.batch_size, self.epochs, self.epoch = batch_size, epochs, 0
        self.moving = [parameter for parameter in teacher.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.moving, lr=learning_rate, weight_decay=0.01, fused=True)
        self.steps = -(-len(self.ids) // batch_size) * epochs
        self.schedule = get_linear_schedule_with_warmup(self.optimizer, round(WARMUP * self.steps), self.steps)

    def run_epoch(self, seed: int, dtype: torch.dtype, report: Report) -> None:
        self.teacher.train()
        lengths = np.array([len(row) for row in self.ids])
        running = 0.0
        for batch in length_batches(lengths, self.batch_size, np.random.default_rng([seed, self.epoch])):
            logits = _forward(self.teacher, [self.ids[i] for i in batch], dtype)
            loss = nn.functional.cross_entropy(logits, self.labels[batch])
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.moving, 1.0)
            self.optimizer.step()
            self.schedule.step()
            step = self.schedule.last_epoch
            running += (loss.item() - running) * max(0.01, 1 / step)
            report(step, self.steps, f"epoch {self.epoch + 1}/{self.epochs} loss {running:.3f}")
        self.epoch += 1

    def state(self) -> dict[str, Any]:
        result = {"teacher": self.teacher.state_dict(), "epoch": self.epoch}
        if self.epoch < self.epochs:
            result |= {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()}
            result |= {"rng": torch.get_rng_state()}
        return result

    def restore(self, result: dict[str, Any]) -> None:
        self.teacher.load_state_dict(result["teacher"])
        self.epoch = result["epoch"]
        if self.epoch < self.epochs:
            self.optimizer.load_state_dict(result["optimizer"])
            self.schedule.load_state_dict(result["schedule"])
            torch.set_rng_state(result["rng"])


def finetune(
    encoder: Path,
    train: Rows,
    n_class: int,
    folder: Path,
    *,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    dtype: torch.dtype,
    seed: int,
    report: Report,
    max_tokens: int = 128,
) -> Teacher:
    """Fine-tune `encoder` on `train`, or take up where `folder` left off."""
    torch.manual_seed(seed)
    run = _FineTuning(Teacher(encoder, n_class, max_tokens), train, epochs, learning_rate, batch_size)
    folder.mkdir(parents=True, exist_ok=True)
    saved = folder / "state.pt"
    if saved.exists():
        run.restore(torch.load(saved, weights_only=True))
    while run.epoch < epochs:
        run.run_epoch(seed, dtype, report)
        resumable.save(run.state(), saved)
    return run.teacher.eval()


@torch.inference_mode()
def answer(
    teacher: Teacher,
    texts: list[str],
    pairs: list[str] | None,
    folder: Path,
    *,
    dtype: torch.dtype,
    report: Report,
) -> np.ndarray:
    """The teacher's logits for every text, [N, m] float32; shards already in `folder` are not computed again."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for start in range(0, len(texts), SHARD):
        path = folder / f"{start // SHARD:05d}.npy"
        if not path.exists():
            ids = teacher.encode(texts[start : start + SHARD], pairs and pairs[start : start + SHARD])
            logits = np.empty((len(ids), teacher.n_class), dtype=np.float32)
            for batch in sorted_batches(np.array([len(row) for row in ids]), max(1, AT_ONCE // teacher.max_tokens)):
                logits[batch] = _forward(teacher, [ids[i] for i in batch], dtype).numpy()
            with replacing(path) as partial, partial.open("wb") as out:
                np.save(out, logits)
        shards.append(np.load(path))
        report(min(start + SHARD, len(texts)), len(texts), "")
    return np.concatenate(shards)
