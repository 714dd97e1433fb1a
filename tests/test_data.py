"""The datasets are the real ones, split without overlap; a wrong file is told what would do."""

import contextlib
import gzip
import hashlib
import importlib.resources
import importlib.util
import io
import itertools
import sys
import tarfile
import threading
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

from tf_decoupled.experiments import data
from tf_decoupled.experiments.errors import InputError

BUILD_SCRIPT = Path(__file__).parents[1] / "benchmarks" / "build_fashion_mnist_small.py"
SMALL_SHA256 = {
    "train_images": "2121bfc17756d5a2e434c77c2fbbdf768c7593e98cc257180a94fa7dbbd0fc20",
    "train_labels": "8f04865a814bd59b9fefff845e9737630b5be27413f9fed39c5cd3b17cb7252a",
    "validation_images": "aa86a0ed1efa0353e9cd74707f0bbe222aae4a978a311d2f8c8fc316b0677a3a",
    "validation_labels": "1c3caee98ce202467b82275d87cd491ac7703950815f6309fdc60fa773630976",
    "test_images": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
    "test_labels": "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
}


def images(count, shape, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (count, *shape)).astype(np.uint8)


def test_an_unknown_dataset_is_answered_with_the_known_ones():
    with pytest.raises(InputError, match=r"'mnist'.*fashion_mnist_small, fashion_mnist, cifar10"):
        data.load("mnist")


# The embedded Fashion-MNIST


def test_the_embedded_dataset_is_balanced_and_of_the_promised_sizes():
    small = data.load("fashion_mnist_small")
    assert (small.name, small.classes) == ("fashion_mnist_small", 10)
    for split, per_class in zip(small[1:4], (500, 100, 1000), strict=True):
        assert split.images.shape == (10 * per_class, 28, 28, 1)
        assert split.images.dtype == np.uint8 and split.labels.dtype == np.int64
        np.testing.assert_array_equal(np.bincount(split.labels), [per_class] * 10)


def test_the_embedded_splits_share_no_image():
    splits = [{i.tobytes() for i in s.images} for s in data.load("fashion_mnist_small")[1:4]]
    assert [len(s) for s in splits] == [5000, 1000, 10000]
    assert len(set.union(*splits)) == 16000


def test_the_embedded_arrays_are_those_that_the_build_script_made():
    small = data.load("fashion_mnist_small")
    for key, digest in SMALL_SHA256.items():
        split, part = key.split("_")
        array = getattr(getattr(small, split), part)
        assert hashlib.sha256(array.astype(np.uint8).tobytes()).hexdigest() == digest, key


def test_the_embedded_dataset_carries_its_licence():
    folder = importlib.resources.files("tf_decoupled.experiments") / "fashion_mnist_small"
    notice = (folder / "NOTICE").read_text("utf-8")
    assert "Copyright (c) 2017 Zalando SE" in notice
    assert "Permission is hereby granted, free of charge" in notice


def test_the_embedded_dataset_takes_no_folder():
    with pytest.raises(InputError, match=r"takes no data_dir; fashion_mnist does.*'here'"):
        data.load("fashion_mnist_small", "here")


# Fashion-MNIST from IDX files


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def idx_folder(tmp_path, monkeypatch):
    """A folder of four small IDX files, two of them gzipped, that passes for Fashion-MNIST."""
    contents = {
        "train-images-idx3-ubyte": idx(images(600, shape=(8, 8, 1))[..., 0]),
        "train-labels-idx1-ubyte": idx(np.arange(600) % 10),
        "t10k-images-idx3-ubyte": idx(images(20, seed=1, shape=(8, 8, 1))[..., 0]),
        "t10k-labels-idx1-ubyte": idx(np.arange(20) % 10),
    }
    for name, content in contents.items():
        monkeypatch.setitem(data.FASHION_MNIST_SHA256, name, hashlib.sha256(content).hexdigest())
        if name.startswith("train"):
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (tmp_path / name).write_bytes(content)
    return tmp_path


def test_idx_files_are_read_gzipped_or_not(idx_folder):
    train, test = data.read_fashion_mnist(str(idx_folder))
    np.testing.assert_array_equal(train.images, images(600, shape=(8, 8, 1)))
    np.testing.assert_array_equal(train.labels, np.arange(600) % 10)
    np.testing.assert_array_equal(test.images, images(20, seed=1, shape=(8, 8, 1)))
    np.testing.assert_array_equal(test.labels, np.arange(20) % 10)


