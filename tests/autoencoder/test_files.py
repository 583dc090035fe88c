import os
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from rvq_tutorial.autoencoder.files import write_whole

NEEDS_POSIX = pytest.mark.skipif(os.name != "posix", reason="no such files on this system")


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_and_replaced(tmp_path):
    for content in (b"first", b"", b"a longer one"):
        write_whole(tmp_path / "out", content)
        assert (tmp_path / "out").read_bytes() == content
    assert names(tmp_path) == ["out"]


def test_files_of_other_people_beside_it_stay(tmp_path):
    """Whatever their names: what is written beside the target has one that nobody could foresee."""
    (tmp_path / "out.part").write_bytes(b"mine")
    (tmp_path / "elsewhere").write_bytes(b"not to be touched")
    (tmp_path / ".out.part").symlink_to(tmp_path / "elsewhere")
    write_whole(tmp_path / "out", b"new")
    assert (tmp_path / "out.part").read_bytes() == b"mine"
    assert (tmp_path / "elsewhere").read_bytes() == b"not to be touched"
    assert names(tmp_path) == [".out.part", "elsewhere", "out", "out.part"]


@NEEDS_POSIX
@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path, there):
    folder = tmp_path / "folder"
    folder.mkdir()
    if there:
        (folder / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("folder/target")
    (tmp_path / "link to the link").symlink_to("link")
    write_whole(tmp_path / "link to the link", b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "link to the link").is_symlink()
    assert (folder / "target").read_bytes() == b"new"
    assert names(folder) == ["target"]


@NEEDS_POSIX
@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_a_new_file_has_the_mode_of_any_new_file_and_an_old_one_keeps_its_own(tmp_path, umask):
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "old").chmod(0o640)
    before = os.umask(umask)
    try:
        for name in ("new", "old"):
            write_whole(tmp_path / name, b"content")
        (tmp_path / "opened").open("wb").close()
    finally:
        os.umask(before)
    assert mode(tmp_path / "new") == mode(tmp_path / "opened")
    assert mode(tmp_path / "old") == 0o640


@NEEDS_POSIX
def test_a_pipe_takes_the_bytes_as_they_come(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write_whole(tmp_path / "pipe", b"content")
    reader.join()
    assert read == [b"content"]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert names(tmp_path) == ["pipe"]


@NEEDS_POSIX
def test_devices_take_the_bytes_as_they_come(tmp_path):
    """A terminal, behind a link and directly, and the standard output."""
    screen, terminal = os.openpty()
    (tmp_path / "link").symlink_to(os.ttyname(terminal))
    for path in (tmp_path / "link", os.ttyname(terminal)):
        write_whole(path, b"content")
        assert os.read(screen, 100) == b"content"
    assert (tmp_path / "link").is_symlink() and stat.S_ISCHR(os.stat(os.ttyname(terminal)).st_mode)
    os.close(terminal)
    os.close(screen)
    script = "from rvq_tutorial.autoencoder.files import write_whole; write_whole('/dev/stdout', b'content')"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert run.stdout == b"content"


@pytest.mark.parametrize("content", ["no bytes", None])
def test_a_failure_leaves_what_stood_there(tmp_path, content):
    (tmp_path / "out").write_bytes(b"as it was")
    for name in ("out", "new"):
        with pytest.raises(TypeError):
            write_whole(tmp_path / name, content)
    assert (tmp_path / "out").read_bytes() == b"as it was"
    assert names(tmp_path) == ["out"]


@NEEDS_POSIX
def test_errors_name_the_path_that_was_given(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "round").symlink_to("round")
    for path in (tmp_path / "folder", tmp_path / "missing" / "out", tmp_path / "round"):
        with pytest.raises(OSError) as refused:
            write_whole(path, b"content")
        assert refused.value.filename == str(path) and refused.value.filename2 is None
        assert refused.value.strerror
    assert names(tmp_path) == ["folder", "round"] and names(tmp_path / "folder") == []


@NEEDS_POSIX
def test_a_full_disk_leaves_what_stood_there(tmp_path):
    """A limit on the size of files stands for it: the system refuses to write on."""
    (tmp_path / "out").write_bytes(b"as it was")
    script = """
import resource, signal, sys
from rvq_tutorial.autoencoder.files import write_whole
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_whole(sys.argv[1], bytes(5000))
except OSError as error:
    print(error.filename)
"""
    run = subprocess.run([sys.executable, "-c", script, tmp_path / "out"], capture_output=True, text=True, check=True)
    assert run.stdout == f"{tmp_path / 'out'}\n"
    assert (tmp_path / "out").read_bytes() == b"as it was"
    assert names(tmp_path) == ["out"]


@NEEDS_POSIX
def test_a_file_that_may_not_be_written_is_not_replaced():
    """Though the folder would allow it. The administrator may write anything, so the test becomes somebody else."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        out = Path(folder) / "out"
        out.write_bytes(b"as it was")
        out.chmod(0o444)
        if user == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(PermissionError):
                write_whole(out, b"new")
        finally:
            os.seteuid(user)
        assert out.read_bytes() == b"as it was"
        assert names(Path(folder)) == ["out"]


def test_several_writers_at_once_leave_the_file_of_one(tmp_path):
    contents = [bytes([number]) * 300_000 for number in range(8)]
    failed = []

    def write(content):
        try:
            for _ in range(10):
                write_whole(tmp_path / "out", content)
        except OSError as error:
            failed.append(error)

    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        if (tmp_path / "out").exists():
            seen.add((tmp_path / "out").read_bytes())
    for writer in writers:
        writer.join()
    assert not failed and seen <= set(contents)
    assert names(tmp_path) == ["out"]
