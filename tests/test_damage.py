"""A flipped byte or a missing end in a potential, a checkpoint or a store is never believed."""

import numpy as np
import pytest
import torch

from eqpot.data import FrameStore, read_frames, write_store
from eqpot.files import load_potential, save_potential
from eqpot.training.checkpoint import Checkpoint, Snapshot, read_checkpoint, write_checkpoint
from potentials import soft_potential
from training_runs import write_frames

N_FLIPS, N_TRUNCATIONS = 334, 34


def potential_file(folder):
    path = folder / "a.eqpot"
    save_potential(path, soft_potential(torch.float32), raw_weights=soft_potential(torch.float32))
    return path, load_potential


def checkpoint_file(folder):
    path = folder / "checkpoint.safetensors"
    weights = dict(soft_potential(torch.float32).named_parameters())
    tensors = {f"raw.{name}": weight.detach().clone() for name, weight in weights.items()}
    now = Snapshot(tensors, {"step": 7, "history": [{"step": 5, "loss": 0.25}]})
    write_checkpoint(path, Checkpoint({"recipe": {}}, {"events": []}, now))
    return path, read_checkpoint


def store_file(folder):
    frames = read_frames(write_frames(folder / "frames.extxyz")).frames
    write_store(folder / "frames.h5", frames)
    return folder / "frames.h5", lambda path: list(FrameStore(path))


@pytest.mark.parametrize("make", [potential_file, checkpoint_file, store_file])
def test_all_damage_is_refused_with_the_name_of_the_file(make, tmp_path):
    path, read = make(tmp_path)
    read(path)
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(data), N_FLIPS).tolist():
        old = data[place]
        data[place] ^= int(rng.integers(1, 256))
        path.write_bytes(data)
        data[place] = old
        with pytest.raises(ValueError, match=path.name):
            read(path)
    for length in rng.integers(0, len(data), N_TRUNCATIONS).tolist():
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=path.name):
            read(path)
    path.write_bytes(data)
    read(path)
