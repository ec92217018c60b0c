"""The training loop and what feeds it: buckets of few shapes, rows cut from running text."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

from beexformer.model.config import BEEConfig
from beexformer.training import buckets, corpus
from beexformer.training.buckets import Feed, assemble, plan, tokens_of
from beexformer.training.loop import Budget, Loop, norms_agree, share_of_rate
from beexformer.training.mixture import Mixture
from beexformer.training.network import BEExformer
from beexformer.training.objectives import Task

CLS, SEP = 101, 102
CPU = torch.device("cpu")


def a_corpus(documents: int = 60) -> corpus.Corpus:
    rng = np.random.default_rng(0)
    lengths, ends = [], []
    for _ in range(documents):
        n = int(rng.integers(1, 30))
        lengths += rng.integers(1, 60, n).tolist()
        ends += [corpus.INSIDE] * (n - 1) + [corpus.DOCUMENT]
    ids = rng.integers(1000, 2000, sum(lengths)).astype(np.uint16)
    return corpus.Corpus(ids, np.array(lengths, np.uint8), np.array(ends, np.uint8), np.array([len(ends)]))


def some_rows(result: corpus.Corpus) -> Mixture:
    continues = np.zeros(2000, bool)
    continues[1500:] = True
    return Mixture(result, continues)


def test_every_row_is_in_the_plan_and_fits_its_bucket() -> None:
    specs = some_rows(a_corpus())(np.random.default_rng(1))
    specs = np.concatenate([specs, np.arange(len(specs))[:, None]], 1)
    result = plan(specs, 2048, np.random.default_rng(2))
    seen = np.concatenate([part[..., 4].ravel() for part in result.batches.values()])
    assert set(seen) == set(range(len(specs)))
    assert len(result.order) == sum(len(part) for part in result.batches.values())
    for length, part in result.batches.items():
        assert part.shape[1] == buckets.rows_in(length, 2048)
        assert tokens_of(part.reshape(-1, 5)).max() <= length


def test_a_row_too_long_for_every_bucket_is_refused() -> None:
    with pytest.raises(ValueError, match="a row has 603 tokens"):
        plan(np.array([[0, 601, 0, 0]]), 1024, np.random.default_rng(0))


def test_rows_are_put_together_as_a_tokenizer_would() -> None:
    ids = torch.arange(1000, 1100)
    rows, mask = assemble(ids, torch.tensor([[5, 3, 0, 0], [10, 2, 50, 4]]), 12, (CLS, SEP))
    assert rows[0].tolist() == [CLS, 1005, 1006, 1007, SEP] + [0] * 7
    assert rows[1].tolist() == [CLS, 1010, 1011, SEP, 1050, 1051, 1052, 1053, SEP] + [0] * 3
    assert mask.sum(1).tolist() == [5, 9]


def test_running_text_stays_in_its_document_and_in_the_window() -> None:
    result = a_corpus()
    ends_at = np.concatenate([[0], np.cumsum(result.lengths, dtype=np.int64)])
    borders = ends_at[1:][result.ends == corpus.DOCUMENT]
    specs = some_rows(result)(np.random.default_rng(3))
    assert tokens_of(specs).max() <= 512
    single = specs[specs[:, 3] == 0]
    assert single[:, 1].min() >= 1
    inside = np.searchsorted(borders, single[:, 0], "right") == np.searchsorted(
        borders, single[:, 0] + single[:, 1] - 1, "right"
    )
    assert inside.all()


def test_two_epochs_differ_and_one_is_repeatable() -> None:
    rows = some_rows(a_corpus())
    assert (rows(np.random.default_rng(1)) == rows(np.random.default_rng(1))).all()
    assert (rows(np.random.default_rng(1)) != rows(np.random.default_rng(2))).any()


class Guess:
    """Learns the number that all rows' lengths have in common: something to train in no time."""

    parts = ("error",)

    def __init__(self) -> None:
        self.value = torch.nn.Parameter(torch.zeros(1))
        self.compiled = False

    def compile(self) -> None:
        self.compiled = True

    def uncompile(self) -> None:
        self.compiled = False

    def parameters(self) -> list[Tensor]:
        return [self.value]

    def losses(self, ids: Tensor, mask: Tensor, spec: Tensor) -> tuple[Tensor, Tensor]:
        error = (self.value - mask.sum(1).float().log()).square().mean()
        return error, error.detach()[None, None]

    def constrain(self) -> None:
        self.value.clamp_(max=3.0)

    def state(self) -> dict[str, Tensor]:
        return {"value": self.value.detach().clone()}

    def restore(self, state: dict[str, Tensor]) -> None:
        with torch.no_grad():
            self.value.copy_(state["value"])


def ignore(_: object) -> None:
    pass


def a_loop(steps: int, *, compile: bool = False) -> Loop:
    result = a_corpus()
    return Loop(
        Guess(),
        Feed(result.ids, some_rows(result), 512, (CLS, SEP), CPU, 1),
        Budget(0.05, tokens=steps * 512, every=10, compile=compile),
        CPU,
    )


