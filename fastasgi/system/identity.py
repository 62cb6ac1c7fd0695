"""What a process sets on itself: streams, name; before a worker imports the application, rights and umask."""

import importlib
import os
import re
import sys
from typing import Any, Protocol

from fastasgi.errors import ConfigError

MOST_ID = 2**32 - 2  # the number above stands for no change in chown(2) and setregid(2)


class ProcessSettings(Protocol):
    """The settings of a process that are read here."""

    process_name: str | None
    cpu_affinity: str | None
    umask: int | str | None
    user: str | None
    group: str | None


def apply_process_settings(config: ProcessSettings, slot: int, role: str = "") -> None:
    """Become what config says; `slot` is the worker's number from 0. Raises ConfigError.

    role is what ps shows, by default that of the worker.
    """
    name_process(config, role or f"worker {slot}")
    if config.cpu_affinity is not None:
        _set_affinity(config.cpu_affinity, slot)
    if config.umask is not None:
        os.umask(int(config.umask))
    _drop_privileges(config.user, config.group)


def open_standard_streams() -> None:
    """Fill stdin, stdout and stderr if they are closed.

    A socket with one of their numbers would be taken for a stream, and libuv aborts when it closes one of its
    own descriptors that has such a number.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


def check_process_settings(config: ProcessSettings) -> None:
    """Raise ConfigError for what ``apply_process_settings`` could not do."""
    _check_privileges(config.user, config.group)
    if config.process_name is not None:
        _titles()
    if config.cpu_affinity is not None:
        if not hasattr(os, "sched_setaffinity"):
            raise ConfigError("cpu_affinity can't be set on this platform: leave it out")
        _check_processors(config.cpu_affinity)


def _titles() -> Any:
    try:
        return importlib.import_module("setproctitle")
    except ModuleNotFoundError:
        raise ConfigError("process_name needs the setproctitle package: pip install setproctitle") from None


def name_process(config: ProcessSettings, role: str) -> None:
    """Show process_name and this role in ps, if process_name is set."""
    if config.process_name is not None:
        _titles().setproctitle(f"{config.process_name}: {role}")


def parse_processors(text: str) -> list[int]:
    """The processor numbers of ``0,2,4-7``; ``auto`` is all that may be used. Raises ConfigError."""
    if text == "auto":
        return sorted(os.sched_getaffinity(0))
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,4})(?:-([0-9]{1,4}))?\s*", part)
        if match is None or int(match[1]) > int(match[2] or match[1]):
            raise ConfigError(f"cpu_affinity {text!r}: give auto, or processor numbers such as 0,2,4-7")
        numbers += range(int(match[1]), int(match[2] or match[1]) + 1)
    return numbers


def available_processors() -> int:
    """The number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _check_processors(text: str) -> None:
    """Try each processor: only the kernel knows which ones this process may use. Raises ConfigError."""
    before = os.sched_getaffinity(0)
    try:
        for processor in parse_processors(text):
            _bind_to(processor, text)
    finally:
        os.sched_setaffinity(0, before)


def _set_affinity(text: str, slot: int) -> None:
    processors = parse_processors(text)
    _bind_to(processors[slot % len(processors)], text)


def _bind_to(processor: int, text: str) -> None:
    try:
        os.sched_setaffinity(0, {processor})
    except OSError as error:
        raise ConfigError(
            f"cpu_affinity {text!r}: no processor {processor} here ({error.strerror}); choose others, or auto"
        ) from None


def find_user(user: str | None) -> Any:
    """The password database's entry of a user name or number. Raises ConfigError."""
    if user is None:
        return None
    import pwd

    try:
        return pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except (KeyError, ValueError, OverflowError):
        raise ConfigError(f"user {user!r} is not known here: give a user's name or number") from None


def find_group(group: str | None) -> int | None:
    """The number of a group name or number. Raises ConfigError."""
    if group is None:
        return None
    import grp

    try:
        gid = int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except (KeyError, ValueError):
        gid = -1
    if not 0 <= gid <= MOST_ID:
        raise ConfigError(f"group {group!r} is not known here: give a group's name or number")
    return gid


def _find(user: str | None, group: str | None) -> tuple[Any, int | None]:
    """The user's entry and the group's number, by default the user's own. Raises ConfigError."""
    entry = find_user(user)
    gid = find_group(group)
    return entry, entry.pw_gid if gid is None and entry is not None else gid


def ids_of_worker(config: ProcessSettings) -> tuple[int, int]:
    """The numbers of the workers' user and group, -1 for one that stays as it is. Raises ConfigError."""
    entry, gid = _find(config.user, config.group)
    return (-1 if entry is None else entry.pw_uid), (-1 if gid is None else gid)


def _not_permitted(user: str | None, group: str | None) -> ConfigError:
    return ConfigError(
        f"user {user!r}, group {group!r}: only root may change them; start as root, or leave them out"
    )


def _check_privileges(user: str | None, group: str | None) -> None:
    entry, gid = _find(user, group)
    if gid is None or os.geteuid() == 0:
        return
    if gid != os.getegid() or (entry is not None and entry.pw_uid != os.geteuid()):
        raise _not_permitted(user, group)


def _drop_privileges(user: str | None, group: str | None) -> None:
    entry, gid = _find(user, group)
    try:
        if entry is not None and gid is not None and os.geteuid() == 0:
            os.initgroups(entry.pw_name, gid)
        elif gid is not None and os.geteuid() == 0:
            os.setgroups([gid])
        if gid is not None:
            _become("gid", gid)
        if entry is not None:
            _become("uid", entry.pw_uid)
    except PermissionError:
        raise _not_permitted(user, group) from None
    if entry is not None and entry.pw_uid != 0 and _becomes_root():
        raise ConfigError(
            f"user {user!r}: this process could become root again; start it without capabilities that "
            "outlast a change of user (CAP_SETUID, securebits)"
        )


def _become(kind: str, number: int) -> None:
    """Set the real, the effective and the saved id of a kind, uid or gid. Raises PermissionError."""
    if hasattr(os, f"setres{kind}"):
        getattr(os, f"setres{kind}")(number, number, number)
    elif number != getattr(os, f"gete{kind}")():
        getattr(os, f"set{kind}")(number)  # all three, for root


def _becomes_root() -> bool:
    """Try it."""
    try:
        os.seteuid(0)
    except PermissionError:
        return False
    return True
