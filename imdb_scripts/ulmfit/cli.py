"""The guard between the command line and Google Fire.

A script ends with `if __name__ == "__main__": cli.main(train_clas)`. Plain Fire calls the function first and complains
afterwards, turns `1e5` into a float and `a#b` into `a`, and takes `--backwards=false` for a true string. Here the
arguments are read against the function's signature and the register of flags before anything heavy is imported; what is
wrong is refused in one line, and Fire gets `--name=value` pairs whose values it hands on as the strings they are.
"""

import difflib
import errno
import inspect
import json
import math
import os
import re
import select
import shlex
import shutil
import signal
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator, NoReturn, Sequence

from . import files, names
from .errors import Interrupted, UsageError, UserError
from .flags import DATA, FLAGS, Flag, flag_of

HELP = ("--help", "-h")
BOOLEANS = {"True": True, "False": False}
# After `--flag` these are refused: Fire would take them for the flag's value, our rule for the next positional one.
BOOLEAN_LIKE = {"true", "false", "yes", "no", "on", "off", "0", "1"}
MAX_WIDTH = 100
_VARIADIC = Flag("text", DATA, "any number of values")
_INT = re.compile(r"[+-]?[0-9]{1,18}")
_FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_DASHES = "-\N{EN DASH}\N{EM DASH}"  # text processors make one long dash of two short ones

# The stage that main is calling, the names that were typed, and those of them given by position.
_running: tuple[Callable, frozenset[str], frozenset[str]] | None = None


# what a stage asks

def typed() -> set[str]:
    """The parameters that the user gave on this command line; empty outside `main`."""
    return set(_running[1]) if _running else set()


def by_name(name: str) -> bool:
    """Whether the user gave this parameter as a flag, not by position; False outside `main`."""
    return bool(_running) and name in _running[1] and name not in _running[2]


def typed_or_changed(stage: Callable, flags: dict[str, Any]) -> set[str]:
    """The flags that the caller chose: those typed, or, when `stage` is called from Python, those off their default.

    Args:
        stage: the stage that asks.
        flags: its parameters' values, by name; a parameter that is absent counts as not chosen.
    """
    if _running and _running[0] is stage:
        return typed()
    parameters = inspect.signature(stage).parameters
    return {name for name, value in flags.items() if name in parameters and value != parameters[name].default}


# the two ways in

def main(stage: Callable, argv: Sequence[str] | None = None) -> None:
    """Calls `stage` with what the command line says.

    Args:
        stage: a function whose parameters are all in the register of flags (a `*args` need not be).
        argv: the arguments after the script's name; `sys.argv[1:]` when None.

    Raises:
        SystemExit: 0 after `--help`, 2 for a wrong command line, 1 for another error of the user's, 128 + the number of
            a signal that stopped the stage. All but the first have put one line on stderr.
        RuntimeError: a parameter is missing from the register.
    """
    _run(stage, sys.argv[1:] if argv is None else argv, Path(sys.argv[0]).name, stage.__name__)


