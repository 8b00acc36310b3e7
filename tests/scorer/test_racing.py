"""racing.py: what is decided, when, at which risk, and that nothing else has a say."""

import numpy as np
import pytest
from selecting import context_of, table_of

from ait_jax.errors import UserError
from ait_jax.pool.cls_gen import Group
from ait_jax.scorer import racing
from ait_jax.scorer.racing import Race, Raced, Racing
from ait_jax.selection.selection import Ambiguous, HighPerplexity, PromptUncertainty, Random, select
from ait_jax.selection.uncertainty import TaskScores, task_scores

HIGH, LOW = PromptUncertainty(), PromptUncertainty(direction="low")


def log_likelihoods(cells, original: float = 0.95) -> np.ndarray:
    """Returns float64[n, k + 1] with |p_i0 - p_ij| = cells, float[n, k]."""
    cells = np.asarray(cells, np.float64)
    return np.log(np.concatenate([np.full((len(cells), 1), original), original - cells], axis=1))


def population(generator, num_tasks: int, n: int = 10, k: int = 10) -> dict[str, np.ndarray]:
    """Tasks whose instances differ and where single perturbations change every answer."""
    tasks = {}
    for index in range(num_tasks):
        scale = np.exp(generator.normal(-2.7, 0.7))
        jumps = 1 + 6 * (generator.uniform(size=k) < 0.15)
        effects = np.exp(0.4 * generator.normal(size=(n, 1)))
        cells = scale * effects * jumps * generator.gamma(1.5, 1 / 1.5, size=(n, k))
        tasks[f"t{index:03d}"] = log_likelihoods(np.minimum(cells, 0.9))
    return tasks


def start(tasks, quota: int, strategy=HIGH, settings=Racing(), k: int | None = None) -> Race:
    k = k or next(iter(tasks.values())).shape[1] - 1
    return Race(settings, strategy, [Group("all", tuple(tasks), quota)], k)


def run(race: Race, tasks) -> Race:
    while race.next_wave():
        race.record(tasks)
    return race


def winners(race: Race) -> set[str]:
    return {task for task, verdict in race.verdicts.items() if verdict == "in"}


def scores_of(tasks) -> TaskScores:
    rows = [
        (name, f"i{i:03d}", j, value)
        for name, matrix in tasks.items()
        for i, row in enumerate(matrix)
        for j, value in enumerate(row)
    ]
    return task_scores(table_of(rows))


def choose(strategy, scores, *quotas):
    return select(strategy, context_of(scores, *quotas, is_cls=lambda name: name < "t02"))


@pytest.fixture
def clear():
    """Four tasks of 4 instances and k = 4: a is far above b, both far above c and d."""
    generator = np.random.default_rng(0)
    levels = {"a": 0.4, "b": 0.2, "c": 0.01, "d": 0.005}
    return {
        name: log_likelihoods(level * generator.uniform(0.95, 1.05, size=(4, 4)))
        for name, level in levels.items()
    }


def test_clear_tasks_are_decided_after_the_first_wave(clear):
    race = start(clear, 2)
    wave = race.next_wave()
    assert wave.tasks == ("a", "b", "c", "d") and wave.steps == range(0, 2)
    assert wave.prompts(4).tolist() == [[1, 2], [2, 3], [3, 4], [4, 1]]
    race.record(clear)
    assert race.next_wave() is None
    assert race.verdicts == {"a": "in", "b": "in", "c": "out", "d": "out"}
    report = race.report()
    assert (report.passes, report.full_passes, report.saved) == (32, 64, 0.5)
    assert 0 < report.error_bound < 0.05
    (wave_report,) = report.waves
    assert (wave_report.steps, wave_report.tasks, wave_report.num_in) == (2, 4, 2)
    assert report.describe().startswith(
        "racing: 32 of 64 passes under perturbed prompts (50% saved), 4 tasks in 1 wave; chance"
    )


