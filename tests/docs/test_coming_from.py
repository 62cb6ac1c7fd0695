"""docs/coming-from: its tables have each option of the other servers, and name options that fastasgi has."""

import inspect
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
from peeroptions import Names, command_of, options_in, options_of, series_of

import fastasgi
from fastasgi.cli import main
from fastasgi.logging import check_access_log_format
from fastasgi.settings.declaration import default_of, settings_of

DOCS = Path(__file__).resolve().parents[2] / "docs"
OVERVIEW = DOCS / "coming-from.md"
PAGES = {path.stem: path for path in sorted((DOCS / "coming-from").glob("*.md"))}
SECTION_OF = {
    "daphne runserver": "daphne's runserver"
}  # the first word above the names, if it isn't the peer

PARAMS = [param for param in main.params if isinstance(param, click.Option)]
OUR_OPTIONS = {name for param in PARAMS for name in (*param.opts, *param.secondary_opts)} | {"--help"}
OUR_PARAMETERS = set(inspect.signature(fastasgi.Config).parameters)

# Words of the second column that stand for themselves
VERDICTS = ("the same", "not needed", "not there")


class Row(NamedTuple):
    head: tuple[str, ...]
    cells: tuple[str, ...]


def rows_in(path: Path) -> Iterator[Row]:
    """The rows of all tables of a page."""
    head: tuple[str, ...] | None = None
    for line in path.read_text().splitlines():
        if not line.startswith("|"):
            head = None
            continue
        cells = tuple(cell.strip() for cell in line.strip()[1:-1].split("|"))
        if head is None:
            head = cells
        elif not line.startswith("|--"):
            yield Row(head, cells)


