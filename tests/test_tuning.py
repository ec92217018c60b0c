"""Exit options for what is wanted; that the bound on risk holds is shown by drawing rows from a known population."""

from pathlib import Path

import numpy as np
import pytest
from tiny import random_texts

from beexformer.model import checkpoint
from beexformer.model.config import BEEConfig
from beexformer.model.engine import Engine
from beexformer.model.errors import TrainingError
from beexformer.model.options import ExitOptions, resolve
from beexformer.training import evaluate, profiles
from beexformer.training.data import Columns, read_rows
from beexformer.training.tuning import Observed, candidates, learn_then_test, p_value, path, rows_needed, tune


def population(rows: int, seed: int, labelled: bool = True) -> Observed:
    """Rows whose exits grow surer and more often right with depth, some of them sure of what is wrong."""
    config = BEEConfig(vocab_size=100, n_class=3)
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, rows)
    ease = rng.gamma(1.0, 1.0, rows)[:, None]
    depth = np.arange(1, config.n_block + 1)[None]
    right = np.eye(3)[labels][:, None] * (ease * depth)[..., None]
    noise = rng.normal(0, 1.2, (rows, config.n_block, 3)).cumsum(1) / np.sqrt(depth)[..., None]
    return Observed(config, (right + noise).astype(np.float32), rng.integers(5, 40, rows), labels if labelled else None)


def draw(observed: Observed, rows: int, rng: np.random.Generator) -> Observed:
    index = rng.integers(0, len(observed), rows)
    labels = None if observed.labels is None else observed.labels[index]
    return Observed(observed.config, observed.logits[index], observed.tokens[index], labels)


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("draws", [60, pytest.param(500, marks=pytest.mark.slow)])
def test_the_risk_is_above_its_bound_in_few_draws(labelled: bool, draws: int) -> None:
    """At most 5 % of draws may break the bound; three standard errors of that share are allowed for."""
    risk, confidence, everyone = 0.05, 0.95, population(1500, 1, labelled)
    tried = path(everyone.config)
    losses = np.array([everyone.losses(options) for options in tried])
    true_risk = losses.mean(1)
    rng = np.random.default_rng(2)
    broken = chosen = 0
    for _ in range(draws):
        index = rng.integers(0, len(everyone), 250)
        taken = learn_then_test([*losses[:, index]], risk, confidence)
        broken += bool(true_risk[taken] > risk)
        chosen += taken > 0
    assert broken <= draws * 0.05 + 3 * (draws * 0.05 * 0.95) ** 0.5
    assert chosen > 0.5 * draws, "a bound that is kept by never leaving early would be none"
    assert (true_risk > risk).any(), "some candidates have to be too bold"


def test_the_binomial_tail_is_exact() -> None:
    losses = np.zeros(10, dtype=bool)
    assert p_value(losses, 0.1) == pytest.approx(0.9**10)
    losses[0] = True
    assert p_value(losses, 0.1) == pytest.approx(0.9**10 + 10 * 0.1 * 0.9**9)


def test_a_fixed_sequence_stops_at_the_first_that_fails() -> None:
    good, bad = np.zeros(200, dtype=bool), np.ones(200, dtype=bool)
    assert learn_then_test([good, good, bad, good], 0.05, 0.95) == 1
    assert learn_then_test([good, good], 0.05, 0.95) == 1
    assert learn_then_test([bad], 0.05, 0.95) == -1


def test_too_few_rows_are_refused_with_the_number_that_would_do() -> None:
    assert rows_needed(0.02, 0.95) == 149
    with pytest.raises(TrainingError, match=r"148 rows show no risk of at most 0.02 .* give 149 or more"):
        tune(population(148, 1), "risk", 0.02, 0.95)
    options, evidence = tune(population(149, 1), "risk", 0.02, 0.95)
    assert options in path(BEEConfig(vocab_size=100, n_class=3))
    assert evidence["p_value"] <= 0.05
    assert evidence["loss_seen"] <= 0.02


@pytest.mark.slow
@pytest.mark.parametrize("labelled", [True, False])
def test_what_is_wanted_is_kept_on_these_rows(labelled: bool) -> None:
    observed = population(500, 3, labelled)
    options, seen = tune(observed, "flops", 0.4)
    assert seen["flops_ratio"] <= 0.4
    assert seen == {"want": {"flops": 0.4}, **observed.measure(options)}
    options, seen = tune(observed, "agree", 0.9)
    assert seen["agreement"] >= 0.9
    assert seen["flops_ratio"] < 0.9, "it pays"
    options, seen = tune(observed, "ms", 0.3, cost=lambda tokens, blocks: 0.1 * blocks)
    assert seen["predicted_ms"] <= 0.3
    assert ("accuracy" in seen) == labelled
    with pytest.raises(TrainingError, match=r"no exit options come down to 0.05 ms; the first exit takes 0.1"):
        tune(observed, "ms", 0.05, cost=lambda tokens, blocks: 0.1 * blocks)


