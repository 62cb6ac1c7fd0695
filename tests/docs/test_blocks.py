"""Every command and every block of code in the documentation does what the page says.

``python tests/docs/test_blocks.py`` lists the blocks that are not run, each with its reason.
"""

from pathlib import Path

import pytest
from markdownblocks import PageError, blocks_of, pages
from markdownrun import ROOT, PageRun, is_package, matches

PAGES = {str(path.relative_to(ROOT)): path for path in pages(ROOT)}


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("page", PAGES)
def test_the_page_runs(page: str, tmp_path: Path) -> None:
    PageRun(page, PAGES[page].read_text(encoding="utf-8"), tmp_path, pytest.skip).run()


APP = """\
```python title="main.py"
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"Hello\\n"})
```
"""

SERVED = f"""{APP}
```console
$ fastasgi --port 8000 --lifespan off main:app
INFO:     Started server process [...]
...
INFO:     fastasgi running on http://127.0.0.1:8000 (Press CTRL+C to quit)
$ curl -s http://127.0.0.1:8000/
Hello
```
"""


def run(text: str, folder: Path) -> None:
    """Run the blocks of a page."""
    PageRun("page.md", text, folder, pytest.fail).run()


def console(*lines: str) -> str:
    """A console block."""
    return "\n".join(["```console", *lines, "```", ""])


def test_a_server_is_started_asked_and_ended(tmp_path: Path) -> None:
    page = PageRun("page.md", SERVED, tmp_path)
    page.run()
    assert page.server is None
    assert page.ports.keys() == {"8000"}


def test_the_next_server_takes_the_ports_of_the_one_before(tmp_path: Path) -> None:
    again = console("$ fastasgi main:app", "$ curl -s http://127.0.0.1:8000/", "Hello")
    run(f"{SERVED}\n{again}\n{again}", tmp_path)


def test_files_variables_and_folders_stay_for_the_next_command(tmp_path: Path) -> None:
    run(
        '```toml title="conf/x.toml"\nport = 8000\n```\n'
        + console("$ cd conf", "$ export A=b", "$ ls", "x.toml", "$ echo $A \\", "    c", "b c")
        + "```python\nassert open('conf/x.toml').read() != 'port = 8000'\n```\n",
        tmp_path,
    )


def test_a_block_within_a_list_is_run_without_its_indentation(tmp_path: Path) -> None:
    with pytest.raises(PageError, match=r"page\.md:3: the script ends with 1:\n(.*\n)+ZeroDivisionError"):
        run("- One:\n\n    ```python\n    1 / 0\n    ```\n", tmp_path)


