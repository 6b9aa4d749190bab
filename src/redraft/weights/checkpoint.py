"""Reading a checkpoint: everything about it is checked against its config before any data are read."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from redraft.model import ModelConfig, Transformer
from redraft.model.linear.quantized import Form, QuantizedMatrix, is_quantized, set_matrix
from redraft.utils.json_files import read_json_object
from redraft.weights.config.file import (
    CONFIG_FILE,
    parse_config,
    parse_quantization,
    read_config_json,
    read_generation_config,
)
from redraft.weights.storage.header import FileStamp, StoredTensor, read_header
from redraft.weights.storage.names import checkpoint_name, is_tied_copy, is_unused, scale_name
from redraft.weights.storage.publish import finish_interrupted

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
READABLE = ("F32", "BF16", "F16", "F64", "F8_E4M3")
STORED_AS = {
    torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int8: "I8", torch.uint8: "U8",
    torch.float8_e4m3fn: "F8_E4M3",
}  # fmt: skip
"""How files spell the dtypes that are written."""
_SHOWN = 5
_FINITE_CHUNK = 2**24


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose names, shapes and dtypes have been found to be what its config needs.

    `original` is config.json as it was read; `tensors` are the model's, by the names of `Transformer.state_dict`;
    `unused` are those of the vision part, by the names they have in the file. `bits` says in how many a quantized
    checkpoint's matrices are; `tensors` then has their values by their names and their scales by `scale_name`.
    """

    folder: Path
    config: ModelConfig
    original: Mapping[str, object]
    tensors: Mapping[str, StoredTensor]
    unused: Mapping[str, StoredTensor]
    bits: int | None

    @classmethod
    def open(cls, folder: Path | str) -> "Checkpoint":
        """Reads config and headers. Raises ValueError naming file and tensor for whatever does not fit.

        Where a save into this folder was killed in its last moments, it is finished first.
        """
        folder = Path(folder)
        finish_interrupted(folder)
        original = read_config_json(folder)
        stamp = FileStamp.of(folder / CONFIG_FILE)
        config = parse_config(original, read_generation_config(folder), folder=folder)
        stored = _stored_tensors(folder)
        bits = parse_quantization(original, folder=folder)
        tensors = _match(folder, _forms(config.parameter_shapes(), bits), stored)
        # config.json is what a save removes first and puts back last: if it stayed, so did all that was read here.
        check_unchanged(folder / CONFIG_FILE, stamp)
        unused = {name: one for name, one in stored.items() if is_unused(name)}
        return cls(folder, config, original, tensors, unused, bits)

    @property
    def num_bytes(self) -> int:
        """Bytes of the model's tensors as stored."""
        return sum(tensor.num_bytes for tensor in self.tensors.values())

    def load(
        self,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        *,
        check_finite: bool = True,
    ) -> dict[str, Tensor]:
        """The model's tensors as `Transformer.state_dict` names them, in `dtype` (None: as stored, but floats of 8
        bits, which nothing computes with, in bfloat16, which has all their values).

        On the CPU tensors that need no conversion are views of the memory-mapped file, private to this process; others
        are converted one after the other, so that memory peaks at the result plus one tensor. Raises ValueError naming
        the tensor that holds NaN or infinity, be it that `dtype` cannot hold a value, if a file was replaced since
        `open`, and for a quantized checkpoint.
        """
        self.check_unquantized()
        return self._load(dtype, device, check_finite)

    def load_into(
        self,
        model: Transformer,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        *,
        check_finite: bool = True,
    ) -> None:
        """Gives `model`, of this config and on the meta device, its tensors as `load` describes.

        Quantized matrices are taken as they are stored, views of the file on the CPU; `prepare` knows what to do with
        them, nothing else does.
        """
        loaded = self._load(dtype, device, check_finite)
        if self.bits is not None:
            for name, shape in self.config.parameter_shapes().items():
                if is_quantized(name):
                    values, scale = loaded.pop(name), loaded.pop(scale_name(name))
                    set_matrix(model, name, QuantizedMatrix(self.bits, shape[-1], values, scale))
        model.load_state_dict(loaded, assign=True)

    def check_unquantized(self) -> None:
        """ValueError if it is quantized: what was rounded does not come back."""
        if self.bits is not None:
            raise ValueError(
                f"{self.folder} is quantized to {self.bits} bits: it can run, not be trained, saved or quantized; take "
                "the checkpoint that it was made from"
            )

    def _load(self, dtype: torch.dtype | None, device: torch.device | str, check_finite: bool) -> dict[str, Tensor]:
        loaded = {}
        kept = set() if self.bits is None else set(filter(is_quantized, self.tensors))
        kept |= set(map(scale_name, kept))
        for name, tensor in self._mapped():
            wanted = dtype or (torch.bfloat16 if tensor.dtype == torch.float8_e4m3fn else None)
            converted = tensor.to(device=device, dtype=None if name in kept else wanted)
            # Of whole numbers there is nothing to check, and they need not be read yet.
            if check_finite and converted.is_floating_point() and not all_finite(converted):
                stored = self.tensors[name]
                raise ValueError(
                    f"{stored.file}: tensor {stored.name} ({stored.dtype}) holds NaN or infinite values"
                    f"{'' if dtype is None else f' as {dtype}'}; the checkpoint is damaged"
                    f"{'' if dtype != torch.float16 else ', or too large for float16: take bfloat16'}"
                )
            loaded[name] = converted
        return {name: loaded[name] for name in self.tensors}

    def _mapped(self) -> Iterator[tuple[str, Tensor]]:
        by_file = sorted(self.tensors, key=lambda name: (self.tensors[name].file, self.tensors[name].start))
        for path, names in groupby(by_file, key=lambda name: self.tensors[name].file):
            with safe_open(path, framework="pt") as file:
                for name in names:
                    stored = self.tensors[name]
                    # Looked at after the file was mapped: whatever replaces it from now on is not what is mapped.
                    check_unchanged(stored.file, stored.stamp)
                    yield name, file.get_tensor(stored.name)


