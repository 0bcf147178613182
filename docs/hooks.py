"""Pages of the site that are written from the code when it is built: commands, settings, the notebook."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages; one that stands in ``pages/`` already is an error."""
    if str(ROOT) not in sys.path:  # MkDocs takes back what a hook adds while it is imported
        sys.path.insert(0, str(ROOT))
    notebook = Path(config.docs_dir) / "tutorials" / "notebook.ipynb"
    pages = {
        "reference/commands.md": commands_page(),
        "reference/settings.md": settings_page(),
        "tutorials/notebook.md": notebook_page(json.loads(notebook.read_text(encoding="utf-8"))),
    }
    for path, text in pages.items():
        if files.get_file_from_path(path):
            raise ValueError(f"docs/pages/{path}: expected no such file, since docs/hooks.py writes this page.")
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the table of the rooms where a page asks for it."""
    return markdown.replace("<!-- rooms -->", rooms_table()) if "<!-- rooms -->" in markdown else markdown


def on_page_content(html: str, **_: Any) -> str:
    """Keep each option on one line; browsers break it after its dashes."""

    def kept(code: re.Match[str]) -> str:
        return re.sub(r"(?<=[\s>])--?\w+", lambda option: f'<span class="option">{option[0]}</span>', code[0])

    return re.sub(r"<code>.*?</code>", kept, html, flags=re.DOTALL)


def rooms_table() -> str:
    """The levels of ``tests/test_rooms.py``, highest first, with what each folder or file says about itself."""
    tree = ast.parse((ROOT / "tests" / "test_rooms.py").read_text(encoding="utf-8"))
    levels = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "LEVELS"
    )
    rows = ["| level | room | what it is for |", "|---|---|---|"]
    for level in range(len(levels), 0, -1):
        for room in levels[level - 1]:
            path = ROOT / room.replace(".", "/")
            name = path.relative_to(ROOT).as_posix() + ("/" if path.is_dir() else ".py")
            module = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
            rows.append(f"| {level} | `{name}` | {first_line(module)} |")
    return "\n".join(rows)


def first_line(path: Path) -> str:
    """The first sentence of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.split("\n\n")[0].replace("\n", " ").replace("|", "\\|")


def commands_page() -> str:
    """The help of every verb, as the command line prints it."""
    from bundle.__main__ import VERBS as BUNDLE_VERBS
    from scripts.command_line.parser import VERBS, main

    def said(*words: str) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            main(words, verbs, program)
        return fenced(printed.getvalue().rstrip())

    text = ["# Commands", "What the commands say about themselves with `--help`."]
    for program, verbs in {"python -m scripts": VERBS, "python -m bundle": BUNDLE_VERBS}.items():
        text += [f"## {program}", said("--help")]
        for verb in verbs:
            text += [f"### {verb}", said(verb, "--help")]
    return "\n\n".join(text)


def settings_page() -> str:
    """The plain settings of the configs: name, default, meaning."""
    text = [
        "# Settings",
        "Every setting is an id of a config: an option of MONAI's command (`--id value`), a line in a file given by "
        "`--config`, and, for most of `inference.json`, an option of `detect`. Lengths are Å, volumes cubic Å. A value "
        "of `inference.json` that is not what the setting takes is refused before any work.",
    ]
    for name in ("inference", "train_mask", "train_center", "train_joint", "evaluate"):
        config = json.loads((ROOT / "configs" / f"{name}.json").read_text(encoding="utf-8"))
        text += [f"## configs/{name}.json", config.get("_desc_", ""), settings_table(config)]
    return "\n\n".join(text)


def settings_table(config: dict[str, Any]) -> str:
    """The rows of one config: ids with a plain value or a one-line expression."""
    from scripts.settings import SETTINGS

    rows = ["| setting | default | takes | meaning |", "|---|---|---|---|"]
    for name, value in config.items():
        if name.startswith("_") or isinstance(value, dict) or not simple(value):
            continue
        meaning = str(config.get(f"_desc_{name}", "")).replace("|", "\\|")
        default = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        kind = SETTINGS.get(name)
        takes = "" if kind is None else kind.expected + (", or null" if kind.null else "")
        rows.append(f"| `{name}` | `{default}` | {takes} | {meaning} |")
    return "\n".join(rows)


def simple(value: Any) -> bool:
    """Whether a value is one that a user sets: no list of parts, and no long expression (how a bundle finds itself)."""
    if isinstance(value, list):
        return all(isinstance(item, int | float) or (isinstance(item, str) and item[0] not in "$@") for item in value)
    return not (isinstance(value, str) and (value.startswith("%") or len(value) > 60))


def notebook_page(notebook: dict[str, Any]) -> str:
    """A notebook as a page: its text, its code, and what the code printed when it was run last."""
    text = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            text.append(source)
            continue
        text.append(fenced(source, "python"))
        for output in cell.get("outputs", ()):
            if "text" in output:
                text.append(fenced("".join(output["text"]).rstrip(), "output"))
            else:
                picture = output["data"]["image/png"]
                text.append(f'<img alt="What the code above draws" src="data:image/png;base64,{picture}">')
    return "\n\n".join(text)


def fenced(text: str, language: str = "text") -> str:
    """A block of code; backticks in it do not end it."""
    longest = max((len(match) for match in re.findall("`+", text)), default=2)
    fence = "`" * max(longest + 1, 3)
    return f"{fence}{language}\n{text}\n{fence}"
