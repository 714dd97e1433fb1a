"""How else a gradient is obtained: SAM, per-example clipping, estimates of the Hessian.

    loss, grads = td.gradients.sam(loss_fn, model.trainable_variables, rho=0.05)
    optimizer.apply(grads, model.trainable_variables)

Pure functions of a loss and its variables, for eager code, `tf.function`, XLA and `strategy.run`.
A `loss_fn` returns the loss, a scalar, or a tuple that begins with it. AutoGraph leaves it as it
is: one that has Python's `if` on tensors needs a `tf.function` of its own.

Nothing here asks other replicas: each gets the gradient, or the estimate, of its own loss.
"""

from tf_decoupled.gradients.curvature import (
    fisher_diagonal,
    gauss_newton_bartlett,
    hessian_diagonal,
    hessian_vector_product,
    hutchinson,
)
from tf_decoupled.gradients.eigenvalues import Eigenpairs, hessian_eigenvalues
from tf_decoupled.gradients.per_example import PerExample, per_example
from tf_decoupled.gradients.sam import gsam_rho, sam

__all__ = [
    "Eigenpairs",
    "PerExample",
    "fisher_diagonal",
    "gauss_newton_bartlett",
    "gsam_rho",
    "hessian_diagonal",
    "hessian_eigenvalues",
    "hessian_vector_product",
    "hutchinson",
    "per_example",
    "sam",
]
