"""Reads, checks, writes, quantizes and downloads checkpoints, and computes their sizes."""

from redraft.weights.checkpoint import Checkpoint, load_model
from redraft.weights.config.file import (
    config_to_json,
    parse_config,
    read_config,
    read_generation_config,
    write_generation_config,
)
from redraft.weights.fetch import fetch_config, resolve
from redraft.weights.memory import MachineMemory, check_available, check_fits, machine_memory
from redraft.weights.quantize import quantize_checkpoint
from redraft.weights.save import COMPANION_FILES, copy_companions, save_checkpoint
from redraft.weights.sizes import ModelSizes
from redraft.weights.storage.header import StoredTensor
from redraft.weights.storage.names import checkpoint_name

__all__ = [
    "COMPANION_FILES",
    "Checkpoint",
    "MachineMemory",
    "ModelSizes",
    "StoredTensor",
    "check_available",
    "check_fits",
    "checkpoint_name",
    "config_to_json",
    "copy_companions",
    "fetch_config",
    "load_model",
    "machine_memory",
    "parse_config",
    "quantize_checkpoint",
    "read_config",
    "read_generation_config",
    "resolve",
    "save_checkpoint",
    "write_generation_config",
]
