from pathlib import Path

import pytest

from model import recipe
from model.errors import TrainingError

SHIPPED = sorted((Path(__file__).parent.parent / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", SHIPPED, ids=[path.stem for path in SHIPPED])
def test_shipped_recipes_are_valid(path: Path) -> None:
    assert recipe.read(path).name == path.stem


def test_defaults_are_table_1() -> None:
    plan = recipe.parse({"name": "x", "data": {"train": "x"}}, "test")
    assert (plan.network.n_block, plan.network.n_head, plan.network.d_model, plan.network.d_head) == (6, 4, 512, 768)
    optim = plan.optim
    assert (optim.dropout, optim.patience, optim.batch_size, optim.epochs) == (0.3, 5, 32, 50)
    assert (optim.learning_rate, optim.min_learning_rate, optim.schedule) == (0.01, 0.0001, "plateau")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = 'x'", "data: Field required"),
        ("name = 'x'\n[data]\ntrain = 'x'\n[optim]\nbatchsize = 3", "optim.batchsize: Extra inputs"),
        ("name = 'x y'\n[data]\ntrain = 'x'", "name: String should match"),
        ("name = ", "is no TOML file"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(TrainingError, match=words):
        recipe.read(tmp_path / "a.toml")
    with pytest.raises(TrainingError, match="can't be read"):
        recipe.read(tmp_path / "none.toml")
