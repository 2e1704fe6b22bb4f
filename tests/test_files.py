"""A file is replaced whole or not at all, by a file of the same access; nothing but a regular file is replaced."""

import errno
import io
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from micrograd import files
from micrograd.files import open_regular, write_atomically

ROOT = Path(__file__).resolve().parent.parent
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
NOBODY, SOME_GROUP = 65533, 65532


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


@pytest.fixture
def old(path):
    path.write_bytes(b"old")
    return path


def python(code: str, *arguments: object, **options) -> "subprocess.Popen[str]":
    program = f"import os, sys, signal\nfrom micrograd import files\nfrom micrograd.files import *\n{code}"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, text=True, stderr=subprocess.PIPE, **options)


def run(code: str, *arguments: object, **options) -> int:
    process = python(code, *arguments, **options)
    error = process.communicate(timeout=60)[1]
    assert "Traceback" not in error, error
    return process.returncode


# --- only regular files


def make_pipe(path):
    os.mkfifo(path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fspath(path))


def make_device(path):
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))


def make_block_device(path):
    os.mknod(path, stat.S_IFBLK | 0o666, os.makedev(7, 255))


SPECIAL = [
    make_pipe,
    make_socket,
    pytest.param(make_device, marks=AS_ROOT),
    pytest.param(make_block_device, marks=AS_ROOT),
]


