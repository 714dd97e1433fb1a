"""Which lines of Python files use other optimizers, and what to write in their place.

    python -m tf_decoupled.migrate train.py models/

`findings` tells it of a file's text. The files of this package import Python's own modules alone;
the seconds that the command takes are those in which `tf_decoupled` imports TensorFlow.
"""

from tf_decoupled.migrate.finding import Finding, findings

__all__ = ["Finding", "findings"]
