"""Builds the Fashion-MNIST subset that tf_decoupled ships, from the four official files.

    python benchmarks/build_fashion_mnist_small.py --data-dir DIR [--output FILE]

DIR holds the IDX files as Debian's package `dataset-fashion-mnist` or Zalando's repository has
them; their decompressed bytes are checked by SHA-256. The images are drawn class by class with
fixed seeds, and the file carries no time, so building it again gives the same bytes.
"""

import argparse
import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np

from tf_decoupled.experiments import data

OUTPUT = Path(data.__file__).parent / "fashion_mnist_small" / "fashion_mnist_small.npz"


def subset(official_train: data.Split, test: data.Split) -> dict[str, np.ndarray]:
    """500 + 100 + 1,000 images of every class: train, validation, test. Labels are uint8."""
    _, drawn = data.hold_out(official_train, 10)
    train, validation = data.hold_out(drawn, 6)
    splits = {"train": train, "validation": validation, "test": test}
    return {
        f"{name}_{part}": array.astype(np.uint8)
        for name, split in splits.items()
        for part, array in split._asdict().items()
    }


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """As `np.savez_compressed`, without the time of writing."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, content.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", default=data.FASHION_MNIST_DIR)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    arrays = subset(*data.read_fashion_mnist(arguments.data_dir))
    write_npz(arguments.output, arrays)
    for name, array in arrays.items():
        print(f"{name:18} {array.shape!s:20} {hashlib.sha256(array.tobytes()).hexdigest()}")
    print(f"{arguments.output}: {arguments.output.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