@pytest.mark.parametrize("links", [0, 1, 2])
@pytest.mark.parametrize("make", SPECIAL)
def test_no_special_file_is_replaced_or_read(make, links, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    make("special")
    for i in range(links):
        Path(f"link{i}").symlink_to(f"link{i - 1}" if i else "special")
    path = f"link{links - 1}" if links else "special"
    before = {name: os.lstat(name) for name in os.listdir()}
    for use in (lambda: write_atomically(path, b"new"), lambda: open_regular(path)):
        with pytest.raises(io.UnsupportedOperation, match="not a regular file but a (pipe|socket|device)") as caught:
            use()
        assert isinstance(caught.value, OSError)
        assert isinstance(caught.value, ValueError)
        assert caught.value.filename == path
    after = {name: os.lstat(name) for name in os.listdir()}
    assert {n: (s.st_ino, s.st_mode) for n, s in after.items()} == {n: (s.st_ino, s.st_mode) for n, s in before.items()}


@pytest.mark.parametrize("suffix", ["", "/", "/."])
def test_a_folder_is_no_file(tmp_path, suffix):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    for name in ("folder", "link"):
        for use in (lambda path: write_atomically(path, b"new"), open_regular):
            with pytest.raises(IsADirectoryError) as caught:
                use(f"{tmp_path}/{name}{suffix}")
            assert caught.value.filename == f"{tmp_path}/{name}{suffix}"
    assert sorted(os.listdir(tmp_path)) == ["folder", "link"]
    assert os.listdir(folder) == []


@pytest.mark.parametrize("name", ["", "missing/", "missing/.", "missing/..", "missing/file", "old/", "old/file"])
def test_what_names_no_file_is_an_error(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("old").write_bytes(b"old")
    with pytest.raises(OSError) as caught:  # noqa: PT011 - one of several
        write_atomically(name, b"new")
    assert caught.value.filename == name
    assert os.listdir() == ["old"]
    assert Path("old").read_bytes() == b"old"


def test_a_descriptor_is_no_path(old):
    for use in (lambda: write_atomically(1, b"new"), lambda: open_regular(0)):
        with pytest.raises(TypeError):
            use()


def test_a_loop_of_links_is_an_error_and_stays(tmp_path):
    for name, target in (("a", "b"), ("b", "a"), ("self", "self")):
        (tmp_path / name).symlink_to(target)
    for name in ("a", "self", "a/file"):
        with pytest.raises(OSError, match="symbolic links") as caught:
            write_atomically(tmp_path / name, b"new")
        assert caught.value.errno == errno.ELOOP
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "self"]
    assert os.readlink(tmp_path / "self") == "self"


def test_a_link_is_written_through_and_one_to_a_missing_file_makes_it(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/file")
    (tmp_path / "link to link").symlink_to("link")
    for content in (b"first", b"second"):
        write_atomically(tmp_path / "link to link", content)
        assert (tmp_path / "folder" / "file").read_bytes() == content
        assert not (tmp_path / "folder" / "file").is_symlink()
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "link to link").is_symlink()


def test_a_link_to_a_missing_folder_is_an_error(tmp_path):
    (tmp_path / "link").symlink_to("missing/file")
    with pytest.raises(FileNotFoundError) as caught:
        write_atomically(tmp_path / "link", b"new")
    assert caught.value.filename == str(tmp_path / "link")


def test_another_hard_link_keeps_the_old_content(old, tmp_path):
    os.link(old, tmp_path / "other")
    write_atomically(old, b"new")
    assert (tmp_path / "other").read_bytes() == b"old"
    assert old.read_bytes() == b"new"


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc")
def test_an_open_file_without_a_name_is_not_written(old, tmp_path):
    with old.open("rb") as file:
        old.unlink()
        with pytest.raises(io.UnsupportedOperation, match="no name"):
            write_atomically(f"/proc/self/fd/{file.fileno()}", b"new")
    assert os.listdir(tmp_path) == []


def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(old, monkeypatch):
    def swapped(path, flags):
        os.unlink(path)
        os.mkfifo(path)
        return os.open(path, flags | os.O_NONBLOCK)

    monkeypatch.setattr(files, "open_without_waiting", swapped)
    with pytest.raises(io.UnsupportedOperation):
        open_regular(old)


# --- who may read it


def accesses(folder):
    """The modes that the files in the folder have, whenever any of them changes, and at the end."""
    return {name: os.lstat(folder / name).st_mode & 0o777 for name in os.listdir(folder)}


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o644, 0o666, 0o755])
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_file_keeps_its_mode_and_is_private_while_it_is_replaced(old, mode, umask, monkeypatch):
    old.chmod(mode)
    seen = []

    def watched(function):
        def call(*arguments, **options):
            seen.append(accesses(old.parent))
            result = function(*arguments, **options)
            seen.append(accesses(old.parent))
            return result

        return call

    for name in ("open", "chown", "chmod", "fsync", "replace", "unlink"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    previous = os.umask(umask)
    try:
        write_atomically(old, b"new")
    finally:
        os.umask(previous)
    assert old.read_bytes() == b"new"
    assert old.stat().st_mode & 0o777 == mode
    temporary = [mode for modes in seen for name, mode in modes.items() if name != old.name]
    assert temporary
    assert set(temporary) <= {0o600 & ~umask, mode}


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_new_file_follows_the_umask(path, umask, mode):
    previous = os.umask(umask)
    try:
        write_atomically(path, b"new")
    finally:
        os.umask(previous)
    assert path.stat().st_mode & 0o777 == mode


@AS_ROOT
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_root_leaves_a_file_to_its_owner_and_group(old, mode):
    os.chown(old, NOBODY, SOME_GROUP)
    old.chmod(mode)
    write_atomically(old, b"new")
    status = old.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (NOBODY, SOME_GROUP, mode)


@AS_ROOT
@pytest.mark.parametrize(("mode", "kept"), [(0o600, 0o600), (0o660, 0o600), (0o664, 0o644), (0o666, 0o666)])
def test_who_may_not_keep_the_group_gives_the_new_one_no_more_than_others_have(old, mode, kept, monkeypatch):
    os.chown(old, NOBODY, SOME_GROUP)
    old.chmod(mode)

    def denied(*_arguments):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "chown", denied)
    write_atomically(old, b"new")
    assert old.stat().st_mode & 0o777 == kept
    assert old.read_bytes() == b"new"


@pytest.fixture
def public_folder():
    """A folder in which every user may write. The folders of pytest are private, and with xdist nested deeper."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        if not all(parent.stat().st_mode & stat.S_IXOTH for parent in folder.parents):
            pytest.skip("other users have no access to the folder of temporary files")
        folder.chmod(0o777)
        yield folder


@AS_ROOT
def test_who_may_not_keep_the_owner_keeps_the_group(public_folder):
    old = public_folder / "file"
    old.write_bytes(b"old")
    os.chown(old, 0, SOME_GROUP)
    old.chmod(0o664)
    code = """
