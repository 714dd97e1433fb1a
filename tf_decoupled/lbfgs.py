"""L-BFGS on the full batch, with a line search: the whole minimization is one graph."""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import tensorflow as tf

from tf_decoupled.engine import kinds, replicas
from tf_decoupled.engine.checking import checked
from tf_decoupled.engine.state import tf_variable
from tf_decoupled.gradients.kinds import COUNT, Flag, Loss, Variables
from tf_decoupled.gradients.tape import dense_gradient, epsilon, flat, loss_of, parts

RUNNING, GRADIENT, LOSS, ITERATIONS, EVALUATIONS, LINE_SEARCH, CALLBACK, NOT_FINITE = range(8)
REASONS = {
    GRADIENT: "gradient",
    LOSS: "loss",
    ITERATIONS: "iterations",
    EVALUATIONS: "evaluations",
    LINE_SEARCH: "line search",
    CALLBACK: "callback",
    NOT_FINITE: "not finite",
}


class Minimized(NamedTuple):
    """What `minimize_lbfgs` did.

    converged: whether a tolerance was reached. loss, gradient_norm: at the end; the norm is the
    largest entry. reason: why it stopped: "gradient" or "loss", of which a tolerance was reached;
    "iterations" or "evaluations", of which there were enough; "line search", which found nothing
    lower, as where float32 is exhausted; "callback"; "not finite", the loss at the start.
    """

    converged: bool
    iterations: int
    evaluations: int
    loss: float
    gradient_norm: float
    reason: str


Count = Annotated[int, kinds.whole("at least 1, whole", 1, below=COUNT)]
Tolerance = Annotated[float, kinds.limit("a finite number >= 0", lambda x: x >= 0)]
Finite = Annotated[float, kinds.limit("a finite number", lambda x: True)]
Callback = Annotated[
    Callable[[tf.Tensor, tf.Tensor, tf.Tensor], Any] | None,
    kinds.function(3, "a function of iteration, loss and gradient norm"),
]


@checked
def minimize_lbfgs(
    loss_fn: Loss,
    variables: Variables,
    *,
    memory: Count = 10,
    max_iterations: Count = 1000,
    max_evaluations: Count = None,
    gradient_tolerance: Tolerance = 1e-6,
    loss_tolerance: Tolerance = 0.0,
    c1: Finite = 1e-4,
    c2: Finite = 0.9,
    max_line_search: Count = 20,
    callback: Callback = None,
    jit_compile: Flag = False,
) -> Minimized:
    """Minimizes a loss of the full batch: assigns the variables, and returns what was done.

        s = θ' − θ,  y = g' − g,  ρ = 1 / ⟨s, y⟩        of the last m steps
        q = g;  newest to oldest:  a = ρ ⟨s, q⟩,  q ← q − a y        q ← ⟨s, y⟩ / ⟨y, y⟩ q
        oldest to newest:  q ← q + (a − ρ ⟨y, q⟩) s        p = −q,  θ' = θ + α p
        α:  L(θ') ≤ L(θ) + c₁ α ⟨g, p⟩  and  |⟨g', p⟩| ≤ c₂ |⟨g, p⟩|

    α is 1 at first, doubled until an interval holds a good one, which cubic interpolation finds.
    Steps of negative curvature are not remembered. Where the loss isn't finite, α is too large.

    Use it for smooth losses without chance: physics-informed networks, fits, last digits after
    Adam. Not for mini-batches or dropout: the line search compares losses.

    Args:
        loss_fn: no argument; the loss, or a tuple that begins with it. It is traced.
        variables: to be minimized over, best in float64.
        memory: m.
        max_iterations, max_evaluations: of steps, and of losses with their gradients.
        gradient_tolerance: it ends where no entry of the gradient is larger.
        loss_tolerance: it ends where a step lowers the loss by no more than this, times the loss if
            that is above 1; 0: never.
        c1, c2: of the strong Wolfe conditions, 0 < c₁ < c₂ < 1.
        max_line_search: evaluations in one step.
        callback: gets iteration, loss and gradient norm after each step, when the variables hold
            it; ends the minimization by returning True. It is traced, too: `tf.print` prints.
        jit_compile: XLA for the whole.

    Raises RuntimeError inside of a `tf.function`, and NotImplementedError inside of a strategy.

    Nocedal & Wright, "Numerical Optimization", 2006, algorithms 7.4 and 7.5, 3.5 and 3.6.
    Departs from the book: a step whose loss equals the last one to rounding counts as lower if the
    slope says so (Hager & Zhang, 2005). If none is lower, memory is forgotten, once.
    """
    variables = [tf_variable(v) for v in variables]
    options = Options(memory, max_iterations, max_evaluations, gradient_tolerance, loss_tolerance)
    options = options._replace(c1=c1, c2=c2, max_line_search=max_line_search, callback=callback)
    _check(options)
    problem = Problem(loss_fn, variables)
    loop = lambda: _minimize(problem, options)  # noqa: E731
    iterations, evaluations, loss, length, reason = tf.function(
        loop, autograph=False, jit_compile=jit_compile
    )()
    reason = int(reason)
    return Minimized(
        converged=reason in (GRADIENT, LOSS),
        iterations=int(iterations),
        evaluations=int(evaluations),
        loss=float(loss),
        gradient_norm=float(length),
        reason=REASONS[reason],
    )


