"""What names in a file stand for: `tfa.optimizers.AdamW`, `Adam` after an import, aliases."""

import ast

from tf_decoupled.migrate.rules import GONE, SAME_MODULES


class Names:
    """The full names behind a file's imports, and behind assignments of them."""

    def __init__(self, tree: ast.AST):
        self.known: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    root = alias.name.partition(".")[0]
                    self.known[alias.asname or root] = alias.name if alias.asname else root
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    self.known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Attribute):
                self._assigned(node.targets, self.of(node.value))

    def _assigned(self, targets: list[ast.expr], full: str | None) -> None:
        for target in targets:
            if full and isinstance(target, ast.Name):
                self.known.setdefault(target.id, full)

    def modules(self) -> set[str]:
        """The packages that the file imports from."""
        return {full.partition(".")[0] for full in self.known.values()}

    def of(self, node: ast.AST) -> str | None:
        """The full name as it is written: "tensorflow.keras.optimizers.legacy.Adam"; or None."""
        parts = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not (isinstance(node, ast.Name) and node.id in self.known):
            return None
        return ".".join([self.known[node.id], *reversed(parts)])


def normal(full: str) -> tuple[str, list[str]]:
    """The name under which the table has it, and what of the name is gone."""
    gone = []
    for _ in range(len(SAME_MODULES)):
        found = next((m for m in SAME_MODULES if full == m or full.startswith(f"{m}.")), None)
        if found is None:
            break
        gone += [GONE[found]] if found in GONE else []
        full = SAME_MODULES[found] + full[len(found) :]
    return full, gone
