"""Checkpoints in every form that can be read: which one it is, and the parameters in it.

Only parameters are read, never optimizer states. Nothing is unpickled or evaluated, and the paths
that a checkpoint names stay inside it.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from ait_jax.errors import UserError, shown_path
from ait_jax.models import parameters
from ait_jax.models.checkpoints import (
    gguf_weights,
    hugging_face,
    hugging_face_folder,
    llama_settings,
    llama_weights,
    orbax_checkpoint,
    t5x_legacy,
    weights,
)
from ait_jax.models.checkpoints.stored_arrays import StoredParams
from ait_jax.models.interface import Params
from ait_jax.models.llama import LlamaConfig
from ait_jax.models.t5 import T5Config
from ait_jax.prompts.gguf_header import is_gguf
from ait_jax.runtime import files, untrusted

_STEP_FOLDER = re.compile(r"checkpoint_(\d+)$")
_SAFETENSORS = "model.safetensors"

# The forms of checkpoints, and what to call them.
FORMS = {
    "t5x": "a T5X legacy checkpoint",
    "orbax": "an Orbax checkpoint",
    "hugging_face": "a Hugging Face folder",
    "safetensors": "a safetensors file",
    "gguf": "a GGUF file",
}


def _open_hugging_face(folder: Any) -> StoredParams:
    """Returns the parameters of a T5's or a decoder-only model's folder."""
    kind = hugging_face_folder.read_settings(folder).get("model_type")
    if isinstance(kind, str) and kind in llama_settings.FAMILIES:
        return llama_weights.open_folder(folder)
    return hugging_face.open_params(folder)


_OPENERS = {
    "t5x": t5x_legacy.open_params,
    "orbax": orbax_checkpoint.open_params,
    "hugging_face": _open_hugging_face,
    "safetensors": weights.open_weights,
    "gguf": gguf_weights.open_file,
}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, none of whose parameters is read yet.

    Attributes:
        form: a key of FORMS; place: the very folder or file.
        step: of a checkpoint_<step> folder, else None.
        stored: what it holds.
        layout: of its layers, as `parameters.layout_of`.
    """

    form: str
    place: Any
    step: int | None
    stored: StoredParams
    layout: str

    @property
    def config(self) -> T5Config | LlamaConfig | None:
        """Of the model, where the form states it."""
        return self.stored.config

    def load(self, dtype: Any = np.float32) -> Params:
        """Returns all parameters on the host.

        Args:
            dtype: what the arrays are cast to; None keeps what is stored.

        Returns:
            Nested dict of numpy arrays under T5X's names, with layers one by one or stacked.

        Raises:
            UserError: an incomplete checkpoint.
        """
        params = self.stored.load(self.stored.shapes, dtype)
        if self.layout == parameters.SCALABLE:
            params = parameters.from_scalable(params, self.place)
        return parameters.unflatten(params)


def open_checkpoint(path: Any) -> Checkpoint:
    """Returns what is there, in whatever form; `path` as in `find`.

    Raises:
        UserError: nothing there, no checkpoint, or an incomplete one.
    """
    form, place = find(path)
    stored = _OPENERS[form](place)
    folder = place if place.is_dir() else place.parent
    layout = parameters.layout_of(stored.shapes)
    return Checkpoint(form, place, step_of(folder), stored, layout)


def find(path: Any) -> tuple[str, Any]:
    """Returns the form of a checkpoint (a key of FORMS) and the very folder or file it is.

    Args:
        path: a `checkpoint_<step>` folder of T5X (legacy or Orbax) or of our trainer, the
            folder that holds such folders (the complete one of the highest step is taken), a
            Hugging Face folder, a safetensors file, a folder with `model.safetensors`, or a
            GGUF file.

    Raises:
        UserError: nothing there, or no checkpoint.
    """
    path = files.as_path(path)
    if not path.exists():
        raise UserError(f"No checkpoint at {shown_path(path)}: there is no such file or folder.")
    if path.is_file():
        if path.name == t5x_legacy.INDEX:
            return "t5x", path.parent
        return ("gguf" if is_gguf(path) else "safetensors"), path
    if not path.is_dir():
        raise UserError(f"{shown_path(path)} is neither a file nor a folder.")
    form = _form(path)
    if form is None:
        path, form = _newest_checkpoint(path)
    return form, path / _SAFETENSORS if form == "safetensors" else path


def _newest_checkpoint(directory: Any) -> tuple[Any, str]:
    """Returns the complete `checkpoint_<step>` folder of the highest step, and its form.

    Folders that a writer left unfinished (temporary names, no index) are passed over.

    Raises:
        UserError: there is none.
    """
    children = [child for child in directory.iterdir() if child.is_dir()]
    steps = {step: child for child in children if (step := step_of(child)) is not None}
    for step in sorted(steps, reverse=True):
        form = _form(steps[step])
        if form is not None:
            untrusted.check_inside(directory, steps[step])
            return steps[step], form
    if steps:
        names = ", ".join(sorted(child.name for child in steps.values()))
        raise UserError(f"{shown_path(directory)} holds only incomplete checkpoints ({names}).")
    if step_of(directory) is not None:
        raise UserError(
            f"{shown_path(directory)} is an incomplete checkpoint: it has neither T5X's index file "
            "'checkpoint' nor Orbax's '_METADATA'. Copy it again or name an older step."
        )
    raise UserError(
        f"No checkpoint in {shown_path(directory)}; give a checkpoint_<step> folder of T5X or "
        "ait-jax, a folder of such folders, a Hugging Face folder with its config.json, a "
        "safetensors or a GGUF file."
    )


def step_of(folder: Any) -> int | None:
    """Returns the step in the name of a `checkpoint_<step>` folder, None for another name."""
    match = _STEP_FOLDER.match(folder.name)
    return int(match[1]) if match else None


def _form(directory: Any) -> str | None:
    if (directory / t5x_legacy.INDEX).is_file():
        return "t5x"
    if orbax_checkpoint.trees(directory):
        return "orbax"
    if hugging_face_folder.is_folder(directory):
        return "hugging_face"
    if (directory / _SAFETENSORS).is_file():
        return "safetensors"
    return None
