"""The order in which concerns act on a step. Each is known to its own file, and here."""

from tf_decoupled.engine.concern import Concern
from tf_decoupled.engine.concerns.accumulation import Accumulation
from tf_decoupled.engine.concerns.averages import Averages
from tf_decoupled.engine.concerns.caution import Caution
from tf_decoupled.engine.concerns.clipping import Clipping, GradientNorm
from tf_decoupled.engine.concerns.constraints import Constraints
from tf_decoupled.engine.concerns.estimates import Estimates
from tf_decoupled.engine.concerns.evaluation import Evaluation
from tf_decoupled.engine.concerns.gradient_norms import GradientNorms
from tf_decoupled.engine.concerns.loss_scale import LossScale
from tf_decoupled.engine.concerns.losses import Losses
from tf_decoupled.engine.concerns.nonfinite import Nonfinite
from tf_decoupled.engine.concerns.precision import Precision
from tf_decoupled.engine.concerns.rows import Rows
from tf_decoupled.engine.concerns.transforming import Transforms

ORDER: tuple[type[Concern], ...] = (
    Losses,
    Estimates,
    Accumulation,
    LossScale,
    Nonfinite,
    GradientNorm,
    GradientNorms,
    Clipping,
    Transforms,
    Caution,
    Rows,
    Evaluation,
    Constraints,
    Averages,
    Precision,
)
