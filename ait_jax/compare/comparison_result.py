"""The numbers of a comparison: from finished runs to compare.json.

In it a "summary" is {"n", "mean", "std", "low", "high", "p"} (`paired.Summary`), over seeds; a
"group" is "overall", "cls" or "gen", of test ROUGE-L. Keys:
  schema_version, code_version, pool {"name", "fingerprint"}, confidence, baseline;
  strategies, seeds: in order;
  num_tasks: of round 0, 1, ...
  runs: [{"strategy", "seed", "path", "points": [{"round" (null: base model), "num_tasks",
    "test": {group: score or null}, "dev": the same or {}}]}]
  left_out, remarks: as given;
  curves: {strategy: {group: [{"round", "num_tasks", ...summary}]}};
  areas: {strategy: {group: {"by_seed": {seed: area}, ...summary}}}: area under the curve from
    round 0 over the number of tasks, divided by its width;
  differences: {strategy but the baseline: {group: {"rounds": [{"round", "num_tasks",
    "seeds_needed", ...summary}], "area": {"seeds_needed", ...summary}}}}: minus the baseline,
    paired by seed; groups and rounds without a common seed are missing;
  looks: {strategy but the baseline: [{"n", "mean", "low", "high", "verdict": "better", "worse" or
    null}]} after 1, 2, ... common seeds in ascending order: the last round's overall difference
    with intervals that hold at every look, for all strategies together (`sequence`); null bounds
    leave all possible;
  costs: {strategy: {"training_steps", "training_tokens", "training_seconds", "scoring_tokens",
    "scoring_seconds"}}, means over the runs that keep timings;
  holm: {strategy: p of the last round's overall difference, adjusted for all strategies};
  target: {"score", "given", "tasks": {strategy: {"mean_curve", "by_seed": {seed: tasks}}}}, null
    if the score is not reached;
  overlaps: [{"first", "second", "selections": [{"after_round", ...overlap}], "together": overlap of
    all selections of a run as one}] for every two strategies; an overlap is {"by_seed": {seed:
    Jaccard}, "jaccard", "common", "expected_jaccard", "expected_common"}, means over seeds;
    expected: of random draws;
  released: null, or {"names", "unknown_names": how many of them the pool lacks, "overlaps":
    [{"strategy", "seed", "split", "released_strategy", "selections": [{"after_round", "jaccard",
    "common", "expected_jaccard", "expected_common"}], "together": the same}]};
  paper: null, or paper/curves.json.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations, product
from statistics import fmean
from typing import Any

from ait_jax import __version__, assets
from ait_jax.compare import paired, sequence
from ait_jax.compare.finished_runs import FinishedRun
from ait_jax.compare.overlap import Draw, Overlap, only, overlap
from ait_jax.errors import UserError, nearest, shown
from ait_jax.rounds.learning_curve import GROUPS

SCHEMA_VERSION = 1
BASELINE = "random"


def compare(
    runs: Sequence[FinishedRun],
    *,
    baseline: str | None = None,
    target: float | None = None,
    confidence: float = 0.95,
    left_out: Sequence[Mapping[str, Any]] = (),
    remarks: Sequence[str] = (),
    released: Mapping[tuple[str, str], list[Draw]] | None = None,
    paper: bool = False,
) -> dict[str, Any]:
    """Compares runs; returns what compare.json holds.

    Args:
      runs: from `finished_runs.grouped`, in the order in which strategies are shown.
      baseline, target, confidence, paper: as in `comparison.Comparison`.
      left_out: {"strategy", "seed" (or null), "path", "reason"} of runs that are missing.
      remarks: for the reader.
      released: the authors' selections (`overlap.released`).

    Raises:
      UserError: no runs, or the baseline is not among the strategies.
    """
    if not runs:
        raise UserError("There is no finished run to compare.")
    strategies = list(dict.fromkeys(run.strategy for run in runs))
    baseline = baseline_among(baseline, strategies)
    by_strategy = {name: {r.seed: r for r in runs if r.strategy == name} for name in strategies}
    others = {name: of_seed for name, of_seed in by_strategy.items() if name != baseline}
    differences = {
        name: _differences(of_seed, by_strategy[baseline], confidence)
        for name, of_seed in others.items()
    }
    result: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "code_version": __version__,
        "pool": dict(runs[0].pool),
        "confidence": confidence,
        "baseline": baseline,
        "strategies": strategies,
        "seeds": sorted({run.seed for run in runs}),
        "num_tasks": list(runs[0].num_tasks),
        "runs": [_run(run) for run in runs],
        "left_out": [dict(each) for each in left_out],
        "remarks": list(remarks),
        "curves": {name: _curves(found, confidence) for name, found in by_strategy.items()},
        "areas": {name: _areas(found, confidence) for name, found in by_strategy.items()},
        "differences": differences,
        "holm": _holm(differences),
        "costs": _costs(by_strategy),
        "looks": looks(runs, baseline, confidence, len(others)),
    }
    result["target"] = _target(result, by_strategy, target)
    result["overlaps"] = [
        _overlaps(first, second, by_strategy) for first, second in combinations(strategies, 2)
    ]
    result["released"] = None if released is None else _released(runs, released)
    result["paper"] = assets.paper_curves() if paper else None
    return result


def baseline_among(given: str | None, strategies: Sequence[str]) -> str:
    """Returns the baseline's name: as given, else random, else the first strategy."""
    if given is None:
        return BASELINE if BASELINE in strategies else strategies[0]
    if given not in strategies:
        raise UserError(
            f"BASELINE = {shown(given)} is not among the strategies.{nearest(given, strategies)} "
            f"Known: {', '.join(strategies)}."
        )
    return given


