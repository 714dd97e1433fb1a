"""The datasets of the experiments: read as arrays, split, standardised, augmented."""

import functools
import gzip
import hashlib
import importlib.resources
import socket
import threading
import urllib.request
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_decoupled.experiments.errors import InputError

NAMES = ("fashion_mnist_small", "fashion_mnist", "cifar10")

FASHION_MNIST_DIR = "/usr/share/datasets/fashion-mnist"
# Of the decompressed bytes: the copies of Debian and of Zalando differ in their gzip headers only.
FASHION_MNIST_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
CIFAR10_ARCHIVE = "cifar-10-binary.tar.gz"
CIFAR10_HOST = "www.cs.toronto.edu"
PROBE_SECONDS = 3.0
SPLIT_SEED = 2019


class Split(NamedTuple):
    """Images [n, height, width, channels], uint8 0..255 as read, and labels [n], int64."""

    images: np.ndarray
    labels: np.ndarray


class Dataset(NamedTuple):
    """A named classification task of `classes` classes in three disjoint splits.

    `as_given`: the images are a user's own numbers, [n, ...], fed to the model without a change.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: int
    as_given: bool = False


def load(name: str, data_dir: str | None = None) -> Dataset:
    """The dataset `name`, one of `NAMES`.

    - `fashion_mnist_small`: 5,000 / 1,000 / 10,000 images of Fashion-MNIST, 28 x 28 x 1, shipped
      with this package; its test split is the official one, whole.
    - `fashion_mnist`: 55,000 / 5,000 / 10,000, from the four IDX files (.gz or not) in `data_dir`,
      by default where Debian's package `dataset-fashion-mnist` installs them.
    - `cifar10`: 45,000 / 5,000 / 10,000, 32 x 32 x 3, through tensorflow-datasets. `data_dir` holds
      a prepared `cifar10/3.0.2`, or `cifar-10-binary.tar.gz`, which is then prepared beside it.

    The training and validation splits are drawn, class by class, from the official training set.

    Raises `InputError` for an unknown name and for files that are missing, damaged or not the
    dataset's; it says what would do.

    Xiao et al., "Fashion-MNIST: a novel image dataset for benchmarking machine learning
    algorithms", 2017. arXiv:1708.07747. Krizhevsky, "Learning multiple layers of features from tiny
    images", 2009.
    """
    match name:
        case "fashion_mnist_small":
            return _fashion_mnist_small(data_dir)
        case "fashion_mnist":
            return _fashion_mnist(FASHION_MNIST_DIR if data_dir is None else data_dir)
        case "cifar10":
            return _cifar10(data_dir)
    raise InputError(f"Unknown dataset {name!r}. Known: {', '.join(NAMES)}.")


def hold_out(split: Split, share: int, seed: int = SPLIT_SEED) -> tuple[Split, Split]:
    """One image in `share` of every class, drawn by `seed`, apart: (the rest, the held-out).

    Both keep the order of `split`, and are the same on every machine and NumPy version.
    """
    # RandomState, for its stream is frozen; that of default_rng may change between versions.
    random = np.random.RandomState(seed)
    held = np.zeros(len(split.labels), bool)
    for label in np.unique(split.labels):
        of_class = random.permutation(np.flatnonzero(split.labels == label))
        held[of_class[: len(of_class) // share]] = True
    return (
        Split(split.images[~held], split.labels[~held]),
        Split(split.images[held], split.labels[held]),
    )


def standardise(dataset: Dataset) -> Dataset:
    """The dataset with float32 images of mean 0 and variance 1 in every channel.

        x ← (x / 255 − mean) / std

    mean and std are the training split's, per channel, for all three splits. A channel that never
    changes is only centred. What is `as_given` stays so.
    """
    if dataset.as_given:
        return dataset
    channels = np.moveaxis(dataset.train.images, -1, 0)
    counts = np.stack([np.bincount(c.ravel(), minlength=256) for c in channels])
    values = np.arange(256) / 255
    mean = counts @ values / counts.sum(1)
    std = np.sqrt((counts * (values - mean[:, None]) ** 2).sum(1) / counts.sum(1))
    std[np.count_nonzero(counts, axis=1) == 1] = 1.0
    scale, shift = np.float32(1 / (255 * std)), np.float32(-mean / std)

    def scaled(split: Split) -> Split:
        return split._replace(images=split.images.astype(np.float32) * scale + shift)

    train, validation, test = map(scaled, (dataset.train, dataset.validation, dataset.test))
    return dataset._replace(train=train, validation=validation, test=test)


def augment(images: Any, seed: Any, padding: int = 4) -> tf.Tensor:
    """Every image shifted by up to `padding` pixels, each way, and mirrored left-right or not.

    The augmentation of He et al. 2016, section 4.2, for images [n, height, width, channels] that
    are standardised already: what moves in from outside is 0, the mean. `seed`, an integer or two,
    decides all: no state is read or changed, so a step number makes a good seed.
    """
    images = tf.convert_to_tensor(images)
    height, width = tf.shape(images)[1], tf.shape(images)[2]
    # Philox by name: the default is another generator under XLA.
    seeds = tf.random.split(tf.broadcast_to(tf.cast(seed, tf.int32), [2]), 3, alg="philox")

    def draw(index: int, values: int) -> tf.Tensor:
        shape = [tf.shape(images)[0], 1]
        return tf.random.stateless_uniform(shape, seeds[index], 0, values, tf.int32, alg="philox")

    top, left, mirrored = draw(0, 2 * padding + 1), draw(1, 2 * padding + 1), draw(2, 2) == 1
    columns = tf.range(width)[None]
    columns = left + tf.where(mirrored, width - 1 - columns, columns)
    edges = [padding, padding]
    padded = tf.pad(images, [[0, 0], edges, edges, [0, 0]])
    rows = tf.gather(padded, top + tf.range(height)[None], axis=1, batch_dims=1)
    return tf.ensure_shape(tf.gather(rows, columns, axis=2, batch_dims=1), images.shape)


def _folder(data_dir: str) -> Path:
    try:
        return Path(data_dir).expanduser()
    except RuntimeError as error:  # ~ of somebody whom this machine doesn't know
        raise InputError(f"data_dir can't be found: {error} Received: {data_dir!r}.") from error


# Fashion-MNIST


def _fashion_mnist_small(data_dir: str | None) -> Dataset:
    if data_dir is not None:
        raise InputError(
            "fashion_mnist_small is shipped with tf_decoupled and takes no data_dir; "
            f"fashion_mnist does. Received: data_dir={data_dir!r}."
        )
    folder = importlib.resources.files("tf_decoupled.experiments") / "fashion_mnist_small"
    with (folder / "fashion_mnist_small.npz").open("rb") as file, np.load(file) as arrays:
        splits = {
            part: Split(arrays[f"{part}_images"], arrays[f"{part}_labels"].astype(np.int64))
            for part in ("train", "validation", "test")
        }
    return Dataset("fashion_mnist_small", **splits, classes=10)


def _fashion_mnist(data_dir: str) -> Dataset:
    official_train, test = read_fashion_mnist(data_dir)
    train, validation = hold_out(official_train, 12)
    return Dataset("fashion_mnist", train, validation, test, classes=10)


def read_fashion_mnist(data_dir: str) -> tuple[Split, Split]:
    """The official training set (60,000 images) and test set (10,000) from their four IDX files.

    Raises `InputError` where a file is missing, damaged, or not Fashion-MNIST's by its SHA-256.
    """
    folder = _folder(data_dir)
    train_images, train_labels, test_images, test_labels = (
        _read_idx(folder, name) for name in FASHION_MNIST_SHA256
    )
    return (
        Split(train_images[..., None], train_labels.astype(np.int64)),
        Split(test_images[..., None], test_labels.astype(np.int64)),
    )


def _read_idx(folder: Path, name: str) -> np.ndarray:
    """The array of uint8 in an IDX file: 0, 0, type, rank, then the shape as big-endian int32."""
    path = _find(folder, name)
    content = _decompressed(path)
    rank = int(name.split("-idx")[1][0])
    magic, expected = content[:4], bytes([0, 0, 8, rank])
    if magic != expected:
        raise _not_fashion_mnist(
            path,
            f"starts with {magic.hex() or 'nothing'}, and an IDX file of uint8 of rank {rank} with "
            f"{expected.hex()}",
        )
    header = 4 + 4 * rank
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, header, 4)]
    size = header + int(np.prod(shape))
    if len(content) != size:
        raise _not_fashion_mnist(
            path, f"has {len(content)} bytes where its header, of shape {shape}, asks for {size}"
        )
    digest = hashlib.sha256(content).hexdigest()
    if digest != FASHION_MNIST_SHA256[name]:
        raise _not_fashion_mnist(
            path,
            f"has, decompressed, SHA-256 {digest}, and Fashion-MNIST's "
            f"{FASHION_MNIST_SHA256[name]} (MNIST's files have the same names)",
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _find(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    missing = f"file {name}.gz or {name} in {folder}" if folder.is_dir() else f"folder {folder}"
    raise InputError(f"There is no {missing}. {_FASHION_MNIST_WAYS_OUT}")


def _decompressed(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise _not_fashion_mnist(path, f"is damaged or can't be read ({error})") from error


def _not_fashion_mnist(path: Path, why: str) -> InputError:
    return InputError(f"{path} {why}. {_FASHION_MNIST_WAYS_OUT}")


_FASHION_MNIST_WAYS_OUT = (
    "Fashion-MNIST needs four IDX files: install them with `apt-get install dataset-fashion-mnist` "
    f"(they go to {FASHION_MNIST_DIR}), or pass as data_dir the folder of those of "
    "https://github.com/zalandoresearch/fashion-mnist, or use fashion_mnist_small: it needs none."
)


# CIFAR-10


def _cifar10(data_dir: str | None) -> Dataset:
    try:
        import tensorflow_datasets as tfds

        builder = _prepared_cifar10(tfds, data_dir)
    except ImportError as error:
        raise InputError(
            "cifar10 is read through tensorflow-datasets, which isn't installed completely "
            f"({error}): pip install tf_decoupled[tfds]"
        ) from error
    train, validation = hold_out(_read_tfds(tfds, builder, "train"), 10)
    return Dataset("cifar10", train, validation, _read_tfds(tfds, builder, "test"), classes=10)


def _prepared_cifar10(tfds: Any, data_dir: str | None) -> Any:
    """The builder with its files written: by an earlier run, from the archive, or downloaded."""
    folder = _folder(data_dir) if data_dir is not None else None
    if folder is not None and not folder.is_dir():
        raise InputError(f"There is no folder {folder}. {_CIFAR10_WAYS_OUT}")
    builder = tfds.builder("cifar10", data_dir=folder)
    if builder.is_prepared():
        return builder
    if folder is not None and (folder / CIFAR10_ARCHIVE).is_file():
        _check_archive(folder / CIFAR10_ARCHIVE, builder)
    elif not {"https", "all"} & urllib.request.getproxies().keys():
        _check_connection(CIFAR10_HOST)
    config = tfds.download.DownloadConfig(manual_dir=folder, try_download_gcs=False)
    try:
        builder.download_and_prepare(download_config=config)
    except (OSError, tfds.download.DownloadError) as error:
        raise InputError(f"CIFAR-10 can't be prepared: {error}. {_CIFAR10_WAYS_OUT}") from error
    return builder


def _check_archive(path: Path, builder: Any) -> None:
    (expected,) = (i.checksum for i in builder.url_infos.values() if i.filename == path.name)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(functools.partial(file.read, 1 << 20), b""):
            digest.update(block)
    if digest.hexdigest() != expected:
        raise InputError(
            f"{path} has SHA-256 {digest.hexdigest()}, and CIFAR-10's archive {expected}. "
            f"{_CIFAR10_WAYS_OUT}"
        )


def _check_connection(host: str) -> None:
    """Raises within `PROBE_SECONDS`, where a download would retry for minutes."""
    failures = ["no answer"]

    def probe() -> None:
        try:
            socket.create_connection((host, 443), timeout=PROBE_SECONDS).close()
            failures.clear()
        except OSError as error:
            failures[0] = str(error)

    # In a thread, because no timeout of a socket covers the look-up of the host's name.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    if failures:
        raise InputError(
            f"CIFAR-10 isn't prepared, and {host} can't be reached ({failures[0]}). "
            f"{_CIFAR10_WAYS_OUT}"
        )


def _read_tfds(tfds: Any, builder: Any, split: str) -> Split:
    try:
        examples = tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1))
    except (OSError, tf.errors.OpError) as error:
        raise InputError(
            f"CIFAR-10 in {builder.data_dir} is damaged: {error}. {_CIFAR10_WAYS_OUT}"
        ) from error
    # The official order, whatever the shards of the prepared copy.
    order = np.argsort(examples["id"])
    return Split(examples["image"][order], examples["label"][order].astype(np.int64))


_CIFAR10_WAYS_OUT = (
    "Three ways to have it: a data_dir with a copy of the folder cifar10/3.0.2 that "
    "tensorflow-datasets has prepared elsewhere; a writable data_dir with "
    f"{CIFAR10_ARCHIVE} of https://{CIFAR10_HOST}/~kriz/cifar.html (the binary version, not the "
    "Python one); or one run with a network (behind a proxy, with https_proxy set)."
)
