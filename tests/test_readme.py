"""The README keeps its word: its code prints what it says, what it names is there.

A ```python block must print, exactly, the ```text block that follows it at once, or else what its comments
`# prints X` say, a line each, or else nothing. Blocks run in their order and share their names, as in one session.
"""

import contextlib
import io
import re
from pathlib import Path
from typing import NamedTuple

import pytest
from rendering import CAN_RENDER, CANNOT

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCED = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n?```text\n(?P<output>.*?)^```\n)?", re.MULTILINE | re.DOTALL)
PRINTS = re.compile(r"# prints (\S+)")


class Block(NamedTuple):
    line: int
    code: str
    output: str


def blocks(markdown: str) -> list[Block]:
    found = []
    for match in FENCED.finditer(markdown):
        code = match["code"]
        comments = "".join(f"{x.rstrip(',;')}\n" for x in PRINTS.findall(code))
        line = markdown.count("\n", 0, match.start("code"))
        found.append(Block(line, code, comments if match["output"] is None else match["output"]))
    return found


def printed(block: Block, names: dict) -> str:
    code = compile("\n" * block.line + block.code, "README.md", "exec")  # so that a traceback names the README's line
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, names)
    return out.getvalue()


def test_every_block_prints_what_it_says(subtests: pytest.Subtests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert len(blocks(README)) >= 5
    names: dict = {"__name__": "readme"}
    for block in blocks(README):
        with subtests.test(line=block.line):
            if ".render(" in block.code and not CAN_RENDER:
                pytest.skip(CANNOT)
            assert printed(block, names) == block.output


def test_a_block_is_held_to_its_comments_or_to_the_text_after_it():
    markdown = "a\n```python\nprint(1)  # prints 1, one\n```\nb\n```python\nprint(2)\n```\n\n```text\n2\n```\n"
    markdown += "```python\nx = 3\n```\n"
    first, second, third = blocks(markdown)
    assert (first.line, first.output) == (2, "1\n")
    assert second.output == "2\n"
    assert third.output == ""
    assert [printed(block, {}) for block in (first, second, third)] == ["1\n", "2\n", ""]


def test_every_link_and_picture_into_the_checkout_is_there():
    targets = [t for t in re.findall(r"\]\(([^)#]+)[^)]*\)", README) if "://" not in t]
    assert targets
    assert [t for t in targets if not (ROOT / t).exists()] == []


def test_every_file_in_the_table_is_there():
    named = re.findall(r"^\| `([\w./]+)`", README, re.MULTILINE)
    assert len(named) >= 5
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_make_knows_every_target_it_names():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"`make ([\w-]+)|^make ([\w-]+)", README, re.MULTILINE))
    targets = {a or b for a, b in named}
    assert {"demo", "test"} <= targets
    assert {t for t in targets if not re.search(rf"^{t}:", makefile, re.MULTILINE)} == set()
