"""initial.py: the splits that a run starts from, drawn or read from files."""

import hashlib
import json

import pytest
from shared_data import ACTIVE_IT, NIV2, combine_dev_and_test, needs_shared

from ait_jax import assets
from ait_jax.errors import UserError
from ait_jax.pool import Instance, Instruction, Splits, Task, TaskPool
from ait_jax.pool.cls_gen import labels_from_file
from ait_jax.pool.initial import AuthorsSplits, Drawn, FromFiles
from ait_jax.pool.splits import SPLIT_NAMES, read_names, write_splits

NAMES = [f"{kind}{i:02d}" for i in range(10) for kind in ("cls", "gen")]
TEST = ("test_a", "test_b")
RELEASED = ACTIVE_IT / "TLAL_Exp0_all_10" / "init"


def make_pool(names=(*NAMES, *TEST), splits: Splits | None = None, labels=None) -> TaskPool:
    instance = Instance("1", "x", ("y",))
    tasks = [Task(name, Instruction("Do it."), (instance,)) for name in names]
    return TaskPool(tasks, labels or {n: n.startswith("cls") for n in names}, "made up", splits)


def own_splits(**changes) -> Splits:
    return Splits(**{"remain": tuple(NAMES), "test": TEST, **changes})


def test_drawn_shares_out_the_pool():
    pool = make_pool(splits=own_splits())
    splits, dropped = Drawn(initial_tasks=5, dev_tasks=6).draw(pool, seed=1)
    assert (len(splits.train), len(splits.dev), len(splits.remain), dropped) == (5, 6, 9, 0)
    assert splits.test == TEST
    assert sorted(splits.names) == sorted(pool)
    assert sum(map(pool.is_cls, splits.dev)) == 3
    assert Drawn(5, 6).draw(make_pool(splits=own_splits()), 1)[0] == splits
    shuffled = make_pool(splits=own_splits(remain=tuple(reversed(NAMES))))
    assert Drawn(5, 6).draw(shuffled, 1)[0] == splits
    other = Drawn(5, 6).draw(pool, 2)[0]
    assert (other.train, other.dev) != (splits.train, splits.dev)


def test_fewer_tasks_may_remain():
    pool = make_pool(splits=own_splits())
    every = Drawn(initial_tasks=5, dev_tasks=6).draw(pool, seed=1)[0]
    some = Drawn(initial_tasks=5, dev_tasks=6, remain_tasks=4).draw(pool, seed=1)[0]
    assert (some.train, some.dev, some.test) == (every.train, every.dev, every.test)
    assert len(some.remain) == 4 and set(some.remain) < set(every.remain)
    more = Drawn(initial_tasks=5, dev_tasks=6, remain_tasks=100).draw(pool, seed=1)[0]
    assert more == every
    others = [Drawn(5, 6, remain_tasks=4).draw(pool, seed)[0].remain for seed in range(4)]
    assert len(set(others)) > 1


def test_dev_tasks_may_be_drawn_without_balance():
    labels = {name: name == "cls00" for name in NAMES}
    pool = make_pool(NAMES, labels=labels)
    draws = [Drawn(1, 2, balance_dev_cls_gen=False).draw(pool, s)[0].dev for s in range(5)]
    assert all(len(dev) == 2 for dev in draws)
    assert any("cls00" not in dev for dev in draws)
    assert all("cls00" in Drawn(1, 2).draw(pool, s)[0].dev for s in range(5))


def test_a_pool_without_splits_is_drawn_from_whole():
    splits, _ = Drawn(initial_tasks=3, dev_tasks=2).draw(make_pool(NAMES), seed=0)
    assert sorted(splits.names) == sorted(NAMES) and splits.test == ()


def test_the_pools_own_dev_tasks_are_kept():
    own = own_splits(train=tuple(NAMES[:2]), remain=tuple(NAMES[2:16]), dev=tuple(NAMES[16:]))
    splits, _ = Drawn(initial_tasks=4, dev_tasks=68).draw(make_pool(splits=own), seed=0)
    assert splits.dev == own.dev
    assert len(splits.train) == 4 and len(splits.remain) == 12
    assert set(splits.train + splits.remain) == set(NAMES[:16])


def test_more_tasks_than_there_are():
    pool = make_pool(splits=own_splits())
    with pytest.raises(UserError, match=r"INITIAL_TASKS \(15\) and DEV_TASKS \(6\).* has 20"):
        Drawn(initial_tasks=15, dev_tasks=6).draw(pool, 0)