def test_a_twelfth_of_every_class_of_fashion_mnist_is_for_validation(idx_folder):
    dataset = data.load("fashion_mnist", str(idx_folder))
    counts = [np.bincount(s.labels).tolist() for s in dataset[1:4]]
    assert counts == [[55] * 10, [5] * 10, [2] * 10]


def test_fashion_mnist_is_looked_for_where_debian_installs_it(idx_folder, monkeypatch):
    monkeypatch.setattr(data, "FASHION_MNIST_DIR", str(idx_folder))
    assert len(data.load("fashion_mnist").test.labels) == 20


@pytest.mark.parametrize("name", list(data.FASHION_MNIST_SHA256))
def test_a_missing_idx_file_is_named_with_the_ways_out(idx_folder, name):
    for path in idx_folder.glob(f"{name}*"):
        path.unlink()
    with pytest.raises(InputError, match=f"no file {name}.gz or {name} in ") as failure:
        data.load("fashion_mnist", str(idx_folder))
    for way in ("apt-get install dataset-fashion-mnist", "data_dir", "fashion_mnist_small"):
        assert way in str(failure.value)
    assert "\n" not in str(failure.value)


def test_a_missing_folder_is_named_with_the_ways_out(tmp_path):
    with pytest.raises(InputError, match=r"no folder .*nowhere\. .*apt-get install"):
        data.load("fashion_mnist", str(tmp_path / "nowhere"))


def as_labels(content):
    return idx(np.arange(600) % 10)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (as_labels, "starts with 00000801, and .* rank 3 with 00000803"),
        (lambda content: b"", "starts with nothing, and"),
        (lambda content: content[:10], "has 10 bytes where its header"),
        (
            lambda content: content[:-1],
            r"has 38415 bytes where .* \[600, 8, 8\], asks for 38416",
        ),
        (lambda content: content[:-1] + b"?", "SHA-256 .*MNIST's files have the same names"),
    ],
)
def test_a_wrong_idx_file_is_named_with_what_is_expected(idx_folder, damage, words):
    path = idx_folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(damage(gzip.decompress(path.read_bytes()))))
    with pytest.raises(InputError, match=f"train-images-idx3-ubyte.gz .*{words}.*apt-get install"):
        data.load("fashion_mnist", str(idx_folder))


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-100], lambda c: b"no gzip", lambda c: c[:50] + b"??????" + c[56:]]
)
def test_a_damaged_gzip_file_is_named(idx_folder, damage):
    path = idx_folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte.gz is damaged"):
        data.load("fashion_mnist", str(idx_folder))