def test_the_rate_rises_and_falls_to_nearly_nothing() -> None:
    rates = [share_of_rate(p, 0.1) for p in (0.0, 0.05, 0.1, 0.55, 1.0)]
    assert rates[0] < 0.02
    assert rates[1:4] == pytest.approx([0.4845, 0.9, 0.45], abs=0.01)
    assert rates[4] == 0.003


def test_a_loop_learns_reports_and_obeys_its_constraint() -> None:
    loop = a_loop(200)
    history = loop.run(ignore, ignore)
    assert [report.step for report in history][:5] == [10, 20, 30, 40, 50]
    assert history[-1].parts["error"][0] < history[0].parts["error"][0] / 2
    assert loop.objective.state()["value"].item() <= 3.0


@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step")  # the loop itself knows
def test_a_resumed_loop_ends_where_an_unbroken_one_does() -> None:
    whole = a_loop(40)
    whole.run(ignore, ignore)
    first = a_loop(40)
    stream = iter(first.feed)
    for _ in range(15):
        first.train_step(*next(stream))
    second = a_loop(40)
    second.restore(copy.deepcopy(first.state()))
    second.run(ignore, ignore)
    assert second.step == whole.step
    torch.testing.assert_close(second.objective.state(), whole.objective.state(), atol=0, rtol=0)


@pytest.mark.parametrize("failing", ["gradients", "nothing", "compiler"])
def test_what_compiling_spoils_is_not_learned_from(monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    losses = Guess.losses

    def compiled(self: Guess, ids: Tensor, mask: Tensor, spec: Tensor) -> tuple[Tensor, Tensor]:
        loss, parts = losses(self, ids, mask, spec)
        if not self.compiled:
            return loss, parts
        if failing == "compiler":
            raise RuntimeError("no C++ compiler\nwas found\nand more of it")
        if failing == "nothing":
            return loss * 0.0, parts
        return loss * torch.nan, parts

    monkeypatch.setattr(Guess, "losses", compiled)
    loop = a_loop(40, compile=True)
    said = {
        "gradients": "compiled gradients are not finite",
        "nothing": "compiled gradients are not those of the network",
        "compiler": r"no C\+\+ compiler was found",
    }
    with pytest.warns(UserWarning, match=f"^{said[failing]}; training goes on uncompiled"):
        history = loop.run(ignore, ignore)
    assert history[-1].parts == a_loop(40).run(ignore, ignore)[-1].parts


def test_dropout_makes_no_gradients_of_another_network() -> None:
    torch.manual_seed(0)
    network = BEExformer(BEEConfig(vocab_size=2000, n_class=2, d_model=64, n_head=2, n_block=2, d_head=64), dropout=0.1)
    specs = np.stack([np.arange(200), np.tile([9, 20], 100), *np.zeros((2, 200), int), np.arange(200)], 1)
    feed = Feed(np.arange(1000, 1400), lambda rng: specs, 512, (CLS, SEP), CPU, 1)
    objective = Task(network, torch.rand(200, 1) * torch.tensor([[1.0, -1.0]]) + 0.5, feed, None, 0)
    loop = Loop(objective, feed, Budget(0.001, tokens=3000), CPU)
    length, spec = min(feed.samples().items())
    first, *others = (loop.gradient_norms(length, spec) for _ in range(5))
    assert all(norms_agree(first, other) for other in others)
    assert not norms_agree(first, torch.where(first > 0.5 * first.max(), 0, first))


@pytest.mark.slow
def test_a_compiled_network_learns_what_it_learns_uncompiled() -> None:
    def trained(*, compile: bool) -> tuple[BEExformer, list[float]]:
        torch.manual_seed(0)
        network = BEExformer(BEEConfig(vocab_size=2000, n_class=2, d_model=64, n_head=2, n_block=2, d_head=64))
        specs = np.stack([np.arange(200), np.tile([9, 20], 100), *np.zeros((2, 200), int), np.arange(200)], 1)
        feed = Feed(np.arange(1000, 1400), lambda rng: specs, 512, (CLS, SEP), CPU, 1)
        task = Task(network, torch.rand(200, 1) * torch.tensor([[1.0, -1.0]]) + 0.5, feed, None, 0)
        loop = Loop(task, feed, Budget(0.001, tokens=3000, every=100, compile=compile), CPU)
        [history] = loop.run(ignore, ignore)
        return network, history.parts["nats"]

    with warnings.catch_warnings(record=True) as said:  # torch's compiler has some of its own
        warnings.simplefilter("always")
        network, compiled = trained(compile=True)
    if failed := [str(one.message) for one in said if "uncompiled" in str(one.message)]:
        pytest.skip(failed[0])
    _, eager = trained(compile=False)
    assert compiled == pytest.approx(eager, rel=1e-3)
    parts = [*network.blocks, *network.heads.values()]
    assert not any("forward" in part.__dict__ for part in parts), "uncompiled again for what comes afterwards"
