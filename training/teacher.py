"""
A full-precision teacher: a pretrained encoder fine-tuned on the task, then asked about text that has no labels.

The paper trains without a teacher; this is an option on top (docs/design.md) and what it did is written into the
checkpoint's provenance. Everything lands in one folder and resumes: the fine-tuned weights after every epoch, the
answers in shards.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoModel

from beexformer.training.data import Rows, length_batches, pad, sorted_batches

SHARD = 8192  # rows a file of answers holds: what a kill can lose

Report = Callable[[int, int, str], None]  # done, total, what is shown beside the bar


class Teacher(nn.Module):
    """Encoder, mean over real tokens, linear head: token ids [B, L] -> logits [B, m] (float32)."""

    def __init__(self, encoder: Path, n_class: int) -> None:
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
        self.tokenizer.enable_truncation(128)

    def encode(self, texts: list[str], pairs: list[str] | None) -> list[list[int]]:
        inputs = list(zip(texts, pairs, strict=True)) if pairs else texts
        return [encoding.ids for encoding in self.tokenizer.encode_batch(inputs)]

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        mask = torch.arange(ids.shape[1]) < lengths[:, None]
        ids = torch.where(mask, ids, self.encoder.config.pad_token_id)
        states = self.encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state.float()
        pooled = (states * mask[..., None]).sum(1) / lengths[:, None]
        return self.head(pooled).float()


def _forward(teacher: Teacher, rows: list[list[int]], dtype: torch.dtype) -> Tensor:
    ids, lengths = pad(rows)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        return teacher(torch.from_numpy(ids), torch.from_numpy(lengths))


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
) -> Teacher:
    """Fine-tune `encoder` on `train` (AdamW, linear warm-up and decay), or take up where `folder` left off."""
    torch.manual_seed(seed)
    teacher = Teacher(encoder, n_class)
    moving = [parameter for parameter in teacher.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(moving, lr=learning_rate, weight_decay=0.01, fused=True)
    folder.mkdir(parents=True, exist_ok=True)
    saved = folder / "state.pt"
    first = 0
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        teacher.load_state_dict(state["teacher"])
        first = state["epoch"]
        if first < epochs:
            optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["rng"])
    if first == epochs:
        return teacher.eval()
    ids = teacher.encode(train.texts, train.pairs)
    lengths = np.array([len(row) for row in ids])
    labels = torch.from_numpy(train.labels)
    steps = -(-len(ids) // batch_size) * epochs
    step, running = first * (steps // epochs), 0.0
    for epoch in range(first, epochs):
        teacher.train()
        for batch in length_batches(lengths, batch_size, np.random.default_rng([seed, epoch])):
            rate = min(1.0, step / (0.06 * steps)) * (1 - step / steps)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * rate
            loss = nn.functional.cross_entropy(_forward(teacher, [ids[i] for i in batch], dtype), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(moving, 1.0)
            optimizer.step()
            step += 1
            running += (loss.item() - running) * max(0.01, 1 / step)
            report(step, steps, f"epoch {epoch + 1}/{epochs} loss {running:.3f}")
        state = {"teacher": teacher.state_dict(), "epoch": epoch + 1, "rng": torch.get_rng_state()}
        if epoch + 1 < epochs:
            state["optimizer"] = optimizer.state_dict()
        torch.save(state, saved.with_suffix(".partial"))
        saved.with_suffix(".partial").rename(saved)
    return teacher.eval()


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
            for batch in sorted_batches(np.array([len(row) for row in ids]), 64):
                logits[batch] = _forward(teacher, [ids[i] for i in batch], dtype).numpy()
            with path.with_suffix(".partial").open("wb") as out:
                np.save(out, logits)
            path.with_suffix(".partial").rename(path)
        shards.append(np.load(path))
        report(min(start + SHARD, len(texts)), len(texts), "")
    return np.concatenate(shards)