def build_script():
    spec = importlib.util.spec_from_file_location("build_fashion_mnist_small", BUILD_SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_build_script(data_dir, output):
    arguments = ["build", "--data-dir", str(data_dir), "--output", str(output)]
    with mock.patch.object(sys, "argv", arguments), contextlib.redirect_stdout(io.StringIO()):
        build_script().main()


def test_the_build_script_gives_the_same_bytes_again(idx_folder, tmp_path):
    for name in ("first.npz", "second.npz"):
        run_build_script(idx_folder, tmp_path / name)
    first, second = (tmp_path / name for name in ("first.npz", "second.npz"))
    assert first.read_bytes() == second.read_bytes()
    with np.load(first) as arrays:
        counts = {k: np.bincount(v).tolist() for k, v in arrays.items() if k.endswith("labels")}
    assert counts == {
        "train_labels": [5] * 10,
        "validation_labels": [1] * 10,
        "test_labels": [2] * 10,
    }


@pytest.mark.skipif(
    not Path(data.FASHION_MNIST_DIR).is_dir(), reason="needs Debian's dataset-fashion-mnist"
)
def test_the_build_script_makes_the_embedded_arrays_of_the_official_files(tmp_path):
    run_build_script(data.FASHION_MNIST_DIR, tmp_path / "small.npz")
    with np.load(tmp_path / "small.npz") as arrays:
        digests = {k: hashlib.sha256(v.tobytes()).hexdigest() for k, v in arrays.items()}
    assert digests == SMALL_SHA256


# Splits


def test_the_held_out_split_is_a_share_of_every_class_in_the_original_order():
    labels = np.random.RandomState(0).permutation(np.repeat([0, 1, 2], [30, 60, 90]))
    split = data.Split(np.arange(180), labels)
    rest, held = data.hold_out(split, 3)
    assert np.bincount(held.labels).tolist() == [10, 20, 30]
    assert np.all(np.diff(rest.images) > 0) and np.all(np.diff(held.images) > 0)
    assert sorted([*rest.images, *held.images]) == list(range(180))
    for part in (rest, held):
        np.testing.assert_array_equal(part.labels, labels[part.images])


def test_the_held_out_split_is_decided_by_the_seed_alone():
    split = data.Split(np.arange(20), np.arange(20) % 2)
    assert data.hold_out(split, 5, seed=1)[1].images.tolist() == [4, 11, 18, 19]
    assert data.hold_out(split, 5, seed=2)[1].images.tolist() != [4, 11, 18, 19]


# Standardisation and augmentation


def dataset_of(train, test):
    def split(x):
        return data.Split(x, np.zeros(len(x), np.int64))

    return data.Dataset("some", split(train), split(test), split(test), classes=1)


def test_standardised_training_images_have_mean_0_and_variance_1_in_every_channel():
    train = (images(50, shape=(8, 8, 3)) * [1.0, 0.5, 0.1]).astype(np.uint8)
    x = data.standardise(dataset_of(train, train[:5])).train.images
    assert x.dtype == np.float32
    np.testing.assert_allclose(x.mean((0, 1, 2), np.float64), 0, atol=1e-6)
    np.testing.assert_allclose(x.std((0, 1, 2), np.float64), 1, rtol=1e-6)


def test_the_training_statistics_standardise_every_split():
    train, test = images(50, shape=(8, 8, 3)), images(5, seed=1, shape=(8, 8, 3)) // 2
    scaled = train / 255
    expected = (test / 255 - scaled.mean((0, 1, 2))) / scaled.std((0, 1, 2))
    result = data.standardise(dataset_of(train, test))
    np.testing.assert_allclose(result.test.images, expected, atol=1e-6)
    np.testing.assert_allclose(result.validation.images, expected, atol=1e-6)
    assert result.test.labels.dtype == np.int64


def test_a_channel_that_never_changes_is_only_centred():
    train = np.full((3, 4, 4, 1), 51, np.uint8)
    result = data.standardise(dataset_of(train, train + np.uint8(51)))
    np.testing.assert_allclose(result.train.images, 0, atol=1e-6)
    np.testing.assert_allclose(result.test.images, 0.2, rtol=1e-6)


def crops(image, padding):
    """Every (top, left, mirrored) crop of the padded image, as bytes."""
    padded = np.pad(image, [(padding, padding), (padding, padding), (0, 0)])
    height, width, _ = image.shape
    for top, left in itertools.product(range(2 * padding + 1), repeat=2):
        crop = padded[top : top + height, left : left + width]
        yield (top, left, False), crop.tobytes()
        yield (top, left, True), crop[:, ::-1].tobytes()


def test_an_augmented_image_is_a_shifted_crop_mirrored_or_not():
    x = np.random.RandomState(0).standard_normal((1, 6, 5, 2)).astype(np.float32)
    known = {content: how for how, content in crops(x[0], 2)}
    augmented = data.augment(np.repeat(x, 600, axis=0), 3, padding=2).numpy()
    seen = [known[y.tobytes()] for y in augmented]
    assert len(set(seen)) == 50
    for values in zip(*seen, strict=True):
        counts = np.unique(values, return_counts=True)[1]
        assert counts.min() > 0.7 * 600 / len(counts)


def test_augmentation_is_decided_by_its_seed():
    x = images(8, shape=(32, 32, 3)).astype(np.float32)
    first = data.augment(x, 1)
    assert first.shape == x.shape
    np.testing.assert_array_equal(first, data.augment(x, 1))
    assert not np.array_equal(first, data.augment(x, 2))
    assert not np.array_equal(data.augment(x, [1, 2]), data.augment(x, [2, 1]))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_augmentation_is_the_same_in_a_graph(jit_compile):
    x = images(8, shape=(32, 32, 3)).astype(np.float32)
    compiled = tf.function(data.augment, jit_compile=jit_compile)
    for step in (1, 2):
        np.testing.assert_array_equal(
            compiled(tf.constant(x), tf.constant(step, tf.int64)), data.augment(x, step)
        )
    assert compiled.experimental_get_tracing_count() == 1


# CIFAR-10


class DownloadError(Exception):
    """As that of tensorflow-datasets: not an OSError."""


class StandInBuilder:
    """What load asks of a tensorflow-datasets builder, with ten images a class in each split."""

    def __init__(self, prepared, failure=None):
        self.prepared, self.failure, self.config = prepared, failure, None
        url_info = SimpleNamespace(checksum=hashlib.sha256(b"right").hexdigest())
        url_info.filename = data.CIFAR10_ARCHIVE
        self.url_infos = {"https://there": url_info}

    def is_prepared(self):
        return self.prepared

    def download_and_prepare(self, download_config):
        if self.failure:
            raise self.failure
        self.config, self.prepared = download_config, True

    def as_dataset(self, split, batch_size):
        assert self.prepared and batch_size == -1
        order = np.random.RandomState(0).permutation(100)
        ids = np.array([f"{split}_{i:05d}".encode() for i in order])
        return {"id": ids, "image": cifar_images(100)[order], "label": order % 10}


def cifar_images(count):
    return images(count, shape=(32, 32, 3))


@pytest.fixture
def offline(monkeypatch):
    """Whoever asks for a connection is refused, as on a machine without a network."""

    def refuse(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr(data.socket, "create_connection", refuse)
    monkeypatch.setattr(data.urllib.request, "getproxies", dict)


def install(monkeypatch, builder):
    module = ModuleType("tensorflow_datasets")
    module.builder = lambda name, data_dir: builder
    module.download = SimpleNamespace(DownloadConfig=dict, DownloadError=DownloadError)
    module.as_numpy = lambda examples: examples
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)


def assert_names_the_three_ways_out(message):
    for way in ("cifar10/3.0.2", "cifar-10-binary.tar.gz", "one run with a network"):
        assert way in message
    assert "\n" not in message


def test_cifar10_without_tensorflow_datasets_names_the_extra_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(InputError, match=r"pip install tf_decoupled\[tfds\]"):
        data.load("cifar10")


def test_cifar10_without_a_module_that_preparing_needs_names_the_extra(monkeypatch, tmp_path):
    missing = ModuleNotFoundError("No module named 'importlib_resources'")
    install(monkeypatch, StandInBuilder(prepared=False, failure=missing))
    monkeypatch.setattr(data.urllib.request, "getproxies", lambda: {"https": "proxy"})
    with pytest.raises(InputError, match=r"importlib_resources.*pip install tf_decoupled\[tfds\]"):
        data.load("cifar10", str(tmp_path))


@pytest.mark.usefixtures("offline")
def test_a_prepared_cifar10_is_read_offline_in_its_official_order(monkeypatch, tmp_path):
    install(monkeypatch, StandInBuilder(prepared=True))
    cifar10 = data.load("cifar10", str(tmp_path))
    assert [np.bincount(s.labels).tolist() for s in cifar10[1:4]] == [[9] * 10, [1] * 10, [10] * 10]
    np.testing.assert_array_equal(cifar10.test.images, cifar_images(100))
    np.testing.assert_array_equal(cifar10.test.labels, np.arange(100) % 10)
    assert cifar10.test.images.dtype == np.uint8 and cifar10.test.labels.dtype == np.int64


@pytest.mark.usefixtures("offline")
def test_an_archive_of_cifar10_is_prepared_offline(monkeypatch, tmp_path):
    builder = StandInBuilder(prepared=False)
    install(monkeypatch, builder)
    (tmp_path / data.CIFAR10_ARCHIVE).write_bytes(b"right")
    assert len(data.load("cifar10", str(tmp_path)).test.labels) == 100
    assert builder.config == dict(manual_dir=tmp_path, try_download_gcs=False)


@pytest.mark.usefixtures("offline")
def test_a_wrong_archive_of_cifar10_is_named(monkeypatch, tmp_path):
    install(monkeypatch, StandInBuilder(prepared=False))
    (tmp_path / data.CIFAR10_ARCHIVE).write_bytes(b"wrong")
    with pytest.raises(InputError, match=r"cifar-10-binary.tar.gz has SHA-256 .*, and ") as failure:
        data.load("cifar10", str(tmp_path))
    assert_names_the_three_ways_out(str(failure.value))


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("with_folder", [False, True])
def test_cifar10_unprepared_and_offline_names_the_three_ways(monkeypatch, tmp_path, with_folder):
    install(monkeypatch, StandInBuilder(prepared=False))
    with pytest.raises(InputError, match=r"can't be reached \(Name or service") as failure:
        data.load("cifar10", str(tmp_path) if with_folder else None)
    assert_names_the_three_ways_out(str(failure.value))


@pytest.mark.usefixtures("offline")
def test_cifar10_does_not_wait_for_a_host_that_never_answers(monkeypatch, tmp_path):
    install(monkeypatch, StandInBuilder(prepared=False))
    end = threading.Event()

    def hang(*_, **__):
        end.wait(60)
        raise OSError("never seen")

    monkeypatch.setattr(data.socket, "create_connection", hang)
    monkeypatch.setattr(data, "PROBE_SECONDS", 0.1)
    start = time.monotonic()
    with pytest.raises(InputError, match=r"can't be reached \(no answer\)"):
        data.load("cifar10", str(tmp_path))
    assert time.monotonic() - start < 5
    end.set()


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("proxy", ["https", "all"])
def test_behind_a_proxy_cifar10_is_downloaded_without_a_probe(monkeypatch, tmp_path, proxy):
    install(monkeypatch, StandInBuilder(prepared=False))
    monkeypatch.setattr(data.urllib.request, "getproxies", lambda: {proxy: "http://proxy"})
    assert len(data.load("cifar10", str(tmp_path)).test.labels) == 100


@pytest.mark.parametrize("error", [ConnectionError, DownloadError])
def test_a_failed_download_of_cifar10_names_the_three_ways(monkeypatch, tmp_path, error):
    install(monkeypatch, StandInBuilder(prepared=False, failure=error("proxy is gone")))
    monkeypatch.setattr(data.urllib.request, "getproxies", lambda: {"https": "http://proxy"})
    with pytest.raises(InputError, match="can't be prepared: proxy is gone") as failure:
        data.load("cifar10", str(tmp_path))
    assert_names_the_three_ways_out(str(failure.value))


def test_a_missing_folder_for_cifar10_is_named(monkeypatch, tmp_path):
    install(monkeypatch, StandInBuilder(prepared=True))
    with pytest.raises(InputError, match=r"no folder .*nowhere\. Three ways"):
        data.load("cifar10", str(tmp_path / "nowhere"))


def write_archive(path):
    """Five files of 20 training images and one of 20 test images, in CIFAR-10's binary format."""
    labels, pixels = np.arange(120) % 10, cifar_images(120)
    records = np.hstack([labels[:, None], pixels.transpose(0, 3, 1, 2).reshape(120, -1)])
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    files = {
        n: r.astype(np.uint8).tobytes() for n, r in zip(names, np.split(records, 6), strict=True)
    }
    files["batches.meta.txt"] = "\n".join(f"class {i}" for i in range(10)).encode()
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


@pytest.mark.usefixtures("offline")
def test_tensorflow_datasets_prepares_and_reads_an_archive_in_the_binary_format(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    path = tmp_path / data.CIFAR10_ARCHIVE
    write_archive(path)
    url_infos = tfds.builder("cifar10", data_dir=tmp_path).url_infos
    ((url, url_info),) = url_infos.items()
    content = path.read_bytes()
    changed = type(url_info)(
        size=len(content), checksum=hashlib.sha256(content).hexdigest(), filename=path.name
    )
    with mock.patch.dict(url_infos, {url: changed}):
        first = data.load("cifar10", str(tmp_path))
    path.unlink()
    again = data.load("cifar10", str(tmp_path))
    for a, b in zip(first[1:4], again[1:4], strict=True):
        np.testing.assert_array_equal(a.images, b.images)
    assert [len(s.labels) for s in first[1:4]] == [90, 10, 20]
    np.testing.assert_array_equal(first.test.images, cifar_images(120)[100:])
    np.testing.assert_array_equal(first.test.labels, np.arange(20) % 10)
