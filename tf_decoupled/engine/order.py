"""The order in which concerns act on a step. Each is known to its own file, and here."""

from tf_decoupled.engine.accumulation import Accumulation
from tf_decoupled.engine.averages import Averages
from tf_decoupled.engine.clipping import Clipping, GradientNorm
from tf_decoupled.engine.concern import Concern
from tf_decoupled.engine.constraints import Constraints
from tf_decoupled.engine.evaluation import Evaluation
from tf_decoupled.engine.loss_scale import LossScale
from tf_decoupled.engine.nonfinite import Nonfinite
from tf_decoupled.engine.precision import Precision
from tf_decoupled.engine.rows import Rows
from tf_decoupled.engine.transforming import Transforms

ORDER: tuple[type[Concern], ...] = (
    Accumulation,
    LossScale,
    Nonfinite,
    GradientNorm,
    Clipping,
    Transforms,
    Rows,
    Evaluation,
    Constraints,
    Averages,
    Precision,
)
