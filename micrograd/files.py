"""Regular files: replaced whole or not at all, and opened for reading without waiting.

    >>> import os, tempfile
    >>> from micrograd.files import open_regular, write_atomically
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "numbers")
    ...     write_atomically(path, b"1 2 3")
    ...     with open_regular(path) as file:
    ...         file.read()
    b'1 2 3'

`write_atomically` writes a temporary file next to the target, `.micrograd-<16 hexadecimal digits>.tmp`, and renames it
when its content is on the disk. The process that writes it holds a lock on it. If that process is killed, the lock is
gone, and the next `write_atomically` in the same folder removes the file.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

__all__ = ["destination", "open_regular", "write_atomically"]

Path = str | os.PathLike[str]

TEMPORARY = re.compile(r"\.micrograd-[0-9a-f]{16}\.tmp")
ACCESS_CONTROL_LIST = "system.posix_acl_access"  # the extended attribute in which Linux keeps it
SPECIAL = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file at `path` by a file with that content, or create it.

    If the function raises, or the process is killed, the old file is unchanged. Several processes may write the same
    path at the same time: each file is whole, and the last one stays. The folder must be writable.

    - A symbolic link is kept, and the file that it names is written, or created if it is missing.
    - Other hard links of an old file keep the old content.
    - A new file gets the mode that the umask gives. An old file's mode is kept. So are its owner and its group, and on
      Linux its access control list and its attributes `user.*`, if the system permits that. If the group cannot be
      kept, the new group has no more rights than other users.
    - Raises IsADirectoryError if `path` is a folder, and io.UnsupportedOperation (an OSError and a ValueError) if it is
      a pipe, a socket or a device; these stay as they are. Every OSError names `path`.
    """
    path = os.fsdecode(path)
    target, old = destination(path)
    folder = os.path.dirname(target)
    try:
        remove_leftovers(folder)
        with temporary_file(folder, 0o666 if old is None else 0o600) as (file, temporary):
            file.write(content)
            file.flush()
            if old is not None:
                copy_access(target, old, file.fileno())
            os.fsync(file.fileno())
            os.replace(temporary, target)
        sync(folder)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, path) from error  # not the name of the temporary file


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading. Raises the same errors as `write_atomically` for anything else.

    It does not wait for the writer of a pipe.
    """
    path = os.fsdecode(path)
    require_regular(path, os.stat(path))
    descriptor = open_without_waiting(path, os.O_RDONLY)
    try:
        require_regular(path, os.fstat(descriptor))  # the path may have changed since
    except BaseException:
        os.close(descriptor)
        raise
    return open(descriptor, "rb")


def destination(path: str) -> tuple[str, os.stat_result | None]:
    """The path with its links resolved, and the status of that file, or None if it is missing.

    Raises OSError if `write_atomically` can't replace it.
    """
    try:
        status = os.stat(path)  # raises OSError for a loop of links
    except FileNotFoundError:
        if os.path.basename(path) in ("", os.curdir, os.pardir):  # names no file
            raise
        return os.path.realpath(path), None
    require_regular(path, status)
    target = os.path.realpath(path)
    try:
        status = os.stat(target)
    except FileNotFoundError:  # /proc/self/fd has links to files that have been removed
        raise io.UnsupportedOperation(errno.EINVAL, "the file has no name of its own", path) from None
    require_regular(path, status)
    return target, status


def require_regular(path: str, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(status.st_mode):
        kind = SPECIAL.get(stat.S_IFMT(status.st_mode), "of another type")
        raise io.UnsupportedOperation(errno.EINVAL, f"not a regular file but {kind}", path)


def open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


@contextmanager
def temporary_file(folder: str, mode: int) -> Iterator[tuple[BinaryIO, str]]:
    """A new locked file and its path. It is closed at the end, and removed unless it has been renamed."""
    descriptor, path = create_locked(folder, mode)
    try:
        with open(descriptor, "wb") as file:
            yield file, path
    finally:
        with suppress(FileNotFoundError):
            os.unlink(path)


def create_locked(folder: str, mode: int) -> tuple[int, str]:
    while True:
        path = os.path.join(folder, f".micrograd-{os.urandom(8).hex()}.tmp")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with suppress(OSError):  # a file system without locks, where leftovers stay
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.path.lexists(path):
            return descriptor, path
        os.close(descriptor)  # another process removed the file before it was locked


def remove_leftovers(folder: str) -> None:
    """Remove the temporary files of processes that were killed: the files without a lock."""
    with suppress(OSError), os.scandir(folder) as entries:
        paths = [e.path for e in entries if TEMPORARY.fullmatch(e.name) and e.is_file(follow_symlinks=False)]
        for path in paths:
            with suppress(OSError), open(path, "rb", opener=open_without_waiting) as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # BlockingIOError if it is being written
                os.unlink(path)


def copy_access(old_path: str, old: os.stat_result, new: int) -> None:
    """Give the open file `new` the owner, group, attributes and, when all is set, the mode of the old file."""
    mode = old.st_mode & 0o777
    for owner in (old.st_uid, -1):  # -1 changes only the group, which may be permitted if the owner is not
        with suppress(OSError):
            os.chown(new, owner, old.st_gid)
            break
    if os.fstat(new).st_gid != old.st_gid:
        mode &= 0o707 | (mode & 0o007) << 3  # the group's rights only as far as other users have them
    if hasattr(os, "listxattr"):
        copy_attributes(old_path, new)
    if os.fstat(new).st_mode & 0o777 != mode:
        os.chmod(new, mode)


def copy_attributes(old_path: str, new: int) -> None:
    with suppress(OSError):
        names = os.listxattr(old_path)
        if ACCESS_CONTROL_LIST not in names and ACCESS_CONTROL_LIST in os.listxattr(new):
            os.removexattr(new, ACCESS_CONTROL_LIST)  # the folder's default
        for name in names:
            if name == ACCESS_CONTROL_LIST or name.startswith("user."):
                with suppress(OSError):
                    os.setxattr(new, name, os.getxattr(old_path, name))


def sync(folder: str) -> None:
    """Write the new name to the disk. If the system can't, a crash may bring back the old file, which is whole too."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
