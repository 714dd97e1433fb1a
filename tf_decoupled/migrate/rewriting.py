"""A call of another library's optimizer as the call of ours."""

import ast
from collections.abc import Sequence

from tf_decoupled.migrate.names import Names, normal
from tf_decoupled.migrate.rules import RULES, Rule


class Rewriter(ast.NodeTransformer):
    """Replaces what the table knows in an expression, inner calls first.

    whys: what the reader should know of the changes.
    """

    def __init__(self, names: Names, source: str):
        self.names, self.source = names, source
        self.whys: list[str] = []

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        """Numbers stay as they are spelt: 1e-3."""
        text = ast.get_source_segment(self.source, node)
        spelt = isinstance(node.value, (int, float)) and text
        return ast.Name(text) if spelt else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.expr:
        return node  # Python 3.11 doesn't know where a number in it stands

    def visit_Call(self, node: ast.Call) -> ast.expr:
        rule, gone = self.rule_of(node.func)
        if rule is None:
            return self.generic_visit(node)
        self.note(rule, gone)
        if rule.by_hand:
            return _parsed(rule.to)
        node.args = [self.visit(each) for each in node.args]
        node.keywords = [self.visit(each) for each in node.keywords]
        return self.called(node, rule)

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        rule, gone = self.rule_of(node)
        if rule is None:
            return self.generic_visit(node)
        self.note(rule, gone)
        if rule.given:
            written = ", ".join(f"{name}={value}" for name, value in rule.given.items())
            self.whys.append(f"where it is called, with {written}")
        return _parsed(rule.to)

    visit_Name = visit_Attribute

    def rule_of(self, node: ast.AST) -> tuple[Rule | None, list[str]]:
        full = self.names.of(node)
        if full is None:
            return None, []
        full, gone = normal(full)
        schedulers = "torch.optim.lr_scheduler"
        return RULES.get(schedulers if full.startswith(f"{schedulers}.") else full), gone

    def note(self, rule: Rule, gone: Sequence[str]) -> None:
        by_hand = ["by hand, as for example so"] if rule.by_hand else []
        self.whys += [*gone, *by_hand, *([rule.why] if rule.why else [])]

    def called(self, node: ast.Call, rule: Rule) -> ast.expr:
        """The call with our name and arguments."""
        if rule.order is None:
            return ast.Call(_parsed(rule.to), node.args, node.keywords)
        if rule is RULES["torch.optim.Adam"] and _said(node, "decoupled_weight_decay"):
            rule = RULES["torch.optim.AdamW"]
        if any(isinstance(a, ast.Starred) for a in node.args) or len(node.args) > len(rule.order):
            self.whys.append("arguments are taken over as they are: check their order")
            return ast.Call(_parsed(rule.to), node.args, node.keywords)
        theirs = dict(zip(rule.order, node.args, strict=False))
        theirs |= {k.arg: k.value for k in node.keywords if k.arg}
        unpacked = [k for k in node.keywords if not k.arg]
        ours = self.translated(theirs, rule)
        for name, value in rule.given.items():
            ours.setdefault(name, _parsed(value))
        return _call(rule, ours, unpacked)

    def translated(self, theirs: dict[str, ast.expr], rule: Rule) -> dict[str, ast.expr]:
        """Our arguments for theirs."""
        theirs = dict(theirs)
        if isinstance(theirs.get("params"), ast.List):
            self.whys.append("groups are td.RateMultipliers or td.Partition")
        if "lr" in theirs and "lr" not in rule.names:
            self.whys.append("`lr=` is called `learning_rate=`")
            theirs["learning_rate"] = theirs.pop("lr")
        if decay := theirs.pop("decay", None):
            self.whys.append("`decay=` is gone in Keras 3, a schedule says it")
            rate = theirs.get("learning_rate", _parsed("0.01" if rule.to == "td.SGD" else "1e-3"))
            rate = [rate, _parsed("1"), decay]
            theirs["learning_rate"] = ast.Call(_parsed("td.schedules.InverseTime"), rate, [])
        ours = {}
        for name, value in theirs.items():
            new = rule.names.get(name, name)
            if name == "betas" and isinstance(value, (ast.Tuple, ast.List)):
                ours |= dict(zip(("beta_1", "beta_2"), value.elts, strict=False))
            elif name == "betas":
                pairs = enumerate(("beta_1", "beta_2"))
                ours |= {beta: ast.Subscript(value, ast.Name(str(i))) for i, beta in pairs}
            elif new is not None and new == rule.squared:
                ours[new] = ast.BinOp(value, ast.Pow(), ast.Name("2"))
            elif new is not None:
                ours[new] = value
            elif name not in ("params", "initial_learning_rate"):
                self.whys.append(f"`{name}=` is left out")
        return ours


def _said(node: ast.Call, name: str) -> bool:
    """Whether an argument is given by name, and isn't False."""
    values = [k.value for k in node.keywords if k.arg == name]
    return any(not (isinstance(v, ast.Constant) and not v.value) for v in values)


def _call(rule: Rule, ours: dict[str, ast.expr], unpacked: list[ast.keyword]) -> ast.Call:
    """The rate first, without its name; for td.create the name of the optimizer and the model."""
    first = ("opt", "model") if rule.to == "td.create" else ("learning_rate",)
    args = [ours.pop(name) for name in first if name in ours]
    named = [ast.keyword(name, value) for name, value in ours.items()]
    return ast.Call(_parsed(rule.to), args, [*named, *unpacked])


def _parsed(text: str) -> ast.expr:
    tree = ast.parse(text, mode="eval").body
    numbers = (n for n in ast.walk(tree) if isinstance(n, ast.Constant))
    spelt = {id(n): ast.get_source_segment(text, n) for n in numbers if type(n.value) is not str}
    return _Spelt(spelt).visit(tree)


class _Spelt(ast.NodeTransformer):
    """Puts numbers back as they were spelt."""

    def __init__(self, spelt: dict[int, str]):
        self.spelt = spelt

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        return ast.Name(self.spelt[id(node)]) if id(node) in self.spelt else node
