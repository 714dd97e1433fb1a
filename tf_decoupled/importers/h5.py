"""HDF5 files that bring their own numbers: a link in one could read any file of this machine."""

from typing import Any

import h5py


def own(group: h5py.Group, name: str) -> Any:
    """What a group has under this name itself. Raises ValueError where it lies elsewhere."""
    if group.get(name, h5py.HardLink, getclass=True, getlink=True) is not h5py.HardLink:
        raise _from_elsewhere(group, name)
    found = group[name]
    if isinstance(found, h5py.Dataset) and (found.external or found.is_virtual):
        raise _from_elsewhere(group, name)
    return found


def own_datasets(file: h5py.File, *groups: str) -> list[h5py.Dataset]:
    """The datasets "0", "1", ... of a group inside of groups, if there is one."""
    group = file
    for name in groups:
        if name not in group:
            return []
        group = own(group, name)
    return [own(group, str(i)) for i in range(len(group))]


def _from_elsewhere(group: h5py.Group, name: str) -> ValueError:
    return ValueError(
        "A weights file must hold its own numbers only: a link, external storage or a virtual "
        "dataset could read any file of this machine. Save the weights anew. Received: "
        f"{group.file.filename!r}, in which {f'{group.name}/{name}'.lstrip('/')!r} is one"
    )
