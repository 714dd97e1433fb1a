"""Seven small problems that tell optimizers apart, for many runs at once.

The values of all runs stand in one array [runs, ...] per variable; run r has seed r mod seeds. A
problem gives what every run begins with, the loss that is differentiated and the loss that counts.
"""

import math
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_decoupled.experiments import data

ROOT = pathlib.Path(__file__).parents[1]
Values = list[tf.Tensor]


class Problem(NamedTuple):
    """What to minimise.

    start: the values of one run, of a random generator. make: of the numbers of steps and seeds,
    the training loss of all runs, `loss(values, t)`, and what counts in the end, `score(values)`,
    both [runs]. log: whether scores are compared by their logarithm. rates: how many rates are
    tried, each 4 times the one before, `lower` of them below the optimizer's default.
    """

    what: str
    start: Callable[[np.random.Generator], list[np.ndarray]]
    make: Callable[[int, int], tuple[Callable, Callable]]
    steps: int
    rates: int
    lower: int
    seeds: int
    log: bool = True


def by_run(x: tf.Tensor, values: Values) -> tf.Tensor:
    """[seeds, ...] as [runs, ...]."""
    runs = values[0].shape[0]
    return tf.tile(x, [runs // x.shape[0]] + [1] * (len(x.shape) - 1))


def sum_of(x: tf.Tensor) -> tf.Tensor:
    """The sum of each run."""
    return tf.reduce_sum(x, list(range(1, len(x.shape))))


# Functions of few variables.


def quadratic(steps: int, seeds: int) -> tuple[Callable, Callable]:
    """½ ‖A W B‖², of condition 10⁴, turned so that no axis is special."""
    rng = np.random.default_rng(0)
    rows, columns = (np.linalg.qr(rng.normal(size=(n, n)))[0] for n in (8, 16))
    a = tf.constant(np.geomspace(1, 0.1, 8)[:, None] * rows, tf.float32)
    b = tf.constant(columns * np.geomspace(1, 0.1, 16), tf.float32)

    def loss(values: Values, t: tf.Tensor | None = None) -> tf.Tensor:
        return sum_of(0.5 * tf.square(tf.einsum("ij,rjk,kl->ril", a, values[0], b)))

    return loss, loss


def rosenbrock(steps: int, seeds: int) -> tuple[Callable, Callable]:
    def loss(values: Values, t: tf.Tensor | None = None) -> tf.Tensor:
        x, y = tf.unstack(values[0], axis=1)
        return (1 - x) ** 2 + 100 * (y - x**2) ** 2

    return loss, loss


def saddle(steps: int, seeds: int) -> tuple[Callable, Callable]:
    """½ u² + ¼ (w² − 1)², from beside w = 0, where the gradient of w vanishes."""

    def loss(values: Values, t: tf.Tensor | None = None) -> tf.Tensor:
        u, w = tf.split(values[0], 2, axis=1)
        return sum_of(0.5 * u**2 + 0.25 * (w**2 - 1) ** 2)

    return loss, loss


def noisy(steps: int, seeds: int) -> tuple[Callable, Callable]:
    """½ Σ aᵢ wᵢ², whose gradients have errors that are now and then very large (Student's t)."""
    rng = np.random.default_rng(0)
    a = tf.constant(np.geomspace(1, 0.1, 128).reshape(16, 8), tf.float32)
    noise = tf.constant(rng.standard_t(2, size=(steps, seeds, 16, 8)), tf.float32)

    def score(values: Values) -> tf.Tensor:
        return sum_of(0.5 * a * values[0] ** 2)

    def loss(values: Values, t: tf.Tensor) -> tf.Tensor:
        return score(values) + sum_of(by_run(noise[t], values) * values[0])

    return loss, score


ROWS, WIDTH = 128, 4


def embeddings(steps: int, seeds: int) -> tuple[Callable, Callable]:
    """A table of products from a few of its entries; some rows are seen often, most hardly ever."""
    rng = np.random.default_rng(0)
    truth = [rng.normal(size=(ROWS, WIDTH)) for _ in range(2)]
    table = tf.constant(truth[0] @ truth[1].T / math.sqrt(WIDTH), tf.float32)
    share = 1 / np.arange(1, ROWS + 1)
    drawn = rng.choice(ROWS, size=(steps, seeds, 32, 2), p=share / share.sum())
    drawn = tf.constant(drawn, tf.int32)

    def score(values: Values) -> tf.Tensor:
        found = tf.einsum("rik,rjk->rij", *values) / math.sqrt(WIDTH)
        return tf.reduce_mean((found - table) ** 2, [1, 2])

    def loss(values: Values, t: tf.Tensor) -> tf.Tensor:
        seen = by_run(drawn[t], values)
        rows, columns = (
            tf.gather(each, seen[..., i], batch_dims=1) for i, each in enumerate(values)
        )
        found = tf.reduce_sum(rows * columns, -1) / math.sqrt(WIDTH)
        return tf.reduce_mean((found - tf.gather_nd(table, seen)) ** 2, 1)

    return loss, score


# Networks. In `einsum`: k rates, s seeds, b images or sentences.


def two_axes(values: Values, seeds: int) -> Values:
    """[runs, ...] as [rates, seeds, ...]."""
    return [tf.reshape(v, [-1, seeds, *v.shape[1:]]) for v in values]


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Of each run: logits [k, s, ..., classes], labels [s, ...]."""
    labels = tf.broadcast_to(labels, tf.shape(logits)[:-1])
    each = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    return tf.reshape(tf.reduce_mean(each, list(range(2, len(each.shape)))), [-1])


def normal(rng: np.random.Generator, *shape: int, gain: float = 1.0) -> np.ndarray:
    """Weights whose outputs are as large as their inputs."""
    return rng.normal(size=shape) * gain / math.sqrt(math.prod(shape[:-1]))


def convolutional_start(rng: np.random.Generator) -> list[np.ndarray]:
    he = math.sqrt(2)
    weights = [normal(rng, 3, 3, 1, 8, gain=he), normal(rng, 3, 3, 8, 16, gain=he)]
    weights += [normal(rng, 576, 10)]
    return [each for w in weights for each in (w, np.zeros(w.shape[-1]))]


def patches(x: tf.Tensor) -> tf.Tensor:
    """3 × 3 neighbours, every second one each way: [..., h, w, c] → [..., h', w', 9 c]."""
    size = (x.shape[-2] - 3) // 2 + 1
    reach = 2 * size - 1
    near = [x[..., i : i + reach : 2, j : j + reach : 2, :] for i in range(3) for j in range(3)]
    return tf.concat(near, -1)


def convolutional(steps: int, seeds: int) -> tuple[Callable, Callable]:
    """Fashion-MNIST's images, two convolutions and a dense layer."""
    images = data.standardise(data.load("fashion_mnist_small"))
    rng = np.random.default_rng(0)
    (x, y), held = images.train, images.validation
    drawn = tf.constant(rng.integers(len(y), size=(steps, seeds, 32)))
    x, y = tf.constant(x), tf.constant(y, tf.int32)

    def logits(values: Values, x: tf.Tensor) -> tf.Tensor:
        kernel, bias, second, bias_2, dense, bias_3 = two_axes(values, seeds)
        wide = lambda b, axes: tf.reshape(b, [*b.shape[:2], *[1] * axes, b.shape[-1]])  # noqa: E731
        flat = lambda k: tf.reshape(k, [*k.shape[:2], -1, k.shape[-1]])  # noqa: E731
        x = tf.einsum("sbhwi,ksio->ksbhwo", patches(x), flat(kernel))
        x = tf.nn.relu(x + wide(bias, 3))
        x = tf.einsum("ksbhwi,ksio->ksbhwo", patches(x), flat(second))
        x = tf.nn.relu(x + wide(bias_2, 3))
        x = tf.reshape(x, [*x.shape[:3], -1])
        return tf.einsum("ksbi,ksio->ksbo", x, dense) + wide(bias_3, 1)

    def loss(values: Values, t: tf.Tensor) -> tf.Tensor:
        return cross_entropy(logits(values, tf.gather(x, drawn[t])), tf.gather(y, drawn[t]))

    def score(values: Values) -> tf.Tensor:
        one = tf.constant(held.images[:512])[None]
        labels = tf.constant(held.labels[:512], tf.int32)[None]
        return cross_entropy(logits(values, tf.repeat(one, seeds, 0)), tf.repeat(labels, seeds, 0))

    return loss, score


LAYERS, MODEL, HEADS, CONTEXT = 2, 88, 4, 32


def text() -> np.ndarray:
    """The licence and the pages of this repository, as numbers of characters."""
    files = [ROOT / "LICENSE", *sorted((ROOT / "docs").glob("d*.md"))]
    letters = "".join(path.read_text() for path in files)
    known = {letter: i for i, letter in enumerate(sorted(set(letters)))}
    return np.array([known[letter] for letter in letters], np.int32)


def transformer_start(rng: np.random.Generator) -> list[np.ndarray]:
    size, d = int(text().max()) + 1, MODEL
    values = [0.5 * rng.normal(size=(size, d)), 0.1 * rng.normal(size=(CONTEXT, d))]
    for _ in range(LAYERS):
        values += [np.ones(d), normal(rng, d, 3 * d), normal(rng, d, d, gain=0.5)]
        values += [np.ones(d), normal(rng, d, 4 * d, gain=1.4), normal(rng, 4 * d, d, gain=0.5)]
    return [*values, np.ones(d), normal(rng, d, size, gain=0.5)]


def normed(x: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """x of mean square 1; scale: [k, s, d]."""
    x = x * tf.math.rsqrt(tf.reduce_mean(x * x, -1, keepdims=True) + 1e-6)
    return x * scale[:, :, None, None, :]


def attended(x: tf.Tensor, qkv: tf.Tensor) -> tf.Tensor:
    """Each letter looks at those before it, in `HEADS` ways."""
    width = MODEL // HEADS
    both = tf.einsum("ksbti,ksio->ksbto", x, qkv)
    q, k, v = tf.unstack(tf.reshape(both, [*both.shape[:4], 3, HEADS, width]), axis=4)
    scores = tf.einsum("xybthd,xybuhd->xybhtu", q, k) / math.sqrt(width)
    later = tf.linalg.band_part(tf.ones([CONTEXT, CONTEXT]), -1, 0) == 0
    # As a matrix: oneDNN takes no more than five axes.
    flat = tf.reshape(tf.where(later, -1e9, scores), [-1, CONTEXT])
    shares = tf.reshape(tf.nn.softmax(flat), scores.shape)
    return tf.reshape(tf.einsum("xybhtu,xybuhd->xybthd", shares, v), x.shape)


def transformer(steps: int, seeds: int) -> tuple[Callable, Callable]:
    """The next letter of this repository's pages: 200,000 weights, 32 letters at a time."""
    letters = text()
    rng = np.random.default_rng(0)
    held = len(letters) // 10
    window = np.arange(CONTEXT + 1)
    drawn = rng.integers(len(letters) - held - CONTEXT, size=(steps, seeds, 8, 1)) + window
    drawn = tf.constant(letters[drawn])
    tests = np.linspace(len(letters) - held, len(letters) - CONTEXT - 1, 32).astype(int)
    tests = tf.constant(letters[tests[:, None] + window])

    def loss_of(values: Values, letters: tf.Tensor) -> tf.Tensor:
        embedding, places, *layers, scale, head = two_axes(values, seeds)
        seen = tf.one_hot(letters[..., :-1], embedding.shape[2])
        x = tf.einsum("sbtv,ksvd->ksbtd", seen, embedding) + places[:, :, None]
        for i in range(LAYERS):
            first, qkv, out, second, up, down = layers[6 * i : 6 * i + 6]
            mixed = attended(normed(x, first), qkv)
            x += tf.einsum("ksbti,ksio->ksbto", mixed, out)
            inside = tf.nn.relu(tf.einsum("ksbti,ksio->ksbto", normed(x, second), up))
            x += tf.einsum("ksbti,ksio->ksbto", inside, down)
        return cross_entropy(
            tf.einsum("ksbtd,ksdv->ksbtv", normed(x, scale), head), letters[..., 1:]
        )

    def loss(values: Values, t: tf.Tensor) -> tf.Tensor:
        return loss_of(values, drawn[t])

    def score(values: Values) -> tf.Tensor:
        return loss_of(values, tf.repeat(tests[None], seeds, 0))

    return loss, score


PROBLEMS = {
    "quadratic": Problem(
        "a quadratic of condition 10⁴, turned",
        lambda rng: [rng.normal(size=(8, 16))],
        quadratic,
        steps=300,
        rates=10,
        lower=3,
        seeds=4,
    ),
    "rosenbrock": Problem(
        "Rosenbrock's valley",
        lambda rng: [np.array([-1.2, 1.0]) + 0.1 * rng.normal(size=2)],
        rosenbrock,
        steps=600,
        rates=10,
        lower=4,
        seeds=4,
    ),
    "saddle": Problem(
        "away from a saddle",
        lambda rng: [np.concatenate([rng.normal(size=8), 1e-4 * rng.normal(size=8)])],
        saddle,
        steps=150,
        rates=10,
        lower=3,
        seeds=4,
    ),
    "noisy": Problem(
        "a parabola whose gradients have wild errors",
        lambda rng: [rng.normal(size=(16, 8))],
        noisy,
        steps=300,
        rates=10,
        lower=4,
        seeds=4,
    ),
    "embeddings": Problem(
        "embeddings, most of whose rows are rare",
        lambda rng: [rng.normal(size=(ROWS, WIDTH)) for _ in range(2)],
        embeddings,
        steps=300,
        rates=8,
        lower=2,
        seeds=4,
    ),
    "convolutional": Problem(
        "10 kinds of clothes, a small convolutional network",
        convolutional_start,
        convolutional,
        steps=100,
        rates=6,
        lower=2,
        seeds=3,
        log=False,
    ),
    "transformer": Problem(
        "the next letter, a transformer of 200,000 weights",
        transformer_start,
        transformer,
        steps=80,
        rates=5,
        lower=2,
        seeds=2,
        log=False,
    ),
}


def starts(problem: Problem, rates: int, seeds: Sequence[int]) -> Values:
    """What all runs begin with."""
    of_seeds = [problem.start(np.random.default_rng(1000 + seed)) for seed in seeds]
    stacked = [np.stack(each) for each in zip(*of_seeds, strict=True)]
    return [tf.constant(np.concatenate([each] * rates), tf.float32) for each in stacked]
