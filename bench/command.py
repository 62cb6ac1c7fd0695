"""What the command does. It needs the standard library only; the rest it installs for itself."""

import argparse
import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

from bench import compare, guard, micro, run, servers, summary, workloads
from bench.environment import HERE, ROOT, Environment
from bench.errors import BenchError, UsageError
from bench.results import new_folder

FAILURE, USAGE = 1, 2


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Compare servers on this machine; see bench/README.md."
    )
    # It may stand before the command's name or behind it: the default of the second must not undo the first.
    anywhere = argparse.ArgumentParser(add_help=False)
    for one, default in ((parser, ROOT / ".venv-bench"), (anywhere, argparse.SUPPRESS)):
        one.add_argument("--environment", type=Path, default=default, help="folder to install into")
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name: str, described: str, **options: Any) -> argparse.ArgumentParser:
        return commands.add_parser(name, parents=[anywhere], help=described, **options)

    with_defaults = {"formatter_class": argparse.ArgumentDefaultsHelpFormatter}
    full = add("full", "every server at every workload", **with_defaults)
    _add_servers(full, "all")
    _add_load(full, "all", seconds=5.0, rounds=3)
    quick = add("quick", "a few of both", **with_defaults)
    _add_servers(quick, ",".join(servers.QUICK))
    _add_load(quick, ",".join(workloads.QUICK), seconds=1.0, rounds=2)
    both = add("compare", "compare the working tree with a commit", **with_defaults)
    both.add_argument("base", help="the commit, as git names it")
    # The intervals of small differences need some rounds.
    _add_load(both, "hello,pipeline,browser,post16k", seconds=3.0, rounds=7)
    add("prepare", "make the environment and a build of fastasgi, no more")
    add("micro", "time the codecs alone")
    guarded = add("guard", "count the codecs' instructions and fail if they grew")
    guarded.add_argument("--installed", action="store_true", help="of the fastasgi that this interpreter has")
    guarded.add_argument("--record", action="store_true", help="record the figures instead")
    again = commands.add_parser("summary", help="make summary and chart of a results folder again")
    again.add_argument("folder", type=Path)
    commands.add_parser("list", help="name the servers and the workloads")
    return parser


def _add_servers(command: argparse.ArgumentParser, chosen: str) -> None:
    """The options of a run of several servers."""
    command.add_argument("-s", "--servers", default=chosen, help="separated by commas, or all")
    command.add_argument("--port", type=int, default=0, help="for the servers; 0 takes a free one each turn")
    command.add_argument(
        "--results", type=Path, default=HERE / "results", help="folder for the results' folder"
    )


def _add_load(command: argparse.ArgumentParser, chosen: str, *, seconds: float, rounds: int) -> None:
    """The options of every run."""
    command.add_argument("-w", "--workloads", default=chosen, help="separated by commas, or all")
    command.add_argument(
        "--seconds", type=float, default=seconds, help="length of the measured window of a turn"
    )
    command.add_argument("--rounds", type=int, default=rounds, help="turns of each server at each workload")
    command.add_argument("--warmup", type=float, default=0.5, help="seconds of load before the window")


def compare_servers(options: argparse.Namespace) -> int:
    """`full` and `quick`: a run and its summary."""
    plan = run.plan_of(
        options.servers, options.workloads, options.seconds, options.rounds, options.warmup, options.port
    )
    environment = Environment(options.environment)
    # First, since to prepare takes minutes.
    folder = new_folder(options.results)
    try:
        environment.prepare()
    except BaseException:
        folder.rmdir()
        raise
    for note in environment.notes:
        print(f"bench: {note}", file=sys.stderr)
    found = run.carry_out(plan, environment, folder)
    print(f"bench: {summary.write(folder)}")
    failed = any(turn["status"] == "failed" for turn in found["turns"])
    return FAILURE if failed or found["interrupted"] or not found["turns"] else 0