def test_only_tasks_near_the_threshold_go_on():
    generator = np.random.default_rng(1)
    levels = [0.5, 0.45, 0.2, 0.2, 0.2, 0.01, 0.02]
    tasks = {
        f"t{i}": log_likelihoods(level * generator.uniform(0.8, 1.2, size=(10, 10)))
        for i, level in enumerate(levels)
    }
    race = start(tasks, 3)
    race.record(tasks)
    assert race.next_wave().tasks == ("t2", "t3", "t4")
    assert race.next_wave().steps == range(2, 3)
    assert (race.report().waves[0].num_in, race.report().waves[0].num_out) == (2, 2)
    assert "3 undecided" in race.report().describe()
    run(race, tasks)
    assert winners(race) == set(choose(HIGH, scores_of(tasks), 3).tasks)
    assert race.report().waves[-1].num_undecided == 0


@pytest.mark.parametrize("strategy", [HIGH, LOW])
def test_without_early_verdicts_the_selection_is_the_full_one(strategy):
    """Equal tasks are ranked by name, as everywhere, and all passes are done."""
    one = population(np.random.default_rng(2), 1)["t000"]
    tasks = {name: one for name in ("t3", "t1", "t2", "t0")}
    race = run(start(tasks, 2, strategy), tasks)
    assert winners(race) == {"t0", "t1"}
    assert race.report().saved == 0 and race.report().error_bound == 0
    assert "computation's: none" in race.report().describe()


@pytest.mark.parametrize("strategy, error", [(HIGH, 0.05), (HIGH, 0.8), (LOW, 0.8)])
def test_the_bound_holds(strategy, error):
    """Over 20 populations: no more tasks differ than the races said, and half is saved."""
    generator = np.random.default_rng(5)
    differing, bounds, saved = [], [], []
    for _ in range(20):
        tasks = population(generator, 60)
        race = run(start(tasks, 15, strategy, Racing(error=error)), tasks)
        full = set(choose(strategy, scores_of(tasks), 15).tasks)
        assert len(winners(race)) == 15
        differing.append(len(full - winners(race)))
        bounds.append(race.report().error_bound)
        saved.append(race.report().saved)
    assert max(bounds) <= error
    margin = 2 * np.sqrt(np.mean(bounds) / 20)
    assert np.mean(differing) <= np.mean(bounds) + margin
    assert np.mean(saved) > 0.4
    if error > 0.5:
        assert sum(differing) > 0 and np.mean(bounds) > 0.5  # the error is really spent


def test_the_bound_needs_diagonals(monkeypatch):
    """Perturbation by perturbation the same races would be wrong: the test above can fail."""

    def columns(n, k):
        return np.tile(np.arange(1, k + 1), (n, 1))

    monkeypatch.setattr(racing, "prompt_order", columns)
    generator = np.random.default_rng(5)
    differing = []
    for _ in range(10):
        tasks = population(generator, 60)
        race = run(start(tasks, 15), tasks)
        differing.append(len(set(choose(HIGH, scores_of(tasks), 15).tasks) - winners(race)))
    assert np.mean(differing) > 0.5


def test_a_smaller_error_costs_more_passes():
    tasks = population(np.random.default_rng(6), 60)
    passes = [
        run(start(tasks, 15, settings=Racing(error=error)), tasks).report().passes
        for error in (0.001, 0.05, 0.9)
    ]
    assert passes[0] > passes[1] > passes[2]


def test_what_is_impossible_is_decided_at_no_risk():
    """With p_i0 = 0.5 a cell is at most 0.5: 0.49 on 8 of 10 steps cannot be overtaken."""
    ahead = log_likelihoods(np.full((10, 10), 0.49), original=0.5)
    behind = log_likelihoods(np.tile(np.linspace(0.001, 0.1, 10), (10, 1)), original=0.5)
    race = start({"a": ahead, "b": behind}, 1, settings=Racing(waves=(8,), error=1e-12))
    race.record({"a": ahead, "b": behind})
    assert race.verdicts == {"a": "in", "b": "out"} and race.report().error_bound == 0


def test_a_perturbation_never_tried_may_change_everything():
    """Of one instance, or of two with few steps, nothing is certain before all k are seen."""
    tasks = {f"t{i}": log_likelihoods(np.full((1, 6), 0.01 + 0.05 * i)) for i in range(6)}
    race = run(start(tasks, 2), tasks)
    assert race.report().saved == 0
    tasks = {name: np.repeat(matrix, 2, axis=0) for name, matrix in tasks.items()}
    race = start(tasks, 2)
    race.record(tasks)
    assert set(race.verdicts.values()) == {"undecided"}
    race.record(tasks)  # 2 instances x 3 steps
    assert "in" in race.verdicts.values()


