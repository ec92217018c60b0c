from pathlib import Path
from typing import Any

import pytest

from beexformer.model.errors import TrainingError
from beexformer.training import own_rows, recipe

FOLDER = Path(__file__).parent.parent / "recipes"
SHIPPED = sorted(set(FOLDER.glob("*.toml")) - set(FOLDER.glob("backbone*.toml")))  # those are for `beexformer distill`


@pytest.mark.parametrize("path", SHIPPED, ids=[path.stem for path in SHIPPED])
def test_shipped_recipes_are_valid(path: Path) -> None:
    plan = recipe.read(path, recipe.Recipe)
    assert plan.name == path.stem
    assert plan.optim.precision == "auto", "a type that is named is ten times slower on some CPU"


def test_the_tasks_of_the_paper_and_four_others_have_recipes() -> None:
    tasks = {"sst2", "cola", "mrpc", "rte", "trec6", "subj", "agnews", "tweet_emotion"}
    assert tasks == {path.stem for path in SHIPPED}


def test_a_variant_is_the_recipe_with_two_switches() -> None:
    plan = recipe.parse({"name": "x", "data": {"train": "x"}}, "test", recipe.Recipe)
    configs = {variant: plan.network.config(100, 2, variant) for variant in recipe.VARIANTS}
    assert {variant: (c.binary, c.early_exit) for variant, c in configs.items()} == {
        "proposed": (True, True),
        "wee": (True, False),
        "wee-fp": (False, False),
        "fp": (False, True),
    }


def test_defaults_are_table_1() -> None:
    plan = recipe.parse({"name": "x", "data": {"train": "x"}}, "test", recipe.Recipe)
    assert (plan.network.n_block, plan.network.n_head, plan.network.d_model, plan.network.d_head) == (6, 4, 512, 768)
    optim = plan.optim
    assert (optim.dropout, optim.epochs, optim.learning_rate) == (0.3, 50, 0.01)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = 'x'", "data: Field required"),
        ("name = 'x'\n[data]\ntrain = 'x'\n[optim]\nbatchsize = 3", "optim.batchsize: Extra inputs"),
        ("name = 'x'\n[data]\ntrain = 'x'\n[optim]\nseed = -1", "optim.seed: Input should be greater"),
        ("name = 'x y'\n[data]\ntrain = 'x'", "name: String should match"),
        ("name = 'x'\n[data]\ntrain = 'x'\n[network]\nbinary = false", "network.binary: Extra inputs"),
        ("name = 'x'\n[data]\ntrain = 'x'\n[start]\nbackbone = 'a'\nencoder = 'minilm'", "one of backbone, checkpoint"),
        ("name = 'x'\n[data]\ntrain = 'x'\n[[teacher.text]]\nfile = 'train'\nrows = 9", "no 'sentences'"),
        (
            "name = 'x'\n[data]\ntrain = 'x'\n[teacher]\ntext = [{file = 'a', rows = 1}, {file = 'a', rows = 2}]",
            "one form and one file",
        ),
        ("name = 'x'\n[data]\ntrain = 'x'\n[network]\nexact_match = true", "name the second column as data.text_pair"),
        ("name = ", "is no TOML file"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(TrainingError, match=words):
        recipe.read(tmp_path / "a.toml", recipe.Recipe)
    with pytest.raises(TrainingError, match="can't be read"):
        recipe.read(tmp_path / "none.toml", recipe.Recipe)


def test_heads_alone_need_a_backbone_and_train_nothing_else() -> None:
    content = {**own_rows.OWN_TEXTS, "start": {"backbone": "english"}, "name": "toy", "data": {"train": "x"}}
    for wrong in ({"network": {"embedding": "int4+2"}}, {"start": {}}, {"teacher": {}}, {"full_precision": {}}):
        with pytest.raises(TrainingError, match=r"\[heads\]"):
            recipe.parse({**content, **wrong}, "test", recipe.Recipe)


def test_embeddings_on_a_grid_stand_still() -> None:
    content = {"name": "toy", "data": {"train": "train.csv"}, "network": {"embedding": "int4+2"}}
    with pytest.raises(TrainingError, match=r'optim\.embedding = "frozen"'):
        recipe.parse(content, "test", recipe.Recipe)
    assert (
        recipe.parse({**content, "optim": {"embedding": "frozen"}}, "test", recipe.Recipe).network.embedding == "int4+2"
    )


TEXTS, PAIRS = {"train": "rows.csv"}, {"train": "rows.csv", "text_pair": "other"}


def test_owners_flags_change_their_run() -> None:
    texts = own_rows.own_rows("toy", TEXTS).changed(max_tokens=64, folds=10, examples=True)
    assert texts.heads is not None
    assert (texts.network.max_tokens, texts.heads.folds, texts.data.examples) == (64, 10, True)
    pairs = own_rows.own_rows("toy", PAIRS, trained=True).changed(epochs=20, teacher="minilm")
    assert pairs.teacher is not None
    assert (pairs.optim.epochs, pairs.teacher.encoder) == (20, "minilm")
    assert own_rows.own_rows("toy", TEXTS).changed() == own_rows.own_rows("toy", TEXTS)


@pytest.mark.parametrize(
    ("data", "trained", "asked", "said"),
    [
        (TEXTS, False, {"epochs": 3}, "--epochs means nothing for single texts"),
        (TEXTS, False, {"teacher": "minilm"}, "--teacher means nothing for single texts"),
        (PAIRS, True, {"folds": 3}, "--folds goes with heads alone"),
        ({**PAIRS, "described": {"a": "b"}}, False, {}, "--labels goes with single texts alone"),
        (PAIRS, True, {"teacher": "gpt"}, "teacher.encoder"),
    ],
)
def test_a_flag_that_means_nothing_is_refused(
    data: dict[str, Any], trained: bool, asked: dict[str, Any], said: str
) -> None:
    with pytest.raises(TrainingError, match=said):
        own_rows.own_rows("toy", data, trained=trained).changed(**asked)