def _run(run: FinishedRun) -> dict[str, Any]:
    points = [point.to_json() for point in run.points]
    return {"strategy": run.strategy, "seed": run.seed, "path": str(run.path), "points": points}


def _by_seed(of_seed: Mapping[int, FinishedRun], group: str) -> dict[int, list[float]]:
    """Returns the test scores of all rounds, for the seeds where all were measured."""
    found: dict[int, list[float]] = {}
    for seed, run in sorted(of_seed.items()):
        scores = [score for p in run.rounds if (score := p.test.get(group)) is not None]
        if len(scores) == len(run.rounds):
            found[seed] = scores
    return found


def _rounds(of_seed: Mapping[int, FinishedRun]) -> list[dict[str, Any]]:
    some = next(iter(of_seed.values()))
    return [{"round": point.round_index, "num_tasks": point.num_tasks} for point in some.rounds]


def _curves(of_seed: Mapping[int, FinishedRun], confidence: float) -> dict[str, Any]:
    return {
        group: [
            place | vars(paired.summarize(values, confidence))
            for place, values in zip(_rounds(of_seed), zip(*scores, strict=True), strict=True)
        ]
        for group in GROUPS
        if (scores := list(_by_seed(of_seed, group).values()))
    }


def _area_by_seed(of_seed: Mapping[int, FinishedRun], group: str) -> dict[int, float]:
    return {
        seed: paired.area(of_seed[seed].num_tasks, scores)
        for seed, scores in _by_seed(of_seed, group).items()
    }


def _areas(of_seed: Mapping[int, FinishedRun], confidence: float) -> dict[str, Any]:
    return {
        group: {"by_seed": _keyed(areas)} | vars(paired.summarize(list(areas.values()), confidence))
        for group in GROUPS
        if (areas := _area_by_seed(of_seed, group))
    }


def _keyed(by_seed: Mapping[int, Any]) -> dict[str, Any]:
    return {str(seed): value for seed, value in by_seed.items()}


