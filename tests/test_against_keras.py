"""Our side of benchmarks/against_keras.py: every row of that table is right."""

import importlib.util
import pathlib

import pytest
from cases import mirrored

SCRIPT = pathlib.Path(__file__).parents[1] / "benchmarks" / "against_keras.py"
spec = importlib.util.spec_from_file_location("against_keras", SCRIPT)
against_keras = importlib.util.module_from_spec(spec)
spec.loader.exec_module(against_keras)


@pytest.mark.parametrize("row", against_keras.ROWS, ids=lambda row: row.name)
def test_a_row_of_the_table_is_right(row):
    text, right = row.run(against_keras.of_tf_decoupled(mirrored()))
    assert right, text


def test_an_error_becomes_a_cell_of_one_line():
    def broken(library):
        raise KeyError(f"a | b\n{'c' * 100}")

    text, right = against_keras.outcome(against_keras.Row("", broken), None)
    assert text == "KeyError: 'a / b\\n" + "c" * 52 and not right