WRONG = {
    "wrong output": (console("$ echo a", "b"), r":2: echo a\nexpected:\nb\ngot:\na"),
    "more output": (console("$ printf 'a\\nb\\n'", "a"), r":2: .*\nexpected:\na\ngot:\na\nb"),
    "output of a silent command": (console("$ echo a"), r":2: echo a\nexpected:\nnothing\ngot:\na"),
    "no output": (console("$ true", "a"), r":2: true\nexpected:\na\ngot:\nnothing"),
    "second command": (console("$ true", "$ echo a", "b"), r":3: echo a\n"),
    "command fails": (console("$ cat missing"), r":2: cat missing\nends with 1:\n.*No such file"),
    "no such command": (console("$ fastasgii"), r":2: fastasgii\nends with 127:"),
    "server ends": (APP + console("$ fastasgi main:nothing"), r"ends with 3:\n(.*\n)*.*has no attribute"),
    "server writes something else": (
        APP + console("$ fastasgi main:app", "Hello!"),
        r"does not write it:\nfastasgi main:app\nexpected:\nHello!\ngot:\n(.*\n)*INFO: ",
    ),
    "answer is another": (
        SERVED.replace("\nHello\n", "\nBye\n"),
        r"\nBye\ngot:\nHello\n\nthe server of line 8 has written:\n.*running on",
    ),
    "elsewhere": (console("$ curl -sS https://example.org/"), "ends with .*127.0.0.1"),
    "python is broken": ("```python\nif:\n```\n", r":1: this is no python: .*line 1"),
    "python fails": (
        "```python\nraise RuntimeError('x')\n```\n",
        r":1: the script ends with 1:\n(.*\n)*Runt",
    ),
    "python that is not run is broken": (
        "<!-- not run: needs x -->\n```python\nif:\n```\n",
        ":2: this is no p",
    ),
    "python of a file is broken": ('```python title="a.py"\nif:\n```\n', ":1: this is no python"),
    "json": ("```json\n{a}\n```\n", ":1: this is no json"),
    "toml": ("```toml\na\n```\n", ":1: this is no toml"),
    "yaml": ("```yaml\na: b: c\n```\n", ":1: this is no yaml"),
    "ini": ("```ini\na = b\n```\n", ":1: this is no ini"),
    "bash": ("```bash\nif\n```\n", ":1: bash can't read this"),
    "bash fails": ("```bash\nfalse\ntrue\n```\n", "ends with 1"),
    "console that is not run": (
        "<!-- not run: needs x -->\n" + console("$ if"),
        ":2: bash can't read this: if",
    ),
    "no reason": ("<!-- not run -->\n```console\n$ true\n```\n", ":1: give the reason"),
    "empty reason": ("<!-- not run: -->\n```console\n$ true\n```\n", ":1: give the reason"),
    "reason for nothing": ("<!-- not run: needs x -->\n\ntext\n", ":1: no block follows"),
    "no language": ("```\ntext\n```\n", "the language '' is none of"),
    "no prompt": (console("true"), ":2: a console block begins with"),
    "no end": ("```text\ntext\n", ":1: the block has no end"),
    "outside": ('```text title="../x"\n```\n', "outside of the page's folder"),
    "no such package": (console("$ pip install fastasgi fastasgi-nothing"), "'fastasgi-nothing' is not in"),
    "no such extra": (console("$ pip install 'fastasgi[nothing]'"), ":2: 'fastasgi.nothing.' is not in"),
    "no such target": (console("$ make nothing"), ":2: there is no make target 'nothing'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_with_its_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("markdownrun.STARTING_S", 3.0)
    text, pattern = WRONG[name]
    with pytest.raises(PageError, match=f"(?s)^page.md.*{pattern}"):
        run(text, tmp_path)


def test_a_command_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("markdownrun.COMMAND_S", 0.1)
    with pytest.raises(PageError, match=r":2: sleep 60\nends with -9:\n\nkilled after 0.1 s"):
        run(console("$ sleep 60"), tmp_path)


def test_what_is_not_run_is_read(tmp_path: Path) -> None:
    run("<!-- not run: needs a cluster -->\n```console\n$ kubectl get pods\n```\n", tmp_path)
    run_before = list(tmp_path.glob("page/*"))
    assert run_before == []


def test_a_missing_program_skips_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda program: None)
    with pytest.raises(pytest.skip.Exception, match="curl is not here"):
        PageRun("page.md", SERVED, tmp_path, pytest.skip).run()


def test_output_matches() -> None:
    assert matches(["a ... b", "...", "c"], "a 1 b\nx\ny\nc\n", whole=True)
    assert matches(["..."], "", whole=True)
    assert matches(["a"], "a\nb\n", whole=False)
    assert matches(["a.b"], "\x1b[32ma.b\x1b[0m", whole=True)
    assert not matches(["a.b"], "axb", whole=True)
    assert not matches(["a", "..."], "b\na\n", whole=True)
    assert not matches(["a"], "ab", whole=False)


def test_packages_are_those_of_the_project() -> None:
    for word in (
        "fastasgi",
        ".",
        "fastasgi[reload]",
        ".[wsgi,metrics]",
        "fastapi",
        "Prometheus_Client>=0.22",
    ):
        assert is_package(word), word
    for word in ("fastasgi[nothing]", "fastapii", "fastasgi ["):
        assert not is_package(word), word


def list_not_run() -> None:
    """Print what is not run."""
    for page, path in PAGES.items():
        for block in blocks_of(page, path.read_text(encoding="utf-8")):
            if block.reason:
                print(f"{page}:{block.line}: {block.language}: {block.reason}")


if __name__ == "__main__":
    list_not_run()