def main_group(commands: dict[str, Callable], prog: str, argv: Sequence[str] | None = None) -> None:
    """As `main`, for several functions under one program; the first argument says which.

    Args:
        commands: the functions by the name that the user types.
        prog: what the user types before that name, as in `python -m analysis`.
        argv: the arguments after the program's name; `sys.argv[1:]` when None.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    label = prog.split()[-1]
    with _exits(label):
        asked = argv[1:] if argv[:1] == ["--"] else argv
        if not asked or asked[0] in HELP:
            _show(_group_help(commands, prog))
        known = {name.replace("-", "_"): name for name in commands}
        command = known.get(argv[0].replace("-", "_"))
        if command is None:
            near = _nearest(argv[0], commands)
            raise UsageError(f"{_shown(argv[0])} is not a command{f'; did you mean {near}?' if near else ';'} "
                             f"the commands are {', '.join(commands)}")
    _run(commands[command], argv[1:], f"{prog} {command}", f"{label} {command}")


def _run(stage: Callable, argv: Sequence[str], prog: str, label: str) -> None:
    global _running
    argument_list = ArgumentList(stage)
    with _exits(label):
        if _asks_help(argv):
            _show(help_text(stage, prog))
        given = argument_list.parse(argv)
        outer, _running = _running, (stage, frozenset(given), frozenset(argument_list.by_position))
        try:
            _fire(stage, argument_list, given, label)
        finally:
            _running = outer


def _fire(stage: Callable, argument_list: "ArgumentList", given: dict[str, str | list[str]], label: str) -> None:
    """Lets Fire call the stage. A `*args` travels as JSON: alone, `-` and `--` would mean something to Fire."""
    import fire
    from fire.decorators import SetParseFn

    @SetParseFn(str)
    def call(**raw: str) -> None:
        values = {name: json.loads(value) if name == argument_list.variadic else value for name, value in raw.items()}
        bound = inspect.BoundArguments(argument_list.signature, argument_list.converted(values))
        stage(*bound.args, **bound.kwargs)

    command = [f"--{name}={json.dumps(value) if name == argument_list.variadic else value}"
               for name, value in given.items()]
    fire.Fire(call, command=command, name=label)


_OF_THE_USER = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG}


@contextmanager
def _exits(label: str) -> Iterator[None]:
    """Ends the process with one line for what the user or a signal caused; a bug of ours keeps its traceback."""
    # SIGUSR1 asks a training for a checkpoint. Where there is none to write yet, it must not end the process.
    handlers = {signal.SIGTERM: signal.signal(signal.SIGTERM, _interrupt),
                signal.SIGUSR1: signal.signal(signal.SIGUSR1, signal.SIG_IGN)}
    try:
        yield
        sys.stdout.flush()  # here, where a closed pipe is still an ordinary exception
    except UserError as error:
        _stop(f"{label}: error: {error}", error.exit_code)
    except Interrupted as error:
        _stop(f"{label}: {error}", 128 + error.signum)
    except KeyboardInterrupt:
        _stop(f"{label}: interrupted", 128 + signal.SIGINT)
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the last flush complains
        raise SystemExit(128 + signal.SIGPIPE) from None
    except OSError as error:
        # What a folder's rights, a full disk or a file in a folder's place cause; any other is a bug of ours.
        if error.errno not in files.FULL_DISK and (error.filename is None or error.errno not in _OF_THE_USER):
            raise
        _stop(f"{label}: error: {f'{error.filename}: ' if error.filename else ''}{error.strerror}", 1)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: Any) -> NoReturn:
    raise Interrupted(number)


def _stop(message: str, code: int) -> NoReturn:
    print(" ".join(message.splitlines()), file=sys.stderr)
    raise SystemExit(code)


def _show(text: str) -> NoReturn:
    print(text, flush=True)
    raise SystemExit(0)


def _reader_is_gone() -> bool:
    """Whether it is standard output (`| head`) that broke, and not a pipe of the stage's own."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _asks_help(argv: Sequence[str]) -> bool:
    """`--help` anywhere, or right after a lone `--` as Fire's users type it; what else follows `--` is data."""
    argv = list(argv)
    end = argv.index("--") if "--" in argv else len(argv)
    return any(token in HELP for token in argv[:end]) or any(token in HELP for token in argv[end + 1:end + 2])


# reading the arguments

