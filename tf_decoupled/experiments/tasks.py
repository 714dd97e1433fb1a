"""What is trained on what: the experiments' own models and data, or a user's, by their names."""

import functools
from collections.abc import Callable

import keras

from tf_decoupled.experiments import data, models, own


def load(name: str, data_dir: str | None = None) -> data.Dataset:
    """The dataset `name`: one of `data.NAMES`, or `module:function`. Raises `InputError`."""
    if not own.is_own(name):
        return data.load(name, data_dir)
    if data_dir is not None:
        raise own.InputError(f"data_dir is not for data of your own. Received: {data_dir}")
    return own.load(name)


def network(name: str, dataset: data.Dataset) -> tuple[keras.Model, Callable[[int], None]]:
    """The model `name` for a dataset, and what gives all its variables the values of a seed."""
    if own.is_own(name):
        return own.network(name, dataset)
    shape = dataset.train.images.shape[1:]
    if len(shape) != 3:
        raise own.InputError(
            f"{name} takes images, [n, height, width, channels]: give a --model=module:function, "
            f"too. Received: {dataset.name} of shape {[len(dataset.train.labels), *shape]}"
        )
    model = models.build(name, shape, dataset.classes)
    return model, functools.partial(models.reinitialize, model)


def fingerprint(dataset: data.Dataset, model: keras.Model) -> str:
    """Of what a name doesn't say, a user's own data and model; "" where there is neither."""
    return own.fingerprint(dataset, model) if dataset.as_given or model.compiled else ""