def test_splits_of_the_pool_may_name_tasks_it_lacks():
    pool = make_pool(splits=own_splits(remain=(*NAMES, "gone_1"), test=(*TEST, "gone_2")))
    with pytest.raises(UserError, match="'gone_1'.* MISSING_TASKS"):
        Drawn(3, 2).draw(pool, 0)
    splits, dropped = Drawn(3, 2, missing_tasks="drop").draw(pool, 0)
    assert dropped == 2
    assert splits == Drawn(3, 2).draw(make_pool(splits=own_splits()), 0)[0]
    with pytest.raises(UserError, match="must be 'error' or 'drop'"):
        Drawn(3, 2, missing_tasks="dorp").draw(pool, 0)


def test_from_files_reads_what_was_written(tmp_path):
    splits = Splits(tuple(NAMES[:3]), tuple(NAMES[3:15]), tuple(NAMES[15:]), TEST)
    write_splits(tmp_path, splits)
    pool = make_pool(splits=own_splits())
    assert FromFiles(str(tmp_path)).draw(pool, seed=0) == (splits, 0)
    assert FromFiles(str(tmp_path)).draw(pool, seed=9) == (splits, 0)


def test_from_files_tells_dev_from_test(tmp_path):
    splits = Splits(tuple(NAMES[:3]), tuple(NAMES[3:15]), tuple(NAMES[15:]), TEST)
    write_splits(tmp_path / "run", splits)
    combine_dev_and_test(tmp_path / "run")
    source = FromFiles(str(tmp_path / "run"))
    assert source.draw(make_pool(splits=own_splits()), 0) == (splits, 0)
    # A pool that knows no test tasks cannot tell: not a word of guessing.
    for own in (None, Splits(remain=tuple(NAMES))):
        with pytest.raises(UserError, match="OFFICIAL_TEST_TASKS"):
            source.draw(make_pool(splits=own), 0)
    (tmp_path / "official.txt").write_text("".join(f"{name}\n" for name in TEST))
    told = FromFiles(str(tmp_path / "run"), official_test_tasks=str(tmp_path / "official.txt"))
    assert told.draw(make_pool(), 0) == (splits, 0)


def test_from_files_refuses_or_drops_what_the_pool_lacks(tmp_path):
    write_splits(tmp_path, Splits(("cls00", "gone"), ("cls01",), (), ("test_a",)))
    pool = make_pool()
    with pytest.raises(UserError, match="'gone', which the pool lacks"):
        FromFiles(str(tmp_path)).draw(pool, 0)
    splits, dropped = FromFiles(str(tmp_path), missing_tasks="drop").draw(pool, 0)
    assert (splits, dropped) == (Splits(("cls00",), ("cls01",), (), ("test_a",)), 1)
    with pytest.raises(UserError, match="does not exist"):
        FromFiles(str(tmp_path / "nowhere")).draw(pool, 0)


@needs_shared
def test_the_released_splits_on_the_folder_at_hand():
    """756 training-pool tasks and 119 test tasks, of which the folder at hand has 122 and 15."""
    default = NIV2 / "splits" / "default"
    train, test = read_names(default / "train_tasks.txt"), read_names(default / "test_tasks.txt")
    labels = labels_from_file(ACTIVE_IT / "cls_gen_train_pool.json")
    pool = make_pool((*train, *test), Splits(remain=train, test=test), labels)
    with pytest.raises(UserError, match="MISSING_TASKS"):
        FromFiles(str(RELEASED)).draw(pool, 0)
    splits, dropped = FromFiles(str(RELEASED), missing_tasks="drop").draw(pool, 0)
    released = {
        name: (RELEASED / f"{name}_tasks.txt").read_text().split() for name in ("train", "remain")
    }
    assert list(splits.train) == [n for n in released["train"] if n in train] != []
    assert list(splits.remain) == [n for n in released["remain"] if n in train]
    assert sorted(splits.test) == sorted(test)
    assert set(splits.names) == {*train, *test}
    assert dropped + len(splits.names) == 756 + 119


def starts_with_c(name):
    return name.startswith("c")


def test_draws_share_out_the_pool():
    names = [f"c{i:03d}" for i in range(279)] + [f"g{i:03d}" for i in range(477)]
    test = ("t1", "t2")
    splits = Drawn(68, 68).split(names, starts_with_c, 10, test=test)
    assert (len(splits.train), len(splits.dev), len(splits.remain)) == (68, 68, 620)
    assert sorted((*splits.train, *splits.dev, *splits.remain)) == names
    assert sum(map(starts_with_c, splits.dev)) == 34
    assert splits.test == test
    assert splits == Drawn(68, 68).split(names[::-1], starts_with_c, 10, test=test)
    counts = set()
    for seed in range(20, 60, 10):
        other = Drawn(68, 68).split(names, starts_with_c, seed, test=test)
        assert other.train != splits.train and other.dev != splits.dev
        counts.add(sum(map(starts_with_c, other.train)))
    assert len(counts) > 1  # not ratio-controlled


