"""Constraints: a model variable's own, after each step."""

from typing import Any

from tf_decoupled.engine.concern import Concern


class Constraints(Concern):
    """Projects a variable as its `constraint` says."""

    def leave(self, part: Any, step: Any) -> None:
        if part.block.constraint is not None:
            part.p = part.block.constraint(part.p)
