"""Methods for matrices."""

import numpy as np

from references.paper import ema, reference, rms

# Jordan's code; that of modded-nanogpt; what the code of Amsel et al. 2025 computes.
MUON_ROUNDS = {
    "original": 5 * [(3.4445, -4.7750, 2.0315)],
    "quintic": [
        *((4.0848, -6.8946, 2.9270), (3.9505, -6.3029, 2.6377), (3.7418, -5.5913, 2.3037)),
        *((2.8769, -3.1427, 1.2046), (2.8366, -3.0525, 1.2012)),
    ],
    "polar_express": [
        *((8.2373125, -23.1577477, 16.6805684), (4.0824420, -2.8930477, 0.5252849)),
        *((3.9263480, -2.8547468, 0.5318022), (3.2982187, -2.4245420, 0.4863201)),
        (2.2970369, -1.6366256, 0.4002629),
    ],
}


def orthogonal(d, rounds, margin=0.0):
    """Newton–Schulz by the singular values: each goes through a σ + b σ³ + c σ⁵ of every round."""
    left, σ, right = np.linalg.svd(d, full_matrices=False)
    σ = σ / ((1 + margin) * np.linalg.norm(d) + 1e-7)
    for a, b, c in rounds:
        σ = a * σ + b * σ**3 + c * σ**5
    return left @ np.diag(σ) @ right


@reference
def muon(steps, momentum=0.95, nesterov=True, rounds=5, coefficients="original", scale="original"):
    """Jordan 2024 and Liu et al. 2025, with the momentum m ← μ m + g: Newton–Schulz ignores its
    scale, but for the 1e-7 beside the norm."""
    m = 0.0
    margin = 0.01 if coefficients == "polar_express" else 0.0
    for theta, g, lr, delta in steps:
        m = momentum * m + g
        d = (g + momentum * m if nesterov else m).reshape(-1, g.shape[-1])
        inputs, outputs = d.shape
        factor = {
            "original": max(1, outputs / inputs) ** 0.5,
            "match_rms_adamw": 0.2 * max(inputs, outputs) ** 0.5,
            "rms_to_rms": (outputs / inputs) ** 0.5,
        }[scale]
        u = orthogonal((1 - momentum) * d, MUON_ROUNDS[coefficients][:rounds], margin)
        yield theta - lr * factor * u.reshape(g.shape) - delta


@reference
def mars(steps, form="adamw", gamma=0.025, beta_1=0.95, beta_2=0.99, epsilon=1e-8):
    """Yuan et al. 2024, with the stored gradient in place of a second backward pass."""
    m = v = last = 0.0
    for t, (theta, g, lr, delta) in enumerate(steps, 1):
        c, last = g + gamma * beta_1 / (1 - beta_1) * (g - last), g
        c = c / max(1.0, np.linalg.norm(c))
        m, v = ema(m, c, beta_1), ema(v, c**2, beta_2)
        if form == "adamw":
            u = m / (1 - beta_1**t) / (np.sqrt(v / (1 - beta_2**t)) + epsilon)
        elif form == "lion":
            u = np.sign(m)
        else:
            flat = m.reshape(-1, g.shape[-1])
            u = orthogonal(flat, MUON_ROUNDS["original"]).reshape(g.shape)
            u = max(1, flat.shape[1] / flat.shape[0]) ** 0.5 * u
        yield theta - lr * u - delta


def lmo(d, norm, rounds=5):
    """Pethick et al. 2025, table 2, with W = [out, in]; positive. Vectors by their RMS."""
    if d.ndim < 2:
        return d / (rms(d) + 1e-8)
    w = d.reshape(-1, d.shape[-1]).T
    outputs, inputs = w.shape
    if norm == "spectral":
        area, inputs = np.prod(d.shape[:-2]), d.shape[-2]
        w = (outputs / inputs) ** 0.5 / area * orthogonal(w, rounds * [MUON_ROUNDS["original"][0]])
    elif norm == "sign":
        w = np.sign(w) / inputs
    elif norm == "column":
        w = w / (np.sqrt((w**2).mean(0)) + 1e-8)
    else:
        w = w / (np.sqrt((w**2).sum(1, keepdims=True)) * inputs**0.5 + 1e-8)
    return w.T.reshape(d.shape)


@reference
def scion(steps, norm="spectral", scale=1.0, momentum=0.9, rounds=5):
    """Pethick et al. 2025: with a decay of 1 the constrained form, (1 − η) θ − η ρ lmo(d)."""
    d = 0.0
    for theta, g, lr, delta in steps:
        d = ema(d, g, momentum)
        yield theta - lr * scale * lmo(d, norm, rounds) - delta


def turn(x, bases, back=False):
    """Each axis of x by its orthogonal matrix, as in a change of basis."""
    for i, q in bases.items():
        x = np.moveaxis(np.tensordot(q if back else q.T, x, [[1], [i]]), 0, i)
    return x


def statistics(g, i):
    """g gᵀ over axis i, summed over the others."""
    rows = np.moveaxis(g, i, 0).reshape(g.shape[i], -1)
    return rows @ rows.T


