"""A SavedModel that serves, and that trains on from where it was exported."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_decoupled.experiments import data, loop
from tf_decoupled.experiments.files import writing


class Exported(tf.Module):
    """Model and optimizer of a loop, with the signatures `train` and `serve`.

        train(images, labels) -> loss, error          one update, with the optimizer's state
        serve(images)         -> logits, probabilities                        float32 [n, classes]

    images: uint8 [n, height, width, channels] as the dataset has them, labels: int64 [n].
    Of a user's own data they are as those are; a user's own model serves its `outputs`.
    `dataset` is the raw one that the loop was trained on; its standardisation is exported too.
    """

    def __init__(self, trained: loop.Loop, dataset: data.Dataset):
        super().__init__(name="exported")
        self.model, self.optimizer_state = trained.model, trained.optimizer.variables
        self.model_state = [variable.value for variable in self.model.variables]  # random ones, too
        self.as_given, raw = dataset.as_given, dataset.train.images
        if not self.as_given:
            self.scale, self.shift = map(tf.constant, scaling(dataset))
        images = tf.TensorSpec([None, *raw.shape[1:]], raw.dtype, name="images")
        labels = tf.TensorSpec([None], tf.int64, name="labels")

        @tf.function(input_signature=[images, labels], autograph=False)
        def train(images, labels):
            loss, error = trained.step(self._standardised(images), labels)
            return {"loss": loss, "error": error}

        @tf.function(input_signature=[images], autograph=False)
        def serve(images):
            logits = self.model(self._standardised(images), training=False)
            if self.model.compiled:  # a user's own: only its loss knows what it returns
                return {"outputs": logits}
            return {"logits": logits, "probabilities": tf.nn.softmax(logits)}

        self.train, self.serve = train, serve

    def _standardised(self, images: tf.Tensor) -> tf.Tensor:
        if self.as_given:
            return images
        return tf.cast(images, tf.float32) * self.scale + self.shift

    def save(self, folder: Path) -> None:
        """Writes the SavedModel. Raises `InputError` where the folder can't be written."""
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            tf.saved_model.save(
                self, str(folder), signatures={"train": self.train, "serve": self.serve}
            )


def scaling(dataset: data.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """scale and shift, float32 [channels], with which `data.standardise` maps images."""
    black = np.zeros_like(dataset.train.images[:1, :1, :1])
    probes = [data.Split(image, np.zeros(1, np.int64)) for image in (black, black + 255)]
    probed = data.standardise(dataset._replace(validation=probes[0], test=probes[1]))
    shift = probed.validation.images.ravel()
    return (probed.test.images.ravel() - shift) / np.float32(255), shift