class Options(NamedTuple):
    memory: int
    max_iterations: int
    max_evaluations: int | None
    gradient_tolerance: float
    loss_tolerance: float
    c1: float = 1e-4
    c2: float = 0.9
    max_line_search: int = 20
    callback: Any = None


class Point(NamedTuple):
    """A point of the line θ + α p: α, the loss, and the slope along p."""

    rate: tf.Tensor
    loss: tf.Tensor
    slope: tf.Tensor


class Search(NamedTuple):
    """A line search. rate: to be tried next. low: the best point, with its gradient; high: the
    other end of the interval, once there is one."""

    rate: tf.Tensor
    low: Point
    low_gradient: tf.Tensor
    high: Point
    bracketed: tf.Tensor
    tries: tf.Tensor


class State(NamedTuple):
    """Between two evaluations. steps, changes: s and y, [m, n], the newest first, zeros where there
    are none; products: ρ, [m]. start: the point of the line at α = 0."""

    x: tf.Tensor
    g: tf.Tensor
    p: tf.Tensor
    start: Point
    search: Search
    steps: tf.Tensor
    changes: tf.Tensor
    products: tf.Tensor
    iterations: tf.Tensor
    evaluations: tf.Tensor
    reason: tf.Tensor


class Problem(NamedTuple):
    """A loss of variables, as a function of one vector."""

    loss_fn: Callable[[], Any]
    variables: list[tf.Variable]

    def assign(self, x: tf.Tensor) -> None:
        for v, part in zip(self.variables, parts(x, self.variables), strict=True):
            v.assign(tf.cast(part, v.dtype))

    def evaluate(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Loss and gradient; inf and zeros where one of them isn't finite."""
        self.assign(x)
        outputs, grads = dense_gradient(self.loss_fn, self.variables)
        loss, g = tf.cast(tf.reshape(loss_of(outputs), []), x.dtype), tf.cast(flat(grads), x.dtype)
        finite = tf.math.is_finite(loss) & tf.reduce_all(tf.math.is_finite(g))
        return tf.where(finite, loss, float("inf")), tf.where(finite, g, tf.zeros_like(g))


def _minimize(problem: Problem, options: Options) -> tuple:
    """The loop. Each round is one evaluation, whatever for: the loss stands in the graph twice."""

    def body(s: State) -> list[State]:
        loss, g = problem.evaluate(s.x + s.search.rate * s.p)
        point = Point(s.search.rate, loss, _dot(g, s.p))
        search, accepted = _judge(s, point, g, options)
        s = s._replace(search=search, evaluations=s.evaluations + 1)
        over = accepted | (search.tries >= options.max_line_search)
        step, going_on = lambda: _step(s, accepted, point, g, problem, options), lambda: s
        s = tf.cond(over, step, going_on)
        limit = options.max_evaluations
        enough = (s.reason == RUNNING) & (limit is not None and s.evaluations >= limit)
        return [s._replace(reason=tf.where(enough, EVALUATIONS, s.reason))]

    x = tf.identity(flat(problem.variables))
    s = _started(x, *problem.evaluate(x), options)
    (s,) = tf.while_loop(lambda s: s.reason == RUNNING, body, [s])
    problem.assign(s.x)
    return s.iterations, s.evaluations, s.start.loss, tf.reduce_max(tf.abs(s.g)), s.reason


def _started(x: tf.Tensor, loss: tf.Tensor, g: tf.Tensor, options: Options) -> State:
    pairs = tf.zeros([options.memory, x.shape[0]], x.dtype)
    products = tf.zeros([options.memory], x.dtype)
    p = _direction(g, pairs, pairs, products)
    start = Point(tf.zeros_like(loss), loss, _dot(g, p))
    flat_enough = tf.reduce_max(tf.abs(g)) <= options.gradient_tolerance
    limit = options.max_evaluations
    goes_on = RUNNING if limit is None or limit > 1 else EVALUATIONS
    reason = tf.where(tf.math.is_finite(loss), tf.where(flat_enough, GRADIENT, goes_on), NOT_FINITE)
    search = _search(start, g)
    return State(
        x, g, p, start, search, pairs, pairs, products, tf.constant(0), tf.constant(1), reason
    )


def _search(start: Point, g: tf.Tensor) -> Search:
    no, one = tf.constant(False), tf.ones_like(start.rate)
    return Search(one, start, g, start, no, tf.constant(0))


def _judge(s: State, new: Point, g: tf.Tensor, options: Options) -> tuple[Search, tf.Tensor]:
    """Takes a point into the search, bracketing and zoom alike; returns whether it is the step."""
    low, high, start = s.search.low, s.search.high, s.start
    lower = new.loss <= start.loss + options.c1 * new.rate * start.slope
    rounding = 8 * epsilon(new.loss.dtype) * tf.abs(start.loss)
    as_low = new.loss <= start.loss + rounding
    falls = new.slope <= (2 * options.c1 - 1) * start.slope
    level = tf.abs(new.slope) <= options.c2 * tf.abs(start.slope)
    accepted = (lower | (as_low & falls)) & level & tf.math.is_finite(new.loss)
    worse = ~lower | (new.loss >= low.loss)
    side = tf.where(s.search.bracketed, high.rate - low.rate, tf.ones_like(low.rate))
    turned = new.slope * side >= 0
    high = _either(worse, new, _either(turned, low, high))
    low = _either(worse, low, new)
    bracketed = s.search.bracketed | worse | turned
    rate = tf.where(bracketed, _between(low, high), 2 * new.rate)
    low_gradient = tf.where(worse, s.search.low_gradient, g)
    return Search(rate, low, low_gradient, high, bracketed, s.search.tries + 1), accepted


def _between(low: Point, high: Point) -> tf.Tensor:
    """The minimum of the cubic through both ends, not near to one; the middle where there is none.

    Nocedal & Wright, equation 3.59.
    """
    width = high.rate - low.rate
    d_1 = low.slope + high.slope - 3 * (high.loss - low.loss) / width
    d_2 = tf.sign(width) * tf.sqrt(tf.square(d_1) - low.slope * high.slope)
    share = 1 - (high.slope + d_2 - d_1) / (high.slope - low.slope + 2 * d_2)
    half = tf.constant(0.5, width.dtype)
    share = tf.where(tf.math.is_finite(share), tf.clip_by_value(share, 0.1, 0.9), half)
    return low.rate + share * width


def _step(
    s: State, accepted: tf.Tensor, point: Point, g: tf.Tensor, problem: Problem, options: Options
) -> State:
    """Takes the point, or where none was accepted the best of the line, and begins a new line."""
    point = _either(accepted, point, s.search.low)
    g = tf.where(accepted, g, s.search.low_gradient)
    moved = accepted | (point.rate > 0)
    x = tf.where(moved, s.x + point.rate * s.p, s.x)
    steps, changes, products = _remember(s, moved, x - s.x, g - s.g)
    p = _direction(g, steps, changes, products)
    start = Point(tf.zeros_like(point.rate), point.loss, _dot(g, p))
    length, iterations = tf.reduce_max(tf.abs(g)), s.iterations + tf.cast(moved, tf.int32)
    change = tf.abs(s.start.loss - point.loss)
    small = change <= options.loss_tolerance * tf.maximum(tf.abs(point.loss), 1)
    no_change = moved & small & (options.loss_tolerance > 0)
    stuck = ~moved & (s.products[0] == 0)
    stopped = _stopped(options, problem, x, moved, iterations, point.loss, length)
    reason = tf.where(stopped, CALLBACK, RUNNING)
    reason = tf.where(iterations >= options.max_iterations, ITERATIONS, reason)
    reason = tf.where(stuck, LINE_SEARCH, tf.where(no_change, LOSS, reason))
    reason = tf.where(length <= options.gradient_tolerance, GRADIENT, reason)
    search = _search(start, g)
    counts = (iterations, s.evaluations, reason)
    return State(x, g, p, start, search, steps, changes, products, *counts)


def _stopped(
    options: Options, problem: Problem, x: tf.Tensor, moved: tf.Tensor, *progress: tf.Tensor
) -> tf.Tensor:
    """Whether the callback, called after a step, ends it all."""
    if options.callback is None:
        return tf.constant(False)

    def called() -> tf.Tensor:
        problem.assign(x)
        stop = options.callback(*progress)
        return tf.constant(False) if stop is None else tf.cast(stop, tf.bool)

    return tf.cond(moved, called, lambda: tf.constant(False))


def _remember(s: State, moved: tf.Tensor, step: tf.Tensor, change: tf.Tensor) -> tuple:
    """The memory with a pair more, if its curvature is positive; empty if nothing has moved."""
    product = _dot(step, change)
    least = epsilon(step.dtype) * tf.sqrt(_dot(step, step)) * tf.sqrt(_dot(change, change))
    positive = product > least
    shift = lambda old, new: tf.concat([new[None], old[:-1]], 0)  # noqa: E731
    pairs = [(s.steps, step), (s.changes, change)]
    pairs += [(s.products, 1 / tf.where(positive, product, tf.ones_like(product)))]
    kept = [tf.where(positive, shift(old, new), old) for old, new in pairs]
    return tuple(tf.where(moved, x, tf.zeros_like(x)) for x in kept)


def _direction(
    g: tf.Tensor, steps: tf.Tensor, changes: tf.Tensor, products: tf.Tensor
) -> tf.Tensor:
    """−H g, the two loops; −g, at most of length 1, without memory or where that would climb."""
    q, coefficients = g, []
    s, y, ρ = tf.unstack(steps), tf.unstack(changes), tf.unstack(products)
    for i in range(len(s)):
        coefficients.append(ρ[i] * _dot(s[i], q))
        q = q - coefficients[i] * y[i]
    q = tf.math.divide_no_nan(q, ρ[0] * _dot(y[0], y[0]))
    for i in reversed(range(len(s))):
        q = q + (coefficients[i] - ρ[i] * _dot(y[i], q)) * s[i]
    plain = g * tf.minimum(tf.math.reciprocal_no_nan(tf.sqrt(_dot(g, g))), 1)
    return -tf.where(_dot(q, g) > 0, q, plain)


def _dot(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(a * b)


def _either(condition: tf.Tensor, a: Point, b: Point) -> Point:
    return Point(*(tf.where(condition, x, y) for x, y in zip(a, b, strict=True)))


def _check(options: Options) -> None:
    if not tf.executing_eagerly():
        raise RuntimeError(
            "`minimize_lbfgs` makes a graph of its own: call it outside of `tf.function`."
        )
    if replicas.in_strategy():
        raise NotImplementedError(
            "`minimize_lbfgs` is for one device: call it outside of `strategy.scope()`, on "
            "variables that were made there."
        )
    if not 0 < options.c1 < options.c2 < 1:
        raise ValueError(
            f"The line search needs 0 < c1 < c2 < 1. Received: c1={options.c1}, c2={options.c2}"
        )