def load_model(
    folder: Path | str | Checkpoint,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    *,
    check_finite: bool = True,
) -> Transformer:
    """The model in `folder`, or of a checkpoint that is open, in eval mode, without gradients.

    That of a quantized checkpoint can only be prepared. Errors are those of `Checkpoint`.
    """
    checkpoint = folder if isinstance(folder, Checkpoint) else Checkpoint.open(folder)
    with torch.device("meta"):
        model = Transformer(checkpoint.config)
    checkpoint.load_into(model, dtype, device, check_finite=check_finite)
    return model.eval().requires_grad_(False)


def check_unchanged(path: Path, stamp: FileStamp) -> None:
    """Raises ValueError if the file is no longer the one that `stamp` was taken of."""
    if not path.is_file() or FileStamp.of(path) != stamp:
        raise ValueError(f"{path} has changed since it was opened; open the checkpoint again")


def all_finite(tensor: Tensor) -> bool:
    """Whether no element is NaN or infinite; looks at a part at a time, as the test itself needs memory."""
    parts = torch.split(tensor.reshape(-1), _FINITE_CHUNK)
    if tensor.dtype == torch.float8_e4m3fn:  # which torch does not test
        parts = tuple(part.bfloat16() for part in parts)
    return all(bool(part.isfinite().all()) for part in parts)


def _stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """All tensors of the folder by their names in the files, from one file or from an index and its shards."""
    single, index = folder / WEIGHTS_FILE, folder / INDEX_FILE
    if single.is_file() and index.is_file():
        raise ValueError(f"{folder} has both {WEIGHTS_FILE} and {INDEX_FILE}: remove the one that is out of date")
    if single.is_file():
        return read_header(single)
    if not index.is_file():
        others = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.gguf") for path in folder.glob(pattern))
        hint = f"; {others[0]} is not read: convert it to safetensors" if others else ""
        raise ValueError(f"{folder} has neither {WEIGHTS_FILE} nor {INDEX_FILE}{hint}")
    return _sharded_tensors(folder, index)