os.setgroups([int(sys.argv[3])])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
os.umask(0o077)
write_atomically(sys.argv[1], b"new")
"""
    assert run(code, old, NOBODY, SOME_GROUP, cwd=ROOT) == 0
    status = old.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (NOBODY, SOME_GROUP, 0o664)


def access_control_list(**entries):
    """For an owner, a named user, a group, a mask and others, as Linux stores it."""
    tags = {"owner": 1, "user": 2, "group": 4, "mask": 0x10, "other": 0x20}
    ids = {"user": NOBODY}
    packed = [struct.pack("<HHI", tags[name], bits, ids.get(name, 0xFFFFFFFF)) for name, bits in entries.items()]
    return struct.pack("<I", 2) + b"".join(packed)


def set_or_skip(path, name, value):
    if not hasattr(os, "setxattr"):
        pytest.skip("no extended attributes")
    try:
        os.setxattr(path, name, value)
    except OSError as error:
        pytest.skip(f"no extended attributes here: {error}")


def test_attributes_and_access_control_list_are_kept(old):
    acl = access_control_list(owner=6, user=4, group=0, mask=4, other=0)
    set_or_skip(old, "user.origin", b"a course")
    set_or_skip(old, files.ACCESS_CONTROL_LIST, acl)
    mode = old.stat().st_mode
    write_atomically(old, b"new")
    assert os.getxattr(old, "user.origin") == b"a course"
    assert os.getxattr(old, files.ACCESS_CONTROL_LIST) == acl
    assert old.stat().st_mode == mode


def test_the_folders_default_list_does_not_open_a_private_file(old):
    old.chmod(0o640)
    default = access_control_list(owner=7, user=7, group=7, mask=7, other=0)
    set_or_skip(old.parent, "system.posix_acl_default", default)
    write_atomically(old, b"new")
    assert files.ACCESS_CONTROL_LIST not in os.listxattr(old)
    assert old.stat().st_mode & 0o777 == 0o640


# --- whole or not at all


LONG = 1_000_000


def test_a_file_too_large_for_the_disk_leaves_the_old_one(old):
    # A limit to the size of files stands for the full disk: write() fails in the same way.
    code = """
import resource
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for size in (1_001, 1_000_000):
    try:
        write_atomically(sys.argv[1], b"x" * size)
    except OSError as error:
        assert error.filename == sys.argv[1], error
    else:
        sys.exit("no error")
"""
    assert run(code, old) == 0
    assert old.read_bytes() == b"old"
    assert os.listdir(old.parent) == [old.name]


@pytest.mark.parametrize("failing", ["open", "fsync", "replace", "chmod"])
@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), OSError("odd"), KeyboardInterrupt(), MemoryError()]
)
def test_a_failure_leaves_the_old_file_and_nothing_else(old, monkeypatch, failing, error):
    def fail(*_arguments, **_options):
        raise error

    old.chmod(0o640)
    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(type(error)) as caught:
        write_atomically(old, b"new")
    monkeypatch.undo()
    assert old.read_bytes() == b"old"
    assert os.listdir(old.parent) == [old.name]
    if getattr(error, "errno", None):
        assert caught.value.filename == str(old)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_an_error_that_names_the_file(old):
    old.parent.chmod(0o555)
    try:
        with pytest.raises(PermissionError) as caught:
            write_atomically(old, b"new")
    finally:
        old.parent.chmod(0o755)
    assert caught.value.filename == str(old)
    assert old.read_bytes() == b"old"


@AS_ROOT
def test_a_folder_that_another_user_cannot_write_is_an_error_that_names_the_file(old):
    for folder in old.parents[:3]:
        folder.chmod(0o755)
    code = """
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
try:
    write_atomically(sys.argv[1], b"new")
except PermissionError as error:
    assert error.filename == sys.argv[1]
else:
    sys.exit("no error")
"""
    assert run(code, old, NOBODY, cwd=ROOT) == 0
    assert old.read_bytes() == b"old"


def test_the_content_is_on_the_disk_before_the_name_and_the_name_before_the_end(path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda f: (calls.append(("fsync", os.fstat(f).st_ino)), fsync(f)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append(("replace", os.stat(a).st_ino)), replace(a, b)))
    write_atomically(path, b"new")
    file, folder = path.stat().st_ino, path.parent.stat().st_ino
    assert calls == [("fsync", file), ("replace", file), ("fsync", folder)]


KILLED_AT = {  # what is done first, and then the process is killed
    "created": "os.path.lexists = lambda _: os.kill(os.getpid(), signal.SIGKILL)",
    "written": "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)",
    "about to be renamed": "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)",
}


@pytest.mark.parametrize("moment", KILLED_AT)
def test_what_a_killed_process_leaves_is_removed_by_the_next(old, moment):
    code = f"{KILLED_AT[moment]}\nwrite_atomically(sys.argv[1], b'x' * {LONG})"
    for _ in range(2):
        assert run(code, old) == -signal.SIGKILL
        assert old.read_bytes() == b"old"
        assert len(os.listdir(old.parent)) == 2  # the second process has removed what the first one left
    write_atomically(old.parent / "another", b"new")
    assert sorted(os.listdir(old.parent)) == ["another", old.name]


def test_the_temporary_file_of_a_running_process_stays(old):
    code = """
