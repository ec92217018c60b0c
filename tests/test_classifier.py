"""The public Python API: by name or folder, one text, a pair, many; typed, and cheap to import."""

import subprocess
import sys
from pathlib import Path

import pytest

import beexformer
from beexformer import Classifier
from beexformer.model.engine import Engine
from beexformer.model.options import ExitOptions, ExitSettings

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def sst2() -> Classifier:
    return beexformer.load("sst2")


def test_a_text_gets_the_answer_of_the_engine(sst2: Classifier) -> None:
    answer = sst2.classify("a warm, funny film", delta=1e-4)
    [expected] = sst2.engine.predict([sst2.engine.encode("a warm, funny film", options=ExitOptions(delta=1e-4))])
    assert answer == expected
    assert (answer.label, answer.model) == ("positive", "sst2")
    assert sst2.classify("a warm, funny film", min_blocks=6).exit_index == sst2.num_blocks == 6
    assert (sst2.name, sst2.labels) == ("sst2", ("negative", "positive"))
    assert sst2.settings(delta=0.5, max_blocks=3) == ExitSettings(0.5, 0.0, 3, 3)


def test_many_texts_get_their_answers_in_order(sst2: Classifier) -> None:
    texts = ["a warm, funny film", "the worst movie ever made", "dull"]
    assert sst2.classify(texts) == [sst2.classify(text) for text in texts]
    assert sst2.classify([]) == []


def test_a_folder_and_its_pairs(folder: Path, engine: Engine) -> None:
    tiny = beexformer.load(folder)
    [expected] = engine.predict([engine.encode("a film", "a movie")])
    assert tiny.classify("a film", "a movie") == expected
    assert tiny.classify([("a film", "a movie"), "a film"]) == [expected, tiny.classify("a film")]
    assert beexformer.load(str(folder)).name == "tiny"


def test_what_is_wrong_is_one_sentence(sst2: Classifier, tmp_path: Path) -> None:
    with pytest.raises(beexformer.CheckpointError, match="no shipped checkpoint; these are cola, mrpc, rte, sst2"):
        beexformer.load("imdb")
    with pytest.raises(beexformer.CheckpointError, match=r"config\.json"):
        beexformer.load(tmp_path)
    with pytest.raises(beexformer.InputError, match="text is empty or blank"):
        sst2.classify(" ")
    with pytest.raises(beexformer.InputError, match="text 1 of 2: text is empty or blank"):
        sst2.classify(["fine", ""])
    with pytest.raises(beexformer.InputError, match="delta is 2"):
        sst2.classify("fine", delta=2)
    with pytest.raises(beexformer.InputError, match="as one list"):
        sst2.classify(("a", "b"))  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="deltas"):
        sst2.classify("fine", deltas=2)  # type: ignore[call-overload]


def test_importing_is_cheap_and_nothing_loads_torch() -> None:
    code = (
        "import sys, beexformer\n"
        "heavy = {'numpy', 'numba', 'pydantic', 'fastapi', 'tokenizers', 'torch'}\n"
        "assert not heavy & set(sys.modules)\n"
        "assert {'load', 'Classifier', 'Answer'} <= set(dir(beexformer))\n"
        "m = beexformer.load('sst2'); m.classify('a film')\n"
        "assert not {'torch', 'pydantic', 'fastapi', 'beexformer.training'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    with pytest.raises(AttributeError, match="no attribute 'loda'"):
        beexformer.loda  # noqa: B018
