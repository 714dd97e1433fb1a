"""The probes have what the rows have."""

import functools

import pure
import pytest
import tensorflow as tf
from cases import CASES
from probes import PROBES, traits


@functools.cache
def of_probes():
    return set.union(*map(traits, PROBES))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_trait_of_a_row_is_one_of_a_probe(case):
    assert traits(case) <= of_probes()


def test_the_probes_lay_out_their_slots_as_they_say():
    for probe in PROBES:
        optimizer = probe.make()
        for shape in probe.shapes:
            slots = pure.flat(
                pure.started(optimizer.init(tf.zeros(shape)), tf.zeros(shape), tf.float32)
            )
            assert {name: tuple(x.shape) for name, x in slots.items()} == probe.slots(shape)
