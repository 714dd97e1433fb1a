"""The lines of a file that are to change."""

import ast
from typing import NamedTuple

from tf_decoupled.migrate.names import Names, normal
from tf_decoupled.migrate.rewriting import Rewriter
from tf_decoupled.migrate.rules import ADDONS, KERAS, OF_OPTIMIZERS, RULES

IMPORT = "import tf_decoupled as td"
NO_ADDONS = "Addons doesn't run with Keras 3"
OF_KERAS = {"tensorflow", "keras", "tf_keras", ADDONS, "transformers"}
WRITTEN_BELOW = "what is used of it is written with `td.` below"
STRINGS = {name.rpartition(".")[2].lower(): name for name in RULES if name.startswith(f"{KERAS}.")}


class Finding(NamedTuple):
    """One line that is to change: what stands there, what to write, and why."""

    line: int
    old: str
    new: str | None
    why: str


def findings(source: str) -> list[Finding]:
    """What is to change in the text of a Python file, by line; raises SyntaxError."""
    if not isinstance(source, str):
        raise TypeError(f"`source` must be the text of a file. Received: source={source!r}")
    tree = ast.parse(source)
    finder = _Finder(Names(tree), source)
    finder.visit(tree)
    return sorted(set(finder.found), key=lambda each: (each.line, each.old))


class _Finder(ast.NodeVisitor):
    """Collects findings: the outermost call or name of each that the table knows."""

    def __init__(self, names: Names, source: str):
        self.names, self.source = names, source
        self.found: list[Finding] = []
        # What optimizers of Keras are called in this file.
        self.optimizers = {"optimizer"} if names.modules() & OF_KERAS else set()

    def note(self, node: ast.AST, new: str | None, why: str) -> None:
        old = ast.get_source_segment(self.source, node) or ""
        self.found.append(Finding(node.lineno, " ".join(old.split()), new, why))

    def visit_Import(self, node: ast.Import) -> None:
        kept = [alias for alias in node.names if alias.name.partition(".")[0] != ADDONS]
        if len(kept) < len(node.names):
            self.note(node, _with(kept, ast.Import(kept)), NO_ADDONS)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.level or not node.module:
            return
        if node.names[0].name == "*":
            module = normal(node.module)[0]
            if any(name.startswith(f"{module}.") for name in RULES):
                self.note(node, None, "names behind a star can't be followed: import each")
            return
        whys, kept = [], []
        addons = node.module.partition(".")[0] == ADDONS
        for alias in node.names:
            full, gone = normal(f"{node.module}.{alias.name}")
            whys += [*gone, *([WRITTEN_BELOW] if full in RULES else [])]
            whys += [f"td has no {alias.name}"] if gone and full not in RULES else []
            whys += [NO_ADDONS] if addons else []
            kept += [] if full in RULES or gone or addons else [alias]
        if whys:
            new = _with(kept, ast.ImportFrom(node.module, kept, 0))
            self.note(node, new, "; ".join(dict.fromkeys(whys)))

    def visit_Assign(self, node: ast.Assign) -> None:
        called = node.value.func if isinstance(node.value, ast.Call) else node.value
        known = Rewriter(self.names, self.source).rule_of(called)[0] is not None
        if known and self.names.modules() & OF_KERAS:
            self.optimizers |= {_last(target) for target in node.targets} - {""}
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if self.rewritten(node):
            return
        if isinstance(node.func, ast.Attribute) and node.func.attr == "compile":
            self.named(node)
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if self.rewritten(node):
            return
        if node.attr in OF_OPTIMIZERS and _last(node.value) in self.optimizers:
            new, why = OF_OPTIMIZERS[node.attr]
            self.note(node, new and f"{ast.unparse(node.value)}.{new}", why)
        full = self.names.of(node)
        if full and full.startswith(f"{ADDONS}.optimizers."):
            self.note(node, None, "td.addons has no such name")
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self.rewritten(node)

    def rewritten(self, node: ast.expr) -> bool:
        """Notes a call or a name that the table knows, with all that is inside of it."""
        func = node.func if isinstance(node, ast.Call) else node
        rewriter = Rewriter(self.names, self.source)
        if rewriter.rule_of(func)[0] is None:
            return False
        old = ast.get_source_segment(self.source, node)
        new = ast.unparse(ast.fix_missing_locations(rewriter.visit(node)))
        why = "; ".join(dict.fromkeys(rewriter.whys))
        self.found.append(Finding(node.lineno, " ".join(old.split()), new, why))
        return True

    def named(self, node: ast.Call) -> None:
        """Notes an optimizer that `compile` gets by name."""
        given = [k.value for k in node.keywords if k.arg == "optimizer"] or node.args[:1]
        for value in given:
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                full = STRINGS.get(value.value.lower())
                if full and not RULES[full].by_hand:
                    self.note(value, _defaults(full), RULES[full].why)


def _defaults(full: str) -> str:
    """The call with Keras's defaults."""
    tree = ast.parse(full, mode="eval").body
    names = Names(ast.parse("import keras"))
    call = Rewriter(names, "").visit(ast.Call(tree, [], []))
    return ast.unparse(ast.fix_missing_locations(call))


def _with(kept: list[ast.alias], statement: ast.stmt) -> str:
    """The import of this library, and that of what stays."""
    return f"{IMPORT}; {ast.unparse(statement)}" if kept else IMPORT


def _last(node: ast.AST) -> str:
    """The last part of a name: "optimizer" of `model.optimizer`."""
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