class ArgumentList:
    """A stage's parameters and how a command line fills them.

    Attributes:
        flags: each parameter's entry in the register, in the signature's order, without a `*args`.
        positional: the names that values without a flag fill, in order.
        variadic: the name of the `*args`, or None.

    Raises RuntimeError when a parameter is not in the register.
    """

    def __init__(self, stage: Callable):
        self.stage = stage
        self.signature = inspect.signature(stage)
        self.flags: dict[str, Flag] = {}
        self.positional: list[str] = []
        self.variadic: str | None = None
        for name, parameter in self.signature.parameters.items():
            if parameter.kind is parameter.VAR_POSITIONAL:
                self.variadic = name
                continue
            flag = flag_of(stage.__name__, name)
            if flag is None:
                raise RuntimeError(f"{stage.__name__}'s parameter {name!r} is missing from flags.FLAGS")
            self.flags[name] = flag
            if parameter.kind is not parameter.KEYWORD_ONLY:
                self.positional.append(name)

    def flag(self, name: str) -> Flag:
        return FLAGS.get(name, _VARIADIC) if name == self.variadic else self.flags[name]

    def parse(self, argv: Sequence[str]) -> dict[str, str | list[str]]:
        """Reads a command line.

        Returns the strings given, by parameter, in the order of the command line; those of a `*args` as a list. Each
        has been checked against its kind and bounds. Raises UsageError for the first thing that is wrong.
        """
        given: dict[str, str | list[str]] = {}
        self.by_position: set[str] = set()
        spelled: dict[str, str] = {}  # how each was typed, for the message when it comes twice

        def take(name: str, value: str, as_typed: str) -> None:
            by_position = not as_typed.startswith("--")
            if name in given:
                raise UsageError(f"{name} is given twice, {spelled[name]} and {as_typed}"
                                 + (f"; {self.order()}" if "by position" in spelled[name] + as_typed else ""))
            try:
                convert(name, self.flag(name), value, self.signature.parameters[name].default)
            except UsageError as error:
                if not by_position:
                    raise
                raise UsageError(f"{error}; {self.order()}") from None
            given[name], spelled[name] = value, as_typed

        def take_positional(value: str) -> None:
            nonlocal position
            if position < len(self.positional):
                take(self.positional[position], value, f"{_shown(value)} by position")
                self.by_position.add(self.positional[position])
                position += 1
            elif self.variadic:
                convert(self.variadic, self.flag(self.variadic), value, None)
                given.setdefault(self.variadic, []).append(value)
            else:
                raise UsageError(f"{_shown(value)} is one value too many; {self.order()}")

        position = 0
        rest = list(argv)
        while rest:
            token = rest.pop(0)
            if token == "--":
                for value in rest:
                    take_positional(value)
                break
            if not _has_flag_form(token):
                self._check_positional(token, position)
                take_positional(token)
                continue
            head, equals, value = token[2:].partition("=")
            found = self._find(head)
            if found is None:
                raise UsageError(self._unknown(head))
            name, positive = found
            if self.flags[name].kind == "bool":
                take(name, self._boolean(head, name, positive, value if equals else None, rest), token)
            elif equals:
                take(name, value, f"--{name}={_shown(value)}")
            else:
                value = self._next_value(name, rest)
                take(name, value, f"--{name}={_shown(value)}")

        missing = [name for name in self.flags
                   if self.signature.parameters[name].default is inspect.Parameter.empty and name not in given]
        if missing:
            raise UsageError(f"{' and '.join(missing)} must be given: write "
                             f"{' '.join(f'--{name}=<{self.flags[name].kind}>' for name in missing)}; see --help")
        return given

    def converted(self, given: dict[str, str | list[str]]) -> dict[str, Any]:
        """Every parameter's value in the signature's order: what was given, by its kind, else the default."""
        values: dict[str, Any] = {}
        for name, parameter in self.signature.parameters.items():
            if name == self.variadic:
                values[name] = tuple(convert(name, self.flag(name), value, None) for value in given.get(name, []))
            elif name in given:
                values[name] = convert(name, self.flag(name), given[name], parameter.default)
            else:
                values[name] = parameter.default
        return values

    def order(self) -> str:
        """The positional order in words."""
        listed = self.positional + ([f"{self.variadic}..."] if self.variadic else [])
        return f"the order by position is {', '.join(listed)}" if listed else "none is taken by position"

    def _find(self, head: str) -> tuple[str, bool] | None:
        """The parameter that `--head` names, and whether it says True; a name that begins with `no` comes first."""
        name = head.replace("-", "_")
        if name in self.flags:
            return name, True
        if name.startswith("no"):
            for positive in (name[2:], name[2:].removeprefix("_")):
                if positive in self.flags and self.flags[positive].kind == "bool":
                    return positive, False
        return None

    def _boolean(self, head: str, name: str, positive: bool, value: str | None, rest: list[str]) -> str:
        """The value of a boolean flag, `True` or `False`; takes a `True` or `False` that follows it out of `rest`."""
        forms = f"write --{name}, --no{name}, --{name}=True or --{name}=False"
        if value is None and rest and rest[0].lower() in BOOLEAN_LIKE:
            if not positive or rest[0] not in BOOLEANS:
                raise UsageError(f"--{head} {rest[0]}: {forms} (a value by position goes before the flags)")
            return rest.pop(0)
        if value is None:
            return str(positive)
        if not positive or value not in BOOLEANS:
            raise UsageError(f"--{head}={_shown(value)}: {forms}")
        return value

    def _next_value(self, name: str, rest: list[str]) -> str:
        """Takes the value of `--name VALUE` out of `rest`; only a text may look like a flag that does not exist."""
        problem = "nothing follows it"
        if rest:
            following = rest[0]
            is_flag = _has_flag_form(following) and (
                self.flags[name].kind != "text" or self._find(following[2:].partition("=")[0]) is not None)
            if following != "--" and not is_flag:
                return rest.pop(0)
            problem = f"{_shown(following)} follows it"
        raise UsageError(f"--{name} needs a value, and {problem}; write --{name}=<{self.flags[name].kind}>")

    def _check_positional(self, token: str, position: int) -> None:
        """Refuses a value without a flag that was surely meant as a flag: `-lm_id`, `-x`, `bs=64`."""
        names_left = self.positional[position:] + ([self.variadic] if self.variadic else [])
        for_text = bool(names_left) and self.flag(names_left[0]).kind == "text"
        head, equals, value = token.lstrip(_DASHES).partition("=")
        dashed = token != head + equals + value
        if (dashed or (equals and not for_text)) and (found := self._find(head)):
            name, positive = found
            raise UsageError(f"{_shown(token)}: a flag begins with two dashes; write "
                             f"--{'' if positive else 'no'}{name}{equals}{shlex.quote(value) if value else ''}")
        if not token.startswith("-") or token == "-" or _FLOAT.fullmatch(token) or for_text or _has_space(token):
            return
        if head == "help":
            raise UsageError(f"{_shown(token)}: write --help")
        candidates = [name for name in self.flags if len(head) == 1 and name.startswith(head)]
        if not candidates and (near := self._near(head)):
            candidates = [near]
        hint = f"write {' or '.join('--' + name for name in candidates)}; " if candidates else ""
        raise UsageError(f"{_shown(token)}: a flag begins with two dashes and is written in full; {hint}see --help")

    def _near(self, head: str) -> str | None:
        booleans = [f"no{name}" for name, flag in self.flags.items() if flag.kind == "bool"]
        return _nearest(head.replace("-", "_"), [*self.flags, *booleans])

    def _unknown(self, head: str) -> str:
        near = self._near(head)
        suggestion = f"did you mean --{near}? " if near else ""
        text = next((name for name in self.positional if self.flags[name].kind == "text"), None)
        hint = f' (a text that begins with -- goes as --{text}="--...")' if text else ""
        return f"--{head} is not a flag of {self.stage.__name__}; {suggestion}see --help{hint}"


