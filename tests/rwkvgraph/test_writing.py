"""A file appears whole or not at all, and nothing else is touched, whatever stands in its way."""

import os
import stat
import sys
import threading
from pathlib import Path

import pytest

from rwkvgraph.errors import LoadError
from rwkvgraph.writing import appearing

posix = pytest.mark.skipif(
    sys.platform == "win32", reason="devices, pipes, links and modes as POSIX has them"
)


def write(path: str | Path, data: bytes = b"new", force: bool = True) -> None:
    """Write a file in one piece."""
    with appearing(path, force) as file:
        file.write(data)


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with appearing(path) as file:
        file.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, LoadError])
def test_what_fails_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with pytest.raises(error), appearing(path):
        raise error
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_there_is_replaced_by_force(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with pytest.raises(LoadError, match=r"out is there already; force=True \(--force\) overwrites it"):
        write(path, force=False)
    assert path.read_bytes() == b"old"
    write(path)
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folder", "is a folder; give a file in it"),
        ("none/out", "No such file or directory; give a file in a folder that is there"),
        ("file/out", "Not a directory"),
        ("y" * 300, "too long"),
        ("\0", "null"),
        ("a\nb/out", r"a\\nb/out'.*: No such"),
    ],
    ids=["folder", "no folder", "file as folder", "long", "null", "line end"],
)
@posix
def test_what_cannot_be_written_is_named(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(LoadError, match=f"cannot write .*{message}") as caught:
        write(f"{tmp_path}/{name}")
    assert str(caught.value).isprintable()
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "file"}


def test_an_empty_name_is_refused() -> None:
    for path in ("", Path("")):
        with pytest.raises(LoadError, match=r"cannot write .*: it is a folder"):
            write(path)


@posix
def test_a_name_may_be_as_long_as_any(tmp_path: Path) -> None:
    write(tmp_path / ("y" * 255))
    write(tmp_path / ("ÿ" * 127))
    assert len(list(tmp_path.iterdir())) == 2


@posix
def test_devices_and_pipes_stay_what_they_are(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for path in (tmp_path / "pipe", tmp_path / "link", Path(os.devnull)):
        with pytest.raises(LoadError, match=r"cannot write .*: it is no regular file"):
            write(path)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


@posix
def test_links_are_followed_also_to_what_is_not_there_yet(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    for data in (b"one", b"two"):
        write(tmp_path / "link", data)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "real").read_bytes() == data
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(LoadError, match="cannot write"):
        write(tmp_path / "loop")


@posix
def test_a_new_file_may_be_read_by_those_who_may_read_others(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"")
    write(tmp_path / "out")
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "other").stat().st_mode


@posix
def test_a_disk_that_is_full_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"cannot write .*out: No space"), appearing(tmp_path / "out"):
        raise OSError(28, "No space left on device")
    assert not list(tmp_path.iterdir())


@posix
def test_threads_that_write_one_file_do_not_meet(tmp_path: Path) -> None:
    failed: list[LoadError] = []

    def write_often(letter: bytes) -> None:
        try:
            for _ in range(30):
                write(tmp_path / "out", letter * 10_000)
        except LoadError as error:
            failed.append(error)

    threads = [threading.Thread(target=write_often, args=(letter,)) for letter in (b"a", b"b", b"c", b"d")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(set((tmp_path / "out").read_bytes())) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