def test_verdicts_are_final_and_never_more_than_the_quota():
    """Two tasks rise late, both above one that is in already: one place is left for them."""
    generator = np.random.default_rng(14)

    def task(early: float, late: float) -> np.ndarray:
        by_step = np.array([early] * 2 + [late] * 8) * generator.uniform(0.98, 1.02, size=(10, 10))
        cells = np.empty((10, 10))
        np.put_along_axis(cells, racing.prompt_order(10, 10) - 1, by_step, axis=1)
        return log_likelihoods(cells)

    tasks = {"a": task(0.2, 0.2), "b": task(0.1, 0.6), "c": task(0.1, 0.6)}
    tasks |= {f"d{i}": task(0.01 + 0.002 * i, 0.01) for i in range(20)}
    race = start(tasks, 2)
    race.record(tasks)
    assert winners(race) == {"a"} and race.next_wave().tasks == ("b", "c")
    run(race, tasks)
    assert len(winners(race)) == 2 and "a" in winners(race)


def test_the_ranking_keeps_the_verdicts_whatever_the_partial_means():
    scores = scores_of({name: log_likelihoods(np.full((2, 2), v)) for name, v in
                        {"a": 0.30, "b": 0.31, "c": 0.32, "d": 0.1}.items()})  # fmt: skip
    verdicts = {"a": "in", "b": "out", "c": "in", "d": "out"}
    assert choose(HIGH, scores, 2).tasks == ("c", "b")
    selection = choose(Raced(HIGH, verdicts), scores, 2)
    assert selection.tasks == ("c", "a") and selection.margins == {"all": None}
    assert choose(Raced(LOW, verdicts), scores, 2).tasks == ("a", "c")
    assert Raced(LOW, verdicts).name == LOW.name


@pytest.mark.parametrize("strategy", [HIGH, LOW, Ambiguous()])
def test_select_takes_exactly_what_the_race_decided(strategy):
    """The scores are what a run would have: means over the prompts that were computed."""
    tasks = population(np.random.default_rng(7), 40)
    race, computed = start(tasks, 10, strategy, Racing(error=0.9)), {}
    while wave := race.next_wave():
        for task in wave.tasks:
            prompts = racing.prompt_order(10, 10)[:, : wave.steps.stop]
            computed[task] = np.take_along_axis(
                tasks[task], np.pad(prompts, ((0, 0), (1, 0))), axis=1
            )
        race.record(tasks)
    assert race.report().saved > 0.4
    assert race.report().passes == sum(m.size - len(m) for m in computed.values())
    assert set(choose(Raced(strategy, race.verdicts), scores_of(computed), 10).tasks) == winners(
        race
    )


def test_groups_have_their_own_quota_and_share_the_error():
    tasks = population(np.random.default_rng(8), 50)
    cls = tuple(name for name in tasks if name < "t02")
    gen = tuple(name for name in tasks if name >= "t02")
    race = Race(Racing(), HIGH, [Group("cls", cls, 6), Group("gen", gen, 9)], 10)
    run(race, tasks)
    assert len(winners(race) & set(cls)) == 6 and len(winners(race) & set(gen)) == 9
    assert race.report().error_bound <= 0.05
    full = choose(HIGH, scores_of(tasks), 15, 0.4)
    assert winners(race) == set(full.tasks)


def test_a_group_that_is_taken_or_left_whole_takes_part_in_one_wave():
    tasks = population(np.random.default_rng(9), 30)
    names = tuple(tasks)
    groups = [
        Group("none", names[:10], 0),
        Group("some", names[10:20], 5),
        Group("whole", names[20:], 10),
    ]
    race = Race(Racing(), HIGH, groups, 10)
    assert len(race.next_wave().tasks) == 30
    race.record(tasks)
    assert set(race.next_wave().tasks) <= set(names[10:20])
    assert set(names[20:]) <= winners(race) and not winners(race) & set(names[:10])


