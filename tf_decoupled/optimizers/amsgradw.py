"""AMSGradW."""

from tf_decoupled.optimizers.adamw import AdamW


class AMSGradW(AdamW):
    """AdamW whose steps never grow because gradients have become small.

        m, v as in AdamW        v_max ← max(v_max, v)
        u = m / (1 − β₁ᵗ) / (√(v_max / (1 − β₂ᵗ)) + ε)

    It is `AdamW(amsgrad=True)` by its own name. Use it where Adam diverges after rare, large
    gradients; elsewhere it is seldom better, and it keeps one more array per variable.

    Args:
        epsilon: ε, in units of the gradient.
        amsgrad: False makes it AdamW.
        epsilon_hat: ε / √(1 − β₂ᵗ) in place of ε, as Keras has it.

    Reddi, Kale & Kumar, "On the Convergence of Adam and Beyond", 2018, algorithm 2.
    arXiv:1904.09237. Departs from the paper: m and v_max are corrected for their start, as Keras
    and PyTorch do it.
    """

    amsgrad: bool = True

    catch_up = AdamW.catch_up
