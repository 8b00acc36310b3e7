"""Selections taken from lists: the authors' released ones, and made-up ones."""

import pytest
from selecting import pool_of
from shared_data import ACTIVE_IT, needs_shared

from ait_jax import assets
from ait_jax.errors import UserError
from ait_jax.pool import TaskPool
from ait_jax.pool.cls_gen import Quotas, labels_from_file
from ait_jax.pool.initial import AuthorsSplits
from ait_jax.pool.splits import read_names
from ait_jax.randomness import Key
from ait_jax.selection.released import Released
from ait_jax.selection.selection import SelectionContext, select
from ait_jax.selection.uncertainty import TaskScores

NAMES = ("c1", "c2", "c3", "g1", "g2", "g3")


def write_lists(folder, *rounds):
    for number, names in enumerate(rounds):
        (folder / f"Mine_{number}").mkdir()
        (folder / f"Mine_{number}" / "train_tasks.txt").write_text("\n".join(names) + "\n")
    return str(folder / "Mine_{round}")


def selected(strategy, remaining, num_tasks, ratio=None, round_index=0, pool=None):
    pool = pool or pool_of(NAMES)
    context = SelectionContext(
        TaskScores.unscored(remaining), pool, Quotas(num_tasks, ratio), Key(0, round_index)
    )
    return select(strategy, context).tasks


def test_a_round_selects_what_its_list_adds(tmp_path):
    lists = write_lists(tmp_path, ["g1"], ["g1", "g3", "c2"], ["g1", "g3", "c2", "c1", "g2"])
    strategy = Released(lists)
    assert not strategy.needs_scores and strategy.name == "released"
    assert selected(strategy, ["c1", "c2", "c3", "g2", "g3"], 2) == ("g3", "c2")
    assert selected(strategy, ["c1", "c3", "g2"], 2, round_index=1) == ("c1", "g2")
    assert selected(strategy, ["c1", "c2", "c3", "g2", "g3"], 2, ratio=0.5) == ("c2", "g3")
    with pytest.raises(UserError, match=r"Mine_3.train_tasks.txt"):
        selected(strategy, ["c3"], 1, round_index=2)


def test_numbers_that_do_not_fit_are_refused(tmp_path):
    strategy = Released(write_lists(tmp_path, ["g1"], ["g1", "g3", "g2"]))
    with pytest.raises(UserError, match=r"Mine_1.* has 2 tasks that remain.* and 3 are asked for"):
        selected(strategy, ["c1", "c2", "g2", "g3"], 3)
    with pytest.raises(UserError, match="has 3 tasks that remain.*SPLIT_SEED"):
        selected(strategy, ["c1", "g1", "g2", "g3"], 2)
    with pytest.raises(UserError, match="has 0 CLS tasks that remain.* and 1 are asked for"):
        selected(strategy, ["c1", "g2", "g3"], 2, ratio=0.5)
    with pytest.raises(UserError, match=r"RELEASED_LISTS is 'Random_1'; write \{round\}"):
        Released("Random_1")
    with pytest.raises(UserError, match="missing_tasks is 'dorp'.*Did you mean 'drop'"):
        Released("Random_{round}", "dorp")


def test_tasks_that_the_pool_lacks(tmp_path):
    lists = write_lists(tmp_path, ["g1"], ["g1", "g33", "g2"])
    with pytest.raises(UserError, match="lacks the task 'g33'. Did you mean 'g3'.*missing_tasks"):
        selected(Released(lists), ["c1", "g2", "g3"], 1)
    assert selected(Released(lists, "drop"), ["c1", "g2", "g3"], 1) == ("g2",)


@needs_shared
@pytest.mark.parametrize(
    "stem",
    ["Random", "HighPerplexity", "LowPerplexity", "FCGRatioPI-NL-I10-TDTE-High-0.2-Mean-abs-bald"],
)
def test_the_papers_runs_are_replayed(stem):
    names = read_names(ACTIVE_IT / "default_dev" / "train_tasks.txt")
    labels = labels_from_file(assets.paper_tasks(), names)
    pool: TaskPool = pool_of(labels, labels.__getitem__)
    splits, _ = AuthorsSplits(tasks=assets.paper_tasks(), seed=10).draw(pool, 42)
    folder = ACTIVE_IT / "TLAL_Exp0_all_10"
    strategy = Released(f"{folder}/{stem}_{{round}}")
    for round_index in range(4):
        tasks = selected(strategy, splits.remain, 68, 0.356, round_index, pool)
        splits = splits.after(tasks)
        released = folder / f"{stem}_{round_index + 1}"
        assert splits.train == read_names(released / "train_tasks.txt")
        assert set(splits.remain) == set(read_names(released / "remain_tasks.txt"))
