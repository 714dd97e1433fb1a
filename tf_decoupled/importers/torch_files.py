"""Files of `torch.save`, read without PyTorch, and without running what is in them."""

import io
import os
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_decoupled.engine import kinds
from tf_decoupled.engine.checking import Where
from tf_decoupled.importers import pickles

STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",  # the upper half of a float32
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "b1",
}
TENSORS = {("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter")}


def state_dict_of(where: Where, source: Any) -> Any:
    """The optimizer's state_dict: as given, or from a file, also beside others in a mapping there.

    Raises TypeError for what is neither; ValueError for files that `torch.save` has not written,
    or with no such state_dict.
    """
    if isinstance(source, Mapping):
        return source
    if not isinstance(source, (str, os.PathLike)):
        words = "PyTorch's `optimizer.state_dict()`, or the path of a file of it"
        where.refuse(TypeError, words, source)
    path = kinds.file(where, source)
    whole = _read(path)
    if not isinstance(whole, Mapping):
        raise ValueError(
            f"A file of an optimizer's state_dict is needed. Received: {path!r} with a "
            f"{type(whole).__name__}"
        )
    inside = [each for each in (whole, *whole.values()) if _is_state_dict(each)]
    if len(inside) != 1:
        raise ValueError(
            "The file must hold one optimizer's state_dict, itself or beside others in one "
            f"mapping. Received: {len(inside)} in {path!r}, which has {sorted(map(str, whole))}"
        )
    return inside[0]


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, Mapping) and {"state", "param_groups"} <= value.keys()


def _read(path: str) -> Any:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        raise ValueError(
            "Files of `torch.save` are read as PyTorch writes them since 1.6. Load this one there, "
            f"and save it anew. Received: {path!r}"
        ) from None
    with archive:
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError(f"This is no file of `torch.save`. Received: {path!r}")
        tensors = _Tensors(archive, names[0].removesuffix("data.pkl"))
        file = io.BytesIO(archive.read(names[0]))
        return pickles.read(file, repr(path), _is_known, tensors.made, storages=True)


def _is_known(origin: pickles.Origin) -> bool:
    return origin in TENSORS or (origin[0] == "torch" and origin[1] in STORAGES)


class _Tensors:
    """The tensors of an archive, as arrays."""

    def __init__(self, archive: zipfile.ZipFile, root: str):
        self.archive, self.root = archive, root
        order = f"{root}byteorder"
        big = order in archive.namelist() and archive.read(order) == b"big"
        self.order = ">" if big else "<"

    def made(self, origin: pickles.Origin, args: tuple) -> np.ndarray:
        if origin not in TENSORS:
            raise ValueError(f"{'.'.join(origin)} stands by itself")
        if origin[1] == "_rebuild_parameter":
            return args[0]
        (_, storage, key, *_), offset, size, strides = args[:4]
        content = self.archive.read(f"{self.root}data/{key}")
        data = np.frombuffer(content, self.order + STORAGES[storage])
        steps = [stride * data.itemsize for stride in strides]
        # The constructor of arrays refuses what would lie outside of the data.
        found = np.ndarray(size, data.dtype, data, offset * data.itemsize, steps).copy()
        if storage != "BFloat16Storage":
            return found
        return (found.astype(np.uint32) << 16).view(np.float32)
