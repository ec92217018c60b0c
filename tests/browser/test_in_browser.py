"""The page as a person uses it, in Chromium, against the real service with what ships."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
from axe_playwright_python.sync_playwright import Axe
from browsing import Opened, proxied, screenshots
from playwright.sync_api import expect
from running import BEEXFORMER, GOLDEN, PATIENCE, Server, server_of

pytestmark = pytest.mark.slow

expect.set_options(timeout=30_000)

SST2 = Path(__file__).parents[2] / "model" / "checkpoints" / "sst2"
EASY = "a warm, funny film"
DEEP = "an honest failure is still more interesting than this polished success"
SERVICE = Path(__file__).parent.parent / "service"
REFUSED = ("Failed to load resource: the server responded with a status of",)


def asked(server: Server, text: str, **fields: Any) -> dict[str, Any]:
    answer: dict[str, Any] = httpx2.post(
        f"{server.url}/classify", json={"text": text, **fields}, timeout=PATIENCE
    ).json()
    return answer


def percent(share: float, digits: int = 1) -> str:
    return f"{share * 100:.{digits}f}\u202f%"


def type_in(page: Any, text: str) -> None:
    page.get_by_label("Your sentence").fill(text)


def exits(page: Any, block: int, text: str = "left after block") -> None:
    expect(page.locator("#left")).to_contain_text(text)
    expect(page.locator("#left b").first).to_have_text(str(block))
    expect(page.locator("#cells .exit .hex")).to_have_text(str(block))


def settled(page: Any) -> None:
    """The newest answer and full depth beside it are shown, and the engine's times too."""
    expect(page.locator("#status")).to_contain_text("At full depth")
    expect(page.locator("#compare tbody tr", has_text="measured").locator(".pair")).to_be_visible()


def test_a_typed_sentence_is_answered(opened: Opened, shipped: Server) -> None:
    page, answer = opened(), asked(shipped, EASY)
    type_in(page, EASY)
    exits(page, answer["exit_index"])
    expect(page.locator("#label")).to_have_text(answer["label"])
    for label, score in answer["scores"].items():
        expect(page.get_by_role("list", name="Scores").get_by_role("listitem").filter(has_text=label)).to_contain_text(
            percent(score)
        )
    expect(page.locator("#left")).to_contain_text(percent(answer["flops_saved_ratio"], 0))
    expect(page.locator("#cells .skipped")).to_have_count(answer["num_blocks"] - answer["exit_index"])
    expect(page.get_by_role("status").first).to_contain_text(f"{answer['label']}, {percent(answer['score'])}")


def test_examples_can_be_clicked_and_differ(opened: Opened) -> None:
    page = opened()
    settled(page)
    examples = page.get_by_role("list", name="Examples").get_by_role("button")
    seen = set()
    for i in range(examples.count()):
        page.evaluate("document.getElementById('status').textContent = ''")
        examples.nth(i).click()
        settled(page)
        seen.add(page.locator("#cells .exit .hex").inner_text())
    assert len(seen) >= 3, "examples are there to show that texts leave at different blocks"


def test_the_slider_moves_the_exit_from_the_first_to_the_last_block(opened: Opened, shipped: Server) -> None:
    page = opened()
    type_in(page, DEEP)
    slider = page.get_by_role("slider", name="delta")
    expect(slider).to_be_enabled()
    slider.press("End")
    exits(page, 1)
    expect(page.get_by_label("delta as a number")).to_have_value("1")
    expect(page.locator("#delta-says")).to_have_text("Every text leaves after block 1.")
    slider.press("Home")
    exits(page, 6, text="ran all")
    expect(slider).to_have_attribute("aria-valuetext", "never early")
    expect(page.locator("#cells .skipped")).to_have_count(0)
    page.get_by_role("button", name="default, 0.0001").click()
    exits(page, asked(shipped, DEEP)["exit_index"])
    expect(page.get_by_label("delta as a number")).to_have_value("0.0001")


