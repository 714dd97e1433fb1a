"""Hugging Face's `create_optimizer` for TensorFlow, which transformers gave up."""

from collections.abc import Sequence
from typing import Annotated

from tf_decoupled import masks
from tf_decoupled.engine import kinds
from tf_decoupled.engine.checking import checked
from tf_decoupled.optimizers.adamw import AdamW
from tf_decoupled.schedules import Polynomial, Schedule, Warmup

__all__ = ["create_optimizer"]

NOT_DECAYING = ("LayerNorm", "layer_norm", "bias")  # found in the path of a variable


_positive = kinds.limit("a finite number > 0", lambda x: x > 0)

NotNegative = Annotated[float, kinds.limit("a finite number >= 0", lambda x: x >= 0)]
Positive = Annotated[float, _positive]
PositiveOrNone = Annotated[float | None, kinds.optional(_positive)]
Beta = Annotated[float, kinds.limit("in [0, 1)", lambda x: 0 <= x < 1)]
Count = Annotated[int, kinds.whole("an integer >= 0", 0)]
Patterns = Annotated[
    Sequence[str] | None, kinds.optional(kinds.sequence(kinds.text, "a list of strings"))
]


@checked
def create_optimizer(
    init_lr: NotNegative,
    num_train_steps: Count,
    num_warmup_steps: Count,
    min_lr_ratio: NotNegative = 0.0,
    adam_beta1: Beta = 0.9,
    adam_beta2: Beta = 0.999,
    adam_epsilon: NotNegative = 1e-8,
    adam_clipnorm: PositiveOrNone = None,
    adam_global_clipnorm: PositiveOrNone = None,
    weight_decay_rate: NotNegative = 0.0,
    power: Positive = 1.0,
    include_in_weight_decay: Patterns = None,
) -> tuple[AdamW, Schedule]:
    """AdamW and its schedule, with the arguments and steps of `transformers.create_optimizer`.

        opt, schedule = td.huggingface.create_optimizer(5e-5, 10_000, 500, weight_decay_rate=0.01)

    The rate rises on a line from 0 to `init_lr`, and falls to `min_lr_ratio` · `init_lr`:

        n < w:  init_lr · n / w        w: num_warmup_steps, n: updates done
        else:   b + (init_lr − b) (1 − (n − w) / (T − w))ᵖ,   b = min_lr_ratio · init_lr

    ε stands where Keras has it. θ loses η λ θ a step, but for biases and layer norms.

    Args:
        num_train_steps: T, with the warm-up.
        power: p.
        include_in_weight_decay: regular expressions on `variable.path` of what decays
            whatever its name is.

    Raises ValueError if the warm-up leaves no steps.
    """
    falling = num_train_steps - num_warmup_steps
    if falling < 1:
        raise ValueError(
            "`num_train_steps` counts the warm-up, too, and must be larger than "
            f"`num_warmup_steps`. Received: num_train_steps={num_train_steps}, "
            f"num_warmup_steps={num_warmup_steps}"
        )
    schedule = Polynomial(init_lr, falling, init_lr * min_lr_ratio, power)
    if num_warmup_steps:
        schedule = Warmup(schedule, num_warmup_steps)
    mask = masks.ExcludeSome(*NOT_DECAYING)
    if include_in_weight_decay:
        mask = masks.only(*include_in_weight_decay) | mask
    optimizer = AdamW(
        schedule,
        weight_decay_rate,
        beta_1=adam_beta1,
        beta_2=adam_beta2,
        epsilon=adam_epsilon,
        epsilon_hat=True,
        clipnorm=adam_clipnorm,
        global_clipnorm=adam_global_clipnorm,
        decay_mask=mask,
    )
    return optimizer, schedule
