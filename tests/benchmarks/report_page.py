"""The report page of a large pool: its size, and how soon a browser shows it.

    python tests/benchmarks/report_page.py [--tasks 52000] [--rounds 6] [--json FILE]

The data are synthetic, of a large run's sizes: names, categories and instructions of
Self-Instruct's lengths, scores drawn at random, prompts and answers of as many tasks as
--detail_megabytes holds. Needs Chromium and playwright (the `browser` extra).
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

TYPE_WORDS = ("question generation", "title writing", "sentiment", "entailment", "extraction")
WORDS = (
    "given a passage write the question whose answer is in it and keep every name as it stands "
    "do not explain your choice use one word where you can the river market opened late seven "
    "people waited for an engine that never came classify each sentence as formal or not"
).split()
DETAIL_TASKS_PER_CHUNK = 64
REGION_SIZE = 0.05


def synthetic_report(
    num_tasks: int,
    num_rounds: int,
    *,
    num_categories: int = 60,
    num_detailed: int | None = None,
    num_forms: int = 10,
    num_instances: int = 5,
    seed: int = 0,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns (payload, details) as `ait_jax.report.page.render` takes them, kind "run".

    Every field of both is there. `num_detailed` tasks (all by default) have details.
    """
    random = np.random.default_rng(seed)
    tasks = _tasks(random, num_tasks, num_categories)
    scored = [_round(random, tasks, number, num_rounds) for number in range(num_rounds - 1)]
    evaluations = [
        _evaluation(random, number, num_tasks, num_rounds) for number in range(-1, num_rounds)
    ]
    payload = {
        "kind": "run",
        "title": "runs/synthetic",
        "version": "0.0.0",
        "schema": 1,
        "summary": _summary(tasks, num_rounds),
        "tasks": tasks,
        "task_categories": [f"{_words(random, 2).title()} {i}" for i in range(num_categories)],
        "evaluations": evaluations,
        "rounds": scored,
        "training": [_training(random, number) for number in range(num_rounds)],
        "timings": _timings(random, num_rounds),
        "cost": {
            "devices": 8,
            "device_kind": "TPU v4",
            "device_hours": 12.5,
            "price_per_device_hour": 3.22,
            "total": 40.25,
        },
        "config": "\n".join(f"synthetic.value_{i} = {i}" for i in range(200)),
        "commands": [{"what": "reproduce this run", "line": "ait-jax run --gin.SEED=0"}],
        "details_left_out": num_tasks - (num_tasks if num_detailed is None else num_detailed),
        "details_note": "",
    }
    count = num_tasks if num_detailed is None else min(num_detailed, num_tasks)
    numbers = range(count)
    details = []
    for start in range(0, count, DETAIL_TASKS_PER_CHUNK):
        chunk = list(numbers[start : start + DETAIL_TASKS_PER_CHUNK])
        data = {
            str(task): _detail(random, tasks, scored, task, num_forms, num_instances)
            for task in chunk
        }
        details.append({"tasks": chunk, "data": data})
    return payload, details


def _words(random: np.random.Generator, count: int) -> str:
    return " ".join(WORDS[i] for i in random.integers(0, len(WORDS), count))


def _tasks(random: np.random.Generator, count: int, num_categories: int) -> dict[str, Any]:
    return {
        "name": [f"task{i:05d}_{_words(random, 3).replace(' ', '_')}" for i in range(count)],
        "category": random.integers(0, num_categories, count).tolist(),
        "is_cls": (random.random(count) < 0.35).astype(int).tolist(),
        "split": [1] * count,
        "instruction": [_words(random, 24)[:160] for _ in range(count)],
    }


