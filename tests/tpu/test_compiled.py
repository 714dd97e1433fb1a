"""The real TPU compiler takes each step, and updates every variable in place."""

import json
import math
import pathlib

import pytest
from trained import BIG, rows_on

pytestmark = pytest.mark.slow
CHIPS = {"v2:2x2": 8, "v5e:2x2": 4, "v6e:1x1": 1}
every = pytest.mark.parametrize(
    "topology, replicas, row", [(chip, n, row) for chip, n in CHIPS.items() for row in rows_on(n)]
)


@every
def test_every_variable_that_the_step_assigns_is_updated_in_place(
    compiled, emulated, topology, replicas, row
):
    result = compiled(topology, replicas, row)
    facts = json.loads(pathlib.Path(f"{emulated(replicas, row)}.json").read_text())
    assert result.donated == result.assigned
    # What no step changes, as a seed, need not be written.
    assert facts["assigned"] - facts["kept"] <= result.assigned <= facts["assigned"]


@every
def test_the_compiled_step_has_no_float64(compiled, topology, replicas, row):
    assert not compiled(topology, replicas, row).uses("f64")


def test_adamw_moves_seven_floats_per_parameter(compiled):
    parameters = sum(map(math.prod, BIG.shapes))  # reads p, g, m, v; writes p, m, v
    assert compiled("v2:2x2", 1, "big").bytes_accessed <= 28.5 * parameters
