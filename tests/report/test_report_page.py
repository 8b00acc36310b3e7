"""The report page: what render() writes, and the page itself in headless Chromium."""

import base64
import copy
import csv
import gzip
import hashlib
import html.parser
import importlib.util
import json
import re

import pytest
from report_page import find_chromium, synthetic_report

from ait_jax.report import page

ATTACKS = (
    "<script>window.hit = 1; alert(1)</script>",
    "</script><script>window.hit = 1; alert(1)</script>",
    "<img src=x onerror='window.hit = 1; alert(1)'>",
    '<a href="javascript:window.hit=1">link</a><b>bold</b><br>',
    "\u2028window.hit = 1\u2029 \u202egnp.exe\u202c \u2066isolated {{csp}} ${window.hit = 1}",
)
MARKER = "window.hit"


def hostile(payload, details):
    """Puts an attack into every text that comes from tasks, models, files and gin."""
    payload, details = copy.deepcopy((payload, details))
    attack = " ".join(ATTACKS)
    tasks = payload["tasks"]
    tasks["name"] = [f"{name}{ATTACKS[i % 5]}" for i, name in enumerate(tasks["name"])]
    tasks["name"][0] = f"=1+1{attack}"
    tasks["instruction"] = [attack for _ in tasks["instruction"]]
    for owner, key in (
        *((payload, key) for key in ("title", "version", "config", "details_note")),
        *((payload["summary"], key) for key in ("pool", "state", "strategy")),
        (payload["cost"], "device_kind"),
        *((command, key) for command in payload["commands"] for key in ("what", "line")),
        *((evaluation, "name") for evaluation in payload["evaluations"]),
        *((round, "strategy") for round in payload["rounds"]),
        *((timing, "stage") for timing in payload["timings"]),
    ):
        owner[key] = f"{owner[key]}{attack}"
    payload["summary"]["notes"] = [attack]
    payload["task_categories"] = [f"{name}{attack}" for name in payload["task_categories"]]
    for scored in payload["rounds"]:
        scored["measures"] = {attack: list(scored["measures"].values())[-1]}
    for evaluation in payload["evaluations"]:
        categories = evaluation["test"]["categories"]
        evaluation["test"]["categories"] = {f"{k}{attack}": v for k, v in categories.items()}
    for chunk in details:
        chunk["data"] = {task: _hostile(detail, attack) for task, detail in chunk["data"].items()}
    return payload, details


def _hostile(value, attack):
    if isinstance(value, str):
        return f"{value} {attack}"
    if isinstance(value, list):
        return [_hostile(item, attack) for item in value]
    if isinstance(value, dict):
        return {key: _hostile(item, attack) for key, item in value.items()}
    return value


@pytest.fixture(scope="module")
def report():
    return synthetic_report(60, 3, num_categories=6, num_detailed=40, num_forms=4, num_instances=2)


@pytest.fixture(scope="module")
def text(report):
    return page.render(*report)


def blocks_of(text):
    packed = re.findall(
        r'<script type="application/x-gzip-base64" id="block-([\w-]+)">(.*?)</script>', text
    )
    return {name: gzip.decompress(base64.b64decode(data)).decode() for name, data in packed}