def compare_commits(options: argparse.Namespace) -> int:
    """`compare`."""
    plan = run.plan_of("fastasgi", options.workloads, options.seconds, options.rounds, options.warmup, 0)
    compare.check(plan.workloads)
    environment = Environment(options.environment)
    environment.prepare()
    found = compare.carry_out(
        environment, options.base, plan.workloads, plan.seconds, plan.rounds, plan.warmup_s
    )
    return FAILURE if any(comparison.reasons for comparison in found) else 0


def prepare(options: argparse.Namespace) -> int:
    """`prepare`."""
    environment = Environment(options.environment)
    environment.prepare()
    environment.build_working_tree()
    for note in environment.notes:
        print(f"bench: {note}", file=sys.stderr)
    return FAILURE if environment.notes else 0


def time_codecs(options: argparse.Namespace) -> int:
    """`micro`."""
    environment = Environment(options.environment)
    environment.prepare()
    figures = json.loads(guard.run_micro(environment.python, environment.build_working_tree(), "time"))
    for title, codecs in itertools.groupby(micro.CODECS, key=lambda codec: codec.input):
        print(f"{title}:")
        for codec in codecs:
            figure = figures[codec.name]
            shown = f"{figure:10.0f} ns" if isinstance(figure, float) else f"missing: {figure}"
            print(f"  {codec.library:22} {shown}")
    return 0


def guard_codecs(options: argparse.Namespace) -> int:
    """`guard`."""
    if options.installed:
        python, fastasgi = Path(sys.executable), guard.installed_fastasgi()
    else:
        environment = Environment(options.environment)
        environment.prepare()
        python, fastasgi = environment.python, environment.build_working_tree()
    key = guard.platform_key(python)
    counted = guard.count_instructions(python, fastasgi)
    recorded = guard.read_record().get(key)
    if options.record:
        guard.write_record(key, counted)
        print(f"bench: recorded {len(counted)} figures for {key} in {guard.RECORD}")
        return 0
    if recorded is None:
        print(f"bench: no figures are recorded for {key}, so nothing is guarded here: bench guard --record")
        return 0
    changes = guard.compare(recorded, counted)
    print(*map(guard.describe, changes), sep="\n")
    return FAILURE if any(change.fails for change in changes) else 0


def summarize_again(options: argparse.Namespace) -> int:
    """`summary`."""
    try:
        print(f"bench: {summary.write(options.folder)}")
    except (OSError, ValueError) as error:
        raise BenchError(f"no summary of {options.folder}: {error}") from None
    return 0


def list_all(options: argparse.Namespace) -> int:
    """`list`."""
    for title, known in (("servers", servers.SERVERS), ("workloads", workloads.WORKLOADS)):
        print(f"{title}:")
        for name, one in known.items():
            print(f"  {name:20} {one.title}")
    return 0


COMMANDS = {
    "full": compare_servers,
    "quick": compare_servers,
    "compare": compare_commits,
    "prepare": prepare,
    "micro": time_codecs,
    "guard": guard_codecs,
    "summary": summarize_again,
    "list": list_all,
}


def main(arguments: list[str] | None = None) -> int:
    """Do what the arguments say; the exit code. KeyboardInterrupt passes, after what runs was ended."""
    options = build_parser().parse_args(arguments)
    if not sys.platform.startswith("linux"):
        print("bench: it reads CPU time from Linux's /proc, and runs on Linux only", file=sys.stderr)
        return FAILURE
    try:
        code = COMMANDS[options.command](options)
        sys.stdout.flush()
        return code
    except UsageError as error:
        print(f"bench: {error}", file=sys.stderr)
        return USAGE
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return FAILURE
    except BrokenPipeError:
        # What is still to be written has no reader; without this Python would say so once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print("bench: nobody reads the output any more", file=sys.stderr)
        return FAILURE
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"bench: {where}{error.strerror}", file=sys.stderr)
        return FAILURE
