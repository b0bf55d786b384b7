"""The page in a real browser: what a visitor does, with mouse, keys and fingers, and what must not happen."""

import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
from references.tiny_page import Visit
from safetensors.torch import load_file

from bcos_diffusion.app.studio import Studio
from bcos_diffusion.explain import explain

PROMPT = "a cat left of a dog on blue background"


def test_the_first_picture_is_there_and_nobody_else_is_asked(visit: Visit, studio: Studio, address: str) -> None:
    first = explain(studio.pipeline, studio.examples[0])
    expected = {part.text: part.relevance_signed for part in first.words if part.map.any()}
    assert visit.chips() == pytest.approx(expected, abs=1e-5)
    assert visit.page.locator(".head .model").inner_text() == "small <b>"
    hosts = {urlparse(url).netloc for url in visit.requests if not url.startswith(("data:", "blob:"))}
    assert hosts == {urlparse(address).netloc}
    assert not visit.errors


def test_draw_then_look_at_a_word_without_asking_the_server(visit: Visit, studio: Studio) -> None:
    visit.drawn(PROMPT)
    expected = explain(studio.pipeline, PROMPT)
    relevance = {part.text: part.relevance_signed for part in expected.words if part.map.any()}
    assert visit.chips() == pytest.approx(relevance, abs=1e-5)
    before, asked = visit.pixels(), len(visit.requests)
    visit.viewer.locator(".chip", has_text="cat").hover()
    cat = visit.pixels()
    visit.viewer.locator(".chip", has_text="blue").hover()
    blue = visit.pixels()
    assert before != cat != blue != before
    visit.page.mouse.move(2, 2)
    assert visit.pixels() == before and len(visit.requests) == asked


def test_a_pixel_lists_what_made_it(visit: Visit, studio: Studio) -> None:
    visit.drawn(PROMPT)
    asked = len(visit.requests)
    visit.viewer.locator('[data-measure="mass"]').click()
    visit.page.mouse.move(*visit.at(5.5 / 24, 7.5 / 24))
    assert visit.viewer.locator(".where").inner_text() == "Pixel 5, 7 at step 3"
    image = explain(studio.pipeline, PROMPT).trace.image
    assert sum(visit.values()) == pytest.approx(float(image[:, 7, 5].sum()), abs=1e-3)
    assert len(visit.values()) == 4 and len(visit.requests) == asked
    visit.page.mouse.move(2, 2)
    assert visit.values() == []


def test_a_box_is_asked_and_sums_to_its_total(visit: Visit, studio: Studio) -> None:
    visit.drawn(PROMPT)
    visit.page.mouse.move(*visit.at(4.5 / 24, 6.5 / 24))
    visit.page.mouse.down()
    visit.page.mouse.move(*visit.at(12.5 / 24, 15.5 / 24), steps=4)
    visit.page.mouse.up()
    visit.viewer.locator(".sum", has_text="backward").wait_for()
    assert visit.viewer.locator(".where").inner_text() == "Box 4–13 × 6–16 at step 3"
    assert sum(visit.values()) == pytest.approx(visit.total(), rel=1e-4)
    visit.viewer.locator('[data-measure="mass"]').click()
    report = explain(studio.pipeline, PROMPT).words_for((4, 6, 13, 16))
    most = max(share.mass for share in (*report.words, *report.others))
    assert max(visit.values()) == pytest.approx(most, rel=1e-4)
    assert sum(visit.values()) == pytest.approx(visit.total(), rel=1e-4)


def test_steps_of_the_run(visit: Visit) -> None:
    visit.drawn(PROMPT)
    last, chips = visit.pixels(), visit.chips()
    slider = visit.viewer.locator(".steps input")
    slider.focus()
    visit.page.keyboard.press("Home")
    assert visit.viewer.locator(".steps output").inner_text() == "step 1 of 3"
    assert visit.pixels() != last and visit.chips() != chips
    visit.page.keyboard.press("End")
    assert visit.pixels() == last and visit.chips() == chips
    assert "%" in str(visit.viewer.locator(".budget").get_attribute("aria-label"))