@pytest.mark.parametrize("delta", ["-0.25", "0", "0.00003", "0.42"])
def test_the_number_takes_any_delta(opened: Opened, shipped: Server, delta: str) -> None:
    page, answer = opened(), asked(shipped, DEEP, delta=float(delta), min_blocks=1)
    type_in(page, DEEP)
    page.get_by_label("delta as a number").fill(delta)
    deepest = answer["exit_index"] == answer["num_blocks"]
    exits(page, answer["exit_index"], text="ran all" if deepest else "left after block")
    expect(page.locator("#compare-here")).to_have_text(f"delta {delta}".replace("-", "\u2212"))


def test_a_text_that_is_sure_leaves_at_once(opened: Opened, shipped: Server) -> None:
    page = opened()
    type_in(page, EASY)
    slider = page.get_by_role("slider", name="entropy_threshold")
    expect(slider).to_be_enabled()
    exits(page, asked(shipped, EASY)["exit_index"])
    expect(page.locator("#sure-number")).to_have_text("0.6")  # the model's default
    page.get_by_label("delta as a number").fill("0.0001")
    before = asked(shipped, EASY, delta=1e-4, min_blocks=1)
    exits(page, before["exit_index"])
    expect(page.locator("#key-sure")).to_be_hidden()
    slider.fill("0.4")
    answer = asked(shipped, EASY, entropy_threshold=0.4, min_blocks=1)
    assert answer["exit_index"] < before["exit_index"]
    exits(page, answer["exit_index"])
    expect(page.locator("#sure-says")).to_contain_text("below 40\u202f% of what it can be")
    expect(page.locator("#compare-here")).to_have_text("delta 0.0001, threshold 0.4")
    expect(page.locator("#key-sure")).to_be_visible()
    curve = json.loads((SST2 / "evaluation.json").read_text())["dev"]["entropy_curve"]
    [score] = [p["score"] for p in curve if (p["delta"], p["entropy_threshold"]) == (1e-4, 0.4)]
    expect(page.locator("#curve-here")).to_contain_text(f"Threshold 0.4, delta 0.0001: accuracy {percent(score)} with")
    slider.fill("0.45")
    expect(page.locator("#curve-here")).to_contain_text("between the measured 0.4 and 0.5")
    page.get_by_text("The curve as a table").click()
    page.get_by_role("button", name="use threshold 0.7, delta \u22121").click()
    expect(page.get_by_label("delta as a number")).to_have_value("-1")
    expect(page.locator("#sure-number")).to_have_text("0.7")
    page.get_by_label("delta as a number").fill("0.3")
    expect(page.locator("#curve-here")).to_have_text("Not measured at threshold 0.7, delta 0.3.")
    page.get_by_role("button", name="use delta 0.5").click()
    expect(page.locator("#sure-number")).to_have_text("off")


def test_full_depth_stands_beside_it(opened: Opened, shipped: Server) -> None:
    page, here, full = opened(), asked(shipped, EASY, cost=True), asked(shipped, EASY, min_blocks=6)
    type_in(page, EASY)
    exits(page, here["exit_index"])
    settled(page)
    row = page.locator("#compare tbody tr", has_text="answer").locator("td")
    expect(row.nth(0)).to_have_text(f"{here['label']} {percent(here['score'])}")
    expect(row.nth(1)).to_have_text(f"{full['label']} {percent(full['score'])}")
    expect(page.locator("#compare tbody tr", has_text="FLOPs").locator(".pair")).to_contain_text(
        f"saved, {percent(here['flops_saved_ratio'], 0)}"
    )
    expect(page.locator("#compare tbody tr", has_text="measured").locator("td").nth(1)).to_have_text(re.compile("ms$"))
    predicted = page.locator("#compare tbody tr", has_text="predicted").locator("td").nth(1)
    expect(predicted).to_have_text(re.compile("ms$"))
    shown_ms = float(predicted.inner_text().split("\u202f")[0])
    assert 0.1 < shown_ms / here["cost"]["predicted_ms_full"] < 10, "in milliseconds; it follows what is run meanwhile"
    page.get_by_text("Block by block, as a table").click()
    blocks = [row.locator("th, td").all_inner_texts() for row in page.locator("#blocks-table tbody tr").all()]
    shown = [row[1] for row in blocks[1:]]
    assert [cell for cell in shown if cell != "not run"] == [f"{entropy:.3f}" for entropy in here["entropies"]]
    assert [row[3] for row in blocks[1:]] == [f"{entropy:.3f}" for entropy in full["entropies"]]


