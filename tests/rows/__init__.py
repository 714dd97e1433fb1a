"""The table: one row per optimizer and wrapper. Every property runs on every row."""

from rows import adam, classic, matrices, momentum, privacy, rate_free, signs, variants, wrappers

CASES = [
    *adam.CASES,
    *momentum.CASES,
    *classic.CASES,
    *matrices.CASES,
    *privacy.CASES,
    *rate_free.CASES,
    *signs.CASES,
    *variants.CASES,
    *wrappers.CASES,
]
