import pytest
from shared_data import ACTIVE_IT, combine_dev_and_test, needs_shared

from ait_jax.errors import UserError
from ait_jax.pool.splits import SPLIT_NAMES, Splits, read_names, read_splits, write_splits

OFFICIAL = ACTIVE_IT / "default_dev" / "test_tasks.txt"


def write(folder, **texts):
    folder.mkdir(exist_ok=True)
    for split, text in texts.items():
        (folder / f"{split}_tasks.txt").write_bytes(text.encode())
    return folder


def test_round_trip(tmp_path):
    splits = Splits(("b", "a"), ("c",), ("d", "é"), ("f", "e"))
    write_splits(tmp_path / "new", splits)
    assert (tmp_path / "new" / "train_tasks.txt").read_bytes() == b"b\na\n"
    assert read_splits(tmp_path / "new") == splits
    combine_dev_and_test(tmp_path / "new")
    assert read_splits(tmp_path / "new", official_test=["e", "f"]) == splits


@needs_shared
def test_released_splits_are_separated_and_written_back_to_the_byte(tmp_path):
    source = ACTIVE_IT / "TLAL_Exp0_all_10" / "init"
    splits = read_splits(source, official_test=OFFICIAL)
    assert [len(getattr(splits, s)) for s in SPLIT_NAMES] == [68, 620, 68, 119]
    assert set(splits.test) == set(OFFICIAL.read_text().split())
    # dev comes from the training pool of 756
    pool = set((ACTIVE_IT / "default_dev" / "train_tasks.txt").read_text().split())
    assert set(splits.train + splits.remain + splits.dev) == pool and len(pool) == 756
    write_splits(tmp_path, splits)
    combine_dev_and_test(tmp_path)
    for split in SPLIT_NAMES:
        name = f"{split}_tasks.txt"
        assert (tmp_path / name).read_bytes() == (source / name).read_bytes(), name


@needs_shared
def test_every_released_round_reads_and_grows_by_68():
    for number in range(1, 5):
        for method in ("HighPerplexity", "LowPerplexity", "Random"):
            splits = read_splits(
                ACTIVE_IT / "TLAL_Exp0_all_10" / f"{method}_{number}", str(OFFICIAL)
            )
            assert len(splits.train) == 68 * (number + 1)
            assert len(splits.train + splits.remain) == 688


def test_official_list_decides_only_about_names_in_both_files(tmp_path):
    folder = write(tmp_path, train="a\n", dev="x\nboth\nofficial\n", test="official\nboth\ny\n")
    splits = read_splits(folder, official_test=["official", "x"])
    assert splits.dev == ("x", "both")
    assert splits.test == ("official", "y")


def test_overlap_without_an_official_list_names_the_gin_name(tmp_path):
    folder = write(tmp_path, train="a\n", dev="x\ny\n", test="y\nx\n")
    with pytest.raises(UserError, match="2 tasks are in both .*OFFICIAL_TEST_TASKS"):
        read_splits(folder)


def test_blank_lines_windows_ends_byte_order_mark_and_absent_files(tmp_path):
    folder = write(tmp_path, train="\ufeffa\r\n\r\n  \nb \r\n", test="c")
    assert read_splits(folder) == Splits(train=("a", "b"), test=("c",))


@pytest.mark.parametrize(
    "texts, message",
    [
        (
            dict(train="a\nb\na\n", test="c\n"),
            r"train_tasks\.txt, line 3: task 'a' is already on line 1",
        ),
        (
            dict(train="a\n", test="c\n", remain="d\n\na\n"),
            r"remain_tasks\.txt, line 3: task 'a' is also in train_tasks\.txt, line 1",
        ),
        (
            dict(train="a\n", dev="a\n", test="c\n"),
            r"dev_tasks\.txt, line 1: task 'a' is also in train",
        ),
        (
            dict(train="a\n", remain="c\n", test="b\nc\n"),
            r"test_tasks\.txt, line 2: task 'c' is also in remain",
        ),
        (
            dict(train="a\n../b\n", test="c\n"),
            r"train_tasks\.txt, line 2: task name '\.\./b' contains a path separator",
        ),
        (dict(train="a\n", test="\0\n"), r"test_tasks\.txt, line 1: .*control character"),
        (dict(train="a\n"), r"test_tasks\.txt: cannot read the list of tasks"),
    ],
)
def test_bad_files(tmp_path, texts, message):
    with pytest.raises(UserError, match=message):
        read_splits(write(tmp_path, **texts))


def test_not_utf8_and_no_folder(tmp_path):
    (tmp_path / "names.txt").write_bytes(b"a\n\xff\n")
    with pytest.raises(UserError, match=r"names\.txt, line 2: not UTF-8 text"):
        read_names(tmp_path / "names.txt")
    with pytest.raises(UserError, match="nowhere.* does not exist"):
        read_splits(tmp_path / "nowhere")


def test_splits_are_disjoint():
    with pytest.raises(UserError, match="'a' is twice in train"):
        Splits(train=("a", "a"))
    with pytest.raises(UserError, match="'a' is in train and in test"):
        Splits(train=("a",), test=("a",))


def test_restrict_to_error_names_the_first_missing_the_count_and_the_way_out():
    splits = Splits(("task1_a",), ("task2_b", "task3_c"), (), ("task4_d",))
    with pytest.raises(UserError) as raised:
        splits.restrict_to(["task1_a", "task22_b"])
    message = str(raised.value)
    assert "'task2_b'" in message and "3 of 4" in message
    assert "Did you mean 'task22_b'?" in message and 'MISSING_TASKS = "drop"' in message


def test_restrict_to_drop_counts_and_keeps_order():
    splits = Splits(("a", "b"), ("d", "c"), ("e",), ("f",))
    kept, missing = splits.restrict_to({"c": 0, "d": 0, "b": 0}, "drop")
    assert (kept, missing) == (Splits(("b",), ("d", "c")), 3)
    assert splits.restrict_to(splits.names) == (splits, 0)
    with pytest.raises(UserError, match="none of the 2 training tasks"):
        splits.restrict_to(["c"], "drop")
    with pytest.raises(UserError, match="MISSING_TASKS is 'dropp'.* 'drop'"):
        splits.restrict_to(["c"], "dropp")


def test_unsafe_names_are_not_written(tmp_path):
    with pytest.raises(UserError, match="control character"):
        write_splits(tmp_path, Splits(train=("a\nb",)))
