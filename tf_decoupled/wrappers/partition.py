"""Partition."""

from collections.abc import Sequence
from typing import Any, ClassVar

import tensorflow as tf

from tf_decoupled import masks
from tf_decoupled.engine import arguments, building, reports
from tf_decoupled.engine.hyperparameters import (
    differs,
    is_variable,
    number_of,
    serialize,
    told,
)
from tf_decoupled.engine.optimizer import Optimizer
from tf_decoupled.engine.state import Cell
from tf_decoupled.wrappers.wrapper import check_fresh, let_go


class Rate:
    """`learning_rate` of a Partition: the first member's; assigning scales all by one factor."""

    def __get__(self, owner, cls=None):
        if owner is None or "given" not in vars(owner):
            return None
        return owner.optimizers[0].learning_rate

    def __set__(self, owner, value) -> None:
        if "given" not in vars(owner):
            return
        before = [member.learning_rate for member in owner.optimizers]
        rates = [float(tf.convert_to_tensor(rate)) for rate in before]
        numeric = all(is_variable(member.given.learning_rate) for member in owner.optimizers)
        if callable(value) or not numeric or not rates[0] > 0:
            raise TypeError(
                "`learning_rate` of a Partition scales the rates of all members, which must be "
                "numbers > 0 for that. Assign to that of a member, "
                f"`optimizer.optimizers[0].learning_rate`. Received: {value!r} for rates {rates}"
            )
        for member, rate in zip(owner.optimizers, rates, strict=True):
            member.learning_rate = value if rate == rates[0] else float(value) * (rate / rates[0])


class Members(tuple):
    """The pairs of mask and optimizer: a tuple of its own, so that nothing takes it apart."""

    def __repr__(self) -> str:
        return repr(list(self))


class Partition(Optimizer):
    """Each variable to one of several optimizers: the first whose mask says yes.

        td.Partition([
            (td.masks.matrices & ~td.masks.only("embedding", "head"), td.Muon(0.02)),
            (None, td.AdamW(1e-3)),  # None: all others
        ])

    Rate, decay, decay mask and schedules are each member's own, `opt.optimizers[0].learning_rate`;
    what the engine does around them, as `clipnorm` or `use_ema`, is the Partition's.
    `opt.learning_rate` is the first member's, for callbacks: assigning to it multiplies the
    rates of all members by one factor. `print(opt)` shows which variables each has got.

    Args:
        members: pairs of a mask, as `decay_mask` takes it, and an optimizer.

    Raises ValueError at the build, with the names, if a variable is left over or a mask's pattern
    fits none; TypeError for members with arguments of the engine.
    """

    declared: ClassVar = {}
    positional: ClassVar = ("members",)
    members: Any = ()
    learning_rate = Rate()

    @classmethod
    def interpret_rule(cls, given: dict[str, Any]) -> dict[str, Any]:
        pairs = given["members"]
        fits = isinstance(pairs, (list, tuple, Members)) and len(pairs) > 0
        if not fits or not all(isinstance(p, (list, tuple)) and len(p) == 2 for p in pairs):
            raise TypeError(
                "A Partition needs pairs of a mask and an optimizer, "
                "`Partition([(td.masks.matrices, td.Muon()), (None, td.AdamW())])`. "
                f"Received: members={pairs!r}"
            )
        members = Members(
            (masks.as_mask(mask, f"members[{i}][0]"), _checked(member))
            for i, (mask, member) in enumerate(pairs)
        )
        if len({id(member) for _, member in members}) < len(members):
            raise ValueError(
                "Each member of a Partition needs an optimizer of its own. Received one optimizer "
                f"twice: {members!r}"
            )
        return given | dict(members=members)

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.given.optimizers = self.optimizers  # where TensorFlow finds their variables
        let_go(self)

    @property
    def optimizers(self) -> list[Optimizer]:
        """The members, in their order."""
        return [member for _, member in self.members]

    def branches(self) -> Sequence[tuple[str, Optimizer]]:
        return [(f"members/{i}", member) for i, member in enumerate(self.optimizers)]

    @classmethod
    def stepping(cls, given: dict[str, Any]) -> Sequence[type]:
        return [type(member) for _, member in given["members"]]

    def assign_rules(self, cells: Sequence[Cell]) -> None:
        chosen: dict[int, list[Cell]] = {i: [] for i in range(len(self.members))}
        if not self.built:
            for mask, _ in self.members:
                masks.settle(mask, [cell.variable for cell in cells], "A member's mask")
        for cell in cells:
            says = (
                i
                for i, (m, _) in enumerate(self.members)
                if masks.decide(m, cell.variable, "A member's mask")[0]
            )
            chosen.setdefault(next(says, -1), []).append(cell)
        if left := chosen.pop(-1, None):
            raise ValueError(
                "No member of the Partition takes these variables; end with `(None, optimizer)`, "
                f"which takes all others. Received: {[cell.path for cell in left]}"
            )
        for i, (branch, member) in enumerate(self.branches()):
            if chosen[i]:
                building.decide(self, member, branch, chosen[i])

    def rule_at(self, step: tf.Tensor) -> dict[str, Any]:
        h = {"t": tf.cast(step + 1, tf.float32), "step": step + 1}
        return h | {branch: member.rule_at(step) for branch, member in self.branches()}

    def innermost(self) -> Any:
        raise TypeError(
            "A Partition has no decay of its own: give `decay_mask` to its members, or call their "
            "`exclude_from_weight_decay`."
        )

    def kind(self) -> str:
        return f"Partition({', '.join(member.kind() for member in self.optimizers)})"

    def decay_report(self) -> reports.DecayReports:
        """Each variable with its shape, its member, whether it decays, and why. Print it."""
        of_members = [member.report_of(self.cells_of(member)) for member in self.optimizers]
        return reports.DecayReports(of_members)

    def cells_of(self, member: Optimizer) -> list[Cell]:
        """The variables that a member steps."""
        return [cell for cell in self.cells if cell.rule is member]

    def get_config(self) -> dict[str, Any]:
        pairs = [[serialize(mask), serialize(member)] for mask, member in self.members]
        return super().get_config() | dict(members=pairs)

    def __str__(self) -> str:
        if "given" not in vars(self):
            return repr(self)
        groups = [
            reports.Group(member, self.cells_of(member), f"{mask!r}: {member!r}")
            for mask, member in self.members
        ]
        of_all = {name: value for name, value in told(self, {}).items() if name != "members"}
        return reports.printed(self, arguments.call("Partition", (), of_all), groups)

    def holder_of(self, name: str) -> Any:
        if name in self.declared:
            return self
        raise AttributeError(
            f"A Partition has no `{name}`: each member has its own, `opt.optimizers[0].{name}`."
        )


def _checked(member: Any) -> Optimizer:
    """The optimizer, if it can be a member."""
    if not isinstance(member, Optimizer) or isinstance(member, Partition):
        raise TypeError(
            "A member of a Partition is an optimizer of this library, and no Partition itself. "
            f"Received: {member!r}"
        )
    check_fresh(member, "A member of a Partition", repr(member))
    arguments = {n: number_of(getattr(member.given, n)) for n in member.engine_arguments}
    wrong = {
        name: value
        for name, value in arguments.items()
        if differs(value, member.engine_arguments[name].default)
    }
    if wrong:
        raise ValueError(
            "These arguments are about all variables: give them to the Partition. "
            f"Received: {wrong} in {member!r}"
        )
    return member


Partition.declare(Optimizer.engine_arguments)
