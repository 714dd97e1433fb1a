"""Variables, gradients and files of the fixtures, in NumPy alone: for their scripts and tests."""

import io
import pathlib
import zipfile

import numpy as np

HERE = pathlib.Path(__file__).parent
BEFORE, AFTER = 6, 20  # steps in the other library, and on from there
SHAPES = {
    "hidden/kernel": (3, 4),
    "hidden/bias": (4,),
    "head/kernel": (4, 2),
    "head/bias": (2,),
}


def start():
    """What the variables are at first."""
    rng = np.random.default_rng(0)
    return {path: rng.normal(size=shape).astype("float32") for path, shape in SHAPES.items()}


def gradients(steps, seed):
    """One mapping of path to gradient for each step."""
    rng = np.random.default_rng(seed)
    draw = lambda shape: rng.normal(0.3, size=shape).astype("float32")  # noqa: E731
    return [{path: draw(shape) for path, shape in SHAPES.items()} for _ in range(steps)]


def flat(values):
    """All values as one vector."""
    return np.concatenate([np.ravel(values[path]) for path in SHAPES])


def apart(vector):
    """The inverse of `flat`."""
    sizes = np.cumsum([np.prod(shape) for shape in SHAPES.values()])[:-1]
    parts = zip(SHAPES.items(), np.split(vector, sizes), strict=True)
    return {path: part.reshape(shape) for (path, shape), part in parts}


def write(name, files, begin, end):
    """One zip of the files, as the library wrote them, and of the values: at import, and after."""
    rules = np.array(list(begin))
    values = dict(
        rules=rules, begin=np.stack(list(begin.values())), end=np.stack(list(end.values()))
    )
    table = io.BytesIO()
    np.savez(table, **values)
    with zipfile.ZipFile(HERE / name, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in {**files, "values.npz": table.getvalue()}.items():
            archive.writestr(zipfile.ZipInfo(path, (2026, 1, 1, 0, 0, 0)), content, 8, 9)


def read(name, folder):
    """Unpacks a zip; returns rule to (values at import, values after)."""
    with zipfile.ZipFile(HERE / name) as archive:
        archive.extractall(folder)
    with np.load(folder / "values.npz") as table:
        rows = zip(table["rules"], table["begin"], table["end"], strict=True)
        return {str(rule): (apart(begin), apart(end)) for rule, begin, end in rows}