def waiting(*arguments):
    print("waiting", flush=True)
    sys.stdin.readline()
    replace(*arguments)

replace, os.replace = os.replace, waiting
write_atomically(sys.argv[1], b"theirs")
"""
    process = python(code, old, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == "waiting\n"
    (temporary,) = set(os.listdir(old.parent)) - {old.name}
    write_atomically(old, b"ours")
    assert old.read_bytes() == b"ours"
    assert sorted(os.listdir(old.parent)) == sorted([temporary, old.name])
    process.communicate("go on\n", timeout=60)
    assert process.returncode == 0
    assert old.read_bytes() == b"theirs"
    assert os.listdir(old.parent) == [old.name]


def test_a_file_taken_for_a_leftover_before_it_was_locked_is_made_again(old, monkeypatch):
    flock, count = files.fcntl.flock, 0

    def late(file, operation):
        nonlocal count
        if operation == files.fcntl.LOCK_EX:
            count += 1
            if count == 1:
                files.remove_leftovers(str(old.parent))
        flock(file, operation)

    monkeypatch.setattr(files.fcntl, "flock", late)
    write_atomically(old, b"new")
    assert count == 2
    assert old.read_bytes() == b"new"
    assert os.listdir(old.parent) == [old.name]


def test_without_locks_files_are_written_and_no_leftover_is_removed(old, monkeypatch):
    leftover = old.parent / f".micrograd-{'0' * 16}.tmp"
    leftover.write_bytes(b"whose?")

    def unsupported(*_arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(files.fcntl, "flock", unsupported)
    write_atomically(old, b"new")
    assert old.read_bytes() == b"new"
    assert leftover.exists()


@pytest.mark.parametrize(
    "name", [".micrograd-0.tmp", f"micrograd-{'0' * 16}.tmp", f".micrograd-{'0' * 16}.tmp.txt", ".hidden.tmp"]
)
def test_only_files_named_as_it_names_them_are_removed(old, name):
    (old.parent / name).write_bytes(b"mine")
    write_atomically(old, b"new")
    assert (old.parent / name).read_bytes() == b"mine"


def test_a_link_or_pipe_named_like_a_leftover_is_left_alone(old, tmp_path):
    names = [f".micrograd-{str(i) * 16}.tmp" for i in range(2)]
    (tmp_path / names[0]).symlink_to(old)
    os.mkfifo(tmp_path / names[1])
    write_atomically(old, b"new")
    assert sorted(os.listdir(tmp_path)) == sorted([old.name, *names])


def test_many_processes_and_threads_write_one_file_whole(old):
    code = f"""
for i in range(40):
    write_atomically(sys.argv[1], sys.argv[2].encode() * {LONG // 10})
"""
    processes = [python(code, old, letter) for letter in "ab"]
    contents = {letter * (LONG // 10) for letter in (b"a", b"b", b"c", b"d")} | {b"old"}
    threads = [
        threading.Thread(target=lambda c=c: [write_atomically(old, c * (LONG // 10)) for _ in range(20)])
        for c in (b"c", b"d")
    ]
    for thread in threads:
        thread.start()
    while any(p.poll() is None for p in processes):
        assert old.read_bytes() in contents
        time.sleep(0.001)
    for thread in threads:
        thread.join()
    for process in processes:
        assert process.communicate()[1] == ""
        assert process.returncode == 0
    assert os.listdir(old.parent) == [old.name]


@pytest.mark.parametrize("delay", [i / 200 for i in range(6)])
def test_a_kill_at_any_time_leaves_a_whole_file(old, delay):
    code = f"""
print("ready", flush=True)
for i in range(10_000):
    write_atomically(sys.argv[1], (b"a", b"b")[i % 2] * {LONG})
"""
    process = python(code, old, stdout=subprocess.PIPE)
    assert process.stdout.readline() == "ready\n"
    time.sleep(delay)
    process.kill()
    process.communicate()
    assert old.read_bytes() in (b"old", b"a" * LONG, b"b" * LONG)
    write_atomically(old, b"new")
    assert os.listdir(old.parent) == [old.name]
