"""Methods for matrices."""

import numpy as np

from references.paper import reference

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
