"""Losses for the schedules that watch them."""

from typing import Any

from tf_decoupled.engine.concern import Concern, public


class Plateaus(Concern):
    """Does nothing to a step: a schedule is what reads its own variables."""

    @classmethod
    def asked(cls, given: dict[str, Any]) -> bool:
        return False

    @public
    def observe_loss(self, loss: Any) -> None:
        """Tells each `td.schedules.Plateau` among the hyperparameters a loss, a scalar.

        In a loop of your own, eager or traced, once a step, or once an epoch with what was
        validated. Under replicas each tells its own, and the mean counts.
        """
        schedules = self.optimizer.remembering().values()
        watching = {id(each): each for each in schedules if hasattr(each, "observe")}
        if not watching:
            raise ValueError(
                "`observe_loss` is for schedules that watch a loss, as "
                f"td.AdamW(td.schedules.Plateau(1e-3)). Received: {self.optimizer!r}"
            )
        for schedule in watching.values():
            schedule.observe(loss)