def test_draws_fill_a_short_group():
    names = ["c1", "c2", *(f"g{i}" for i in range(10))]
    splits = Drawn(2, 7).split(names, starts_with_c, 0)
    assert sum(map(starts_with_c, splits.dev)) == 2 and len(splits.dev) == 7
    unbalanced = Drawn(1, 3, balance_dev_cls_gen=False).split(names, pytest.fail, 0)
    assert len(unbalanced.dev) == 3


@pytest.mark.parametrize(
    "names, options, message",
    [
        ([], {}, "no tasks to draw from"),
        (
            ["a", "b"],
            {},
            r"INITIAL_TASKS \(2\) and DEV_TASKS \(1\) ask for 3 tasks, but the pool has 2",
        ),
        (["a", "b", "c"], {"initial_tasks": 0}, "INITIAL_TASKS is 0"),
        (["a", "b", "c"], {"dev_tasks": -1}, "DEV_TASKS is -1"),
        (["a", "b", "c", "d"], {"remain_tasks": 0}, "REMAIN_TASKS is 0"),
    ],
)
def test_impossible_draws_are_refused(names, options, message):
    with pytest.raises(UserError, match=message):
        Drawn(**{"initial_tasks": 2, "dev_tasks": 1, **options}).split(names, starts_with_c, 0)


def test_a_task_of_the_pool_and_of_the_test_split_is_refused():
    with pytest.raises(UserError, match="task 'b' is in .* and in test"):
        Drawn(2, 1).split(["a", "b", "c"], starts_with_c, 0, test=["b"])


# SHA-256 of the released folders' train_tasks.txt, remain_tasks.txt and the 68 last lines of their
# dev_tasks.txt (its first 119 are the test tasks), by the seed that draws them.
RELEASED_DIGESTS = {
    10: (
        "b5342e679f78f8d9743144410ed280c7",
        "de0b1b9683a5b528338624a0c99f5a69",
        "3f19db3efa87f2a536a0e7ecc2e47405",
    ),
    20: (
        "7e79b1504615a4cfefab249b0a1f9e1f",
        "72d35cbcebb969c577a97607f0a7c952",
        "d61226cb682d6d61a5fd0b82f587735d",
    ),
    30: (
        "5adb7a7439bf295e73fb6628f6cbfc9c",
        "6a8321c9399fc2b98a40adc1bac8ff57",
        "382e3e3c8cdfdfc5f8f06e5d0486cc0f",
    ),
    40: (
        "278346f0616c2645e20c839e600c43b2",
        "32ca4e9ba3caec81ad5c42903e246856",
        "69046a49dffd6bbbc02e8247d73961b3",
    ),
    60: (
        "eec0a1bf8059da7a13e36599f26119c1",
        "7601088669613ab0a59f32ea1e7e08ba",
        "525f0aaa64e6feea938d41c13d474ed1",
    ),
}


REMAIN_OF_DIGESTS = {
    10: "7747c31a0bb8243cb6ddc184bf058464",
    20: "638ff62ec2b72aea0854790d55892196",
    30: "8f864403bc518571bcc48352512bdd19",
    40: "5d96ad2e2956932ef6805793d332652b",
    60: "14b09f66923b3accb1fbe23f2f1c0262",
}


def drawn(names, seed) -> Splits:
    """The authors' draw from a pool of these training tasks."""
    pool = make_pool([*sorted(names), *TEST], own_splits(remain=tuple(sorted(names))))
    splits, dropped = AuthorsSplits(tasks=assets.paper_tasks(), seed=seed).draw(pool, 42)
    assert dropped == 0 and splits.test == TEST
    return splits


def digests(splits, folder) -> list[str]:
    write_splits(folder, splits)
    files = [(folder / f"{name}_tasks.txt").read_bytes() for name in ("train", "remain", "dev")]
    return [hashlib.sha256(data).hexdigest()[:32] for data in files]


@needs_shared
@pytest.mark.parametrize("seed", RELEASED_DIGESTS)
def test_the_papers_splits_byte_for_byte(seed, tmp_path):
    names = read_names(ACTIVE_IT / "default_dev" / "train_tasks.txt")
    assert digests(drawn(names, seed), tmp_path) == list(RELEASED_DIGESTS[seed])