def test_a_pair_is_sent_as_a_pair(opened: Opened, shipped: Server) -> None:
    page = opened()
    page.get_by_label("Model").select_option("mrpc")  # of the shipped ones, one that reads pairs
    type_in(page, EASY)
    with page.expect_request(lambda request: "and a dull one" in (request.post_data or "")) as sent:
        page.get_by_label("Second text").fill("and a dull one")
    assert sent.value.post_data_json["text_pair"] == "and a dull one"
    answer = asked(shipped, EASY, text_pair="and a dull one", model="mrpc")
    expect(page.locator("#scores")).to_contain_text(percent(answer["score"]))


def test_an_older_answer_never_replaces_a_newer_one(opened: Opened, shipped: Server) -> None:
    page = opened()
    settled(page)
    held = []
    page.route(
        "**/classify", lambda route: held.append(route) if "older" in route.request.post_data else route.continue_()
    )
    with page.expect_request(lambda request: "older" in (request.post_data or "")):
        type_in(page, "the older of two dreadful films")
    type_in(page, EASY)
    exits(page, asked(shipped, EASY)["exit_index"])
    for route in held:
        route.continue_()
    settled(page)
    expect(page.locator("#label")).to_have_text("positive")


def test_the_curve_has_the_chosen_delta_on_it_and_its_points_can_be_used(opened: Opened, shipped: Server) -> None:
    page = opened()
    dev = httpx2.get(f"{shipped.url}/models/sst2").json()["evaluation"]["dev"]
    expect(page.locator("#curve-here")).to_contain_text(f"accuracy {percent(dev['score'])}")
    expect(page.get_by_role("img", name="Scatter chart of accuracy")).to_be_visible()
    page.get_by_text("The curve as a table").click()
    expect(page.locator("#curve-table tbody tr")).to_have_count(1 + len(dev["delta_curve"]) + len(dev["entropy_curve"]))
    page.get_by_role("button", name="use delta 0.5").click()
    [point] = [point for point in dev["delta_curve"] if point["delta"] == 0.5]
    expect(page.locator("#curve-here")).to_contain_text(f"{percent(point['flops_saved_ratio'])} of the FLOPs")
    expect(page.get_by_label("delta as a number")).to_have_value("0.5")
    page.get_by_label("delta as a number").fill("0.4")
    expect(page.locator("#curve-here")).to_contain_text("between the measured 0.3 and 0.5")
    page.get_by_label("delta as a number").fill("-0.9")
    expect(page.locator("#curve-here")).to_contain_text("Not measured")


def test_points_of_the_charts_answer_to_the_mouse(opened: Opened, shipped: Server) -> None:
    page = opened(reduced_motion="reduce")
    settled(page)

    def place(chart: str, dataset: int, point: int) -> dict[str, float]:
        script = "([id, d, i]) => { const { x, y } = Chart.getChart(id).getDatasetMeta(d).data[i]; return { x, y }; }"
        result: dict[str, float] = page.evaluate(script, [chart, dataset, point])
        return result

    def told(chart: str) -> list[str]:
        script = "id => Chart.getChart(id).tooltip.body.flatMap(({ lines }) => lines)"
        result: list[str] = page.evaluate(script, chart)
        return result

    page.locator("#entropy").hover(position=place("entropy", 0, 1))
    shown = ["entropy", "to stay, below", "full depth", "sure, below"]
    assert [line.rpartition(" ")[0] for line in told("entropy")] == shown
    page.locator("#curve").hover(position=place("curve", 1, 12))
    half = httpx2.get(f"{shipped.url}/models/sst2").json()["evaluation"]["dev"]["delta_curve"][11]
    assert told("curve")[0].startswith(f"delta 0.5: {100 * half['score']:.1f}")
    page.locator("#curve").click(position=place("curve", 1, 12))
    expect(page.get_by_label("delta as a number")).to_have_value("0.5")
    page.locator("#curve").click(position=place("curve", 1, 0))
    expect(page.locator("#curve-here")).to_contain_text("Never early")


LINES = [EASY, "   ", DEEP, '=HYPERLINK("http://example.org")', 'said "so", twice', "-1 for the plot"]


