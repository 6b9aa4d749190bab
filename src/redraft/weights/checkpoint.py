"""Reads checkpoints. Names, shapes and dtypes are checked against the config before any data are read."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from redraft.model.config import ModelConfig
from redraft.model.linear.quantized import Form, QuantizedMatrix, is_quantized, set_matrix
from redraft.model.transformer import Transformer
from redraft.utils.json_files import read_json_object
from redraft.weights.config.file import (
    parse_config,
    parse_quantization,
    read_config_json,
    read_generation_config,
)
from redraft.weights.config.keys import CONFIG_FILE
from redraft.weights.storage.header import FileStamp, StoredTensor, read_header
from redraft.weights.storage.names import checkpoint_name, is_tied_copy, is_unused, scale_name
from redraft.weights.storage.publish import finish_interrupted

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
READABLE_DTYPES = ("F32", "BF16", "F16", "F64", "F8_E4M3")
DTYPE_NAMES = {
    torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int8: "I8", torch.uint8: "U8",
    torch.float8_e4m3fn: "F8_E4M3",
}  # fmt: skip
"""The names in safetensors files of the dtypes that are read and written."""
_MAX_NAMES_SHOWN = 5
_FINITE_CHECK_CHUNK = 2**24


@dataclass(frozen=True)
class Checkpoint:
    """An open checkpoint, whose names, shapes and dtypes match its config.

    `original` is config.json as it was read. `tensors` are the model's tensors, by their names in
    `Transformer.state_dict`; `unused` are those of the vision tower, by their names in the file. `bits` is None, or the
    bits per weight of a quantized checkpoint's matrices; `tensors` then has the values of a matrix under its name and
    its scales under `scale_name`.
    """

    folder: Path
    config: ModelConfig
    original: Mapping[str, object]
    tensors: Mapping[str, StoredTensor]
    unused: Mapping[str, StoredTensor]
    bits: int | None

    @classmethod
    def open(cls, folder: Path | str) -> "Checkpoint":
        """Reads the config and the headers. Raises ValueError, with file and tensor, for anything that does not match.

        A save into this folder that was killed after its commit is finished first.
        """
        folder = Path(folder)
        finish_interrupted(folder)
        original = read_config_json(folder)
        stamp = FileStamp.of(folder / CONFIG_FILE)
        config = parse_config(original, read_generation_config(folder), folder=folder)
        stored = _read_headers(folder)
        bits = parse_quantization(original, folder=folder)
        tensors = _match_tensors(folder, _expected_tensors(config.parameter_shapes(), bits), stored)
        # A save removes config.json first and replaces it last: if it is unchanged, so is all that was read here.
        check_unchanged(folder / CONFIG_FILE, stamp)
        unused = {name: one for name, one in stored.items() if is_unused(name)}
        return cls(folder, config, original, tensors, unused, bits)

    @property
    def num_bytes(self) -> int:
        """The size of the model's tensors as stored, in bytes."""
        return sum(tensor.num_bytes for tensor in self.tensors.values())

    def load(self, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """Loads the model's tensors, by their names in `Transformer.state_dict`, in `dtype`.

        None keeps the stored dtype, except that 8-bit floats become bfloat16, which represents them exactly. On the
        CPU, tensors that need no conversion are private views of the memory-mapped file; others are converted one at a
        time, so that memory peaks at the result plus one tensor. Raises ValueError for a tensor with NaN or infinite
        values (also if only the conversion to `dtype` made them so), if a file was replaced since `open`, and if the
        checkpoint is quantized.
        """
        self.check_unquantized()
        return self._load(dtype, device)

    def load_into(
        self, model: Transformer, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
    ) -> None:
        """Loads the tensors, as `load` does, into `model`, which has this config and is on the meta device.

        Quantized matrices stay as stored, on the CPU as views of the file. Only `prepare` can use such a model.
        """
        loaded = self._load(dtype, device)
        if self.bits is not None:
            for name, shape in self.config.parameter_shapes().items():
                if is_quantized(name):
                    values, scale = loaded.pop(name), loaded.pop(scale_name(name))
                    set_matrix(model, name, QuantizedMatrix(self.bits, shape[-1], values, scale))
        model.load_state_dict(loaded, assign=True)

    def check_unquantized(self) -> None:
        """Raises ValueError if the checkpoint is quantized: rounding cannot be undone."""
        if self.bits is not None:
            raise ValueError(
                f"{self.folder} is quantized to {self.bits} bits: it can be run, but not trained, saved or quantized; "
                "use the checkpoint that it was made from, or train an adapter beside it"
            )

    def _load(self, dtype: torch.dtype | None, device: torch.device | str) -> dict[str, Tensor]:
        loaded = {}
        kept = set() if self.bits is None else set(filter(is_quantized, self.tensors))
        kept |= set(map(scale_name, kept))
        for name, tensor in self._mapped():
            wanted = dtype or (torch.bfloat16 if tensor.dtype == torch.float8_e4m3fn else None)
            converted = tensor.to(device=device, dtype=None if name in kept else wanted)
            # Integers are always finite, and checking them would read them from the disk.
            if converted.is_floating_point() and not all_finite(converted):
                stored = self.tensors[name]
                raise ValueError(
                    f"{stored.file}: tensor {stored.name} ({stored.dtype}) holds NaN or infinite values"
                    f"{'' if dtype is None else f' as {dtype}'}; the checkpoint is damaged"
                    f"{'' if dtype != torch.float16 else ', or its values are too large for float16: use bfloat16'}"
                )
            loaded[name] = converted
        return {name: loaded[name] for name in self.tensors}

    def _mapped(self) -> Iterator[tuple[str, Tensor]]:
        by_file = sorted(self.tensors, key=lambda name: (self.tensors[name].file, self.tensors[name].start))
        for path, names in groupby(by_file, key=lambda name: self.tensors[name].file):
            with safe_open(path, framework="pt") as file:
                for name in names:
                    stored = self.tensors[name]
                    # Checked after the file is mapped: a file that replaces it from now on is not the mapped one.
                    check_unchanged(stored.file, stored.stamp)
                    yield name, file.get_tensor(stored.name)


def load_model(
    folder: Path | str | Checkpoint, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> Transformer:
    """Loads a model from a folder or an open checkpoint, in eval mode and without gradients.

    A quantized model must be prepared before it can run. Raises the errors of `Checkpoint`.
    """
    checkpoint = folder if isinstance(folder, Checkpoint) else Checkpoint.open(folder)
    with torch.device("meta"):
        model = Transformer(checkpoint.config)
    checkpoint.load_into(model, dtype, device)
    return model.eval().requires_grad_(False)


def check_unchanged(path: Path, stamp: FileStamp) -> None:
    """Raises ValueError if the file is no longer the one that `stamp` describes."""
    if not path.is_file() or FileStamp.of(path) != stamp:
        raise ValueError(f"{path} has changed since it was opened; open the checkpoint again")


def all_finite(tensor: Tensor) -> bool:
    """Tells whether no element is NaN or infinite. Works in chunks, because the test itself needs memory."""
    parts = torch.split(tensor.reshape(-1), _FINITE_CHECK_CHUNK)
    if tensor.dtype == torch.float8_e4m3fn:  # torch has no isfinite for it
        parts = tuple(part.bfloat16() for part in parts)
    return all(bool(part.isfinite().all()) for part in parts)


def _read_headers(folder: Path) -> dict[str, StoredTensor]:
    """Returns a folder's tensors by their names in its files, which are one file or an index and its shards."""
    single, index = folder / WEIGHTS_FILE, folder / INDEX_FILE
    if single.is_file() and index.is_file():
        raise ValueError(f"{folder} has both {WEIGHTS_FILE} and {INDEX_FILE}: remove the outdated one")
    if single.is_file():
        return read_header(single)
    if not index.is_file():
        others = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.gguf") for path in folder.glob(pattern))
        hint = f"; {others[0]} is not read: convert it to safetensors" if others else ""
        raise ValueError(f"{folder} has neither {WEIGHTS_FILE} nor {INDEX_FILE}{hint}")
    return _read_sharded_headers(folder, index)


def _read_sharded_headers(folder: Path, index: Path) -> dict[str, StoredTensor]:
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{index}: weight_map must be an object of tensor name to file name")
    for name, file in weight_map.items():
        # Plain names only: a path could lead anywhere. (Links are fine: the hub's cache consists of them.)
        if not isinstance(file, str) or Path(file).name != file or "\\" in file or not file.endswith(".safetensors"):
            raise ValueError(f"{index}: tensor {name} is in {file!r}, must be a .safetensors file beside it")
    tensors: dict[str, StoredTensor] = {}
    for file in sorted(set(weight_map.values())):
        for name, tensor in read_header(folder / file).items():
            if weight_map.get(name) != file:
                raise ValueError(f"{tensor.file} holds tensor {name}, which the index puts in {weight_map.get(name)}")
            tensors[name] = tensor
    if missing := [name for name in weight_map if name not in tensors]:
        raise ValueError(f"{index}: {_summarize(missing)} not in the file that the index names")
    return tensors


def _expected_tensors(
    shapes: Mapping[str, tuple[int, ...]], bits: int | None
) -> dict[str, tuple[tuple[int, ...], Sequence[str]]]:
    """Returns the shape and the accepted dtypes of each tensor in the file, by our names."""
    forms: dict[str, tuple[tuple[int, ...], Sequence[str]]] = {}
    for name, shape in shapes.items():
        if bits is None or not is_quantized(name):
            forms[name] = shape, READABLE_DTYPES
        else:
            form = Form.of(shape, bits)
            forms[name] = form.values, (DTYPE_NAMES[form.values_dtype],)
            forms[scale_name(name)] = form.scale, (DTYPE_NAMES[form.scale_dtype],)
    return forms


def _match_tensors(
    folder: Path, forms: Mapping[str, tuple[tuple[int, ...], Sequence[str]]], stored: Mapping[str, StoredTensor]
) -> dict[str, StoredTensor]:
    wanted = {checkpoint_name(name): name for name in forms}
    if missing := [name for name in wanted if name not in stored]:
        raise ValueError(f"{folder} lacks {_summarize(missing)} that config.json requires")
    others = [name for name in stored if name not in wanted and not is_unused(name)]
    if unexpected := [name for name in others if not is_tied_copy(name, wanted)]:
        raise ValueError(f"{folder} holds {_summarize(unexpected)} that config.json has no place for")
    tensors = {ours: stored[name] for name, ours in wanted.items()}
    wrong: dict[str, list[str]] = {"shape": [], "dtype": []}
    for name, tensor in tensors.items():
        (shape, dtypes), where = forms[name], f"{tensor.name} in {tensor.file.name}"
        if tensor.shape != shape:
            wrong["shape"].append(f"{where} is {list(tensor.shape)}, not {list(shape)}")
        if tensor.dtype not in dtypes:
            wrong["dtype"].append(f"{where} is {tensor.dtype}, not {' or '.join(dtypes)}")
    for noun, found in wrong.items():
        if found:
            raise ValueError(f"{folder} does not fit its config.json: {_summarize(found, noun)}")
    return tensors


def _summarize(items: Iterable[str], noun: str = "tensor") -> str:
    found = list(items)
    shown = ", ".join(found[:_MAX_NAMES_SHOWN]) + (", …" if len(found) > _MAX_NAMES_SHOWN else "")
    return f"{len(found)} {noun}{'' if len(found) == 1 else 's'} ({shown})"