class _Shell(html.parser.HTMLParser):
    """Collects elements and the scripts' texts, as a browser would see them."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.elements, self.scripts, self.policy = [], [], ""
        self._script = None

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == "meta" and dict(attributes).get("http-equiv") == "Content-Security-Policy":
            self.policy = dict(attributes)["content"]
        self._script = dict(attributes) if tag == "script" else None

    def handle_data(self, data):
        if self._script is not None:
            self.scripts.append((self._script, data))

    def handle_endtag(self, tag):
        self._script = None


def shell_of(text):
    shell = _Shell()
    shell.feed(text)
    return shell


def hash_of(script):
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def test_the_same_report_gives_the_same_page(report, text):
    assert page.render(*copy.deepcopy(report)) == text


def test_blocks_give_back_what_was_put_in(report, text):
    payload, details = report
    blocks = blocks_of(text)
    assert json.loads(blocks["tasks"]) == payload["tasks"]
    assert json.loads(blocks["details-0"]) == details[0]["data"]
    for i, round in enumerate(payload["rounds"]):
        assert json.loads(blocks[f"round-{i}"])["prompt_uncertainty"] == round["prompt_uncertainty"]
    head = json.loads(blocks["head"])
    assert head["summary"] == payload["summary"]
    assert head["rounds"][0]["prompt_uncertainty_extent"] == [
        min(payload["rounds"][0]["prompt_uncertainty"]),
        max(payload["rounds"][0]["prompt_uncertainty"]),
    ]


def test_the_policy_allows_the_pages_own_scripts_alone(text):
    shell = shell_of(text)
    run = [script for attributes, script in shell.scripts if "type" not in attributes]
    allowed = [hash_of(script) for script in run] + [hash_of(blocks_of(text)["plotly"])]
    directives = dict(part.strip().split(" ", 1) for part in shell.policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert sorted(directives["script-src"].split()) == sorted(allowed)
    assert set(directives) == {
        *("default-src", "script-src", "style-src", "img-src", "base-uri", "form-action")
    }
    assert "unsafe" not in directives["script-src"] and "http" not in shell.policy


def test_only_a_map_for_webgl_may_compile_functions():
    for tasks, allowed in ((page.LARGE_MAP // 2, False), (page.LARGE_MAP * 2, True)):
        payload, _ = synthetic_report(tasks, 2, num_detailed=0)
        policy = shell_of(page.render(payload, [])[:4000]).policy
        assert ("'unsafe-eval'" in policy) == allowed


def test_nothing_from_the_data_stands_outside_the_data_blocks(report, text):
    attacked = page.render(*hostile(*report))
    without_blocks = [re.sub(r'(id="block-[\w-]+">)[^<]*', r"\1", t) for t in (text, attacked)]
    assert without_blocks[0] == without_blocks[1]
    elements = shell_of(text).elements
    assert not [e for e in elements if any(name.startswith("on") for name in e[1])]
    assert not [e for e in elements if "src" in e[1] or e[0] in ("link", "iframe", "object")]


def test_numbers_that_json_lacks_become_null():
    payload, _ = synthetic_report(5, 2, num_categories=2, num_detailed=0)
    payload["rounds"][0]["measures"] = {"perplexity": [float("inf"), float("nan"), 1.0]}
    blocks = blocks_of(page.render(payload, []))
    assert json.loads(blocks["round-0"])["measures"]["perplexity"] == [None, None, 1.0]


def test_scripts_never_parse_markup():
    """The page's own scripts put text in as text."""
    for kind in page.SCRIPTS:
        script = page.page_script(kind)
        for parser in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert parser not in script
        assert "</script" not in script and "<!--" not in script


# --- in the browser ---