def holes(matrix: np.ndarray, steps: int) -> np.ndarray:
    """Returns the matrix as it is after so many steps, NaN elsewhere."""
    n, k = matrix.shape[0], matrix.shape[1] - 1
    partial = np.full_like(matrix, np.nan)
    seen = np.pad(racing.prompt_order(n, k)[:, :steps], ((0, 0), (1, 0)))
    np.put_along_axis(partial, seen, np.take_along_axis(matrix, seen, axis=1), axis=1)
    return partial


def test_interruptions_leave_no_trace():
    """Killed after every wave: the next race reads the waves that are there, and goes on."""
    tasks = population(np.random.default_rng(10), 40)
    expected = run(start(tasks, 10), tasks)
    assert len(expected.report().waves) >= 4
    computed = []
    while True:
        race = start(tasks, 10)
        for cells in computed:
            race.record(cells)
        wave = race.next_wave()
        if wave is None:
            break
        computed.append({task: holes(tasks[task], wave.steps.stop) for task in wave.tasks})
    assert race.verdicts == expected.verdicts and race.report() == expected.report()


def test_neither_later_cells_nor_the_order_of_tasks_matter():
    tasks = population(np.random.default_rng(11), 40)
    backwards = dict(reversed(tasks.items()))
    first, second = start(tasks, 10), start(backwards, 10)
    while wave := first.next_wave():
        first.record({task: holes(tasks[task], wave.steps.stop) for task in wave.tasks})
        second.record(backwards)
        assert first.verdicts == second.verdicts
    assert first.report() == second.report()


def test_tasks_may_have_different_numbers_of_instances():
    tasks = population(np.random.default_rng(12), 30)
    tasks |= {f"few{i}": tasks[f"t{i:03d}"][: i + 1] for i in range(8)}
    race = run(start(tasks, 10), tasks)
    assert winners(race) == set(choose(HIGH, scores_of(tasks), 10).tasks)
    assert race.report().full_passes == 10 * (300 + 36)


@pytest.mark.parametrize("k, ends", [(1, [1]), (2, [2]), (4, [2, 3, 4]), (12, [2, 3, 4, 6, 8, 12])])
def test_waves_beyond_k_are_dropped_and_the_last_is_k(k, ends):
    one = population(np.random.default_rng(13), 1, n=12, k=k)["t000"]
    race = start({"a": one, "b": one}, 1)
    run(race, {"a": one, "b": one})
    assert [wave.steps for wave in race.report().waves] == ends


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"waves": ()}, r"racing.Racing.waves = \(\)"),
        ({"waves": (4, 2)}, r"racing.Racing.waves = \(4, 2\): give ascending"),
        ({"waves": (2, 2)}, "racing.Racing.waves"),
        ({"waves": (1, 3)}, "the first at least 2"),
        ({"waves": [2, 3.5]}, "whole numbers"),
        ({"error": 0.0}, "racing.Racing.error = 0.0: give"),
        ({"error": 1.0}, "racing.Racing.error = 1.0"),
        ({"error": float("nan")}, "racing.Racing.error = nan"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        Racing(**settings)


@pytest.mark.parametrize("strategy", [HighPerplexity(), Random(), PromptUncertainty(measure="std")])
def test_only_prompt_uncertainty_is_raced(strategy, clear):
    with pytest.raises(UserError, match=f"'{strategy.name}' cannot be raced: a race"):
        start(clear, 2, strategy)


def test_wrong_use_is_told(clear):
    with pytest.raises(ValueError, match="in two groups"):
        Race(Racing(), HIGH, [Group("cls", ("a",), 1), Group("gen", ("a", "b"), 1)], 4)
    with pytest.raises(ValueError, match="quota 5 of 4 all tasks"):
        start(clear, 5)
    race = start(clear, 2)
    with pytest.raises(ValueError, match="'b' is missing"):
        race.record({"a": clear["a"]})
    with pytest.raises(ValueError, match=r"shape \(4, 4\), needed \(n, 5\)"):
        race.record(clear | {"c": clear["c"][:, :4]})
    with pytest.raises(ValueError, match=r"1 tasks lack numbers of steps range\(0, 2\): \['d'\]"):
        race.record(clear | {"d": holes(clear["d"], 1)})
    assert race.report().passes == 0 and race.report().saved == 0.0
    assert race.report().describe() == "racing: nothing computed yet"
    run(race, clear)
    with pytest.raises(ValueError, match="the race is over"):
        race.record(clear)