@reference
def soap(
    steps,
    beta_1=0.95,
    beta_2=0.95,
    shampoo_beta=0.95,
    epsilon=1e-8,
    frequency=10,
    longest=10_000,
    vectors=False,
):
    """Vyas et al. 2024, Q from I on, and L + 1e-5 mean(diag L) I in the power iteration."""
    m = v = 0.0
    grams, bases = {}, {}
    for t, (theta, g, lr, delta) in enumerate(steps, 1):
        axes = [i for i, n in enumerate(g.shape) if 1 < n <= longest] * (g.ndim > 1 or vectors)
        bases = {i: bases.get(i, np.eye(g.shape[i])) for i in axes}
        m, v = ema(m, g, beta_1), ema(v, turn(g, bases) ** 2, beta_2)
        u = turn(m, bases) / (1 - beta_1**t) / (np.sqrt(v / (1 - beta_2**t)) + epsilon)
        yield theta - lr * turn(u, bases, back=True) - delta
        for i in axes:
            grams[i] = ema(grams.get(i, 0.0), statistics(g, i), shampoo_beta)
            if t % frequency == 0:
                order = np.argsort(-np.diag(bases[i].T @ grams[i] @ bases[i]), kind="stable")
                ridge = 1e-5 * np.trace(grams[i]) / g.shape[i] * np.eye(g.shape[i])
                v = np.take(v, order, i)
                bases[i] = np.linalg.qr((grams[i] + ridge) @ bases[i][:, order])[0]


def inverse_root(a, p, ridge):
    """(A + ridge ‖A‖ I)^(−1/p), by the eigenvalues."""
    size = np.linalg.norm(a) or 1.0
    values, vectors = np.linalg.eigh(a / size)
    return size ** (-1 / p) * (vectors / (values + ridge) ** (1 / p)) @ vectors.T


@reference
def shampoo(
    steps,
    beta_1=0.9,
    beta_2=0.999,
    epsilon=1e-6,
    graft="sgd",
    graft_epsilon=1e-10,
    nesterov=True,
    block=128,
    frequency=10,
):
    """Gupta et al. 2018 with the blocks and the grafting of Anil et al. 2020."""
    big = d = 0.0
    sums, roots = {}, {}
    for t, (theta, g, lr, delta) in enumerate(steps, 1):
        d = {"sgd": 1.0, "adagrad": d + g**2, "rmsprop": ema(d, g**2, beta_2)}[graft]
        debiased = d / (1 - beta_2**t) if graft == "rmsprop" else d
        a = g if graft == "sgd" else g / (np.sqrt(debiased) + graft_epsilon)
        flat = g.reshape(-1, g.shape[-1] if g.ndim > 1 else 1)
        shaped = np.zeros(flat.shape)
        for i, j in np.ndindex(*(-(-n // block) for n in flat.shape)):
            part = np.s_[i * block : (i + 1) * block, j * block : (j + 1) * block]
            sides = [flat[part], flat[part].T][: max(g.ndim, 1)][:2]
            for k, x in enumerate(sides):
                sums[i, j, k] = ema(sums.get((i, j, k), 0.0), x @ x.T, beta_2)
                if t % frequency == 0:
                    roots[i, j, k] = inverse_root(sums[i, j, k], 2 * len(sides), epsilon)
            s = roots[i, j, 0] @ flat[part] if roots else 0.0
            shaped[part] = s @ roots[i, j, 1] if roots and g.ndim > 1 else s
        length, shaped = np.linalg.norm(shaped), shaped.reshape(g.shape)
        u = shaped / length * np.linalg.norm(a) if length and g.ndim else a
        big = beta_1 * big + u
        yield theta - lr * (u + beta_1 * big if nesterov else big) - delta


def fit(q, length, h, noise, rate):
    """One step of Q towards whiteness, in the form that Li's code calls QUAD, and ℓ̄."""
    full, target = q.ndim == 2, h.shape[1]
    t = h @ h.T + noise @ noise.T
    if full:
        row = t[np.argmax((t**2).sum(1))]
        x = t @ row
        ell = np.linalg.norm(t @ x) / np.linalg.norm(x) + target
    else:
        ell = np.max(np.diag(t)) + target
    length = max(0.9 * length + 0.1 * ell, ell)
    keep = np.eye(len(t)) - rate / 2 / length * (t - target * np.eye(len(t)))
    return (keep @ q @ keep if full else q * np.diag(keep) ** 2), length


@reference
def kron(steps, beta_1=0.9, precond_lr=0.1, frequency=1, longest=8192, damping=3.5e-4, max_rms=1.1):
    """Li 2015 and Pooladzandi & Li 2024 in the symmetric form, its noise averaged out."""
    m, qs, lengths = 0.0, None, [0.0, 0.0]
    for t, (theta, g, lr, delta) in enumerate(steps, 1):
        m = ema(m, g, beta_1)
        mean = (m / (1 - beta_1**t)).reshape(-1, g.shape[-1] if g.ndim > 1 else 1)
        if not np.any(mean):
            yield theta - delta
            continue
        sides = 2 if g.ndim > 1 else 1
        if qs is None:
            full = [sides == 2 and 1 < n <= min(*mean.shape, longest) for n in mean.shape]
            largest = np.max(np.abs(mean))
            s = (largest * np.mean((mean / largest) ** 4) ** 0.25) ** (-0.5 / sides)
            starts = zip(mean.shape, full, strict=True)
            qs = [s * (np.eye(n) if f else np.ones(n)) for n, f in starts][:sides]
        ps = [q @ q if q.ndim == 2 else np.diag(q * q) for q in qs]
        h = ps[0] @ mean @ ps[1] if sides == 2 else ps[0] @ mean
        u = h * min(1.0, max_rms / rms(h))
        yield theta - lr * u.reshape(g.shape) - delta
        if t % frequency == 0:
            a = damping * np.mean(np.abs(mean))
            others = [np.linalg.norm(p) for p in ps[::-1]] if sides == 2 else [1.0]
            for i, x in enumerate([h, h.T][:sides]):
                noise = a * others[i] * ps[i]
                qs[i], lengths[i] = fit(qs[i], lengths[i], x, noise, precond_lr)
            if sides == 2:
                ratio = np.sqrt(np.max(np.abs(qs[1])) / np.max(np.abs(qs[0])))
                qs = [qs[0] * ratio, qs[1] / ratio]