@pytest.fixture(scope="module")
def browser():
    if importlib.util.find_spec("playwright") is None or find_chromium() is None:
        pytest.skip("needs playwright (pip install -e '.[browser]') and Chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


def open_page(browser, text, folder, **context):
    """Returns the page, drawn, and what it did that a report must not do."""
    path = folder / "report.html"
    path.write_text(text, encoding="utf-8")
    options = {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light", **context}
    tab = browser.new_context(accept_downloads=True, **options).new_page()
    bad = []
    tab.on("dialog", lambda dialog: (bad.append(f"dialog {dialog.message}"), dialog.dismiss()))
    tab.on("pageerror", lambda error: bad.append(f"error {error}"))
    tab.on("console", lambda m: bad.append(m.text) if m.type == "error" else None)
    tab.on("request", lambda r: None if r.url == path.as_uri() else bad.append(f"request {r.url}"))
    tab.set_default_timeout(60_000)
    tab.goto(path.as_uri(), wait_until="commit")
    tab.wait_for_selector("html[data-ready]")
    return tab, bad


@pytest.fixture(scope="module")
def opened(browser, text, tmp_path_factory):
    tab, bad = open_page(browser, text, tmp_path_factory.mktemp("report"))
    yield tab
    assert not [what for what in bad if not what.startswith("request blob:")]
    tab.context.close()


def wait_for_text(locator, text):
    """Waits until the element has this text; the page's policy forbids waiting by a script."""
    from playwright.sync_api import expect

    expect(locator).to_contain_text(text)


def scored(report, place):
    """Returns {task name: (uncertainty, region)} of the round, most uncertain first."""
    payload, _ = report
    round = payload["rounds"][place]
    rows = zip(round["task"], round["prompt_uncertainty"], round["region"], strict=True)
    ordered = sorted(rows, key=lambda row: -row[1])
    return {payload["tasks"]["name"][task]: (value, region) for task, value, region in ordered}


def first_name(tab):
    return tab.locator(".list-row .list-name").first.text_content()


def count(tab):
    return tab.locator(".list-head strong").text_content()


def test_the_slider_changes_the_round(opened, report):
    rounds = report[0]["rounds"]
    assert opened.locator(".round-label strong").text_content() == "round 1"
    opened.locator("#round-slider").focus()
    opened.keyboard.press("ArrowLeft")
    wait_for_text(opened.locator(".round-label strong"), "round 0")
    wait_for_text(opened.locator(".list-head strong"), f"{len(rounds[0]['task'])} tasks")
    assert first_name(opened) == next(iter(scored(report, 0)))
    opened.keyboard.press("ArrowRight")
    wait_for_text(opened.locator(".list-head strong"), f"{len(rounds[1]['task'])} tasks")
    assert first_name(opened) == next(iter(scored(report, 1)))


def point_of(tab, name):
    """Returns where on the screen the task's mark is."""
    return tab.evaluate(
        """(value) => { const chart = document.querySelector('.map-chart');
        chart.scrollIntoView({block: 'center', behavior: 'instant'});
        const {xaxis, yaxis} = chart._fullLayout, box = chart.getBoundingClientRect();
        for (const trace of chart.data) for (let i = 0; i < trace.x.length; i++)
          if (trace.hoverinfo === 'none' && Math.abs(trace.x[i] - Math.cbrt(value)) < 1e-9)
            return [box.left + xaxis._offset + xaxis.l2p(trace.x[i]),
                    box.top + yaxis._offset + yaxis.l2p(trace.y[i])]; }""",
        name,
    )


def test_hover_tells_and_click_opens_the_task(opened, report):
    name, (value, _) = next(iter(scored(report, 1).items()))
    x, y = point_of(opened, value)
    opened.mouse.move(x - 3, y - 3)
    opened.mouse.move(x, y)
    tooltip = opened.locator("#tooltip")
    tooltip.wait_for()
    assert name in tooltip.text_content() and f"{value:.4f}" in tooltip.text_content()
    opened.mouse.click(x, y)
    detail = opened.locator("#detail")
    detail.wait_for()
    assert detail.locator("h2").text_content() == name
    opened.keyboard.press("Escape")
    assert not detail.is_visible()


def test_search_and_filters_narrow_the_list(opened, report):
    payload, _ = report
    names = scored(report, 1)
    wanted = list(names)[3]
    opened.fill("#map-search", wanted.upper())
    wait_for_text(opened.locator(".list-head strong"), "1 of")
    assert first_name(opened) == wanted
    opened.click("#map-reset")
    for region in ("easy", "difficult", "other"):
        opened.click(f".chip[data-region={region}]")
    ambiguous = [name for name, (_, region) in names.items() if region == 1]
    wait_for_text(opened.locator(".list-head strong"), f"{len(ambiguous)} of")
    assert first_name(opened) == ambiguous[0]
    opened.click("#map-reset")
    opened.click(".chip[data-selected]")
    assert count(opened).startswith(f"{len(payload['rounds'][1]['selected'])} of")
    opened.click("#map-reset")
    opened.click(".chip[data-type=GEN]")
    is_cls = payload["tasks"]["is_cls"]
    assert count(opened).startswith(f"{sum(is_cls[t] for t in payload['rounds'][1]['task'])} of")
    opened.click("#map-reset")
    opened.select_option("select[aria-label=Category]", "2")
    of_category = sum(payload["tasks"]["category"][t] == 2 for t in payload["rounds"][1]["task"])
    assert count(opened).startswith(f"{of_category} of")
    opened.click("#map-reset")
    assert count(opened) == f"{len(names)} tasks"


def test_the_keyboard_reaches_a_tasks_prompts_and_answers(opened, report):
    payload, details = report
    detailed = {task for chunk in details for task in chunk["tasks"]}
    names = list(scored(report, 1))
    number = {name: i for i, name in enumerate(payload["tasks"]["name"])}
    place = next(i for i, name in enumerate(names) if number[name] in detailed)
    opened.locator("#map-search").focus()
    for key in ["ArrowDown"] * (place + 2) + ["Enter"]:
        opened.keyboard.press(key)
    detail = opened.locator("#detail")
    detail.locator(".form").first.wait_for()
    assert detail.locator("h2").text_content() == names[place]
    data = details[number[names[place]] // 64]["data"][str(number[names[place]])]
    shown = data["rounds"]["1"]
    assert detail.locator(".instruction").first.text_content() == data["definition"]
    worst = max(shown["forms"], key=lambda form: form["change"])
    words = data["definition"].split()
    struck = " ".join(detail.locator(".form[open] del").all_text_contents()).split()
    assert struck == [words[i] for i in worst["dropped"]]
    cells = detail.locator(".instance").first.locator("td").all_text_contents()
    assert cells == [re.sub("^0", "", f"{p:.3f}") for p in shown["instances"][0]["p"]]
    assert shown["instances"][0]["answer"] in detail.locator(".instance").first.text_content()
    opened.keyboard.press("Escape")
    assert opened.evaluate("document.activeElement.id") == "task-list"


def test_a_table_sorts_filters_and_saves_csv(opened, report, tmp_path):
    opened.evaluate("document.getElementById('tables').scrollIntoView({behavior: 'instant'})")
    block = opened.locator(".table-block", has_text="Task scores, round 1")
    block.wait_for()
    names = scored(report, 1)
    block.get_by_role("button", name="prompt uncertainty").click()
    assert block.locator("tbody th").first.text_content() == list(names)[-1]
    block.locator("input").fill("ambiguous")
    ambiguous = sum(region == 1 for _, region in names.values())
    wait_for_text(block.locator(".count"), f"{ambiguous} of")
    with opened.expect_download() as download:
        block.get_by_role("button", name="CSV").click()
    download.value.save_as(tmp_path / "scores.csv")
    assert download.value.suggested_filename == "task-scores-round-1.csv"
    rows = list(csv.DictReader((tmp_path / "scores.csv").open()))
    assert len(rows) == ambiguous
    assert {row["task"]: float(row["prompt uncertainty"]) for row in rows} == {
        name: value for name, (value, region) in names.items() if region == 1
    }


def test_dark_is_kept_and_follows_the_system(browser, text, opened, tmp_path):
    background = "getComputedStyle(document.body).backgroundColor"
    light = opened.evaluate(background)
    opened.click("#theme")
    assert opened.evaluate("document.documentElement.dataset.theme") == "dark"
    dark = opened.evaluate(background)
    assert dark != light
    opened.reload()
    opened.wait_for_selector("html[data-ready]", timeout=60_000)
    assert opened.evaluate(background) == dark
    opened.click("#theme")
    tab, bad = open_page(
        browser, text, tmp_path, color_scheme="dark", viewport={"width": 360, "height": 740}
    )
    assert tab.evaluate(background) == dark
    # Nothing is wider than a phone.
    assert tab.evaluate("document.documentElement.scrollWidth") == 360
    assert not bad
    tab.context.close()


def test_hostile_texts_run_nothing_and_are_shown_as_text(browser, report, tmp_path):
    attacked = hostile(*report)
    tab, bad = open_page(browser, page.render(*attacked), tmp_path)
    name, (value, _) = next(iter(scored(attacked, 1).items()))
    x, y = point_of(tab, value)
    tab.mouse.move(x - 3, y - 3)
    tab.mouse.move(x, y)
    tab.locator("#tooltip").wait_for()
    assert name in tab.locator("#tooltip").text_content()
    tab.locator("#task-list").focus()
    for key in ("Home", "Enter"):
        tab.keyboard.press(key)
    tab.locator("#detail .form").first.wait_for()
    assert ATTACKS[0] in tab.locator("#detail .instruction").first.text_content()
    tab.keyboard.press("Escape")
    tab.select_option('select[aria-label="Add a category\'s curve"]', "*")
    for section in ("learning", "tables", "training", "cost", "setup"):
        tab.evaluate(
            f"document.getElementById('{section}').scrollIntoView({{behavior: 'instant'}})"
        )
        tab.wait_for_timeout(150)
    ticks = tab.evaluate(
        "[...document.querySelectorAll('#learning .xtick text')].map(n => n.textContent)"
    )
    assert any("<script>" in tick for tick in ticks)
    assert tab.evaluate("document.querySelectorAll('svg a, img, iframe, main script').length") == 0
    assert tab.evaluate(
        "[...document.querySelectorAll('a[href]')]"
        ".every(a => a.getAttribute('href').startsWith('#'))"
    )
    assert tab.evaluate("window.hit") is None
    with tab.expect_download() as download:
        tab.locator(".table-block", has_text="Task scores").get_by_role(
            "button", name="CSV"
        ).click()
    download.value.save_as(tmp_path / "scores.csv")
    cells = [
        c
        for row in csv.reader((tmp_path / "scores.csv").open(encoding="utf-8", newline=""))
        for c in row
    ]
    if any("=1+1" in cell for cell in cells):
        assert any(cell.startswith("'=1+1") for cell in cells)
    assert not [
        c for c in cells if re.match(r"[=+@\t]", c) and not re.fullmatch(r"[+-]?[\d.e-]+", c)
    ]
    assert not [what for what in bad if not what.startswith("request blob:")]
    tab.context.close()


# --- the page of a comparison ---


def comparison(names):
    """Returns a payload of kind "comparison" with two seeds; numbers by hand."""

    def summary(mean):
        spread = {"n": 2, "mean": mean, "std": 1.0, "low": mean - 2.0, "high": mean + 2.0, "p": 0.2}
        return {**spread, "seeds_needed": 9}

    def overlap(jaccard):
        return {"jaccard": jaccard, "common": 3.0, "expected_jaccard": 0.1, "expected_common": 1.0}

    first, second = names
    curve = [{"round": i, "num_tasks": 10 + 20 * i, **summary(20.0 + i)} for i in range(3)]
    points = [
        {"round": p["round"], "num_tasks": p["num_tasks"], "test": {"overall": p["mean"]}}
        for p in curve
    ]
    result = {
        "pool": {"name": f"pool of {first}"},
        "confidence": 0.95,
        "baseline": first,
        "strategies": [first, second],
        "seeds": [0, 1],
        "num_tasks": [10, 30, 50],
        "runs": [
            {"strategy": name, "seed": seed, "path": f"{name}_{seed}", "points": points}
            for name in names
            for seed in (0, 1)
        ],
        "curves": {name: {"overall": curve} for name in names},
        "areas": {name: {"overall": summary(21.0)} for name in names},
        "differences": {second: {"overall": {"rounds": curve, "area": summary(0.5)}}},
        "holm": {second: 0.3},
        "target": {
            "score": 21.0,
            "tasks": {
                name: {"mean_curve": 30.0, "by_seed": {"0": 30.0, "1": None}} for name in names
            },
        },
        "overlaps": [
            {
                "first": first,
                "second": second,
                "selections": [{"after_round": 0, **overlap(0.25)}],
                "together": overlap(0.4),
            }
        ],
        "released": None,
        "paper": {
            "source": f"a figure {second}",
            "num_runs": 5,
            "num_tasks": [68, 136],
            "test": {second: {"overall": [44.0, 45.0]}},
        },
        "verdict": [f"{second} cannot be told from {first}"],
        "warnings": [f"left out: {second}"],
    }
    commands = [{"what": "compare again", "line": f"ait-jax compare {second}"}]
    return {"kind": "comparison", "title": f"runs/{first}", "result": result, "commands": commands}


def test_a_comparisons_shell_is_the_same_whatever_it_compares():
    plain = page.render(comparison(("random", "easy")), [])
    attacked = page.render(comparison(ATTACKS[:2]), [])
    shells = [re.sub(r'(id="block-[\w-]+">)[^<]*', r"\1", text) for text in (plain, attacked)]
    assert shells[0] == shells[1]
    assert "unsafe-eval" not in shell_of(plain).policy


def test_a_comparison_shows_its_verdict_and_runs_nothing(browser, tmp_path):
    names = (f"random {ATTACKS[2]}", f"easy {ATTACKS[3]}{ATTACKS[0]}")
    tab, bad = open_page(browser, page.render(comparison(names), []), tmp_path)
    assert tab.locator(".verdict li").text_content() == f"{names[1]} cannot be told from {names[0]}"
    shown = tab.evaluate(
        "[...document.querySelectorAll('#differences .ytick text')].map(n => n.textContent)"
    )
    assert len(shown) == 1 and shown[0].startswith("easy <a href")
    rows = tab.locator(".table-block", has_text="Overlap of the selections").locator("tbody tr")
    assert rows.nth(0).locator("td").all_text_contents()[1:3] == ["after round 0", "0.250"]
    assert tab.evaluate("document.querySelectorAll('svg a, img, main script').length") == 0
    assert tab.evaluate("window.hit") is None
    assert not bad
    tab.context.close()
