"""Every block of code of README and docs/ is run, or, where it is long, read by the command that it is for.

- `python` is run, in one namespace for a page. If a `text` block follows, that is what it prints. Commands of the page find its files.
- `console` has commands after `$`, which are run here (`check` with `--jobs 1`), and what each prints. `...` stands for anything. A
  command exits with 0, or with what `echo $?` after it says.
- `bash` has commands that take long or change the machine. Those of `optparity` are parsed: the command and its options must exist. A
  target of `make`, an extra of `pip install` and a module of `python -m` must be there.
- `text` that follows no Python is shown only.
"""

import doctest
import itertools
import re
import shlex
import sys
import tomllib
from dataclasses import dataclass
from importlib.util import find_spec

import pytest
from markdown_it import MarkdownIt

from optparity.cli import main
from tools.pages import ROOT
from tools.prose import pages

EXAMPLES = {path.read_text() for path in (ROOT / "examples").rglob("*.py")}  # test_docs.py and test_roads.py run them
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
TARGETS = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A block of code, and what it says that it prints."""

    page: str
    line: int
    language: str
    code: str
    output: str | None = None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page) -> list[Block]:
    """The blocks of a page. A `text` block right after Python is its output."""
    found, tokens = [], [token for token in MarkdownIt().parse(page.read_text()) if token.type != "html_block"]
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        if token.type == "fence" and token.info != "text":
            output = following.content if following and following.type == "fence" and following.info == "text" else None
            found.append(Block(str(page.relative_to(ROOT)), (token.map or [0])[0] + 1, token.info, token.content, output))
    return found


BLOCKS = {page: found for page in pages() if (found := blocks(page))}


HASH = re.compile(r"\b[0-9a-f]{16}\b")


def same(expected: str, printed: str) -> bool:
    """Whether this is what is printed; `...` is anything, and spaces at the ends of lines do not count.

    Hashes are only the same where the page has them the same: torch's gradients depend on the processor.
    """

    def tidy(text: str) -> str:
        order = list(dict.fromkeys(HASH.findall(text)))
        numbered = HASH.sub(lambda found: f"hash {order.index(found[0])}", text)
        return "".join(f"{line.rstrip()}\n" for line in numbered.strip().splitlines())

    return doctest.OutputChecker().check_output(tidy(expected), tidy(printed), doctest.ELLIPSIS)


@pytest.fixture
def optparity(monkeypatch, capsys):
    """Run the command with these arguments in this process: its status, and what it prints."""

    def run(arguments: list[str]) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["optparity", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        return int(stopped.value.code or 0), capsys.readouterr().out

    return run


@pytest.mark.usefixtures("as_users_have_it")
@pytest.mark.parametrize("page", BLOCKS, ids=lambda page: page.name)
def test_blocks_run_and_print_what_the_page_says(page, tmp_path, monkeypatch, capsys, optparity):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for block in BLOCKS[page]:
        if block.language == "python" and block.code not in EXAMPLES:
            capsys.readouterr()
            exec(compile("\n" * block.line + block.code, block.page, "exec"), namespace)
            printed = capsys.readouterr().out
            if block.output is not None:
                assert same(block.output, printed), f"{block} prints:\n{printed}"
        if block.language == "console":
            _commands_print(block, optparity)


def _commands_print(block: Block, optparity) -> None:
    commands = re.split(r"^\$ ", block.code, flags=re.MULTILINE)[1:]
    for command, following in zip(commands, [*commands[1:], ""], strict=True):
        line, _, expected = command.replace("\\\n", "").partition("\n")
        if line == "echo $?":
            continue
        program, *arguments = shlex.split(line)
        assert program == "optparity", f"{block}: {program} is not run here"
        status, printed = optparity([*arguments, *(["--jobs", "1"] if arguments[0] == "check" else [])])
        shown = following.removeprefix("echo $?") if following.startswith("echo $?") else "0"
        assert status == int(shown), f"{block}: {line} exits with {status}"
        assert same(expected, printed), f"{block}: {line} prints:\n{printed}"


@pytest.mark.parametrize("page", BLOCKS, ids=lambda page: page.name)
def test_what_is_not_run_is_known(page, optparity):
    for block in BLOCKS[page]:
        assert block.language in ("python", "console", "bash"), f"{block}: {block.language!r} blocks are not checked"
        if block.language == "bash":
            for line in block.code.replace("\\\n", "").splitlines():
                for command in _commands(line):
                    _known(command, optparity, block)


def _commands(line: str) -> list[list[str]]:
    """Each command as its words: one, or several whose output goes into a file: `(one; two) 2>&1 | tee FILE`."""
    together = re.fullmatch(r"\((.+)\) 2>&1 \| tee [\w.-]+", line)
    return [shlex.split(command, comments=True) for command in (together[1].split(";") if together else [line])]


def _known(words: list[str], optparity, block: Block) -> None:
    match list(itertools.dropwhile(lambda word: re.match(r"[A-Z_]+=", word), words)):
        case ["optparity", *arguments]:
            assert optparity([*arguments, "--help"])[0] == 0, f"{block}: {words}"
        case ["make", *targets]:
            assert set(targets) <= set(TARGETS), f"{block}: {words}"
        case ["pip", "install", *arguments]:
            extras = [extra for argument in arguments for found in re.findall(r"\[(.*)\]", argument) for extra in found.split(",")]
            assert set(extras) <= EXTRAS.keys(), f"{block}: {words}"
        case ["python", "-m", module, *arguments]:
            assert find_spec(module), f"{block}: {words}"
        case ["python", script, *arguments] | ["torchrun", "--nproc-per-node", _, script, *arguments]:
            assert script.startswith("examples/"), f"{block}: {words}"
            assert (ROOT / script).exists(), f"{block}: {words}"
        case _:
            pytest.fail(f"{block}: no way is known to check {words}")


def test_the_checks_can_fail(optparity):
    """Each of them, once broken."""
    block = Block("a page", 1, "bash", "")
    for words in (["optparity", "chek"], ["optparity", "check", "--stremes"], ["make", "nothing"], ["pip", "install", ".[jax]"], ["rm"]):
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            _known(words, optparity, block)
    assert _commands("(optparity chek; rm) 2>&1 | tee FILE") == [["optparity", "chek"], ["rm"]]
    assert same("a ... c\n", "a b c\n")
    assert not same("a\n", "b\n")
