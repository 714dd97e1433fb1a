"""The table: one row per optimizer and wrapper. Every property runs on every row."""

from rows import adam, matrices, momentum, privacy, rate_free, wrappers

CASES = [
    *adam.CASES,
    *momentum.CASES,
    *matrices.CASES,
    *privacy.CASES,
    *rate_free.CASES,
    *wrappers.CASES,
]
