"""Every code block of the README, run as a reader would: from the top, in one directory.

What a block's language says of it:

- `python`: run in one namespace for the whole file; as a doctest where it has `>>>`.
- `console`: each line after `$ ` is a command, the lines below it are its output. `session-fsm` and
  `python` commands are run, and their output compared where it is shown; `...` stands for anything.
  Of `make` and `pip install` lines, the targets and extras have to exist. A command that names
  `$SESSION_FSM_TRACE` is run where that variable is set. `sh` is the same without `$ ` and output.
- `text`: the output of the block right above it.
- `mermaid`: one of the generated diagrams, word for word.
- `json`: JSON.
"""

import configparser
import contextlib
import doctest
import io
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import traceback
from pathlib import Path

import attrs
import pytest

OUTPUT_RULES = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
SHELL_PREFIX = {"console": "$ ", "sh": ""}


@attrs.frozen(kw_only=True)
class Block:
    """A fenced block: its language, its text, the line it begins on, what directly follows."""

    language: str
    text: str
    line: int
    output: str | None = None


@attrs.frozen(kw_only=True)
class Command:
    """A line of a shell block and the output that is shown for it; None where none is."""

    words: str
    expected: str | None
    line: int


class ReadmeError(AssertionError):
    """A block doesn't do what it says; the message names its line."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"README.md, line {line}: {problem}")


def blocks_in(text: str) -> list[Block]:
    """The fenced blocks of a Markdown text in order.

    A `text` block joins the block right above it as its output.

    Raises:
        ReadmeError: A fence is never closed, or a `text` block has no block right above it.
    """
    blocks: list[Block] = []
    lines = iter(enumerate(text.splitlines(), start=1))
    adjacent = False
    for number, line in lines:
        fence = re.match(r"( *)```+ *(\w*)", line)
        if fence is None:
            adjacent = adjacent and not line.strip()
            continue
        body = []
        for _, inner in lines:
            if inner.strip() == "```":
                break
            body.append(inner.removeprefix(fence[1]) + "\n")
        else:
            raise ReadmeError(number, "this fence is never closed")
        block = Block(language=fence[2], text="".join(body), line=number + 1)
        if block.language != "text":
            blocks.append(block)
        elif adjacent and blocks[-1].language in {"python", *SHELL_PREFIX}:
            blocks[-1] = attrs.evolve(blocks[-1], output=block.text)
        else:
            raise ReadmeError(number, "a text block follows the block whose output it is")
        adjacent = block.language != "text"
    return blocks


def commands_in(block: Block) -> list[Command]:
    """The commands of a shell block in order, lines continued by a backslash joined."""
    prefix = SHELL_PREFIX[block.language]
    commands: list[Command] = []
    lines = iter(enumerate(block.text.splitlines(), start=block.line))
    for number, line in lines:
        if not line.strip() or (not prefix and line.startswith("#")):
            continue
        if line.startswith(prefix):
            words = line.removeprefix(prefix)
            while words.endswith("\\"):
                words = words.removesuffix("\\") + next(lines)[1].strip()
            commands.append(Command(words=words, expected=None, line=number))
        elif commands:
            shown = (commands[-1].expected or "") + line + "\n"
            commands[-1] = attrs.evolve(commands[-1], expected=shown)
        else:
            raise ReadmeError(number, "a console block begins with `$ ` and a command")
    if block.output is not None:
        commands[-1] = attrs.evolve(commands[-1], expected=block.output)
    return commands


def compare_output(expected: str | None, got: str, line: int) -> None:
    """Fail unless the output is what is shown; `...` and blanks are free."""
    checker = doctest.OutputChecker()
    if expected is not None and not checker.check_output(expected, got, OUTPUT_RULES):
        example = doctest.Example("", expected)
        raise ReadmeError(line, checker.output_difference(example, got, OUTPUT_RULES))


def run_python(block: Block, namespace: dict[str, object]) -> None:
    """Run a Python block in a namespace that it may add to, and compare what it prints."""
    if ">>>" in block.text:
        example = doctest.DocTestParser().get_doctest(
            block.text, namespace, "README.md", "README.md", block.line - 1
        )
        report = io.StringIO()
        runner = doctest.DocTestRunner(optionflags=OUTPUT_RULES)
        if runner.run(example, out=report.write, clear_globs=False).failed:
            raise ReadmeError(block.line, report.getvalue())
        namespace.update(example.globs)
        return
    printed = io.StringIO()
    code = compile("\n" * (block.line - 1) + block.text, "README.md", "exec")
    with contextlib.redirect_stdout(printed):
        exec(code, namespace)
    compare_output(block.output, printed.getvalue(), block.line)


def run_shell(command: Command, repository: Path) -> None:
    """Run a command of a shell block, or check that what it names is there."""
    words = shlex.split(command.words, comments=True)
    match words:
        case ["make", *targets]:
            makefile = (repository / "Makefile").read_text(encoding="utf-8")
            missing = [
                t for t in targets if not re.search(rf"^{re.escape(t)}:", makefile, re.MULTILINE)
            ]
        case ["pip", "install", *requirements]:
            setup = configparser.ConfigParser()
            setup.read(repository / "setup.cfg", encoding="utf-8")
            known = set(setup["options.extras_require"])
            missing = [
                requirement
                for requirement in requirements
                if not (found := re.fullmatch(r"(?:session_fsm|\.)(?:\[([\w,]+)\])?", requirement))
                or not set((found[1] or "").split(",")) - {""} <= known
            ]
        case ["git", "clone", _] | ["cd", _]:
            missing = []
        case ["session-fsm" | "python", *_]:
            if "$SESSION_FSM_TRACE" not in command.words or "SESSION_FSM_TRACE" in os.environ:
                compare_output(command.expected, shell_output(command), command.line)
            missing = []
        case _:
            missing = words
    if missing:
        raise ReadmeError(command.line, f"nobody knows how to check {' '.join(missing)!r}")


def shell_output(command: Command) -> str:
    """What a command prints on either stream, run by the shell with this environment's programs."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-e", "-c", command.words],
        env={**os.environ, "PATH": programs, "COLUMNS": "100", "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ReadmeError(command.line, f"exit code {done.returncode}\n{done.stdout}")
    return done.stdout


def run_blocks(blocks: list[Block], repository: Path) -> None:
    """Run the blocks in order, in the working directory."""
    namespace: dict[str, object] = {"__name__": "readme"}
    for block in blocks:
        match block.language:
            case "python":
                run_python(block, namespace)
            case "console" | "sh":
                for command in commands_in(block):
                    run_shell(command, repository)
            case "mermaid":
                diagrams = (path.read_text() for path in repository.glob("diagrams/*.mmd"))
                if block.text.strip() not in {diagram.strip() for diagram in diagrams}:
                    raise ReadmeError(block.line, "no file of diagrams/ has this diagram")
            case "json":
                json.loads(block.text)
            case other:
                raise ReadmeError(block.line, f"nobody knows how to run a block of {other!r}")


@pytest.fixture
def workspace(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory but for the repository's examples."""
    (tmp_path / "examples").symlink_to(repository / "examples")
    monkeypatch.delenv("SESSION_FSM_STORE", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_readme_blocks_do_what_they_say(workspace: Path, repository: Path) -> None:
    """Every block of the README runs, in order, and prints what stands below it."""
    assert workspace == Path.cwd()
    text = (repository / "README.md").read_text(encoding="utf-8")
    run_blocks(blocks_in(text), repository)


def test_readme_has_blocks_of_each_sort(repository: Path) -> None:
    """The README shows the library, the command, the two set-up commands and the diagram."""
    blocks = blocks_in((repository / "README.md").read_text(encoding="utf-8"))
    commands = [
        shlex.split(command.words, comments=True)
        for block in blocks
        if block.language in SHELL_PREFIX
        for command in commands_in(block)
    ]
    assert {"python", "mermaid"} <= {block.language for block in blocks}
    assert any(words[0] == "session-fsm" for words in commands)
    assert {"demo", "test"} <= set(
        itertools.chain.from_iterable(words[1:] for words in commands if words[0] == "make")
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("```python\nprint(1)\n```\n\n```text\n2\n```\n", "line 2: Expected"),
        ("\n```python\n>>> 1 + 1\n3\n```\n", "line 3: .*Expected"),
        ("```console\n$ session-fsm no-such-command\n```\n", "line 2: exit code 2"),
        ("```console\n$ python -c 'print(1)'\n2\n```\n", "line 2: Expected"),
        ("```sh\nmake no-such-target\n```\n", "line 2: .*no-such-target"),
        ('```sh\npip install "session_fsm[none]"\n```\n', r"line 2: .*session_fsm\[none\]"),
        ("```sh\nrm file\n```\n", "line 2: .*rm file"),
        ("```mermaid\nmade by hand\n```\n", "line 2: no file of diagrams"),
        ("```\nwhat is this\n```\n", "line 2: .*''"),
        ("```text\nno block above\n```\n", "line 1: a text block"),
        ("```json\n{}\n```\nbetween\n```text\nx\n```\n", "line 5: a text block"),
        ("```python\nnever closed\n", "line 1: this fence"),
        ("```console\noutput first\n```\n", "line 2: a console block"),
    ],
)
def test_readme_faults_are_found(
    text: str, problem: str, workspace: Path, repository: Path
) -> None:
    """Each kind of block that doesn't hold is reported with its line."""
    assert workspace == Path.cwd()
    with pytest.raises(ReadmeError, match=f"(?s){problem}"):
        run_blocks(blocks_in(text), repository)


def test_readme_an_exception_keeps_its_line(repository: Path) -> None:
    """What a Python block raises points at the README's own line."""
    text = "# Title\n\n```python\nx = 1\nraise KeyError(x)\n```\n"
    with pytest.raises(KeyError) as caught:
        run_blocks(blocks_in(text), repository)
    place = traceback.extract_tb(caught.tb)[-1]
    assert (place.filename, place.lineno) == ("README.md", 5)


def test_readme_blocks_share_names_and_directory(workspace: Path, repository: Path) -> None:
    """Names and files that a block makes are there for the next, whatever its language."""
    text = """
```python
from pathlib import Path
name = "made.txt"
```

```python
>>> Path(name).write_text("text")
4
>>> size = 4
```

```python
print(size, "long")
```

```text
4 ...
```

```console
$ python -c "from pathlib import Path; \\
  print(Path('made.txt').read_text())"
text
$ python examples/none.py "$SESSION_FSM_TRACE" # only where there is a trace
$ make demo test
$ pip install "session_fsm[cli,diagrams]" session_fsm
```
"""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SESSION_FSM_TRACE", raising=False)
        run_blocks(blocks_in(text), repository)
    assert (workspace / "made.txt").read_text() == "text"
