"""How shells complete the command: the script that a shell reads, and what that script asks us.

The script calls the command with the line as it is so far; click finds out what may follow. So a script that
was written to a file knows the options of whatever version is installed.
"""

import os
import re
from typing import Any

import click
from click.shell_completion import CompletionItem, ShellComplete, add_completion_class, split_arg_string

from fastasgi.cli.options import COMPLETION_VARIABLE, SettingOption

LINE = "_FASTASGI_LINE"  # the line up to the cursor
WORD = "_FASTASGI_WORD"  # bash: the last part of the word under the cursor, which it wants to have completed
MOST_HELP_LETTERS = 60

# Each reads lines of fields that tabs separate: kind, value, help. The shell itself completes files and
# folders; their value is what stands in front of the name, as --config= does.
_BASH = """\
_fastasgi_completion() {
    local command=${1/#\\~\\//"$HOME/"} kind value
    COMPREPLY=()
    while IFS=$'\\t' read -r kind value; do
        case $kind in
            file) compopt -o default 2>/dev/null ;;
            dir) compopt -o dirnames 2>/dev/null ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done < <(%(variable)s=bash_complete %(line)s=${COMP_LINE:0:COMP_POINT} %(word)s=$2 "$command" 2>/dev/null)
}
complete -o nosort -F _fastasgi_completion fastasgi 2>/dev/null || complete -F _fastasgi_completion fastasgi
"""

_ZSH = """\
#compdef fastasgi
_fastasgi_completion() {
    local -a described rows
    local kind value help row
    local line="${(j: :)words[1,CURRENT-1]} $PREFIX"
    rows=("${(@f)$(%(variable)s=zsh_complete %(line)s=$line ${~words[1]} 2>/dev/null)}")
    for row in $rows; do
        IFS=$'\\t' read -r kind value help <<< "$row"
        case $kind in
            file) [[ -n $value ]] && compset -P '*='; _files ;;
            dir) [[ -n $value ]] && compset -P '*='; _files -/ ;;
            plain) described+=("${value//:/\\\\:}${help:+:$help}") ;;
        esac
    done
    (( $#described )) && _describe -V fastasgi described
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _fastasgi_completion "$@"
else
    compdef _fastasgi_completion fastasgi
fi
"""

_FISH = """\
function __fastasgi_completion
    set -l command (string replace -r '^~/' "$HOME/" -- (commandline -opc)[1])
    set -l current (string replace -r '^--[^=]*=' '' -- (commandline -ct))
    for row in (%(variable)s=fish_complete %(line)s=(commandline -cp) $command 2>/dev/null)
        set -l fields (string split \\t -- $row)
        switch $fields[1]
            case file
                for path in (__fish_complete_path $current)
                    echo $fields[2]$path
                end
            case dir
                for path in (__fish_complete_directories $current)
                    echo $fields[2]$path
                end
            case plain
                echo $fields[2]\\t$fields[3]
        end
    end
end
complete -c fastasgi -f -a '(__fastasgi_completion)'
"""

SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def script(shell: str) -> str:
    """What a shell has to read to complete the command."""
    return SCRIPTS[shell] % {"variable": COMPLETION_VARIABLE, "line": LINE, "word": WORD}


def register() -> None:
    """Have click answer our scripts in place of its own."""
    for shell in SCRIPTS:
        add_completion_class(_Completion, shell)


class _Completion(ShellComplete):
    """What a script is answered: all that may stand in place of the word under the cursor."""

    def complete(self) -> str:
        """The lines for the script."""
        args, begun = self.get_completion_args()
        option, is_joined, _ = begun.partition("=")
        prefix = f"{option}=" if is_joined and option.startswith("--") else ""
        takes_value = not prefix or any(
            isinstance(param, click.Option) and not param.is_flag and option in param.opts
            for param in self.cli.params
        )
        items = self.get_completions(args, begun) if takes_value else []
        if (
            not prefix
            and args
            and any(args[-1] in param.opts for param in self.cli.params if _takes_word(param))
        ):
            # What follows may be its word or not
            items += self.get_completions([*args[:-1], f"{args[-1]}=on"], begun)
        return "\n".join(_line(item, prefix, begun) for item in items)

    def get_completion_args(self) -> tuple[list[str], str]:
        """The whole arguments in front of the cursor, and the one that has begun."""
        line = os.environ.get(LINE, "")
        words = split_arg_string(line)
        begun = "" if re.search(r"(?<!\\)\s$", line) else words.pop() if words else ""
        while words and re.match(r"\w+=", words[0]):
            del words[0]  # the variables in front of the command
        return words[1:], begun


def _takes_word(param: click.Parameter) -> bool:
    return isinstance(param, SettingOption) and bool(param.words)


def _line(item: "CompletionItem[Any]", prefix: str, begun: str) -> str:
    if item.type != "plain":
        return f"{item.type}\t{prefix}"
    value = f"{prefix}{item.value}"
    word = os.environ.get(WORD)
    if word is not None:
        # Bash takes = and : for the ends of words
        return f"plain\t{value[len(begun) - len(word) :] if begun.endswith(word) else value}"
    return f"plain\t{value}\t{_short(item.help or '')}"


def _short(text: str) -> str:
    """The first sentence of a help text, or as much of it as has room in a list."""
    text = " ".join(re.split(r"[.;:] ", text.replace("[default", ". "), maxsplit=1)[0].split()).rstrip(".")
    return text if len(text) <= MOST_HELP_LETTERS else text[: MOST_HELP_LETTERS - 1].rsplit(" ", 1)[0] + "…"
