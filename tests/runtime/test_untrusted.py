"""A stranger's folder: links, names and special files that lead out of it."""

import os

import pytest

from ait_jax.errors import UserError
from ait_jax.runtime import untrusted


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "secret").write_text("secret")
    made = tmp_path / "we #i?r|d%41"
    (made / "below").mkdir(parents=True)
    (made / "below" / "file").write_text("12345")
    return made


def test_links_within_the_folder_are_followed(folder):
    (folder / "again").symlink_to("below/file")
    (folder / "whole").symlink_to(folder / "below")
    assert untrusted.check_tree(folder) == 5
    assert untrusted.inside(folder, "again", "x") == folder / "again"
    # The folder itself may be reached by a link: the user named it.
    link = folder.parent / "link"
    link.symlink_to(folder)
    assert untrusted.check_tree(link) == 5
    assert untrusted.inside(link, "again", "x") == link / "again"


@pytest.mark.parametrize("target", ["../other", "../other/secret", "/etc/passwd", "/dev/zero"])
def test_links_that_lead_out_are_refused(folder, target):
    (folder / "below" / "out").symlink_to(os.path.join("..", target))
    with pytest.raises(UserError, match="below/out is a link that leads out of its folder"):
        untrusted.check_tree(folder)
    (folder / "out").symlink_to(target)
    with pytest.raises(UserError, match="leads out of its folder"):
        untrusted.inside(folder, "out", "x")


@pytest.mark.parametrize("name", ["../other/secret", "..", "/etc/passwd", "", "a\x00b", 7, ".x"])
def test_names_are_one_part_of_a_path(folder, name):
    with pytest.raises(UserError, match=r"^file of 'x' in index\.json "):
        untrusted.inside(folder, name, "file of 'x' in index.json")


def test_pipes_are_refused_and_not_opened(folder):
    os.mkfifo(folder / "below" / "pipe")
    with pytest.raises(UserError, match="below/pipe is not a file"):
        untrusted.check_tree(folder)


def test_links_of_the_cache_of_hugging_face(tmp_path):
    folder = tmp_path / "models--a--b" / "snapshots" / "0123"
    folder.mkdir(parents=True)
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir()
    (blobs / "abc").write_text("x")
    (folder / "config.json").symlink_to("../../blobs/abc")
    assert untrusted.inside(folder, "config.json", "x").read_text() == "x"
    (folder / "out").symlink_to("../../elsewhere")
    with pytest.raises(UserError, match="leads out"):
        untrusted.inside(folder, "out", "x")


def test_git_lfs_pointers_are_named(tmp_path):
    path = tmp_path / "model.safetensors"
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n"
    with pytest.raises(UserError, match=r"model.safetensors is a Git LFS pointer.*git lfs pull"):
        untrusted.check_whole(path, pointer)
    untrusted.check_whole(path, b"version 3")