def test_pasted_lines_get_a_row_each_and_a_bad_one_its_own_error(
    opened: Opened, shipped: Server, tmp_path: Path
) -> None:
    page = opened()
    page.get_by_label("Lines", exact=True).fill("\n".join(LINES) + "\n")
    page.get_by_role("button", name="Classify").click()
    expect(page.locator("#progress-says")).to_have_text(f"{len(LINES)} lines done")
    rows = page.locator("#rows tbody tr")
    expect(rows).to_have_count(len(LINES))
    expect(page.locator("#rows .bad")).to_have_count(1)
    expect(rows.nth(1)).to_contain_text("visible character")
    answers = [asked(shipped, line) for line in LINES]
    for i in (0, 2):
        expect(rows.nth(i)).to_contain_text(answers[i]["label"])
        expect(rows.nth(i).locator(".pips .on")).to_have_count(answers[i]["exit_index"])
    counts = [sum(answer.get("exit_index") == block for answer in answers) for block in range(1, 7)]
    said = ", ".join(f"block {i}: {n}" for i, n in enumerate(counts, start=1))
    expect(page.get_by_role("img", name=said)).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    assert download.value.suggested_filename == "beexformer.csv"
    download.value.save_as(tmp_path / "lines.csv")
    raw = (tmp_path / "lines.csv").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf")
    table = list(csv.DictReader(io.StringIO(raw.decode("utf-8-sig"), newline="")))
    assert [row["line"] for row in table] == [str(i + 1) for i in range(len(LINES))]
    assert [row["text"] for row in table] == [f"'{line}" if line[0] in "=-" else line for line in LINES]
    assert [row["label"] for row in table] == [answer.get("label", "") for answer in answers]
    assert [row["exit_index"] for row in table] == [str(answer.get("exit_index", "")) for answer in answers]
    assert float(table[0]["score"]) == answers[0]["score"]
    assert [bool(row["error"]) for row in table] == [False, True, False, False, False, False]


def test_many_lines_go_in_several_batches_with_the_delta_from_above(opened: Opened) -> None:
    page = opened()
    slider = page.get_by_role("slider", name="delta")
    expect(slider).to_be_enabled()  # which pressing a key doesn't wait for: it is when the model is known
    slider.press("End")
    sent: list[Any] = []
    page.on("request", lambda request: sent.append(request) if request.url.endswith("/batch") else None)
    page.get_by_label("Lines", exact=True).fill("\n".join(f"film number {i}" for i in range(250)))
    page.get_by_role("button", name="Classify").click()
    expect(page.locator("#progress-says")).to_have_text("250 lines done")
    batches = [request.post_data_json["items"] for request in sent]
    assert [item["text"] for items in batches for item in items] == [f"film number {i}" for i in range(250)]
    assert len(batches) > 1
    assert all(item["delta"] == 1 for items in batches for item in items)
    expect(page.locator("#rows tbody tr")).to_have_count(100)
    page.get_by_role("button", name="Show 100 more").click()
    expect(page.locator("#rows tbody tr")).to_have_count(200)
    expect(page.get_by_role("img", name="block 1: 250, block 2: 0")).to_be_visible()


def test_lines_pass_through_lower_limits(opened: Opened, tmp_path: Path) -> None:
    limits = {"BEE_MAX_ITEMS": "5", "BEE_MAX_BODY_BYTES": "2048"}
    with server_of(tmp_path, BEEXFORMER, "serve", "--port", "0", **limits) as server:
        page = opened(server.url, errors=REFUSED)
        page.get_by_label("Lines", exact=True).fill(
            "\n".join([*["a fine film"] * 20, "long " * 1000, *["a poor film"] * 20])
        )
        page.get_by_role("button", name="Classify").click()
        expect(page.locator("#progress-says")).to_have_text("41 lines done")
        expect(page.locator("#rows .bad")).to_have_count(1)
        expect(page.locator("#rows tbody tr").nth(20)).to_contain_text("larger than 2048 bytes")
        page.close()


def test_a_tab_separates_a_pair_where_that_is_asked_for(opened: Opened, shipped: Server) -> None:
    page = opened()
    page.get_by_label("Model").select_option("mrpc")
    page.get_by_label("a tab separates two texts").check()
    page.get_by_label("Lines", exact=True).fill("a fine film\ta poor film")
    page.get_by_role("button", name="Classify").click()
    answer = asked(shipped, "a fine film", text_pair="a poor film", model="mrpc")
    expect(page.locator("#rows tbody tr")).to_contain_text(percent(answer["score"]))


