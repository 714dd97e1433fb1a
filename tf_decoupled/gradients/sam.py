"""SAM, ASAM and GSAM: the gradient at the worst point nearby."""

from typing import Annotated, Any

import tensorflow as tf

from tf_decoupled.engine.checking import Where, checked
from tf_decoupled.engine.hyperparameters import is_number
from tf_decoupled.gradients.kinds import (
    AnyVariables,
    Finite,
    Flag,
    Loss,
    NotNegative,
    Variables,
    tensor,
)
from tf_decoupled.gradients.tape import (
    assign,
    dense,
    dot,
    full,
    gradient,
    norm,
    own,
    scalar,
    unchanged,
)


@checked
def sam(
    loss_fn: Loss,
    variables: Variables,
    rho: NotNegative = 0.05,
    *,
    adaptive: Flag = False,
    eta: NotNegative = 0.01,
    alpha: NotNegative = 0.0,
    state: AnyVariables = (),
) -> tuple[Any, list]:
    """The gradient where the loss is about the largest within ρ: what `loss_fn` returned, and it.

        g = ∇L(θ)        e = ρ g / (‖g‖ + 1e-12)          g' = ∇L(θ + e)
        adaptive:        e = ρ T² g / (‖T g‖ + 1e-12)      T = |θ| + η, and 1 for vectors
        alpha > 0:       g' ← g' − α (g − ⟨g, g'⟩ / ‖g'‖² g')

    Norms and products are over all variables that have a gradient. `loss_fn` is called twice, and
    what it returned at θ itself is returned. Weights come back bit for bit. Any optimizer takes the
    step: `optimizer.apply(grads, variables)`; its decay, clips and averages see g' and θ.

    Use it for models that overfit, at twice the cost of a step; not where one pass is too slow.

    Args:
        loss_fn: no argument; the loss, or a tuple that begins with it. The loss may be scaled:
            e doesn't depend on the scale.
        variables: to take the gradient of.
        rho: ρ: a number, or a tensor, as `gsam_rho` gives it.
        adaptive: ASAM; with ρ about 10 times larger.
        eta: η of ASAM.
        alpha: α of GSAM, 0.4 there; 0 is SAM.
        state: what else `loss_fn` changes, as batch statistics, metrics and the seeds of dropout:
            `model.non_trainable_variables`. Both passes start from what these variables are, so
            that they see the same dropout; what the first pass makes of them stays.

    Under replicas each one's e comes from its own part of the batch, as the authors have it: no
    replica waits for others. Where the first gradient isn't finite, nor is the one that is
    returned, so that `skip_nonfinite` and loss scales see it.

    Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization", 2021,
    algorithm 1. arXiv:2010.01412. Kwon et al., "ASAM", 2021. arXiv:2102.11600. Zhuang et al.,
    "Surrogate Gap Minimization Improves Sharpness-Aware Training", 2022. arXiv:2203.08065
    Departs from the paper: 1e-12 in all divisions, as in the authors' codes.
    """
    variables, state = own(variables), own(state)
    start = [tf.identity(v) for v in state]
    outputs, first = gradient(loss_fn, variables)
    moving = [v for v, g in zip(variables, first, strict=True) if g is not None]
    if not moving:
        return outputs, first
    g = [dense(x, v) for x, v in zip(first, variables, strict=True) if x is not None]
    e, finite = _perturbation(moving, g, rho, eta if adaptive else None)
    with unchanged([*moving, *state]):
        assign(state, start)
        assign(moving, [v + tf.cast(x, v.dtype) for v, x in zip(moving, e, strict=True)])
        _, second = gradient(loss_fn, variables)
    second = [_where_finite(finite, x) for x in second]
    return outputs, _without_ascent(variables, first, second, alpha)


def _rates(where: Where, value: Any) -> tf.Tensor:
    """One rate or several, in floating point."""
    rates = tensor(where, value)
    rates = rates if rates.dtype.is_floating else tf.cast(rates, tf.float32)
    if tf.executing_eagerly() and not tf.reduce_all(tf.math.is_finite(rates)):
        where.refuse(ValueError, "finite", value)
    return rates


Rates = Annotated[Any, _rates]


@checked
def gsam_rho(
    learning_rate: Rates, rho_min: NotNegative, rho_max: Finite, rate_min: Finite, rate_max: Finite
) -> tf.Tensor:
    """ρ_t = ρ_min + (ρ_max − ρ_min) (η_t − η_min) / (η_max − η_min): as large as the rate is.

    Zhuang et al., "Surrogate Gap Minimization Improves Sharpness-Aware Training", 2022.
    arXiv:2203.08065
    """
    if is_number(rate_min) and is_number(rate_max) and rate_min == rate_max:
        raise ValueError(
            "`rate_max` must be another rate than `rate_min`. "
            f"Received: rate_min={rate_min!r}, rate_max={rate_max!r}"
        )
    share = (learning_rate - rate_min) / (rate_max - rate_min)
    return rho_min + (rho_max - rho_min) * share


def _perturbation(variables: list, g: list, rho: Any, eta: Any) -> tuple[list, tf.Tensor]:
    """e of each variable, 0 where the gradient isn't finite, and whether it is."""
    scales = [_scale(v, eta) for v in variables]
    scaled = [t * x for t, x in zip(scales, g, strict=True)]
    length = norm(scaled)
    finite = tf.math.is_finite(length)
    unit = tf.where(finite, scalar(rho, length.dtype) / (length + 1e-12), 0)
    e = [tf.cast(unit, x.dtype) * t * x for t, x in zip(scales, scaled, strict=True)]
    return [tf.where(finite, each, tf.zeros_like(each)) for each in e], finite


def _scale(v: tf.Variable, eta: Any) -> Any:
    """T of ASAM; 1 for SAM."""
    return 1.0 if eta is None or v.shape.rank < 2 else tf.abs(full(v)) + eta


def _without_ascent(variables: list, first: list, second: list, alpha: Any) -> list:
    """GSAM: the part of g at right angles to g' is climbed: it doesn't change L(θ + e)."""
    both = [i for i, g in enumerate(first) if g is not None and second[i] is not None]
    if not both or (isinstance(alpha, (int, float)) and alpha == 0):
        return second
    g, g_ = ([dense(x[i], variables[i]) for i in both] for x in (first, second))
    along = dot(g, g_) / (dot(g_, g_) + 1e-12)
    result = list(second)
    for i, x, y in zip(both, g, g_, strict=True):
        result[i] = y - scalar(alpha, y.dtype) * (x - tf.cast(along, y.dtype) * y)
    return result


def _where_finite(finite: tf.Tensor, g: Any) -> Any:
    """The gradient, or NaN in its place; a sparse one stays sparse."""
    if g is None:
        return None
    values = g.values if isinstance(g, tf.IndexedSlices) else g
    values = tf.where(finite, values, tf.constant(float("nan"), values.dtype))
    if isinstance(g, tf.IndexedSlices):
        return tf.IndexedSlices(values, g.indices, g.dense_shape)
    return values