def test_the_papers_splits_of_digests_in_place_of_names(tmp_path):
    """The same lists as those above, of a pool whose tasks are called as the file calls them."""
    names = list(labels_from_file(assets.paper_tasks()))
    assert len(names) == 756
    found = {seed: digests(drawn(names, seed), tmp_path)[1] for seed in RELEASED_DIGESTS}
    assert found == REMAIN_OF_DIGESTS
    with pytest.raises(UserError, match=r"lacks 1 of the 756 .*MISSING_TASKS=drop"):
        drawn(names[1:], 10)


@needs_shared
def test_the_papers_first_splits_are_the_released_files(tmp_path):
    released = FromFiles(str(RELEASED), str(ACTIVE_IT / "default_dev" / "test_tasks.txt"))
    names = [name for split in SPLIT_NAMES for name in read_names(RELEASED / f"{split}_tasks.txt")]
    pool = make_pool(dict.fromkeys(names))
    test = read_names(ACTIVE_IT / "default_dev" / "test_tasks.txt")
    labels = str(ACTIVE_IT / "cls_gen_train_pool.json")
    assert tuple(labels_from_file(labels)) == read_names(ACTIVE_IT / "default_dev/train_tasks.txt")
    pool = make_pool(pool, Splits(remain=released.draw(pool, 0)[0].remain, test=test))
    for tasks in (labels, assets.paper_tasks()):
        write_splits(tmp_path, AuthorsSplits(tasks=tasks).draw(pool, 10)[0])
        combine_dev_and_test(tmp_path)
        for split in SPLIT_NAMES:
            name = f"{split}_tasks.txt"
            assert (tmp_path / name).read_bytes() == (RELEASED / name).read_bytes(), name


def test_the_authors_draw_of_a_small_pool():
    """What their write_TLAL_split gave for these names with seed 7 and 5 chunks."""
    names = [f"{kind}{i:02d}" for i in range(11) for kind in ("cls", "gen")]
    pool = make_pool((*names, *TEST), Splits(remain=tuple(names), test=TEST))
    splits, _ = AuthorsSplits(initial_tasks=4, dev_tasks=4, seed=7).draw(pool, 0)
    assert splits == Splits(
        ("gen01", "cls01", "gen06", "gen00"),
        tuple(
            "gen10 gen05 gen07 gen03 cls06 cls00 cls08 cls05 gen04 cls04 cls03 gen09 cls09 "
            "cls02".split()
        ),
        ("cls10", "cls07", "gen02", "gen08"),
        TEST,
    )
    splits, _ = AuthorsSplits(4, 4, balance_dev_cls_gen=False).draw(pool, 7)
    assert splits == Splits(
        ("gen02", "gen08", "cls10", "gen07"),
        tuple(
            "cls03 cls09 gen06 cls08 cls04 cls00 gen04 gen05 gen01 cls01 gen00 cls06 cls02 "
            "cls05".split()
        ),
        ("gen03", "cls07", "gen10", "gen09"),
        TEST,
    )
    fewer, _ = AuthorsSplits(4, 4, seed=7, remain_tasks=2).draw(pool, 0)
    assert fewer.remain == ("gen10", "gen05")


def test_the_authors_draw_drops_tasks_only_afterwards(tmp_path):
    whole, _ = AuthorsSplits(4, 4, seed=7).draw(make_pool(NAMES), 0)
    tasks = tmp_path / "tasks.json"
    tasks.write_text(json.dumps({n: "CLS" if n.startswith("cls") else "GEN" for n in NAMES}))
    gone = {whole.train[1], whole.dev[0], whole.remain[3]}
    pool = make_pool([name for name in NAMES if name not in gone])
    draw = AuthorsSplits(4, 4, missing_tasks="drop", seed=7, tasks=str(tasks))
    assert draw.draw(pool, 0) == (whole.only(pool), 3)
    with pytest.raises(UserError, match="the pool lacks 3 of the 20 tasks"):
        AuthorsSplits(4, 4, seed=7, tasks=str(tasks)).draw(pool, 0)


def test_the_splits_seed_is_its_own():
    pool = make_pool(splits=own_splits())
    for source in (Drawn, AuthorsSplits):
        of_seed = source(5, 6).draw(pool, 3)
        assert source(5, 6, seed=3).draw(pool, 4) == of_seed != source(5, 6).draw(pool, 4)
    with pytest.raises(UserError, match="SPLIT_SEED is '10'; give a whole number"):
        Drawn(seed="10")