def _sharded_tensors(folder: Path, index: Path) -> dict[str, StoredTensor]:
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{index}: weight_map must be an object of tensor name to file name")
    for name, file in weight_map.items():
        # Only plain names: a path could lead anywhere. (Links in the folder are fine: the hub's cache is made of them.)
        if not isinstance(file, str) or Path(file).name != file or "\\" in file or not file.endswith(".safetensors"):
            raise ValueError(f"{index}: tensor {name} is said to be in {file!r}, must be a .safetensors file beside it")
    tensors: dict[str, StoredTensor] = {}
    for file in sorted(set(weight_map.values())):
        for name, tensor in read_header(folder / file).items():
            if weight_map.get(name) != file:
                raise ValueError(f"{tensor.file} holds tensor {name}, which the index puts in {weight_map.get(name)}")
            tensors[name] = tensor
    if missing := [name for name in weight_map if name not in tensors]:
        raise ValueError(f"{index}: {_listed(missing)} not in the file that the index names")
    return tensors


def _forms(shapes: Mapping[str, tuple[int, ...]], bits: int | None) -> dict[str, tuple[tuple[int, ...], Sequence[str]]]:
    """Shape and dtypes that each tensor may have in the file, by our names."""
    forms: dict[str, tuple[tuple[int, ...], Sequence[str]]] = {}
    for name, shape in shapes.items():
        if bits is None or not is_quantized(name):
            forms[name] = shape, READABLE
        else:
            form = Form.of(shape, bits)
            forms[name] = form.values, (STORED_AS[form.values_dtype],)
            forms[scale_name(name)] = form.scale, (STORED_AS[form.scale_dtype],)
    return forms


def _match(
    folder: Path, forms: Mapping[str, tuple[tuple[int, ...], Sequence[str]]], stored: Mapping[str, StoredTensor]
) -> dict[str, StoredTensor]:
    """The stored tensors by our names. Raises ValueError unless they are exactly what the config needs."""
    wanted = {checkpoint_name(name): name for name in forms}
    if missing := [name for name in wanted if name not in stored]:
        raise ValueError(f"{folder} lacks {_listed(missing)} that config.json asks for")
    others = [name for name in stored if name not in wanted and not is_unused(name)]
    if unexpected := [name for name in others if not is_tied_copy(name, wanted)]:
        raise ValueError(f"{folder} holds {_listed(unexpected)} that config.json has no place for")
    tensors = {ours: stored[name] for name, ours in wanted.items()}
    if wrong := [
        f"{tensor.name} in {tensor.file.name} is {list(tensor.shape)}, not {list(forms[name][0])}"
        for name, tensor in tensors.items()
        if tensor.shape != forms[name][0]
    ]:
        raise ValueError(f"{folder} does not fit its config.json: {_listed(wrong, noun='shape')}")
    if wrong := [
        f"{tensor.name} in {tensor.file.name} is {tensor.dtype}, not {' or '.join(forms[name][1])}"
        for name, tensor in tensors.items()
        if tensor.dtype not in forms[name][1]
    ]:
        raise ValueError(f"{folder} does not fit its config.json: {_listed(wrong, noun='dtype')}")
    return tensors


def _listed(items: Iterable[str], noun: str = "tensor") -> str:
    """Number and names of some items, for instance "3 tensors (a, b, c)"; only the first few are named."""
    found = list(items)
    shown = ", ".join(found[:_SHOWN]) + (", …" if len(found) > _SHOWN else "")
    return f"{len(found)} {noun}{'' if len(found) == 1 else 's'} ({shown})"
