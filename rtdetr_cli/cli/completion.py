"""Shell completion of modes, keys and values: a script generated from the settings.

The script is plain text of the shell; it runs no Python when a key is pressed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rtdetr_cli.config.fields import accepts, allowed_texts, field_types
from rtdetr_cli.config.settings.modes import MODES
from rtdetr_cli.core.console import result
from rtdetr_cli.core.errors import UsageError, nearest
from rtdetr_cli.core.files import asset_dir

_COMMANDS = ("help", "version", "checks", "settings", "cfg", "copy-cfg", "completion")
_FILES = (
    "source",
    "data",
    "model",
    "other",
    "cfg",
    "pretrained",
    "resume",
    "recipe",
    "out",
    "output",
)
"""Keys whose value is a file or a folder."""
_SHIPPED = {"data": "cfg/datasets", "model": "models", "recipe": "cfg/recipes"}
"""Folder of the YAML files that a key takes by name."""


def completion(arguments: Sequence[str]) -> None:
    """`rtdetr completion bash|zsh|fish`: print the script.

    Raises:
        UsageError: another shell, or none.
    """
    shell = arguments[0] if arguments else ""
    if len(arguments) != 1 or shell not in _SCRIPTS:
        hint = nearest(shell, _SCRIPTS) or '; for example eval "$(rtdetr completion bash)"'
        raise UsageError(f"rtdetr completion needs one of {', '.join(_SCRIPTS)}{hint}")
    result(*_SCRIPTS[shell]().splitlines())


def _keys(mode: str) -> list[str]:
    return [*field_types(MODES[mode]), "cfg"]


def _values() -> dict[str, list[str]]:
    """The values to offer, by `mode:key`; the keys of `_FILES` are not among them."""
    found = {}
    for mode, cls in MODES.items():
        for key, hint in field_types(cls).items():
            texts = [value for one in allowed_texts(hint) for value in one.values]
            texts += ["true", "false"] if accepts(hint, bool) else []
            if texts and key not in _FILES:
                found[f"{mode}:{key}"] = texts
    return found


def _shipped(key: str) -> list[str]:
    """Names of the files that come with the toolkit and fit a key."""
    kind, _, below = _SHIPPED[key].partition("/")
    folder = asset_dir("models" if kind == "models" else "cfg") / below
    return sorted(file.name for file in folder.glob("*.yaml"))


def _words(words: Sequence[str]) -> str:
    return " ".join(words)


def _bash() -> str:
    values = [f'        {place}) words="{_words(v)}" ;;' for place, v in _values().items()]
    shipped = [f'        *:{key}) words="{_words(_shipped(key))}" ;;' for key in _SHIPPED]
    keys = [
        f'        {mode}) words="{_words([f"{k}=" for k in _keys(mode)])}" ;;' for mode in MODES
    ]
    return _BASH.format(
        first=_words(["detect", *MODES, *_COMMANDS]),
        modes=_words([*MODES]),
        shells=_words([*_SCRIPTS]),
        values="\n".join(values + shipped),
        files="|".join(_FILES),
        keys="\n".join(keys),
    )


def _zsh() -> str:
    values = [f"      {place}) compadd -- {_words(v)} ;;" for place, v in _values().items()]
    for key in _FILES:
        names = f"compadd -- {_words(_shipped(key))}; " if key in _SHIPPED else ""
        values.append(f"      *:{key}) {names}_files ;;")
    keys = [f"      {mode}) compadd -S = -- {_words(_keys(mode))} ;;" for mode in MODES]
    return _ZSH.format(
        first=_words(["detect", *MODES, *_COMMANDS]),
        modes=_words([*MODES]),
        shells=_words([*_SCRIPTS]),
        values="\n".join(values),
        keys="\n".join(keys),
    )


def _fish() -> str:
    line = "complete -c rtdetr -n '{condition}' {more} -a '{words}'"
    seen = "__fish_seen_subcommand_from"
    first = _words(["detect", *MODES, *_COMMANDS])
    lines = [
        "# fish completion of rtdetr, printed by `rtdetr completion fish`",
        line.format(condition=f"not {seen} {first}", more="-f", words=first),
        line.format(condition=f"{seen} detect", more="-f", words=_words([*MODES])),
        line.format(condition=f"{seen} help cfg copy-cfg", more="-f", words=_words([*MODES])),
        line.format(condition=f"{seen} completion", more="-f", words=_words([*_SCRIPTS])),
    ]
    values = _values()
    for mode in MODES:
        pairs = [f"{key}={v}" for key in _keys(mode) for v in values.get(f"{mode}:{key}", ())]
        pairs += [f"{key}={n}" for key in _SHIPPED if key in _keys(mode) for n in _shipped(key)]
        words = _words([*(f"{key}=" for key in _keys(mode)), *pairs])
        lines.append(line.format(condition=f"{seen} {mode}", more="", words=words))
    return "\n".join(lines)


_BASH = """\
# bash completion of rtdetr, printed by `rtdetr completion bash`
_rtdetr() {{
    local cur="${{COMP_WORDS[COMP_CWORD]}}" prev="${{COMP_WORDS[COMP_CWORD-1]}}"
    local key="" words="" mode="${{COMP_WORDS[1]}}" at=1 IFS=$' \\t\\n'
    COMPREPLY=()
    if [[ $mode == detect && $COMP_CWORD -gt 1 ]]; then mode="${{COMP_WORDS[2]}}"; at=2; fi
    if [[ $cur == "=" ]]; then key=$prev; cur=""
    elif [[ $prev == "=" ]]; then key="${{COMP_WORDS[COMP_CWORD-2]}}"
    elif [[ $COMP_CWORD -eq $at ]]; then
        words="{first}"
        [[ $at -eq 2 ]] && words="{modes}"
        COMPREPLY=($(compgen -W "$words" -- "$cur"))
        return
    fi
    if [[ -n $key ]]; then
        case "$mode:${{key#--}}" in
{values}
        esac
        COMPREPLY=($(compgen -W "$words" -- "$cur"))
        case "${{key#--}}" in {files})
            compopt -o filenames 2>/dev/null
            IFS=$'\\n'
            COMPREPLY+=($(compgen -f -- "$cur")) ;;
        esac
        return
    fi
    case "$mode" in
        help|cfg|copy-cfg) COMPREPLY=($(compgen -W "{modes}" -- "$cur")); return ;;
        completion) COMPREPLY=($(compgen -W "{shells}" -- "$cur")); return ;;
{keys}
    esac
    compopt -o nospace 2>/dev/null
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
}}
complete -F _rtdetr rtdetr
"""
_ZSH = """\
#compdef rtdetr
# zsh completion of rtdetr, printed by `rtdetr completion zsh`
_rtdetr() {{
  local mode=$words[2] at=2 key
  if [[ $mode == detect && $CURRENT -gt 2 ]]; then mode=$words[3]; at=3; fi
  if [[ $CURRENT -eq 2 ]]; then
    compadd -- {first}
  elif [[ $CURRENT -eq $at ]]; then
    compadd -- {modes}
  elif [[ $PREFIX == *=* ]]; then
    key=${{${{PREFIX%%=*}}#--}}
    compset -P '*='
    case "$mode:$key" in
{values}
    esac
  else
    case "$mode" in
      help|cfg|copy-cfg) compadd -- {modes} ;;
      completion) compadd -- {shells} ;;
{keys}
    esac
  fi
}}
compdef _rtdetr rtdetr
"""
_SCRIPTS: dict[str, Callable[[], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