def test_a_problem_is_shown_in_its_own_words_and_goes_away(opened: Opened) -> None:
    page = opened(errors=REFUSED)
    settled(page)
    page.get_by_label("delta as a number").fill("5")
    expect(page.get_by_role("alert")).to_have_text("delta: Input should be less than or equal to 1")
    page.get_by_label("delta as a number").fill("0.5")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_key_is_asked_for_only_where_one_is_needed(opened: Opened, tmp_path: Path) -> None:
    page = opened()
    settled(page)
    expect(page.get_by_label("This service asks for an API key")).to_be_hidden()
    with server_of(tmp_path, BEEXFORMER, "serve", "--port", "0", BEE_API_KEYS="correct-horse") as server:
        page = opened(server.url, errors=REFUSED)
        field = page.get_by_label("This service asks for an API key")
        for key in ("wrong-battery", "correct-horse"):
            expect(field).to_be_focused()
            field.fill(key)
            field.press("Enter")
        settled(page)
        expect(field).to_be_hidden()
        page.reload()
        settled(page)
        page.close()


def test_a_service_that_is_gone_is_said_plainly_and_found_again(opened: Opened, tmp_path: Path) -> None:
    with server_of(tmp_path, BEEXFORMER, "serve", "--port", "0") as server:
        page = opened(server.url, errors=("Failed to load resource",))
        settled(page)
    type_in(page, EASY)
    expect(page.get_by_role("alert")).to_contain_text("The service does not answer")
    page.get_by_label("Lines", exact=True).fill(DEEP)
    page.get_by_role("button", name="Classify").click()
    expect(page.locator("#progress-says")).to_have_text("Stopped after 0 of 1 line.")
    port = server.url.rpartition(":")[2]
    with server_of(tmp_path, BEEXFORMER, "serve", "--port", port):
        expect(page.get_by_role("alert")).to_be_hidden()
        exits(page, 3)
        expect(page.locator("#rows tbody tr")).to_have_count(1)


def test_a_busy_service_is_waited_for(opened: Opened) -> None:
    """The refusal is made up, so that it comes for certain; tests/service has the real ones."""
    page = opened(errors=REFUSED)
    settled(page)
    refusal = {
        "type": "urn:problem-type:beexformer:overloaded",
        "title": "The service is overloaded",
        "status": 503,
        "detail": "requests wait 1.2 s for their turn; try again in 2 s",
        "instance": "/classify",
        "request_id": "0",
    }
    headers = {"Retry-After": "2", "Content-Type": "application/problem+json"}
    page.route(
        "**/classify", lambda route: route.fulfill(status=503, headers=headers, body=json.dumps(refusal)), times=1
    )
    type_in(page, DEEP)
    expect(page.get_by_role("alert")).to_contain_text("Going on by itself in")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_model_can_be_chosen_where_there_are_several(opened: Opened, tmp_path: Path) -> None:
    with server_of(tmp_path, BEEXFORMER, "serve", "--port", "0", "--checkpoints", f"{SST2},{GOLDEN}") as server:
        page = opened(server.url)
        settled(page)
        page.get_by_label("Model").select_option("golden")
        expect(page.locator("#about")).to_contain_text("golden")
        golden = asked(server, page.get_by_label("Your sentence").input_value(), model="golden")
        expect(page.locator("#scores")).to_contain_text(percent(golden["score"]))
        page.close()
    with server_of(tmp_path, BEEXFORMER, "serve", "--port", "0", "--checkpoints", GOLDEN) as server:
        page = opened(server.url)
        settled(page)
        expect(page.get_by_label("Model")).to_be_hidden()
        page.close()


def held(page: Any, path: str) -> list[Any]:
    """Requests to this path from now on, which wait until the test lets them go on."""
    result: list[Any] = []
    page.route(f"**/{path}", lambda route: result.append(route))
    return result


def chosen(page: Any, model: str) -> list[Any]:
    """The request for what this model is, `held`, once the page has sent it."""
    result = held(page, f"models/{model}")
    with page.expect_request(f"**/models/{model}"):
        page.get_by_label("Model").select_option(model)
    return result


