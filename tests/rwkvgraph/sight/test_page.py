"""The page, clicked through in a headless Chromium: what it shows, keyboard, phones, the dark, silence."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rwkvgraph.sight.packing import unpack
from rwkvgraph.sight.page import page
from rwkvgraph.sight.stages import STAGES, Stages
from rwkvgraph.sight.timing import Timing
from tests.rwkvgraph.sight.chromium import Tab, browser, find_chromium
from tests.rwkvgraph.sight.conftest import compiled

MOST_BYTES = 5_000_000
PHONE = 375


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    """A tab of a browser that all tests of this module share."""
    command = find_chromium()
    if command is None:
        pytest.skip("no Chromium on PATH: apt install chromium")
    with browser(command) as found:
        yield found


@pytest.fixture(scope="module")
def plain(stages: Stages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a model without hooks."""
    path = tmp_path_factory.mktemp("page") / "plain.html"
    path.write_text(page(stages, "program"), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def rich(hooked: Stages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a model with hooks, and times."""
    times = {step.index: 10.0 + step.index for step in hooked.lowered}
    timing = Timing(times, "invented", "no adapter", 1)
    path = tmp_path_factory.mktemp("page") / "rich.html"
    path.write_text(page(hooked, "program", 1, timing), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def silence(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test: the console said nothing, and nothing but the file was asked for."""
    yield
    if "tab" in request.fixturenames:
        tab: Tab = request.getfixturevalue("tab")
        tab.run("1")  # what was said so far arrives before the answer
        assert tab.console == []
        assert [url for url in tab.requests if not url.startswith(("file:", "about:", "data:"))] == []
        assert len([url for url in tab.requests if url.startswith("file:")]) <= 1


def data_of(text: str) -> Any:
    found = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


def label_of(stages: Stages, index: int) -> str:
    return stages.lowered[index].item.label.replace("+", " + ")


def test_the_page_is_one_file_that_names_no_other(plain: Path) -> None:
    text = plain.read_text("utf-8")
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert not re.search(r"@import|url\(", text)
    assert "<!--" not in text.replace("<!doctype", "")
    assert "default-src 'none'" in text


def test_a_page_of_61_layers_is_small(tmp_path: Path, tab: Tab) -> None:
    stages = compiled("v7", 61)
    assert len(stages.build.ops) > 3000
    path = tmp_path / "large.html"
    path.write_text(page(stages, "program"), encoding="utf-8")
    assert path.stat().st_size < MOST_BYTES
    tab.open(path, "#pass-400")
    assert tab.text("#panel .kicker").startswith("Pass 400")
    assert tab.count(".layer") <= 6
    milliseconds = tab.run("performance.getEntriesByType('navigation')[0].duration")
    assert milliseconds < 10_000  # 300 on two idle cores


@pytest.mark.parametrize("stage", STAGES)
def test_every_operation_is_in_the_data_once(hooked: Stages, stage: str) -> None:
    views = data_of(page(hooked, stage))["stages"]
    assert views[-1]["name"] == stage
    for view in views:
        rows = [
            row for section in unpack(view["sections"]) for card in section["cards"] for row in card["rows"]
        ]
        ops = {"build": hooked.build.ops, "splice": hooked.splice.ops}.get(view["name"], hooked.fused.ops())
        assert sum("h" not in row for row in rows) == len(ops)
        sites = len(hooked.build.sites()) if view["name"] not in ("splice", "simplify") else 0
        assert sum("h" in row for row in rows) == sites


def test_it_opens_folded_with_the_first_layer_open(plain: Path, tab: Tab, stages: Stages) -> None:
    tab.open(plain)
    assert tab.text("h1").startswith("RWKV-7")
    assert f"{len(stages.program.passes)} passes" in tab.text(".totals")
    titles = tab.run("[...document.querySelectorAll('.layer-head .title')].map(item => item.innerText)")
    assert titles == ["Layer 0", "Layers 1–3", "Layer 4", "After the layers"]
    assert tab.count('.layer-head[aria-expanded="true"]') == 1
    assert tab.text("#pass-0 .label") == label_of(stages, 0)


def test_a_click_opens_a_layer_and_closes_it(plain: Path, tab: Tab) -> None:
    tab.open(plain)
    before = tab.count(".op")
    tab.click(".layer:nth-of-type(2) .layer-head")
    assert tab.count(".op") > before
    assert "3 alike" in tab.text(".layer:nth-of-type(2) .sum")
    tab.click(".layer:nth-of-type(2) .layer-head")
    assert tab.count('.layer-head[aria-expanded="true"]') == 1


def test_an_operation_shows_what_it_is(plain: Path, tab: Tab) -> None:
    tab.open(plain)
    number = tab.run(
        "[...document.querySelectorAll('.op')].find(item => item.innerText.includes('att_rx =')).id"
    )
    assert "att_rx = lerp(att_x, " in tab.text(f"#{number} .equation")
    tab.click(f"#{number}")
    panel = tab.text("#panel")
    for text in (
        "a + (b - a) * t",
        "def numpy",
        "f32[T, 128], 512 B",
        "blocks.0.att.x_r",
        "vectors, element",
        "elementwise.py:",
    ):
        assert text in panel
    assert tab.count(".op.feeds") == 2
    assert tab.count(".op.uses") == 1
    assert tab.count(f"#{number}[aria-current=true]") == 1


def test_a_pass_shows_its_bindings_and_its_shader(plain: Path, tab: Tab, stages: Stages) -> None:
    tab.open(plain)
    tab.click("#pass-1")
    panel = tab.text("#panel")
    assert f"{len(stages.lowered[1].group.ops)} operations in one dispatch" in panel
    assert "blocks.0.matrices" in panel
    assert "read f16" in panel
    variants = stages.lowered[1].item.variants
    assert (
        variants[0].source.text.rstrip()
        in tab.run("document.querySelector('#panel code').textContent") + "\n"
    )
    assert tab.count("#panel .choices button") == len(variants)
    tab.click("#panel .choices button:last-child")
    assert tab.run("document.querySelector('#panel code').textContent") == variants[-1].source.text.rstrip()


def test_the_kernels_of_a_pass_say_which_rows_they_are_for(stages: Stages) -> None:
    (view,) = (view for view in data_of(page(stages, "program"))["stages"] if view["name"] == "program")
    cards = [card for section in unpack(view["sections"]) for card in section["cards"]]
    labels = {card["kind"]: [item[1] for item in card["variants"]] for card in cards}
    assert labels["wkv"] == ["1 row", "1 row a slot", "more rows"]
    assert labels["row"] == ["1 row", "to 256 rows", "more rows"]
    assert labels["matmul"][0] == "1 row"


def test_kernels_that_share_heads_say_so(known: Stages) -> None:
    (view,) = (view for view in data_of(page(known, "program"))["stages"] if view["name"] == "program")
    cards = [card for section in unpack(view["sections"]) for card in section["cards"]]
    labels = next([item[1] for item in card["variants"]] for card in cards if card["kind"] == "wkv")
    shared = [f"16 rows a slot and more, to {most} workgroups" for most in (132, 256)]
    assert labels == ["1 row", "1 row a slot", shared[0], "then", shared[1], "then", "other rows"]


def test_a_site_shows_its_slots_and_how_to_hook_it(plain: Path, tab: Tab) -> None:
    tab.open(plain)
    tab.click('[id="site-PostAttLinear(0)"]')
    panel = tab.text("#panel")
    assert "@hooks.on(v7.PostAttLinear(0))" in panel
    assert "att_rx" in panel
    assert tab.run("location.hash") == "#site-PostAttLinear(0)"


def test_links_lead_from_operation_to_operation(plain: Path, tab: Tab) -> None:
    tab.open(plain)
    tab.click("#op-5")
    first = tab.text("#panel .kicker")
    tab.click("#panel section .refs .ref")
    assert tab.text("#panel .kicker") != first
    assert tab.count(".item.selected") == 1


def test_hooked_sites_and_what_they_added_stand_out(rich: Path, tab: Tab) -> None:
    tab.open(rich, "#site-PostFfn(1)")
    assert "steer (my_hooks.py:9)" in tab.text("#panel")
    assert tab.count(".site.hooked") == 1
    assert "my_hooks.py:11" in tab.text(".op.spliced")
    assert "2 hooks" in tab.text(".totals")
    tab.click(".op.spliced")
    assert "added at" in tab.text("#panel")


def test_times_are_shown(rich: Path, tab: Tab) -> None:
    tab.open(rich, "#pass-2")
    assert "12.0 µs" in tab.text("#pass-2")
    assert "GB/s" in tab.text("#panel")
    assert "Timed on no adapter: invented." in tab.text(".target")


def test_a_link_opens_its_layer_among_equal_ones(plain: Path, tab: Tab, stages: Stages) -> None:
    step = next(step for step in stages.lowered if step.item.layer == 3)
    tab.open(plain, f"#pass-{step.index}")
    assert "layer 3" in tab.text("#panel .kicker")
    assert tab.run("document.querySelector('.picker select').selectedOptions[0].innerText") == "layer 3"
    tab.click('.picker [aria-label="layer before"]')
    assert tab.run("document.querySelector('.picker select').value") == "1"
    assert tab.count(f"#pass-{step.index}") == 0


def test_a_link_names_a_stage(plain: Path, tab: Tab, stages: Stages) -> None:
    tab.open(plain, "#build:op-3")
    assert tab.text('#stages [aria-pressed="true"]') == "build"
    assert stages.build.ops[3].name in tab.text("#op-3")
    tab.click('#stages [data-stage="simplify"]')
    assert tab.count(".site") == 0
    tab.click('#stages [data-stage="program"]')
    assert tab.count(".pass-head") > 0


def test_search_finds_by_slot_weight_and_layer(plain: Path, tab: Tab) -> None:
    tab.open(plain)
    tab.press("/")
    assert tab.run("document.activeElement.id") == "query"
    tab.write("receptance layer 2")
    assert tab.count('#found [role="option"]') == 1
    assert "blocks.2.att.receptance.weight" in tab.text("#found")
    tab.press("Enter")
    assert "att_r" in tab.text("#panel h2")
    assert "layer 2" in tab.text("#panel .kicker")
    assert tab.run("document.activeElement.classList.contains('selected')")


def test_search_goes_by_the_keyboard(plain: Path, tab: Tab) -> None:
    tab.open(plain)
    tab.press("/")
    tab.write("PostFfn(")
    assert tab.count('#found [role="option"]') == 5
    tab.press("ArrowDown", "ArrowDown")
    chosen = tab.text('#found [aria-selected="true"] b')
    tab.press("Enter")
    assert tab.text("#panel h2") == chosen
    tab.press("/")
    tab.write("no such thing")
    assert "Nothing is called that" in tab.text("#found")
    tab.press("Escape", "Escape")
    assert tab.run("document.activeElement.id") != "query"


def test_the_keyboard_is_enough(plain: Path, tab: Tab) -> None:
    tab.open(plain)
    tab.press("j", "j")
    assert tab.run("document.activeElement.id") == "pass-0"
    tab.press("ArrowDown", "Enter")
    assert tab.run("location.hash") == "#op-0"
    assert tab.text("#panel .kicker").startswith("%0")
    tab.press("j")
    assert tab.text("#panel .kicker").startswith("%1")  # the open panel follows
    tab.press("k", "ArrowLeft")
    assert tab.run("document.activeElement.id") == "pass-0"
    tab.press("Escape")
    assert "Select an operation" in tab.text("#panel")
    tab.press("Home", "ArrowLeft")
    assert tab.count('.layer-head[aria-expanded="true"]') == 0
    tab.press("ArrowRight", "ArrowRight")
    assert tab.run("document.activeElement.id") == "pass-0"
    assert tab.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert tab.count('#model .item[tabindex="0"]') == 1


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("dark", [False, True])
def test_it_is_readable_by_day_and_by_night(rich: Path, tab: Tab, dark: bool) -> None:
    tab.open(rich, "#site-PostFfn(1)", dark=dark)
    paper = tab.run("getComputedStyle(document.body).backgroundColor")
    assert (luminance(paper) < 0.1) == dark
    script = """[...document.querySelectorAll('body *')]
      .filter(item => item.offsetParent)
      .filter(item => [...item.childNodes].some(part => part.nodeType === 3 && part.data.trim()))
      .map(item => {
        const colour = (one) => getComputedStyle(one).backgroundColor;
        let back = item;
        while (colour(back) === 'rgba(0, 0, 0, 0)') back = back.parentElement;
        const what = item.className + ': ' + item.innerText.slice(0, 30);
        return [getComputedStyle(item).color, colour(back), what];
      })"""
    for ink, back, what in tab.run(script):
        low, high = sorted((luminance(ink), luminance(back)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (what, ink, back)  # WCAG 2.2, AA


def test_it_fits_a_phone(rich: Path, tab: Tab) -> None:
    tab.open(rich, width=PHONE, height=740)
    assert tab.run("document.documentElement.scrollWidth") == PHONE
    assert tab.run("getComputedStyle(document.getElementById('panel')).display") == "none"
    tab.click("#op-5")
    assert tab.run("document.documentElement.scrollWidth") == PHONE
    edges = "((box) => [box.left, box.right, box.bottom])"
    box = tab.run(f"{edges}(document.getElementById('panel').getBoundingClientRect())")
    assert box == [0, PHONE, 740]
    tab.click("#panel .close")
    assert tab.run("getComputedStyle(document.getElementById('panel')).display") == "none"


def test_a_link_on_a_phone_is_not_hidden_by_its_details(rich: Path, tab: Tab) -> None:
    tab.open(rich, "#op-20", width=PHONE, height=740)
    script = """((box) => document.elementFromPoint(box.x + 80, box.y + 10).closest('.op')?.id)
      (document.getElementById('op-20').getBoundingClientRect())"""
    assert tab.run(script) == "op-20"


def test_a_name_that_looks_like_markup_stays_text(tmp_path: Path, tab: Tab) -> None:
    hooks = tmp_path / "markup.py"
    hooks.write_text(
        "import rwkvgraph as rg\nfrom rwkvgraph import v7\n"
        "bad = rg.Buffer('</script><b id=bad>', 128)\nhooks = rg.Hooks()\n"
        "@hooks.on(v7.PostFfn(0))\ndef f(frame):\n    frame.x = frame.x + bad.tensor\n"
    )
    path = tmp_path / "markup.html"
    path.write_text(page(compiled("v7", 2, hooks), "program"), encoding="utf-8")
    tab.open(path)
    assert tab.count("#bad") == 0
    assert "</script><b id=bad>" in tab.text(".op.spliced")