def test_daam_stands_beside(visit: Visit) -> None:
    visit.viewer.locator(".daam").click()
    visit.viewer.locator(".rival canvas").wait_for()
    plain = visit.pixels(".rival")
    visit.viewer.locator(".chip").first.hover()
    assert visit.pixels(".rival") not in (plain, visit.pixels())


def test_missing_words_and_their_repair(visit: Visit) -> None:
    visit.drawn("cat and dog on blue")
    assert "“cat” (" in visit.viewer.locator(".warning").inner_text()
    visit.viewer.locator(".repair").click()
    visit.viewer.locator(".said", has_text="tries").wait_for()
    visit.whole()
    assert len(visit.chips()) == 3


def test_two_prompts_at_one_seed(visit: Visit) -> None:
    visit.page.get_by_text("Settings, and a second prompt").click()
    visit.fill("second", "dog red")
    visit.drawn("cat blue")
    visit.whole("b")
    second = visit.page.locator("#viewer-b")
    assert second.locator(".chip").count() == 2 and "dog" in second.locator(".chips").inner_text()
    assert list(visit.chips()) == ["cat", "blue"]
    visit.fill("second", "")
    visit.drawn("cat red")
    second.wait_for(state="hidden")


@pytest.mark.parametrize("kind", ["png", "json", "safetensors"])
def test_export(visit: Visit, studio: Studio, tmp_path: Path, kind: str) -> None:
    with visit.page.expect_download() as download:
        visit.viewer.locator(f'[data-kind="{kind}"]').first.click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    expected = explain(studio.pipeline, studio.examples[0])
    if kind == "png":
        assert path.read_bytes().startswith(b"\x89PNG")
    elif kind == "json":
        assert json.loads(path.read_text())["budget"] == pytest.approx(expected.budget, abs=1e-5)
    else:
        assert (load_file(path)["image"] - expected.trace.image).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("", "the prompt is empty"),
        ("a zebra on blue", "unknown word: 'zebra'"),
        ("x" * 10_000, "the prompt has 10000 characters"),
        ("cat " * 60, "tokens, at most"),
        ('<img src=x onerror="window.hit=1"><script>window.hit=1</script>', "unknown words: 'img'"),
    ],
)
def test_a_bad_prompt_is_said_and_the_picture_stays(visit: Visit, prompt: str, said: str) -> None:
    before, chips = visit.pixels(), visit.chips()
    visit.draw(prompt)
    notice = visit.viewer.locator(".said", has_text=said)
    notice.wait_for()
    assert "Traceback" not in notice.inner_text() and notice.get_attribute("role") == "alert"
    visit.whole()
    assert visit.pixels() == before and visit.chips() == chips
    assert visit.page.evaluate("window.hit") is None and visit.page.locator(".bcos img, .bcos script").count() == 0
    visit.drawn("cat blue")
    assert visit.viewer.locator(".said").is_hidden() and not visit.errors


def test_two_visitors_have_their_own_pictures(visit: Visit, browser: Any, address: str) -> None:
    other = Visit(browser, address)
    visit.draw("cat blue")
    other.draw("two dogs on red")
    for visitor, words in ((visit, ["cat", "blue"]), (other, ["dogs", "red"])):
        visitor.viewer.locator(".chip", has_text=words[0]).wait_for()
        visitor.whole()
        assert list(visitor.chips()) == words
        visitor.page.mouse.click(*visitor.at(0.5, 0.5))
        visitor.viewer.locator(".sum", has_text="backward").wait_for()
        assert words[0] in visitor.viewer.locator(".made tbody").inner_text()
    other.leave()


def slow_passes(studio: Studio) -> tuple[list[int], Any]:
    """Count forward passes, each of which takes long enough for a browser on a busy machine to be heard."""
    calls: list[int] = []

    def count(*_: Any) -> None:
        calls.append(1)
        time.sleep(0.3)

    return calls, studio.pipeline.model.unet.register_forward_hook(count)