def convert(name: str, flag: Flag, value: str, default: Any) -> bool | int | float | str:
    """A string of the command line as its flag's kind; ids, texts and choices stay the strings they are.

    Of a path a leading `~` becomes the home folder.

    Args:
        name: the flag, for the message.
        flag: its kind, bounds and choices.
        value: the string, untouched.
        default: the parameter's default; an empty path is taken only where it is the default, because elsewhere it
            would silently mean the working folder.

    Raises UsageError when the string is no such value or out of bounds.
    """
    said = f"--{name}={_shown(value)}"
    match flag.kind:
        case "bool":
            if value not in BOOLEANS:
                raise UsageError(f"{said}: write --{name}, --no{name}, --{name}=True or --{name}=False")
            return BOOLEANS[value]
        case "int":
            if not _INT.fullmatch(value):
                raise UsageError(f"{said}: a whole number is expected")
            return _within_bounds(said, flag, int(value))
        case "float":
            if not _FLOAT.fullmatch(value) or not math.isfinite(float(value)):
                raise UsageError(f"{said}: a finite number is expected, as 0.01 or 4e-3")
            return _within_bounds(said, flag, float(value))
        case "id":
            return names.check_id(value, name)
        case "choice":
            if value not in flag.choices:
                near = _nearest(value, flag.choices)
                raise UsageError(f"{said}: {f'did you mean {near}? ' if near else ''}"
                                 f"the choices are {', '.join(flag.choices)}")
            return value
        case "path":
            if value == "" and default != "":
                raise UsageError(f"{said}: a path is expected")
            return os.path.expanduser(value)  # no shell does it behind `--dir_path=`
        case "text":
            # Bytes that are no UTF-8 come from the system as surrogates, which no tokenizer takes.
            if any("\ud800" <= character <= "\udfff" for character in value):
                raise UsageError(f"--{name}: the text is not UTF-8")
            return value
    raise RuntimeError(f"flags.FLAGS[{name!r}] has the unknown kind {flag.kind!r}")


def _within_bounds(said: str, flag: Flag, number: int | float) -> int | float:
    if ((flag.low is not None and number < flag.low) or (flag.high is not None and number > flag.high)
            or (flag.above is not None and number <= flag.above)):
        raise UsageError(f"{said}: it must be {_bounds(flag)}")
    return number


def _bounds(flag: Flag) -> str:
    """A number's bounds in words; empty when it has none."""
    if flag.low is not None and flag.high is not None:
        return f"from {flag.low} to {flag.high}"
    parts = [f"above {flag.above}" if flag.above is not None else "",
             f"at least {flag.low}" if flag.low is not None else "",
             f"at most {flag.high}" if flag.high is not None else ""]
    return " and ".join(part for part in parts if part)


