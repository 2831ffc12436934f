"""Which modules of this repository a module imports, read from its source."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Foundations: their effect on outputs is tracked through params and data hashes (DESIGN §4).
EXEMPT = {"artifacts", "cli", "errors", "kept", "lifetime", "live", "params", "progress",
          "records", "storage", "times", "workers"}  # fmt: skip


def module_file(name: str) -> Path | None:
    """The repository's file of a dotted module name, None for packages of others."""
    path = ROOT.joinpath(*name.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.exists():
            return file
    return None


def direct_imports(file: Path) -> set[str]:
    """Dotted names of the repository's modules that a file imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {n for n in names if n.split(".")[0] in ("pipeline", "stages") and module_file(n)}


def code_dependencies(stage: str) -> list[str]:
    """What shapes a stage's output: its script and all it imports but the foundations.

    A package of which it imports half or more is one entry, the folder: DVC writes its whole lock
    file anew after every stage, and that time goes with the number of entries.
    """
    todo, found = [ROOT / "stages" / f"{stage}.py"], set()
    while todo:
        file = todo.pop()
        if file in found:
            continue
        found.add(file)
        for name in direct_imports(file):
            if foundation(name) not in EXEMPT:
                todo.append(module_file(name))
    code = {f for f in found if f.read_text().count("\n") > 1}
    packages = {f.parent for f in code} - {ROOT / "pipeline", ROOT / "stages"}
    whole = {p for p in packages if 2 * len([f for f in code if f.parent == p]) >= modules_of(p)}
    files = {f for f in code if f.parent not in whole}
    templates = {page for f in files for kind in ("jinja", "css", "js")
                 for page in f.parent.glob(f"*.{kind}")}  # fmt: skip
    return sorted(f.relative_to(ROOT).as_posix() for f in files | whole | templates)


def foundation(name: str) -> str:
    """A module as EXEMPT names it; what lies in the package of params is params."""
    inside = name.removeprefix("pipeline.")
    return "params" if inside.startswith("params.") else inside


def modules_of(package: Path) -> int:
    """How many modules a package has."""
    return len([f for f in package.glob("*.py") if f.name != "__init__.py"])