@pytest.mark.parametrize("way", ["closed tab", "stop"])
def test_work_that_nobody_waits_for_stops(browser: Any, address: str, studio: Studio, way: str) -> None:
    visitor = Visit(browser, address)
    before = visitor.pixels()
    visitor.page.get_by_text("Settings, and a second prompt").click()
    visitor.fill("steps", "100")
    visitor.fill("second", " , ".join(["cat", "dog", "blue", "owl", "duck", "fox", "cow", "pig"]))
    calls, hook = slow_passes(studio)
    try:
        visitor.draw(" , ".join(["cat", "dog", "blue", "owl", "duck", "fox", "cow", "pig"]))
        visitor.page.locator('#viewer-a .bcos[data-state="preview"]').wait_for()
        if way == "stop":
            visitor.page.locator("#stop").click()
            visitor.whole()
            assert visitor.pixels() == before
        visitor.leave()
        for _ in range(100):
            seen = len(calls)
            time.sleep(1)
            if len(calls) == seen:
                break
    finally:
        hook.remove()
    assert 0 < len(calls) < 150  # of 200


def test_360_pixels_are_wide_enough(browser: Any, address: str) -> None:
    visitor = Visit(browser, address, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page = visitor.page
    page.get_by_text("Settings, and a second prompt").tap()
    page.get_by_text("things that this model can draw").tap()
    visitor.viewer.locator(".daam").tap()
    visitor.viewer.locator(".rival canvas").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert visitor.frame.bounding_box()["width"] <= 340
    before = visitor.pixels()
    visitor.viewer.locator(".chip").first.tap()
    assert visitor.viewer.locator(".chip").first.get_attribute("aria-pressed") == "true"
    assert visitor.pixels() != before
    x, y = visitor.at(0.3, 0.6)
    page.touchscreen.tap(x, y)
    visitor.viewer.locator(".sum", has_text="backward").wait_for()
    visitor.leave()


def test_keys_are_enough(visit: Visit) -> None:
    page = visit.page
    page.locator("#prompt :is(textarea, input)").first.focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("cat blue")
    page.keyboard.press("Enter")
    visit.viewer.locator(".chips", has_text="cat").wait_for()
    page.wait_for_function("document.querySelectorAll('#viewer-a .chip').length == 2")
    visit.whole()
    before = visit.pixels()
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('#viewer-a .ours')"):
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("ArrowRight")
    assert visit.viewer.locator(".where").inner_text() == "Pixel 13, 12 at step 3"
    assert "Pixel 13, 12: most from" in visit.viewer.locator(".heard").inner_text()
    for key in ("Shift+ArrowRight", "Shift+ArrowDown", "Enter"):
        page.keyboard.press(key)
    visit.viewer.locator(".sum", has_text="backward").wait_for()
    assert visit.viewer.locator(".where").inner_text() == "Box 13–15 × 12–14 at step 3"
    page.keyboard.press("Escape")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('#viewer-a .chip')"):
            break
    assert visit.pixels() != before
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"


def test_everything_to_press_has_a_name(visit: Visit) -> None:
    unnamed = visit.page.evaluate(
        """[...document.querySelectorAll('button, input, textarea, [tabindex="0"]')]
        .filter((e) => e.offsetParent && !(e.innerText || '').trim())
        .filter((e) => !e.getAttribute('aria-label') && !e.labels?.length)
        .map((e) => e.outerHTML.slice(0, 200))"""
    )
    assert unnamed == []


def test_light_and_dark(browser: Any, address: str) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        visitor = Visit(browser, address, color_scheme=scheme)
        grounds.append(visitor.page.evaluate("getComputedStyle(document.body).backgroundColor"))
        visitor.page.locator(".theme").click()
        grounds.append(visitor.page.evaluate("getComputedStyle(document.body).backgroundColor"))
        visitor.leave()
    assert grounds[0] == grounds[3] != grounds[1] == grounds[2]
