"""The page for models that are not of films: many classes, pairs, examples of their owner's or neutral ones."""

import csv
import json
from collections.abc import Iterator
from dataclasses import replace

import httpx2
import pytest
from browsing import Opened, screenshots
from playwright.sync_api import Page, expect
from running import BEEXFORMER, Server, server_of
from tiny import random_checkpoint, random_texts, with_readers

from beexformer.model.checkpoint import save
from beexformer.model.manifest import Example

pytestmark = pytest.mark.slow

INTENTS = tuple(f"card_payment_{'fee_' * (i % 4)}charged_{i}" for i in range(77))
OWN = "my card was declined at the shop this morning"


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A bank's model with examples of its own, one without consent; one of pairs; one that says nothing of itself."""
    folder = tmp_path_factory.mktemp("any")
    intents = random_checkpoint(1, INTENTS)
    examples = (Example(OWN, consent=True), Example("a text of a customer's", consent=False))
    save(replace(intents, name="bank", input="text", examples=examples), folder / "models" / "bank")
    pairs = random_checkpoint(2, ("no", "yes"))
    save(replace(pairs, name="pairs", input="pair"), folder / "models" / "pairs")
    save(replace(random_checkpoint(3), name="plain"), folder / "models" / "plain")
    named = random_checkpoint(4, ("warm", "dull"))
    save(replace(named, name="named", input="text", learned_from="labels"), folder / "models" / "named")
    tags = random_checkpoint(4, ("praise", "price", "delivery"), head="linear", multi_label=True)
    save(replace(tags, name="tags", input="text"), folder / "models" / "tags")
    save(replace(with_readers(), name="your-own"), folder / "models" / "your-own")
    with server_of(folder, BEEXFORMER, "serve", "--port", "0", "--checkpoints", str(folder / "models")) as server:
        yield server


def answered(page: Page) -> None:
    expect(page.locator("#answer")).to_have_attribute("data-state", "shown")
    expect(page.locator("#label")).not_to_be_empty()


def test_all_of_77_classes_can_be_found(opened: Opened, bank: Server) -> None:
    page = opened(bank.url)
    answered(page)
    expect(page.locator("#scores li")).to_have_count(6)
    starts = {round(track.bounding_box()["x"]) for track in page.locator("#scores .track").all()}
    assert len(starts) == 1, "bars start at one line"
    page.get_by_text("All 77 classes").click()
    rows = page.locator("#classes-table tbody tr")
    expect(rows).to_have_count(77)
    page.get_by_label("Find a class").fill("fee_charged_41")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("fee_charged_41")
    page.screenshot(path=screenshots() / "page-bank.png", full_page=True)
    page.set_viewport_size({"width": 360, "height": 740})
    page.screenshot(path=screenshots() / "page-bank-360.png", full_page=True)
    page.wait_for_function("document.documentElement.scrollWidth <= 360")  # charts follow a frame later
    page.screenshot(path=screenshots() / "page-bank-360.png", full_page=True)


def test_examples_are_the_models_own_where_consent_was_given(opened: Opened, bank: Server) -> None:
    page = opened(bank.url)
    answered(page)
    chips = page.get_by_role("list", name="Examples").get_by_role("button")
    expect(chips).to_have_count(1)
    expect(page.get_by_label("Your sentence")).to_have_value(OWN)
    expect(page.get_by_role("button", name="Add a second text")).to_be_hidden()
    page.get_by_role("button", name="Fill in examples").click()
    expect(page.get_by_label("Lines", exact=True)).to_have_value(OWN)
    expect(page.locator("#about")).to_contain_text("77 classes")
    assert "customer" not in page.content()


def test_a_model_that_saw_no_row_says_so(opened: Opened, bank: Server) -> None:
    page = opened(bank.url)
    answered(page)
    expect(page.locator("#about")).not_to_contain_text("nothing of it was measured")
    page.get_by_label("Model").select_option("named")
    expect(page.locator("#about")).to_contain_text("nothing of it was measured")


def test_classes_of_ones_own_are_asked_for(opened: Opened, bank: Server) -> None:
    page = opened(bank.url)
    answered(page)
    own = page.get_by_label("Classes of your own")
    expect(own).to_be_hidden()
    page.get_by_label("Model").select_option("your-own")
    expect(own).to_be_visible()
    answered(page)
    own.fill("a warm film, the worst, ")
    expect(page.locator("#scores li")).to_have_count(2)
    expect(page.locator("#scores")).to_contain_text("a warm film")
    expect(page.locator("#same")).to_contain_text("Full depth")
    page.screenshot(path=screenshots() / "page-own-classes.png", full_page=True)
    own.fill("")
    expect(page.locator("#scores")).to_contain_text("positive")


def test_a_model_of_pairs_gets_pairs(opened: Opened, bank: Server) -> None:
    page = opened(bank.url)
    answered(page)
    page.get_by_label("Model").select_option("pairs")
    expect(page.get_by_label("Second text", exact=True)).to_be_visible()
    answered(page)
    expect(page.get_by_role("button", name="Without the second text")).to_be_hidden()
    assert page.get_by_label("Second text", exact=True).input_value()
    page.get_by_role("button", name="Fill in examples").click()
    page.get_by_role("button", name="Classify").click()
    expect(page.locator("#rows tbody tr")).to_have_count(3)
    expect(page.locator("#rows .bad")).to_have_count(0)


def test_several_labels_are_all_shown(opened: Opened, bank: Server) -> None:
    page = opened(bank.url)
    answered(page)
    page.get_by_label("Model").select_option("tags")
    expect(page.locator("#about")).to_contain_text("any number of them a text")
    texts = random_texts(12, seed=5)
    said = [httpx2.post(f"{bank.url}/classify", json={"text": text, "model": "tags"}).json() for text in texts]
    assert len({len(answer["labels"]) for answer in said}) > 1, "texts with fewer and with more labels"
    for text, answer in zip(texts, said, strict=True):
        page.get_by_label("Your sentence").fill(text)
        expect(page.locator("#label")).to_have_text(", ".join(answer["labels"]) or "no label")
        answered(page)
        expect(page.locator("#scores .top")).to_have_count(len(answer["labels"]))
    page.screenshot(path=screenshots() / "page-labels.png", full_page=True)
    page.get_by_label("Lines", exact=True).fill("\n".join(texts))
    page.get_by_role("button", name="Classify").click()
    rows = page.locator("#rows tbody tr")
    expect(rows).to_have_count(12)
    for i, answer in enumerate(said):
        expect(rows.nth(i).locator("b")).to_have_text(", ".join(answer["labels"]) or "no label")
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    table = list(csv.DictReader(download.value.path().read_text(encoding="utf-8-sig").splitlines()))
    assert [json.loads(row["labels"]) for row in table] == [answer["labels"] for answer in said]


def test_no_film_is_mentioned_to_a_model_that_knows_none(opened: Opened, bank: Server) -> None:
    page = opened(bank.url)
    for name in ("bank", "pairs", "plain"):
        page.get_by_label("Model").select_option(name)
        expect(page.locator("#about")).to_contain_text(f"Model {name}")
        answered(page)
        shown = page.get_by_label("Your sentence").input_value() + page.locator("main").inner_text()
        assert "film" not in shown.lower()
    page.get_by_label("Your sentence").fill("what I have typed")
    page.get_by_label("Model").select_option("bank")
    expect(page.locator("#about")).to_contain_text("Model bank")
    expect(page.get_by_label("Your sentence")).to_have_value("what I have typed")