def _round(
    random: np.random.Generator, tasks: dict[str, Any], number: int, num_rounds: int
) -> dict[str, Any]:
    total = len(tasks["name"])
    order = random.permutation(total)
    trained = np.sort(order[: max(1, total * (number + 1) // (4 * num_rounds))])
    task = np.setdiff1d(np.arange(total), trained)
    spread = np.random.default_rng(1).random((2, total))[:, task]  # a task keeps its place, roughly
    uncertainty = np.round((0.75 * spread[0] ** 3 + 0.05 * random.random(len(task))) * 0.6, 5)
    probability = np.round(np.clip(spread[1] + random.normal(0, 0.05, len(task)), 0.01, 1), 5)
    size = max(1, int(REGION_SIZE * len(task)))
    region = np.zeros(len(task), int)
    certain = np.argsort(uncertainty)[: len(task) // 2]
    by_probability = certain[np.argsort(probability[certain])]
    region[by_probability[-size:]], region[by_probability[:size]] = 2, 3
    ambiguous = np.argsort(-uncertainty)[:size]
    region[ambiguous] = 1
    return {
        "round": number,
        "strategy": "prompt_uncertainty",
        "task": task.tolist(),
        "prompt_uncertainty": uncertainty.tolist(),
        "prediction_probability": probability.tolist(),
        "region": region.tolist(),
        "measures": {"perplexity": np.round(1 / probability, 3).tolist()},
        "selected": task[ambiguous].tolist(),
        "trained": trained.tolist(),
        "joined": [],
    }


def _evaluation(
    random: np.random.Generator, number: int, num_tasks: int, num_rounds: int
) -> dict[str, Any]:
    level = 20 + 25 * (number + 1) / num_rounds

    def metrics(names: list[str]) -> dict[str, Any]:
        def figure(shift: float) -> dict[str, Any]:
            value = round(max(0.0, level + shift + float(random.normal())), 4)
            return {
                "rougeL": value,
                "exact_match": round(0.7 * value, 4),
                "instances": 100,
                "tasks": 5,
            }

        return {
            "overall": figure(0),
            "cls": figure(8),
            "gen": figure(-4),
            "categories": {name: figure(float(random.normal(0, 10))) for name in names},
            "tasks": {},
        }

    names = [
        f"{kind.capitalize()} {suffix}" for kind in TYPE_WORDS for suffix in ("short", "long", "")
    ]
    return {
        "round": None if number < 0 else number,
        "name": "base" if number < 0 else f"round {number}",
        "num_tasks": max(0, num_tasks * (number + 1) // (4 * num_rounds)),
        "test": metrics([name.strip() for name in names]),
        "dev": metrics([]),
    }


def _training(random: np.random.Generator, number: int) -> dict[str, Any]:
    steps = list(range(10, 400 + 100 * number, 10))
    loss = [round(3 * float(np.exp(-s / 150)) + 0.4 + 0.1 * random.random(), 4) for s in steps]
    dev_steps = steps[9::10]
    return {
        "round": number,
        "step": steps,
        "loss": loss,
        "accuracy": [round(1 - value / 4, 4) for value in loss],
        "learning_rate": [5e-5] * len(steps),
        "dev": {"step": dev_steps, "rougeL": [40 - 3 * loss[step // 10 - 1] for step in dev_steps]},
        "chosen_step": dev_steps[-2],
    }


def _timings(random: np.random.Generator, num_rounds: int) -> list[dict[str, Any]]:
    return [
        {
            "stage": f"round_{number:03d}/{stage}",
            "seconds": round(float(random.uniform(60, 4000)), 3),
            "tokens_per_second": round(float(random.uniform(1e4, 1e6)), 1),
            "padding": 0.15,
            "mfu": 0.41,
        }
        for number in range(num_rounds)
        for stage in ("train", "evaluate", "score", "select")
    ]


def _summary(tasks: dict[str, Any], num_rounds: int) -> dict[str, Any]:
    return {
        "work": "run",
        "pool": "synthetic",
        "tasks": len(tasks["name"]),
        "cls": sum(tasks["is_cls"]),
        "gen": len(tasks["name"]) - sum(tasks["is_cls"]),
        "strategy": "prompt_uncertainty",
        "seed": 0,
        "rounds": num_rounds,
        "rounds_done": num_rounds,
        "state": "finished",
        "notes": [
            "The last CLS task of round 0 won by 3.1e-06; another mesh may select otherwise."
        ],
    }


def _detail(
    random: np.random.Generator,
    tasks: dict[str, Any],
    rounds: list[dict[str, Any]],
    task: int,
    num_forms: int,
    num_instances: int,
) -> dict[str, Any]:
    words = f"{tasks['instruction'][task]} {_words(random, 20)}".split()
    examples = [{"input": _words(random, 12), "output": _words(random, 3)} for _ in range(2)]
    detail = {"definition": " ".join(words), "examples": examples, "rounds": {}}
    for round in rounds:
        keeps = random.random((num_forms, len(words))) > 0.2
        forms = [
            {
                "definition": " ".join(w for w, keep in zip(words, row, strict=True) if keep),
                "examples": None,
                "dropped": np.flatnonzero(~row).tolist(),
                "change": float(np.round(random.random() / 3, 4)),
            }
            for row in keeps
        ]
        instances = [
            {
                "id": f"{tasks['name'][task]}-{i}",
                "input": _words(random, 30),
                "outputs": [_words(random, 3)],
                "answer": _words(random, 3),
                "p": np.round(random.random(num_forms + 1), 4).tolist(),
            }
            for i in range(num_instances)
        ]
        effects = np.round(random.normal(0, 0.05, len(words)), 4).tolist()
        detail["rounds"][str(round["round"])] = {
            "forms": forms,
            "word_effects": [None if keeps[:, i].all() else e for i, e in enumerate(effects)],
            "instances": instances,
        }
    return detail


# --- measured in a browser ---


def find_chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for path in map(shutil.which, names) if path), None)


def measure(path: Path, *, webgl: bool, scheme: str = "light") -> dict[str, float]:
    """Returns milliseconds from opening the page: its paints, its text, its map, a step of the
    slider, a search; what the browser fetched is counted too."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox"] + ([] if webgl else ["--disable-gpu", "--disable-3d-apis"])
    requests: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=flags)
        page = browser.new_page(viewport={"width": 1440, "height": 900}, color_scheme=scheme)
        # The processor's time of the page's thread: what other programs do does not count.
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        page.on("request", lambda request: requests.append(request.url))
        page.set_default_timeout(120_000)
        page.goto(path.as_uri(), wait_until="commit")
        page.wait_for_selector("html[data-ready]")
        figures = page.evaluate(
            """() => Object.fromEntries([...performance.getEntriesByType("paint"),
                 ...performance.getEntriesByType("mark")].map((e) => [e.name, e.startTime]))"""
        )
        metrics = session.send("Performance.getMetrics")["metrics"]
        figures["CPU until map"] = 1000 * next(
            metric["value"] for metric in metrics if metric["name"] == "ThreadTime"
        )
        page.wait_for_timeout(500)
        figures["slider step"] = _timed_change(
            page, "const s = document.querySelector('#round-slider'); s.value = 0;"
            "s.dispatchEvent(new Event('input'));"
        )  # fmt: skip
        figures["search"] = _timed_change(
            page, "const s = document.querySelector('#map-search'); s.value = 'river engine';"
            "s.dispatchEvent(new Event('input'));"
        )  # fmt: skip
        browser.close()
    figures["requests beyond the file"] = sum(not url.startswith("file:") for url in requests)
    return {name: round(value, 1) for name, value in figures.items()}


def _timed_change(page: Any, change: str) -> float:
    """Milliseconds from a change of the controls until plotly has drawn the map again."""
    return page.evaluate(
        "() => new Promise((resolve) => { const chart = document.querySelector('.map-chart');"
        "const start = performance.now();"
        "chart.once('plotly_afterplot', () => resolve(performance.now() - start));"
        f"{change} }})"
    )


def main() -> int:
    import common

    from ait_jax.report import page

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=52_000)
    parser.add_argument("--rounds", type=int, default=7, help="trainings; one less is scored")
    parser.add_argument(
        "--detailed", type=int, default=2_000, help="tasks with prompts and answers"
    )
    parser.add_argument("--keep", help="write the page here and keep it")
    common.add_json_option(parser)
    options = parser.parse_args()
    payload, details = synthetic_report(
        options.tasks, options.rounds, num_detailed=options.detailed
    )
    start = time.monotonic()
    text = page.render(payload, details)
    result: dict[str, Any] = {"render_seconds": round(time.monotonic() - start, 2)}
    result["megabytes"] = round(len(text.encode()) / 1e6, 2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(options.keep or Path(folder) / "report.html").resolve()
        path.write_text(text, encoding="utf-8")
        if find_chromium() is None:
            print("No chromium on this machine: the page is not opened.", file=sys.stderr)
        else:
            result["webgl"] = measure(path, webgl=True)
            result["no webgl"] = measure(path, webgl=False)
    result["machine"] = common.machine()
    print(f"{options.tasks:,} tasks, {options.rounds - 1} scored rounds: {result['megabytes']} MB, "
          f"rendered in {result['render_seconds']} s")  # fmt: skip
    for name in ("webgl", "no webgl"):
        for what, value in result.get(name, {}).items():
            print(f"  {name:10s} {what:26s} {value:10,.1f}")
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