def let_go(routes: list[Any]) -> None:
    for route in routes:
        route.continue_()


def test_an_example_that_comes_late_stays_out_of_a_field_in_use(opened: Opened) -> None:
    page = opened()
    late = held(page, "models/sst2")
    with page.expect_request("**/models/sst2"):
        page.reload()
    page.get_by_label("Your sentence").focus()
    let_go(late)
    expect(page.locator("#about")).to_contain_text("sst2")
    page.keyboard.type(EASY)
    expect(page.get_by_label("Your sentence")).to_have_value(EASY)


def test_an_example_that_comes_late_keeps_a_second_text(opened: Opened) -> None:
    page = opened()
    page.get_by_label("Model").select_option("mrpc")
    second = page.get_by_label("Second text")
    expect(second).not_to_have_value("")
    late = chosen(page, "rte")
    second.fill("and a dull one")
    page.get_by_label("Lines", exact=True).focus()
    let_go(late)
    expect(page.locator("#about")).to_contain_text("rte")
    expect(second).to_have_value("and a dull one")


def test_what_depends_on_a_model_rests_until_it_is_known(opened: Opened) -> None:
    page = opened()
    settled(page)
    late = chosen(page, "mrpc")
    tabs = page.get_by_label("a tab separates two texts")
    for control in (tabs, page.get_by_role("slider", name="delta"), page.get_by_role("button", name="Fill in")):
        expect(control).to_be_disabled()
    let_go(late)
    expect(tabs).to_be_enabled()
    expect(tabs).to_be_checked()


def test_lines_wait_for_the_model_that_was_chosen(opened: Opened, shipped: Server) -> None:
    page = opened()
    settled(page)
    late = chosen(page, "mrpc")
    page.get_by_label("Lines", exact=True).fill("a fine film\ta poor film")
    page.get_by_role("button", name="Classify").click()
    let_go(late)
    answer = asked(shipped, "a fine film", text_pair="a poor film", model="mrpc")
    expect(page.locator("#rows tbody tr")).to_contain_text(percent(answer["score"]))


def test_the_model_that_was_chosen_last_counts(opened: Opened) -> None:
    page = opened()
    settled(page)
    late = chosen(page, "rte")
    page.get_by_label("Model").select_option("mrpc")
    expect(page.locator("#about")).to_contain_text("mrpc")
    let_go(late)
    with page.expect_request(lambda request: "and a dull one" in (request.post_data or "")) as sent:
        page.get_by_label("Second text").fill("and a dull one")
    assert sent.value.post_data_json["model"] == "mrpc"
    expect(page.locator("#about")).to_contain_text("mrpc")


def test_models_are_listed_once_whatever_is_typed_meanwhile(opened: Opened) -> None:
    """A second list would choose the default again."""
    page = opened()
    late = held(page, "models")
    with page.expect_request("**/models"):
        page.reload()
    type_in(page, EASY)
    page.wait_for_timeout(500)  # by then a typed text is sent, where the model is known
    let_go(late)
    exits(page, 3)
    assert len(late) == 1


def test_a_model_stays_chosen_where_its_description_fails(opened: Opened) -> None:
    page = opened(errors=REFUSED)
    settled(page)
    page.route("**/models/cola", lambda route: route.fulfill(status=502), times=1)
    page.get_by_label("Model").select_option("cola")
    expect(page.get_by_role("alert")).to_contain_text("looks for it")
    expect(page.get_by_role("alert")).to_be_hidden()
    expect(page.locator("#about")).to_contain_text("cola")
    expect(page.get_by_label("Model")).to_have_value("cola")


def test_it_works_under_a_prefix(opened: Opened, shipped: Server) -> None:
    with proxied(shipped.url, "/some/place") as url:
        page = opened(url)
        type_in(page, EASY)
        exits(page, 3)
        assert (
            page.get_by_role("navigation").get_by_role("link", name="API").evaluate("link => link.href")
            == f"{url}/docs"
        )
        page.close()


