"""The text of docs/settings.md, which ``make docs`` writes."""

from fastasgi.settings.declaration import choices_of, default_of, expected, option_of, settings_of

INTRODUCTION = """\
# Settings

Each setting is a command line option, an environment variable, a key in a TOML file, and a parameter
of `fastasgi.run` and `fastasgi.Config`. If a setting is given in several places, the command line wins over
the environment, the environment over the file, and the file over the default.

- `fastasgi --print-config` prints each setting, its value and where that was given.
- `fastasgi --check-config` also imports the application, and says first whether it can be served. It ends
  with exit code 0 if everything is right that can be checked without binding an address, otherwise like a
  server that [can't start](signals.md#exit-codes).
- `fastasgi --help`, or `-h`, lists all options. On a terminal the help and both listings have colours.
  `use_colors` decides on them; if it is not set, `NO_COLOR` takes them away, and `FORCE_COLOR` gives them to
  a pipe too.
- `fastasgi --completion bash` prints the script by which bash completes options, their values, and the
  applications in the sources of the folder. `eval "$(fastasgi --completion bash)"` in `~/.bashrc` loads it;
  in `~/.zshrc` the same with `zsh`, after `compinit`. For fish, write what `fastasgi --completion fish`
  prints to `~/.config/fish/completions/fastasgi.fish`. At each tab key the script asks the command what may
  follow, which takes about 0.1 s.

On the **command line**, a switch has an opposite, as in `--no-access-log`. One that is not only on or off
takes a word too, as in `--http2=only`.

In the **environment**, the variable is `FASTASGI_` and the name in Python, in capitals:
`FASTASGI_TIMEOUT_KEEP_ALIVE=10`. `FASTASGI_APP` names the application. A switch is true, yes, on or 1,
or false, no, off or 0. A list has one item a line; addresses, peers and names of headers may also be
separated by commas. An empty variable counts as not set. `WEB_CONCURRENCY` gives `workers` if
`FASTASGI_WORKERS` does not, and `FORWARDED_ALLOW_IPS` gives `forwarded_allow_ips` likewise; an empty
`FORWARDED_ALLOW_IPS` trusts nobody.

The **file** is the one that `--config` or `FASTASGI_CONFIG` names, otherwise the `pyproject.toml` in the
current folder if it has a table `[tool.fastasgi]`. In a `pyproject.toml` the settings stand in that table,
in any other file in that table or at the top level. Keys are the names in Python, with `_` or `-`:

```toml
[tool.fastasgi]
app = "main:app"
bind = ["127.0.0.1:8000", "unix:/run/shop.sock"]
uds-permissions = "660"
timeout-keep-alive = 10
headers = ["X-Frame-Options: DENY"]
```

Values have TOML's types; octal permissions are in quotes. `log_config` may be a table. Paths are
relative to the current folder, as on the command line. A reload by SIGHUP reads the file again.

If several addresses to listen on are given, `bind` wins over `fd`, `fd` over `uds`, and `uds` over `host` and
`port`. An address on the command line wins over all addresses in the environment, and these over all in the
file: `--port 9000` wins over `bind` in a file.

In **Python**, `fastasgi.run` and `fastasgi.Config` read no file and no variables but `WEB_CONCURRENCY` and
`FORWARDED_ALLOW_IPS`. An empty text counts as not set, except for `host`. None stands for the default, except
that a limit of None or 0 is no limit, and a switch of None or 0 is off. Numbers and switches may be texts, as
`os.environ` has them.

"""


def settings_document(owner: type) -> str:
    """The whole text, for a dataclass whose fields are the settings."""
    return INTRODUCTION + markdown_table(owner)


def markdown_table(owner: type) -> str:
    """Every setting of a dataclass as Markdown: a table a group."""
    groups: dict[str, list[str]] = {}
    for field, described in settings_of(owner):
        limits = (
            ""
            if described.kind in ("text", "path", "paths", "switch", "object", "headers", "list")
            else expected(described)
        )
        if described.choices:
            limits = "\\|".join(choices_of(described))
        cells = [
            f"`{option_of(field.name, described)}`" if described.on_command_line else "",
            f"`{field.name}`",
            default_of(field, described),
            f"{described.help} Takes {limits}." if limits else described.help,
        ]
        groups.setdefault(described.group, []).append(f"| {' | '.join(cells)} |")
    head = "| option | in Python | default | meaning |\n|---|---|---|---|\n"
    return "\n\n".join(f"## {group}\n\n{head}" + "\n".join(rows) for group, rows in groups.items()) + "\n"
