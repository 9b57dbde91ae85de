"""Fine-tuning starts as the potential it starts from, and changes only what it was told to."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write

from eqpot import keys
from eqpot.data import collate, frame_to_graph
from eqpot.export import export_torchscript
from eqpot.files import load_potential, read_header, save_potential
from eqpot.physics.chemical_scale import CHEMICAL_SCALE, nearest_element
from eqpot.physics.reference_energies import SYMBOLS
from eqpot.training.base_potential import read_base_potential, recipe_with_base, with_elements
from eqpot.training.energy_shift import energy_shift
from eqpot.training.fine_tuning import (
    choose_what_learns,
    shifted_to,
    start_fine_tuning,
    trainable_parameters,
)
from eqpot.training.low_rank import merged
from eqpot.training.progress import RunLog
from eqpot.training.recipe import Recipe
from eqpot.training.recipe_file import RecipeError, read_recipe
from eqpot.training.run import run
from potentials import ELEMENTS, frame_of, graph_of, random_potential

R_MAX = 4.0
FIELDS = {"l_hidden": 2, "l_along": 1, "final_gate": False}
LABELS = (keys.ENERGY, keys.FORCES, keys.STRESS)
SHIFTS = {1: 0.3, 6: -1.7, 7: 0.9, 8: 2.5, 14: -0.4, 16: 1.1, 29: -3.0}


@pytest.fixture(scope="module")
def potential():
    """Return a potential with random weights in float64, with repulsion."""
    return random_potential(repulsion=True, seed=3, **FIELDS)


@pytest.fixture(scope="module")
def base_file(potential, tmp_path_factory):
    """Return its file; the raw weights are others."""
    path = tmp_path_factory.mktemp("base") / "base.eqpot"
    raw = random_potential(repulsion=True, seed=4, **FIELDS)
    save_potential(path, potential, raw_weights=raw, provenance={"data_sha256": {"old.xyz": "ab"}})
    return path


def structures(seed=0):
    """Return rattled structures of H, C, N, O, Si and S, of different composition."""
    rng = np.random.default_rng(seed)
    names = ("CH3CH2OH", "NH3", "H2O", "CO2", "CH3SH", "SiH4", "CH4", "HCN", "N2H4", "H2O2")
    images = [molecule(name) for name in names] + [bulk("Si", cubic=True)]
    for atoms in images:
        atoms.positions += 0.05 * rng.normal(size=atoms.positions.shape)
    return images


def labelled(potential, images, shifts=None, factor=1.0):
    """Return frames with the labels of a potential, its E0s shifted and its forces stretched."""
    frames = []
    for number, atoms in enumerate(images):
        outputs = potential(graph_of(atoms, potential.r_max))
        energy = float(outputs[keys.ENERGY]) + sum((shifts or {}).get(z, 0) for z in atoms.numbers)
        frames.append(
            replace(
                frame_of(atoms),
                energy=energy,
                forces=factor * outputs[keys.FORCES].numpy(),
                stress=outputs[keys.STRESS][0].numpy() if atoms.pbc.all() else None,
                source=f"new.xyz, frame {number}",
            )
        )
    return frames


def isolated(symbol, energy):
    return replace(frame_of(Atoms(symbol)), energy=energy, source=f"{symbol} alone")


def recipe_of(base_file, output="runs/x", frames="new.extxyz", model=None, **section):
    document = {
        "output": str(output),
        "data": {"train": [str(frames)], "validation": 0.2},
        "fine_tuning": {"potential": str(base_file)} | section,
        "training": {"epochs": 2, "batch_size": 4, "dtype": "float64"},
    }
    return Recipe.model_validate(document | ({"model": model} if model is not None else {}))


def start(base_file, frames, old=(), **section):
    recipe = recipe_of(base_file, **section)
    base = read_base_potential(recipe.fine_tuning)
    log = RunLog(silent=True)
    return start_fine_tuning(recipe_with_base(recipe, base), base, frames, old, frames, log)


def assert_equal(one, other, images, names=LABELS):
    graph = collate([graph_of(atoms, R_MAX) for atoms in images])
    ours, theirs = one(graph), other(graph)
    for name in names:
        scale = theirs[name].abs().max().clamp(min=1.0)
        assert (ours[name] - theirs[name]).abs().max() <= 1e-12 * scale, name


@pytest.mark.parametrize("train", ["all", "heads", "low_rank"])
@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_step_0_equals_the_base(base_file, potential, train, weights):
    frames = labelled(potential, structures(), SHIFTS)
    fine_tuning = start(base_file, frames, train=train, weights=weights, reference_energies="keep")
    base = load_potential(base_file, torch.float64, weights=weights)
    assert_equal(fine_tuning.potential, base, structures(1))
    assert max(fine_tuning.step0_differences.values()) < 1e-12
    assert fine_tuning.potential.scale == potential.scale
    assert not any(fine_tuning.shift.shifts.values())


def test_a_start_that_differs_from_the_base_is_refused(base_file, potential, monkeypatch):
    def spoil(changed, *_):
        with torch.no_grad():
            next(changed.parameters()).mul_(1.001)

    monkeypatch.setattr("eqpot.training.fine_tuning.choose_what_learns", spoil)
    with pytest.raises(RuntimeError, match="differs"):
        start(base_file, labelled(potential, structures()))


def test_refit_finds_a_shift_by_composition_and_changes_nothing_else(base_file, potential):
    frames = labelled(potential, structures(), SHIFTS)
    fine_tuning = start(base_file, frames)
    for z in (1, 6, 7, 8, 14, 16):
        assert fine_tuning.shift.shifts[z] == pytest.approx(SHIFTS[z], abs=1e-8)
        assert fine_tuning.shift.origins[z] == "least squares"
    assert fine_tuning.shift.shifts[29] == 0.0  # no new frame holds copper
    assert fine_tuning.shift.origins[29] == "the potential"
    assert fine_tuning.potential.atomic_numbers == ELEMENTS
    images = structures(1)
    assert_equal(fine_tuning.potential, potential, images, (keys.FORCES, keys.STRESS))
    for frame in labelled(potential, images, SHIFTS):
        energy = fine_tuning.potential(frame_to_graph(frame, R_MAX))[keys.ENERGY]
        assert float(energy) == pytest.approx(frame.energy, abs=1e-7)
    assert fine_tuning.step0_errors.comparisons[keys.ENERGY].errors(1, "")["max"] < 1e-8


def test_given_energies_and_isolated_atoms_go_before_the_fit(potential):
    e0 = dict(zip(potential.atomic_numbers, potential.reference_energies, strict=True))
    frames = labelled(potential, structures(), SHIFTS)
    frames += [isolated("O", e0[8] + 7.0), isolated("Cu", e0[29] + 0.5)]
    refit = energy_shift(potential, frames, "refit", {"N": e0[7] + 4.0})
    assert refit.shifts[7] == pytest.approx(4.0, abs=1e-9)
    assert refit.shifts[8] == pytest.approx(7.0, abs=1e-9)
    assert refit.shifts[29] == pytest.approx(0.5, abs=1e-9)
    assert [refit.origins[z] for z in (7, 8, 14)] == ["recipe", "isolated atom", "least squares"]
    shift = energy_shift(potential, frames, "shift")
    assert shift.shifts[8] == pytest.approx(SHIFTS[8], abs=1e-8)
    assert shift.shifts[29] == 0.0
    with pytest.raises(ValueError, match=r"E0 of N, and `fine_tuning.reference_energies: keep`"):
        energy_shift(potential, frames, "keep", {"N": -1480.0})


def test_one_composition_shares_the_shift_equally_and_says_so(potential):
    rng = np.random.default_rng(0)
    images = [molecule("CH3CH2OH") for _ in range(4)]
    for atoms in images:
        atoms.positions += 0.05 * rng.normal(size=atoms.positions.shape)
    found = energy_shift(potential, labelled(potential, images, {6: 4.5}), "refit")
    assert [found.shifts[z] for z in (1, 6, 8)] == pytest.approx([1.0, 1.0, 1.0], abs=1e-9)
    assert "cannot tell apart E0 of H, C, O" in str(found)


def test_data_without_energies_leave_e0_alone(potential):
    frames = [replace(frame, energy=None) for frame in labelled(potential, structures())]
    found = energy_shift(potential, frames, "refit")
    assert list(found.energies.values()) == potential.reference_energies


def test_low_rank_updates_merge_into_plain_weights(potential, tmp_path):
    images = structures()
    updated = copy.deepcopy(potential)
    choose_what_learns(updated, "low_rank", 3, seed=0)
    graph = collate([graph_of(atoms, R_MAX) for atoms in images])
    before, after = potential(graph), updated(graph)
    assert all(torch.equal(before[name], after[name]) for name in LABELS)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in trainable_parameters(updated):
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.add_(0.02 * noise)
    average = copy.deepcopy(updated)  # as the moving average does
    plain = merged(updated)
    assert (plain(graph)[keys.FORCES] - before[keys.FORCES]).abs().max() > 1e-3
    assert_equal(plain, updated, images)
    assert_equal(plain, average, images)
    names = {name: parameter.shape for name, parameter in potential.named_parameters()}
    assert {name: parameter.shape for name, parameter in plain.named_parameters()} == names
    for left, right in zip(
        potential.model.first.layer.mix.weight, plain.model.first.layer.mix.weight, strict=True
    ):
        assert torch.linalg.matrix_rank(right - left, rtol=1e-8) == 3
    save_potential(tmp_path / "plain.eqpot", plain)
    assert_equal(load_potential(tmp_path / "plain.eqpot", torch.float64), updated, images)
    n_learn = sum(parameter.numel() for parameter in trainable_parameters(updated))
    assert n_learn < sum(parameter.numel() for parameter in potential.parameters()) / 2


def test_only_what_learns_asks_for_gradients(potential):
    for train, expected in (
        ("all", lambda name: name != "model.first.elements"),  # one-hot, as in a fresh training
        ("heads", lambda name: "readout" in name),
        ("low_rank", lambda name: ".first.weight" in name or ".second.weight" in name),
    ):
        chosen = copy.deepcopy(potential)
        choose_what_learns(chosen, train, 2, seed=0)
        for name, parameter in chosen.named_parameters():
            assert parameter.requires_grad == expected(name), name


def with_fluorine(potential):
    """Return frames of which some hold fluorine, which the potential lacks."""
    extended, _ = with_elements(potential, [9])
    extended.reference_energies[-1] = -2700.0
    return labelled(extended, [molecule("HF"), molecule("CF4"), *structures()[:4]])


@pytest.mark.parametrize("train", ["all", "low_rank"])
def test_a_new_element_leaves_the_known_ones_alone(base_file, potential, train, tmp_path):
    fine_tuning = start(base_file, with_fluorine(potential), train=train)
    assert fine_tuning.potential.atomic_numbers == [*ELEMENTS, 9]
    assert fine_tuning.shift.energies[9] == pytest.approx(-2700.0, abs=1e-6)
    assert all(abs(fine_tuning.shift.shifts[z]) < 1e-6 for z in ELEMENTS)
    assert fine_tuning.copied_from == {9: 1}  # next to each other on the scale
    fine_tuning.potential.reference_energies[:7] = potential.reference_energies
    assert_equal(fine_tuning.potential, potential, structures(1))
    learns = {name for name, p in fine_tuning.potential.named_parameters() if p.requires_grad}
    assert {"model.embedding", "model.first.elements"} <= learns
    save_potential(tmp_path / "extended.eqpot", merged(fine_tuning.potential))
    loaded = load_potential(tmp_path / "extended.eqpot", torch.float64)
    assert_equal(loaded, fine_tuning.potential, [*structures(1), molecule("CF4")])


def test_rows_of_elements_learn_unless_they_are_one_hot():
    few, learned = random_potential().model, random_potential(n_element_channels=3).model
    known = list(range(len(ELEMENTS)))
    for model, origins, expected in (
        (few, known, False),
        (few, known[::-2], False),
        (few, [*known, 2], True),
        (few, [0, 1, 1], True),
        (learned, known, True),
        (learned, [0, 4], True),
    ):
        assert model.with_species(origins).first.elements.requires_grad == expected, origins


def test_a_preset_leaves_the_channels_of_elements_to_the_base(potential, tmp_path):
    """A new element shares the channels of the known ones, which no preset says."""
    extended, _ = with_elements(potential, [9])
    save_potential(tmp_path / "extended.eqpot", extended)
    sizes = {"preset": "small", "n_features": 8, "r_max": R_MAX, "repulsion": True} | FIELDS
    recipe = recipe_of(tmp_path / "extended.eqpot", model=sizes)
    filled = recipe_with_base(recipe, read_base_potential(recipe.fine_tuning))
    assert filled.model.n_element_channels == len(ELEMENTS)
    recipe = recipe_of(tmp_path / "extended.eqpot", model=sizes | {"n_element_channels": 4})
    with pytest.raises(ValueError, match=r"`model.n_element_channels` is 4 .* and 7 in the"):
        recipe_with_base(recipe, read_base_potential(recipe.fine_tuning))


def test_a_new_element_begins_as_its_neighbour(potential):
    """All weights of an element are copied: the twin has the same energies but for E0."""
    model = potential.model
    twin = model.with_species([*range(len(ELEMENTS)), ELEMENTS.index(16)])
    graph = graph_of(molecule("CH3SH"), R_MAX)
    graph[keys.EDGE_VECTORS] = potential.edge_vectors(graph)
    graph[keys.SPECIES] = potential.species_of[graph[keys.ATOMIC_NUMBERS]]
    as_sulphur = twin(graph)[keys.NODE_ENERGY]
    assert (as_sulphur - model(graph)[keys.NODE_ENERGY]).abs().max() < 1e-12
    sulphur = graph[keys.SPECIES] == ELEMENTS.index(16)
    graph[keys.SPECIES][sulphur] = len(ELEMENTS)
    assert (twin(graph)[keys.NODE_ENERGY] - as_sulphur).abs().max() < 1e-12
    graph[keys.SPECIES][sulphur] = ELEMENTS.index(8)
    assert (twin(graph)[keys.NODE_ENERGY] - as_sulphur).abs().max() > 1e-3


def test_chemically_nearest():
    assert sorted(SYMBOLS.index(symbol) for symbol in CHEMICAL_SCALE) == list(range(1, 104))
    nearest = {(14, 6), (15, 7), (16, 8), (47, 29), (32, 14)}
    known = [1, 6, 7, 8]
    for z, expected in nearest:
        assert nearest_element(z, {*known, expected}) == expected
    with pytest.raises(ValueError, match="no place on the chemical scale"):
        nearest_element(110, known)


def test_heads_cannot_learn_an_element(base_file, potential):
    with pytest.raises(ValueError, match=r"does not know F, and `fine_tuning.train: heads`"):
        start(base_file, with_fluorine(potential), train="heads")


def test_replayed_frames_have_the_errors_they_had(base_file, potential):
    """Old labels move with the E0s, so that what the base knew of them is neither lost nor bent."""
    old = labelled(potential, [*structures(2), bulk("Cu", cubic=True)])
    old = [replace(frame, energy=frame.energy + 0.01) for frame in old]
    new = labelled(potential, structures(), SHIFTS)
    fine_tuning = start(base_file, new, old, replay="old.xyz", replay_fraction=0.4)
    assert len(fine_tuning.replay) == round(len(new) * 0.4 / 0.6)
    for frame in shifted_to(old, fine_tuning.shift):
        outputs = fine_tuning.potential(frame_to_graph(frame, R_MAX))
        assert frame.energy - float(outputs[keys.ENERGY]) == pytest.approx(0.01, abs=1e-7)
        assert np.abs(outputs[keys.FORCES].numpy() - frame.forces).max() < 1e-10
    strange = replace(frame_of(molecule("HF")), energy=0.0, source="old.xyz, frame 3")
    with pytest.raises(ValueError, match=r"old\.xyz, frame 3: atom \d is F \(Z = 9\)"):
        start(base_file, new, [strange], replay="old.xyz")


@pytest.mark.parametrize("train", ["all", "heads", "low_rank"])
def test_the_start_is_the_same_every_time(base_file, potential, train):
    """So a checkpoint needs only the parameters, by name, whatever learns."""
    frames = labelled(potential, structures(), SHIFTS)
    torch.manual_seed(0)
    one = start(base_file, frames, frames, train=train, replay="old.xyz")
    state = torch.random.get_rng_state()
    torch.manual_seed(1)
    other = start(base_file, frames, frames, train=train, replay="old.xyz")
    assert one.potential.reference_energies == other.potential.reference_energies
    first, second = one.potential.state_dict(), other.potential.state_dict()
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [f.source for f in one.replay] == [f.source for f in other.replay]
    torch.manual_seed(0)
    assert torch.equal(state, torch.random.get_rng_state())  # the caller's generator stays


def refusal(base_file, **options):
    recipe = recipe_of(base_file, **options)
    with pytest.raises((OSError, ValueError)) as caught:
        recipe_with_base(recipe, read_base_potential(recipe.fine_tuning))
    return str(caught.value)


def test_what_cannot_be_a_base_is_refused(base_file, potential, tmp_path):
    absent = tmp_path / "absent.eqpot"
    assert refusal(absent) == f"`fine_tuning.potential`: {absent}: no such file"
    export_torchscript(potential, tmp_path / "program.pt", "float64")
    message = refusal(tmp_path / "program.pt")
    assert "zip archive (TorchScript" in message
    assert "give the native file (.eqpot)" in message
    save_potential(tmp_path / "average.eqpot", potential)
    assert "holds no `raw` weights" in refusal(tmp_path / "average.eqpot", weights="raw")
    message = refusal(base_file, model={"r_max": 5.0})
    assert "`model.r_max` is 5.0 in the recipe and 4.0 in the potential" in message
    message = refusal(base_file, model={"preset": "small", "repulsion": False})
    assert "`model.n_features` is 32 in the recipe and 8 in the potential" in message
    assert "`model.repulsion` is False in the recipe and True in the potential" in message


def test_the_model_comes_from_the_base_and_its_own_recipe_agrees(base_file, potential):
    recipe = recipe_of(base_file)
    base = read_base_potential(recipe.fine_tuning)
    complete = recipe_with_base(recipe, base)
    assert (complete.model.r_max, complete.model.n_features) == (4.0, 8)
    assert complete.model.repulsion
    assert complete.fine_tuning.learning_rate_factor is not None
    again = Recipe.model_validate(complete.model_dump())
    assert recipe_with_base(again, base) == complete


def test_the_section_needs_a_potential(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("output: x\ndata: {train: a.xyz}\nfine_tuning:\n  train: heads\n")
    with pytest.raises(RecipeError, match=r"line 3: `fine_tuning`: `train` needs `potential`"):
        read_recipe(path)


@pytest.fixture(scope="module")
def generations(base_file, potential, tmp_path_factory):
    """Return two runs: low rank from the base, with replay; then heads from what came of it."""
    folder = tmp_path_factory.mktemp("runs")
    images = []
    for frame, atoms in zip(
        labelled(potential, structures() + structures(1), SHIFTS, factor=1.1),
        structures() + structures(1),
        strict=True,
    ):
        atoms.info["energy"] = frame.energy
        atoms.arrays["forces"] = frame.forces
        images.append(atoms)
    write(folder / "new.extxyz", images, format="extxyz")
    recipes = [
        recipe_of(
            base_file,
            folder / "first",
            folder / "new.extxyz",
            train="low_rank",
            rank=2,
            replay=str(folder / "new.extxyz"),
            reference_energies="keep",
        ),
        recipe_of(
            folder / "first" / "potential.eqpot",
            folder / "second",
            folder / "new.extxyz",
            train="heads",
            weights="raw",
        ),
    ]
    with RunLog() as first, RunLog() as second:
        return run(recipes[0], first), run(recipes[1], second)


def test_a_run_of_low_rank_leaves_a_plain_file(generations, base_file):
    result, _ = generations
    path = result.output / "potential.eqpot"
    tuned, base = (load_potential(name, torch.float64) for name in (path, base_file))
    changed = {
        name
        for (name, one), other in zip(base.named_parameters(), tuned.parameters(), strict=True)
        if not torch.equal(one, other)
    }
    assert "model.first.layer.mix.weight" in changed
    assert "model.embedding" not in changed
    assert_equal(tuned, result.training.potential, structures())
    assert (result.output / "potential.pt").exists()


def test_a_run_of_heads_leaves_all_else_bit_identical(generations):
    first, second = generations
    base = load_potential(first.output / "potential.eqpot", torch.float64, weights="raw")
    for weights in ("ema", "raw"):
        tuned = load_potential(second.output / "potential.eqpot", torch.float64, weights=weights)
        for (name, one), other in zip(base.named_parameters(), tuned.parameters(), strict=True):
            assert torch.equal(one, other) != ("readout" in name), name


def test_a_run_tells_where_it_started(generations, base_file):
    first, second = generations
    record = second.metrics["fine_tuning"]
    header = read_header(first.output / "potential.eqpot")
    assert record["file_sha256"] == header["file_sha256"]
    assert max(record["step0_max_differences"].values()) < 1e-12
    assert record["step0_errors"]["forces"]["n"] > 0
    hidden = 8 * 16 + 16 + 16
    assert record["n_weights_that_learn"] == 8 + hidden + 8  # a linear readout of each layer
    assert first.metrics["fine_tuning"]["n_replay_frames"] > 0
    provenance = read_header(second.output / "potential.eqpot")["provenance"]
    parent = provenance["fine_tuning"]["provenance"]
    grandparent = parent["fine_tuning"]
    assert parent == header["provenance"]
    assert grandparent["file_sha256"] == read_header(base_file)["file_sha256"]
    assert grandparent["provenance"] == {"data_sha256": {"old.xyz": "ab"}}
    log = (second.output / "train.log").read_text()
    assert "step 0 equals the potential" in log
    assert "step 0, validation: " in log