def test_it_can_be_used_by_keyboard_alone(opened: Opened, shipped: Server) -> None:
    page = opened()
    settled(page)
    press, focused = page.keyboard.press, page.locator(":focus")

    def tab_to(locator: Any) -> None:
        for _ in range(40):
            press("Tab")
            if locator.evaluate("element => element === document.activeElement"):
                outline = focused.evaluate(
                    "e => [e, e.nextElementSibling].some(x => x && getComputedStyle(x).outlineStyle !== 'none')"
                )
                assert outline, "the focus must be seen"
                return
        raise AssertionError(f"Tab never came to {locator}")

    press("Tab")
    expect(focused).to_have_text("Skip to the text")
    press("Enter")
    expect(page.get_by_label("Your sentence")).to_be_focused()
    press("Control+a")
    page.keyboard.type(EASY)
    exits(page, asked(shipped, EASY)["exit_index"])
    tab_to(page.get_by_role("button", name="Long"))
    press("Enter")
    left = asked(shipped, page.get_by_label("Your sentence").input_value())["exit_index"]
    exits(page, left, text="ran all" if left == 6 else "left after block")
    tab_to(page.get_by_role("slider", name="delta"))
    press("End")
    exits(page, 1)
    tab_to(page.get_by_text("Block by block, as a table"))
    press("Enter")
    expect(page.locator("#blocks-table")).to_be_visible()
    tab_to(page.get_by_label("Lines", exact=True))
    page.keyboard.type("one film\n\nanother film")
    press("Control+Enter")
    expect(page.locator("#rows tbody tr")).to_have_count(3)
    tab_to(page.get_by_role("button", name="Download CSV"))
    with page.expect_download():
        press("Enter")


def background(page: Any) -> list[int]:
    result = re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))
    return [int(part) for part in result[:3]]


def test_colours_follow_the_system_and_a_choice_is_remembered(opened: Opened) -> None:
    assert min(background(opened(color_scheme="light"))) > 200
    page = opened(color_scheme="dark")
    assert max(background(page)) < 60
    page.get_by_text("Light", exact=True).click()
    assert min(background(page)) > 200
    page.reload()
    assert min(background(page)) > 200
    expect(page.get_by_role("radio", name="Light")).to_be_checked()
    page.get_by_text("Auto", exact=True).click()
    page.reload()
    assert max(background(page)) < 60


def test_nothing_moves_where_that_is_not_wanted(opened: Opened) -> None:
    page = opened(reduced_motion="reduce")
    settled(page)
    assert page.evaluate(
        "[...document.querySelectorAll('*')].every(e => getComputedStyle(e).transitionDuration === '0s')"
    )
    assert page.evaluate("Chart.getChart('entropy').options.animation") is False


def full(page: Any) -> None:
    """Show all there is to show."""
    settled(page)
    page.get_by_role("button", name="Fill in examples").click()
    page.get_by_label("Lines", exact=True).evaluate("lines => { lines.value += '\\n \\nthe last film'; }")
    page.get_by_role("button", name="Classify").click()
    expect(page.locator("#rows .bad")).to_have_count(1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 1180), (768, 1024), (360, 740)])
def test_it_fits_and_is_photographed(opened: Opened, scheme: str, width: int, height: int) -> None:
    page = opened(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": height})
    settled(page)
    page.screenshot(path=screenshots() / f"page-{scheme}-{width}.png")
    full(page)
    page.get_by_label("Model").select_option("mrpc")  # whose second text has a field
    for summary in page.locator("summary:visible").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.screenshot(path=screenshots() / f"page-{scheme}-{width}-full.png", full_page=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_axe_finds_nothing_serious(opened: Opened, scheme: str, width: int) -> None:
    page = opened(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": 900})
    full(page)
    page.get_by_label("Model").select_option("mrpc")  # whose second text has a field
    page.get_by_label("delta as a number").fill("0.03")
    for summary in page.locator("summary:visible").all():
        summary.click()
    settled(page)
    result = Axe().run(page)
    assert len(result.response["passes"]) > 20, "axe has looked"
    serious = [v for v in result.response["violations"] if v["impact"] in ("serious", "critical")]
    assert serious == [], result.generate_report()


def test_the_picture_in_the_documents_is_small() -> None:
    root = Path(__file__).parents[2]
    assert (root / "docs" / "page.png").stat().st_size < 300_000
    assert "docs/page.png" in (root / "README.md").read_text()