def codes_in(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def mapping_of(peer: str) -> list[Row]:
    """The rows that say of an option of a server what ours is."""
    path = PAGES[peer.partition(" ")[0]]
    first = SECTION_OF.get(peer, peer)
    rows = [row for row in rows_in(path) if row.head[:2] == (first, "fastasgi")]
    return [row for row in rows if not re.match(r"`[A-Z]", row.cells[0])]  # variables have a table too


PEERS = ["uvicorn", "gunicorn", "hypercorn", "daphne", "daphne runserver", "granian"]
ROWS = [pytest.param(peer, row, id=f"{peer}: {row.cells[0]}") for peer in PEERS for row in mapping_of(peer)]


def names_of(row: Row) -> Names:
    return frozenset(codes_in(row.cells[0]))


@pytest.mark.parametrize("peer", PEERS)
def test_a_table_has_each_option_of_the_other_server_and_no_other(peer: str) -> None:
    theirs = options_of(peer)
    ours = [names_of(row) for row in mapping_of(peer)]
    missing = sorted(sorted(names) for names in theirs - set(ours))
    invented = sorted(sorted(names) for names in set(ours) - theirs)
    assert (missing, invented) == ([], [])
    assert len(ours) == len(set(ours)), "an option has two rows"


@pytest.mark.parametrize("peer", PAGES)
def test_a_page_names_the_version_that_it_was_compared_with(peer: str) -> None:
    options_of(peer)
    stated = re.search(rf"\b{peer} (\d+\.\d+)", PAGES[peer].read_text())
    assert stated is not None
    assert stated[1] == series_of(peer), "look through what is new in this version, and say so on the page"


def test_every_page_is_linked_and_compared() -> None:
    linked = re.findall(r"^\| \[(\w+)\]\(coming-from/(\w+)\.md\)", OVERVIEW.read_text(), re.MULTILINE)
    assert {name for pair in linked for name in pair} == set(PAGES) == {peer.split()[0] for peer in PEERS}


@pytest.mark.parametrize(("peer", "row"), ROWS)
def test_a_row_names_what_fastasgi_has(peer: str, row: Row) -> None:
    assert len(row.cells) == 3, "a row has a name, ours, and a word on it"
    ours, note = row.cells[1:]
    if ours == "the same":
        assert names_of(row) & (OUR_OPTIONS | OUR_PARAMETERS)
    elif ours not in VERDICTS:
        names = codes_in(ours)
        assert re.sub(r"`[^`]+`|, ", "", ours) == ""
        assert names
        for name in names:
            assert name in OUR_OPTIONS | OUR_PARAMETERS, f"no setting {name}"
    if note:
        assert note.endswith((".", "`", ")")), note
        if re.match(r"`--[^`]*`$", note) and ours not in VERDICTS:
            assert options_in(codes_in(note)[0].split()) <= OUR_OPTIONS


DEFAULTS = {field.name: default_of(field, described) for field, described in settings_of(fastasgi.Config)}


TOLD_DEFAULTS = [each for each in ROWS if re.search(r"[Dd]efault \d", each.values[1].cells[2])]


@pytest.mark.parametrize(("peer", "row"), TOLD_DEFAULTS)
def test_a_default_of_ours_is_told_as_it_is(peer: str, row: Row) -> None:
    told = re.search(r"[Dd]efault (\d+)\b", row.cells[2])
    names = names_of(row) if row.cells[1] == "the same" else codes_in(row.cells[1])[:1]
    param = next(param for param in PARAMS if set(names) & set(param.opts))
    ours = re.match(r"\d+", DEFAULTS[param.name])
    assert ours is not None
    assert ours[0] == told[1]


@pytest.mark.parametrize("path", [OVERVIEW, *PAGES.values()], ids=lambda path: path.stem)
def test_every_option_in_the_text_is_one_of_ours_or_of_the_other_server(path: Path) -> None:
    peers = [peer for peer in PEERS if peer.split()[0] == path.stem or path is OVERVIEW]
    known = OUR_OPTIONS.union(*(names for peer in peers for names in options_of(peer)))
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    named = {
        option
        for code in codes_in(text)
        if command_word(code) is None
        for option in re.findall(r"(?<![\w/-])--[\w-]+", code)
    }
    assert named
    assert named - known == set()


def command_word(code: str) -> str | None:
    """The server that a command starts, if it starts one."""
    starts = re.match(r'(?:CMD \["|CMD exec |web: |ExecStart=\S*/)?(\w+)\b', code)
    word = starts[1] if starts else ""
    is_command = re.search(r'[ "]\S', code) and not code.startswith(f"{word}.")
    return word if word in ("fastasgi", *PAGES) and is_command else None


def commands_in(path: Path) -> Iterator[tuple[str, str]]:
    for row in rows_in(path):
        if {"before", "after"} <= set(row.head):
            for title, cell in zip(row.head, row.cells, strict=True):
                for code in codes_in(cell):
                    if title in ("before", "after"):
                        yield title, code


COMMANDS = [
    pytest.param(title, code, id=f"{path.stem}: {code}")
    for path in (OVERVIEW, *PAGES.values())
    for title, code in commands_in(path)
]


@pytest.mark.parametrize(("title", "code"), COMMANDS)
def test_a_command_has_options_that_its_server_has(title: str, code: str) -> None:
    server = command_word(code)
    if server is None:
        assert title == "before" or (title, code) in [("after", each) for each in UNCHANGED], code
        return
    assert title == "before" or server in ("fastasgi", "gunicorn")
    name, *words = command_of(code)
    assert name == server
    if server == "fastasgi":
        words = ["8000" if word == "$PORT" else word for word in words]
        given = main.make_context(server, words)  # raises if an option is unknown, or has no value
        app = given.params["app"]
        assert re.fullmatch(r"[\w.]+:[\w.]+", app), f"{app} can't be served"
    else:
        known = {option for names in options_of(server) for option in names}
        assert options_in(words) <= known


UNCHANGED = ["ExecReload=/bin/kill -s HUP $MAINPID", "Type=notify"]


# --- uvicorn: what is the same has the same default, or the table says so ---


def parameter_of(row: Row) -> str:
    names = [name for name in codes_in(row.cells[0]) if not name.startswith("--no-")]
    return names[-1].lstrip("-").replace("-", "_")


def defaults_of(function: Callable[..., Any]) -> dict[str, Any]:
    return {name: each.default for name, each in inspect.signature(function).parameters.items()}


@pytest.mark.parametrize("row", mapping_of("uvicorn"), ids=lambda row: row.cells[0])
def test_another_default_than_uvicorns_is_told(row: Row) -> None:
    uvicorn = pytest.importorskip("uvicorn")
    assert row.cells[1] == "the same"
    name = parameter_of(row)
    theirs = {**defaults_of(uvicorn.run), **defaults_of(uvicorn.Config)}[name]
    if theirs == defaults_of(fastasgi.Config)[name]:
        return
    assert re.search(r"\b(by )?default\b", row.cells[2], re.IGNORECASE), f"{name} is {theirs} in uvicorn"


# --- Access log formats ---

FORMATS = [row for row in rows_in(OVERVIEW) if row.head[-1:] == ("fastasgi",) and "gunicorn" in row.head]


def placeholders(peer: str) -> set[str]:
    """Those that the table has of a server, but for headers and variables."""
    column = FORMATS[0].head.index(peer)
    cells = [row.cells[column] for row in FORMATS]
    return {name for cell in cells for name in re.findall(r"%\(([\w]+)\)s", cell)}


def test_the_formats_of_gunicorn_are_all_there() -> None:
    source = inspect.getsource(pytest.importorskip("gunicorn.glogging").Logger.atoms)
    assert placeholders("gunicorn") == set(re.findall(r"^ +'(\w)': ", source, re.MULTILINE))


def test_the_formats_of_hypercorn_are_all_there() -> None:
    atoms = pytest.importorskip("hypercorn.logging").AccessLogAtoms
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "scheme": "http",
        "headers": [],
    }
    values = atoms(scope, {"status": 200, "headers": []}, 0.0)
    assert placeholders("hypercorn") == {name for name in values if not name.startswith("{")}


def test_the_formats_of_granian_are_all_there() -> None:
    granian = pytest.importorskip("granian.log")
    records: list[logging.LogRecord] = []
    request = {
        "path": "/",
        "qs": "",
        "method": "GET",
        "scheme": "http",
        "protocol": "1.1",
        "addr_remote": "x",
    }

    def note(record: logging.LogRecord) -> bool:
        records.append(record)
        return False

    logger = granian.access_logger
    level = logger.level
    logger.addFilter(note)
    logger.setLevel(logging.INFO)
    try:
        granian.log_request_builder("%(path)s")(0, 0, request, 200)
    finally:
        logger.removeFilter(note)
        logger.setLevel(level)
    assert placeholders("granian") == set(records[0].args)


@pytest.mark.parametrize("row", FORMATS, ids=lambda row: row.cells[0])
def test_our_placeholders_are_taken(row: Row) -> None:
    ours = row.cells[-1]
    if ours != "not there":
        check_access_log_format(codes_in(ours)[0])