def test_exits_are_those_of_the_engine(engine: Engine) -> None:
    texts = ["a warm film", "the worst movie", "film", "a b c d e f g"]
    rows = [engine.encode(text) for text in texts]
    observed = Observed(engine.config, engine.logits(rows), np.array([len(row.ids) for row in rows]))
    asked = [ExitOptions(delta=-1, entropy_threshold=t) for t in (0.2, 0.9, 1.0)]
    asked += [ExitOptions(delta=0.1), ExitOptions(min_blocks=2, max_blocks=2), ExitOptions(max_blocks=2, delta=-1)]
    for options in asked:
        answers = engine.predict([engine.encode(text, options=options) for text in texts])
        assert [engine.config.exits[c - 1] for c in observed.taken(options)] == [a.exit_index for a in answers]
        assert [engine.labels[i] for i in observed.answers(options)] == [a.label for a in answers]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    texts = random_texts(200, seed=5)
    lines = [f"{text},{'negative' if i % 2 else 'positive'}" for i, text in enumerate(texts)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    return tmp_path / "rows.csv"


def test_a_profile_is_stored_and_changes_no_other_answer(folder: Path, rows: Path, tmp_path: Path) -> None:
    before = Engine.load(folder)
    result = profiles.run(folder, rows, Columns(), "agree", 0.9, labelled=False)
    after = Engine.load(folder)
    assert result.name == "agree-90"
    assert after.profiles == {"agree-90": result.options}
    assert after.description["profiles"]["agree-90"]["evidence"] == result.evidence
    assert result.evidence["rows"] == 200
    texts = random_texts(50, seed=6)
    assert [after.predict([after.encode(t)]) for t in texts] == [before.predict([before.encode(t)]) for t in texts]
    named = after.predict([after.encode(t, options=ExitOptions(profile="agree-90")) for t in texts])
    stated = after.predict([after.encode(t, options=result.options) for t in texts])
    assert [a.exit_index for a in named] == [a.exit_index for a in stated]
    assert named[0].profile == "agree-90"
    card = checkpoint.read(folder).card
    profiles.run(folder, rows, Columns(), "flops", 0.5, labelled=True, name="fast", out=tmp_path / "copy", default=True)
    copy = Engine.load(tmp_path / "copy")
    assert copy.predict([copy.encode("a film")])[0].profile == "fast"
    assert checkpoint.read(folder).card == card, "the copy alone has the new one"
    assert checkpoint.read(tmp_path / "copy").card.count("## Profiles") == 1


def test_what_ships_and_what_is_no_name_is_refused(folder: Path, rows: Path) -> None:
    with pytest.raises(TrainingError, match="ships with the package and stays as it is; give --out for a copy"):
        profiles.run(profiles.folder_of("sst2"), rows, Columns(), "flops", 0.5, labelled=False)
    with pytest.raises(TrainingError, match="can't be called 'Fast!'"):
        profiles.run(folder, rows, Columns(), "flops", 0.5, labelled=False, name="Fast!")
    assert [profiles.name_of(*each) for each in (("ms", 0.5), ("risk", 0.02), ("flops", 0.333))] == [
        "ms-500",
        "risk-2",
        "flops-33_3",
    ]


def test_what_an_evaluation_recommends_can_be_taken(folder: Path, rows: Path) -> None:
    result = evaluate.evaluate(Engine.load(folder), read_rows(rows, Columns(), ["negative", "positive"])[0])
    result |= {"score": 0.0, "full_depth_score": 0.0}  # of a network that has learned nothing, all options are as good
    options = profiles.take(folder, result)
    engine = Engine.load(folder)
    assert engine.profiles == {"recommended": options}
    assert engine.predict([engine.encode("a film")])[0].profile == "recommended"
    assert "| `recommended` |" in checkpoint.read(folder).card
    with pytest.raises(TrainingError, match="there is nothing to take"):
        profiles.take(folder, result | {"score": 1.1})


def test_a_candidate_leaves_nothing_to_the_defaults_of_the_model() -> None:
    config = BEEConfig(vocab_size=100, n_class=2, d_model=128, n_block=6, n_head=4, d_head=64, max_tokens=48)
    others = ExitOptions(delta=0.5, entropy_threshold=0.9, min_blocks=3, max_blocks=4)
    for option in candidates(config):
        alone, beside = (
            resolve(option, defaults=defaults, profiles={}, config=config, model="tiny")
            for defaults in (ExitOptions(), others)
        )
        assert beside == alone, option