def _differences(
    ours: Mapping[int, FinishedRun], baseline: Mapping[int, FinishedRun], confidence: float
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for group in GROUPS:
        first, second = _by_seed(ours, group), _by_seed(baseline, group)
        if not first.keys() & second.keys():
            continue
        rounds: list[dict[str, Any]] = []
        for i, place in enumerate(_rounds(ours)):
            a, b = ({s: v[i] for s, v in scores.items()} for scores in (first, second))
            rounds.append(place | _difference(a, b, confidence))
        areas = _area_by_seed(ours, group), _area_by_seed(baseline, group)
        found[group] = {"rounds": rounds, "area": _difference(*areas, confidence)}
    return found


def _difference(
    a: Mapping[int, float], b: Mapping[int, float], confidence: float
) -> dict[str, Any]:
    summary = paired.summarize(paired.differences(dict(a), dict(b)), confidence)
    needed = None
    if summary.std is not None:
        needed = paired.seeds_needed(summary.mean, summary.std, confidence)
    return {**vars(summary), "seeds_needed": needed}


def _costs(by_strategy: Mapping[str, Mapping[int, FinishedRun]]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for name, of_seed in by_strategy.items():
        costs = [run.costs for run in of_seed.values() if run.costs]
        if costs:
            found[name] = {what: fmean(each[what] for each in costs) for what in costs[0]}
    return found


def looks(
    runs: Sequence[FinishedRun], baseline: str, confidence: float, num_strategies: int
) -> dict[str, list[dict[str, Any]]]:
    """Returns what compare.json holds under "looks".

    Args:
      num_strategies: how many are compared with the baseline, seen or not; each has an equal part
        of the chance of error.
    """
    last: dict[str, dict[int, float]] = {}
    for run in runs:
        score = run.rounds[-1].test.get("overall")
        if score is not None:
            last.setdefault(run.strategy, {})[run.seed] = score
    alpha = (1 - confidence) / max(1, num_strategies)
    found: dict[str, list[dict[str, Any]]] = {}
    for name, by_seed in last.items():
        values = paired.differences(by_seed, last.get(baseline, {}))
        if name != baseline and values:
            intervals = sequence.sequence(values, alpha)
            found[name] = [{**each._asdict(), "verdict": each.verdict} for each in intervals]
    return found


def _holm(differences: Mapping[str, Any]) -> dict[str, float]:
    known = {
        name: p
        for name, groups in differences.items()
        if "overall" in groups and (p := groups["overall"]["rounds"][-1]["p"]) is not None
    }
    return dict(zip(known, paired.holm(list(known.values())), strict=True))


def _target(
    result: Mapping[str, Any],
    by_strategy: Mapping[str, Mapping[int, FinishedRun]],
    given: float | None,
) -> dict[str, Any]:
    curves = result["curves"]
    score = given if given is not None else curves[result["baseline"]]["overall"][-1]["mean"]
    tasks: dict[str, Any] = {}
    for name, of_seed in by_strategy.items():
        x = result["num_tasks"]
        mean = [point["mean"] for point in curves[name]["overall"]]
        by_seed = {
            seed: paired.tasks_to_reach(x, scores, score)
            for seed, scores in _by_seed(of_seed, "overall").items()
        }
        reached = paired.tasks_to_reach(x, mean, score)
        tasks[name] = {"mean_curve": reached, "by_seed": _keyed(by_seed)}
    return {"score": score, "given": given is not None, "tasks": tasks}


def _together(draws: Sequence[Draw]) -> Draw:
    """Returns all selections of a run as one."""
    return Draw(
        frozenset().union(*(draw.selected for draw in draws)),
        frozenset().union(*(draw.offered for draw in draws)),
    )


def _overlaps(
    first: str, second: str, by_strategy: Mapping[str, Mapping[int, FinishedRun]]
) -> dict[str, Any]:
    a, b = by_strategy[first], by_strategy[second]
    seeds = sorted(a.keys() & b.keys())
    count = len(a[seeds[0]].draws) if seeds else 0
    selections = [
        {"after_round": i}
        | _mean_overlap({s: overlap(a[s].draws[i], b[s].draws[i]) for s in seeds})
        for i in range(count)
    ]
    together = {s: overlap(_together(a[s].draws), _together(b[s].draws)) for s in seeds if count}
    return {
        "first": first,
        "second": second,
        "selections": selections,
        "together": _mean_overlap(together),
    }


def _mean_overlap(by_seed: Mapping[int, Overlap]) -> dict[str, Any]:
    def mean(name: str) -> float | None:
        known = [getattr(o, name) for o in by_seed.values() if getattr(o, name) is not None]
        return fmean(known) if known else None

    names = ("jaccard", "common", "expected_jaccard", "expected_common")
    jaccards = {str(seed): found.jaccard for seed, found in by_seed.items()}
    return {"by_seed": jaccards, **{name: mean(name) for name in names}}


def _released(
    runs: Sequence[FinishedRun], released: Mapping[tuple[str, str], list[Draw]]
) -> dict[str, Any]:
    """Compares each run's selections with the released ones, on the tasks that both know."""
    names = frozenset().union(*(d.offered for draws in released.values() for d in draws))
    known = frozenset().union(*(run.tasks for run in runs))
    found: list[dict[str, Any]] = []
    for run, ((split, strategy), draws) in product(runs, released.items()):
        theirs = [only(draw, run.tasks) for draw in draws]
        ours = [only(draw, names) for draw in run.draws]
        both = list(zip(ours, theirs, strict=False))
        if both:
            found.append(
                {
                    "strategy": run.strategy,
                    "seed": run.seed,
                    "split": split,
                    "released_strategy": strategy,
                    "selections": [
                        {"after_round": i, **vars(overlap(*pair))} for i, pair in enumerate(both)
                    ],
                    "together": vars(overlap(*map(_together, zip(*both, strict=True)))),
                }
            )
    return {"names": len(names), "unknown_names": len(names - known), "overlaps": found}