def _has_flag_form(token: str) -> bool:
    """`--word` or `--word=anything`; with a space in the word it is a text, as in `--great film, really`."""
    return token.startswith("--") and token != "--" and not _has_space(token.partition("=")[0])


def _has_space(text: str) -> bool:
    return any(character.isspace() for character in text)


def _nearest(word: str, known: Sequence[str] | dict[str, Any]) -> str | None:
    """The known name that was most likely meant: a near spelling, else one that begins with the word."""
    near = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    begins = [name for name in known if word and name.startswith(word.lower())]
    return (near + begins + [None])[0]


def _shown(value: str) -> str:
    """A value in quotes, cut when it is long."""
    return repr(value if len(value) <= 60 else value[:57] + "...")


# help

def help_text(stage: Callable, prog: str) -> str:
    """What `--help` prints: usage, the stage's docstring, then its flags by group in the register's order.

    Args:
        stage: the function.
        prog: the name at the head of the usage line.
    """
    width = _width()
    argument_list = ArgumentList(stage)
    blocks = [_usage(argument_list, prog, width), inspect.getdoc(stage) or ""]
    shown = list(argument_list.flags)
    if argument_list.variadic in FLAGS:
        shown.append(argument_list.variadic)
    left = {name: _left(argument_list, name) for name in shown}
    indent = min(max((len(text) for text in left.values()), default=0), width // 2 - 8) + 4
    for group in dict.fromkeys(flag.group for flag in FLAGS.values()):
        members = [name for name in shown if argument_list.flag(name).group == group]
        if members:
            blocks.append("\n".join([f"{group}:"] + [_entry(left[name], _right(argument_list, name), indent, width)
                                                     for name in members]))
    return "\n\n".join(block for block in blocks if block)


def _width() -> int:
    return max(40, min(MAX_WIDTH, shutil.get_terminal_size().columns))


def _usage(argument_list: ArgumentList, prog: str, width: int) -> str:
    parameters = argument_list.signature.parameters
    words = [name if parameters[name].default is inspect.Parameter.empty else f"[{name}]"
             for name in argument_list.positional]
    if argument_list.variadic:
        words.append(f"[{argument_list.variadic}...]")
    if argument_list.flags:
        words.append("[--flag=value...]")
    return textwrap.fill(" ".join(words), width, initial_indent=f"usage: {prog} ", subsequent_indent=" " * 7,
                         break_on_hyphens=False, break_long_words=False)


def _left(argument_list: ArgumentList, name: str) -> str:
    """`--name=DEFAULT`. A default of None cannot be typed, so its place shows the kind: `--clas_id=<id>`."""
    flag = argument_list.flag(name)
    if name == argument_list.variadic:
        return f"{name}..."
    if flag.kind == "bool":
        return f"--[no]{name}"
    default = argument_list.signature.parameters[name].default
    if default is None or default is inspect.Parameter.empty:
        return f"--{name}=<{flag.kind}>"
    return f"--{name}={shlex.quote(str(default))}"


def _right(argument_list: ArgumentList, name: str) -> str:
    flag, default = argument_list.flag(name), argument_list.signature.parameters[name].default
    notes = [f"default {default}"] if flag.kind == "bool" and default is not inspect.Parameter.empty else []
    notes += ["required"] if default is inspect.Parameter.empty and name != argument_list.variadic else []
    notes += [_bounds(flag)] if _bounds(flag) else []
    notes += [" or ".join(flag.choices)] if flag.choices else []
    return flag.help + (f" ({'; '.join(notes)})" if notes else "")


def _entry(left: str, right: str, indent: int, width: int) -> str:
    head = "  " + left
    lines = textwrap.wrap(right, width - indent, break_on_hyphens=False)
    if len(head) + 2 > indent:  # too long for its column: the help begins on the next line
        return "\n".join([head] + [" " * indent + line for line in lines])
    return "\n".join([head.ljust(indent) + lines[0]] + [" " * indent + line for line in lines[1:]])


def _group_help(commands: dict[str, Callable], prog: str) -> str:
    width = _width()
    indent = max(len(name) for name in commands) + 4
    entries = [_entry(name, (inspect.getdoc(command) or command.__name__).splitlines()[0], indent, width)
               for name, command in commands.items()]
    return "\n".join([f"usage: {prog} COMMAND ...", "", "Commands:", *entries, "",
                      f"{prog} COMMAND --help shows a command's flags."])
