"""Small files of others: regular ones of bounded size, and nothing that one would wait for."""

import os

import pytest

from optimum_si.config.small_files import read_small


def test_a_regular_file_is_read_also_through_a_link(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_small(tmp_path / "file") == read_small(tmp_path / "link") == b"content"


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "large"])
def test_all_else_is_refused_at_once(tmp_path, kind):
    place = tmp_path / "place"
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "device":
        place.symlink_to("/dev/zero")
    elif kind == "folder":
        place.mkdir()
    else:
        place.write_bytes(b"more")
    with pytest.raises(ValueError, match="no regular file|4 bytes, and more than 3"):
        read_small(place, 3)
