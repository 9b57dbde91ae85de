"""Molecular dynamics: exact where the mathematics is, sampled where it is not, and never lost."""

import csv
import json
import os
import signal
from pathlib import Path
from typing import Any, ClassVar

import ase
import ase.io
import ase.units
import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms
from typer.testing import CliRunner

from eqpot.calculators import ASECalculator
from eqpot.calculators.dynamics import (
    ExplodedRunError,
    InterruptedRunError,
    MDSettings,
    parse_duration,
    run_md,
)
from eqpot.calculators.dynamics.integrators import MartynaTobiasKlein, VelocityVerlet
from eqpot.calculators.dynamics.summary import energy_drift, summarize
from eqpot.calculators.dynamics.system import System
from eqpot.cli.main import app
from eqpot.cli.md import describe, read_structure
from eqpot.files import save_potential
from eqpot.units import BOLTZMANN, GPA
from potentials import random_potential


class Wells(Calculator):  # type: ignore[misc]
    """Each atom in its own harmonic well: E = k/2 Σ |r − r0|²."""

    implemented_properties: ClassVar = ["energy", "forces"]

    def __init__(self, centres: np.ndarray, stiffness: float, fail_at: int = -1) -> None:
        super().__init__()
        self.centres, self.stiffness, self.fail_at = centres, stiffness, fail_at
        self.n_calls = 0
        self.signal_at: int | None = None

    def calculate(
        self,
        atoms: Any = None,
        properties: Any = None,
        system_changes: Any = all_changes,
    ) -> None:
        """Set energy and forces; fail or be interrupted at the calls it was told."""
        super().calculate(atoms, properties, system_changes)
        away = self.atoms.positions - self.centres
        forces = -self.stiffness * away
        if self.n_calls == self.fail_at:
            forces[1] = np.nan
        if self.n_calls == self.signal_at:
            os.kill(os.getpid(), signal.SIGTERM)
        self.n_calls += 1
        self.results = {"energy": self.stiffness / 2 * np.sum(away**2), "forces": forces}


def copper(repeat: int = 2, rattle: float = 0.05) -> ase.Atoms:
    atoms = bulk("Cu", cubic=True) * repeat
    atoms.rattle(rattle, seed=1)
    atoms.calc = EMT()
    return atoms


def argon() -> ase.Atoms:
    # smooth: the energy has no step at the cutoff, so its error is that of the integrator
    atoms = bulk("Ar", cubic=True, a=5.3) * 2
    atoms.calc = LennardJones(sigma=3.4, epsilon=0.0104, rc=7.0, ro=5.0, smooth=True)
    return atoms


def wells(n_atoms: int = 40, **keywords: Any) -> ase.Atoms:
    centres = np.zeros((n_atoms, 3))
    centres[:, 0] = 5.0 * np.arange(n_atoms)
    atoms = ase.Atoms("Ar" * n_atoms, positions=centres)
    atoms.calc = Wells(centres, 2.0, **keywords)
    return atoms


def read_log(folder: Path) -> dict[str, np.ndarray]:
    with (folder / "md.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}


def make(folder: Path, atoms: ase.Atoms, **keywords: Any) -> Any:
    return run_md(atoms, MDSettings(**keywords), folder, silent=True)


def test_nve_energy_error_is_of_second_order(tmp_path: Path) -> None:
    scatter = []
    for timestep in (2.0, 4.0):
        folder = tmp_path / str(timestep)
        make(
            folder,
            copper(),
            n_steps=round(200 / timestep),
            timestep=timestep,
            temperature=600,
            log_interval=1,
        )
        energy = read_log(folder)["conserved_eV"]
        # The error after the same stretch of motion, from the start, where it is zero.
        scatter.append(np.sqrt(np.mean((energy - energy[0])[:: round(4.0 / timestep)] ** 2)))
    assert np.log2(scatter[1] / scatter[0]) == pytest.approx(2, abs=0.1)


def test_time_runs_backwards() -> None:
    atoms = copper()
    atoms.set_momenta(np.random.default_rng(0).normal(0, 1.5, (len(atoms), 3)))
    system = System(atoms.copy(), 3 * len(atoms), np.ones(len(atoms), dtype=bool))
    system.atoms.calc = atoms.calc
    integrator = VelocityVerlet(system, 2 * ase.units.fs)
    system.evaluate(stress=False)
    for _ in range(150):
        integrator.step(stress=False)
    assert np.abs(system.positions - atoms.positions).max() > 0.1
    system.momenta = -system.momenta
    for _ in range(150):
        integrator.step(stress=False)
    np.testing.assert_allclose(system.positions, atoms.positions, rtol=0, atol=1e-7)


def test_langevin_in_wells_obeys_equipartition(tmp_path: Path) -> None:
    atoms = wells()
    summary = make(
        tmp_path,
        atoms,
        ensemble="nvt",
        n_steps=10_000,
        timestep=10.0,
        temperature=300,
        friction=0.01,
        fix_center=False,
        log_interval=20,
    )
    log = read_log(tmp_path)
    expected = 3 * len(atoms) / 2 * BOLTZMANN * 300
    for name in ("potential_eV", "kinetic_eV"):
        values = log[name][25:]
        blocks = values[: len(values) // 25 * 25].reshape(-1, 25).mean(axis=1)
        error = blocks.std(ddof=1) / np.sqrt(len(blocks))
        assert error < 0.03 * expected
        # Four standard errors, and 1 % of BAOAB's kinetic energy at this step.
        assert abs(values.mean() - expected) < 4 * error + 0.01 * expected, name
    assert summary.mean_temperature == pytest.approx(300, rel=0.1)


def test_langevin_keeps_the_centre_and_the_temperature_of_few_atoms(tmp_path: Path) -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.calc = EMT()
    make(
        tmp_path,
        atoms,
        ensemble="nvt",
        n_steps=1500,
        timestep=4.0,
        friction=0.02,
        temperature=300,
        log_interval=5,
        trajectory_interval=1500,
    )
    last = ase.io.read(tmp_path / "trajectory.extxyz", index=-1)
    np.testing.assert_allclose(last.get_momenta().sum(axis=0), 0, atol=1e-6)
    # Nine degrees of freedom, so one third more if twelve were counted.
    values = read_log(tmp_path)["temperature_K"][20:]
    blocks = values[: len(values) // 20 * 20].reshape(-1, 20).mean(axis=1)
    error = blocks.std(ddof=1) / np.sqrt(len(blocks))
    assert error < 20
    assert abs(values.mean() - 300) < 4 * error


def test_npt_follows_the_code_of_ase() -> None:
    """ASE's IsotropicMTKNPT, an independent code, gives the same motion."""
    barostats = pytest.importorskip("ase.md.nose_hoover_chain")
    step, temperature, pressure = 4 * ase.units.fs, 300.0, 2.0 * GPA
    atoms = copper()
    atoms.set_momenta(np.random.default_rng(0).normal(0, 1.5, (len(atoms), 3)))
    own = atoms.copy()
    own.calc = EMT()
    theirs = barostats.IsotropicMTKNPT(
        atoms,
        step,
        # ASE's Boltzmann constant is that of CODATA 2014
        temperature_K=temperature * BOLTZMANN / ase.units.kB,
        pressure_au=pressure,
        tdamp=25 * step,
        pdamp=50 * step,
    )
    # ASE counts three degrees of freedom per atom and gives the barostat's first link nine masses.
    system = System(own, 3 * len(own), np.ones(len(own), dtype=bool))
    ours = MartynaTobiasKlein(system, step, temperature, pressure, 25 * step, 50 * step)
    ours.barostat.masses[0] *= 9
    system.evaluate(stress=True)
    for _ in range(50):
        theirs.step()
        ours.step(stress=True)
    assert abs(system.volume / np.linalg.det(own.cell) - 1) < 1e-12
    assert abs(system.cell[0, 0] - 2 * 3.61) > 1e-3
    np.testing.assert_allclose(system.positions, atoms.positions, rtol=0, atol=1e-8)
    np.testing.assert_allclose(system.cell, np.array(atoms.cell), rtol=0, atol=1e-9)
    assert ours.conserved() == pytest.approx(theirs.get_conserved_energy(), abs=1e-7)


def test_npt_conserves_its_energy_and_reaches_the_pressure(tmp_path: Path) -> None:
    summary = make(
        tmp_path,
        argon(),
        ensemble="npt",
        n_steps=600,
        timestep=5.0,
        temperature=40,
        friction=0.005,
        pressure=0.5,
        barostat_time=500.0,
        log_interval=5,
    )
    log = read_log(tmp_path)
    # The blow at the start shakes the crystal hard; without the work P₀V, 0.6 eV would be missing.
    assert np.ptp(log["conserved_eV"]) < 0.02 * np.ptp(log["potential_eV"])
    # Argon yields by some 10 %: the wrong sign or unit of the pressure would blow it up.
    assert log["volume_A3"][-1] < 0.97 * log["volume_A3"][0]
    assert log["pressure_GPa"][60:].mean() == pytest.approx(0.5, abs=0.1)
    assert summary.mean_volume == pytest.approx(log["volume_A3"].mean())


ENSEMBLES = pytest.mark.parametrize("ensemble", ["nve", "nvt", "npt"])


@ENSEMBLES
def test_a_run_that_goes_on_gives_the_same_bits(tmp_path: Path, ensemble: str) -> None:
    keywords: dict[str, Any] = {
        "ensemble": ensemble,
        "timestep": 4.0,
        "temperature": 900,
        "pressure": 1.0,
        "barostat_time": 200.0,
        "trajectory_interval": 4,
        "log_interval": 3,
        "checkpoint_interval": 10,
    }
    make(tmp_path / "whole", copper(), n_steps=40, **keywords)

    class Killed(BaseException):
        pass

    class Dying(EMT):  # type: ignore[misc]
        n_calls = 0

        def calculate(self, *arguments: Any, **more: Any) -> None:
            Dying.n_calls += 1
            if Dying.n_calls == 27:
                raise Killed
            super().calculate(*arguments, **more)

    atoms = copper()
    atoms.calc = Dying()
    with pytest.raises(Killed):
        make(tmp_path / "parts", atoms, n_steps=40, **keywords)
    # Frames and lines after the last restart were written already, and one is torn.
    with (tmp_path / "parts" / "md.csv").open("a") as file:
        file.write("27,108.0,-0.0")
    assert len((tmp_path / "parts" / "md.csv").read_text().splitlines()) > 1 + 20 // 3 + 1
    make(tmp_path / "parts", copper(), n_steps=40, **keywords)
    for name in ("trajectory.extxyz", "md.csv"):
        whole, parts = (tmp_path / part / name for part in ("whole", "parts"))
        assert whole.read_bytes() == parts.read_bytes()
    with (
        np.load(tmp_path / "whole" / "restart.npz") as one,
        np.load(tmp_path / "parts" / "restart.npz") as other,
    ):
        for name in ("positions", "momenta", "cell", "forces"):
            assert one[name].tobytes() == other[name].tobytes()
    frames = ase.io.read(tmp_path / "parts" / "trajectory.extxyz", index=":")
    assert [frame.info["step"] for frame in frames] == list(range(0, 41, 4))


def test_a_signal_saves_and_the_run_goes_on(tmp_path: Path) -> None:
    keywords: dict[str, Any] = {"ensemble": "nvt", "n_steps": 30, "log_interval": 1}
    make(tmp_path / "whole", wells(), **keywords)
    atoms = wells()
    atoms.calc.signal_at = 13
    handlers = [signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(InterruptedRunError, match="SIGTERM after step 13 of 30") as caught:
        make(tmp_path / "parts", atoms, **keywords)
    assert caught.value.exit_code == 143
    assert handlers == [signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGINT)]
    make(tmp_path / "parts", wells(), **keywords)
    whole, parts = ((tmp_path / part / "md.csv").read_bytes() for part in ("whole", "parts"))
    assert whole == parts


def test_a_finished_run_is_left_alone_and_can_be_prolonged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path, wells(), n_steps=20)
    before = (tmp_path / "md.csv").read_bytes()
    summary = run_md(wells(), MDSettings(n_steps=20), tmp_path)
    assert "finished" in capsys.readouterr().out
    assert summary.n_steps == 20
    assert (tmp_path / "md.csv").read_bytes() == before
    make(tmp_path, wells(), n_steps=40)
    assert read_log(tmp_path)["step"].tolist() == [0, 10, 20, 30, 40]


def test_other_settings_in_the_same_folder_are_refused_by_name(tmp_path: Path) -> None:
    make(tmp_path, wells(), n_steps=20)
    with pytest.raises(ValueError, match=r"`temperature` is 400.0 and was 300.0"):
        make(tmp_path, wells(), n_steps=20, temperature=400.0)
    with pytest.raises(ValueError, match="`structure`"):
        make(tmp_path, wells(39), n_steps=20)
    with pytest.raises(ValueError, match="`n_steps` is 10 and 20 steps are done"):
        make(tmp_path, wells(), n_steps=10)
    (tmp_path / "restart.npz").unlink()
    with pytest.raises(FileExistsError, match="no restart"):
        make(tmp_path, wells(), n_steps=20)


def test_the_summary_says_what_happened(tmp_path: Path) -> None:
    summary = make(tmp_path, copper(), n_steps=60, timestep=2.0, log_interval=1)
    written = json.loads((tmp_path / "md.json").read_text())
    assert written["n_steps"] == summary.n_steps == 60
    assert written["time_ps"] == pytest.approx(0.12)
    assert written["settings"]["timestep"] == 2.0
    assert list(written["source"]) == ["structure"]
    assert summary.drift is not None
    assert summary.drift_error > 0
    assert 0 < summary.fluctuation < 1
    expected = summary.steps_per_second * 2.0 * 86400 * 1e-6
    assert summary.ns_per_day == pytest.approx(expected)
    log = read_log(tmp_path)
    assert summary.mean_pressure == pytest.approx(log["pressure_GPa"].mean())


def test_drift_is_found_in_noise() -> None:
    times = np.arange(4000) * 10.0
    noise = np.random.default_rng(0).normal(0, 1e-3, len(times))
    drift, error, fluctuation = energy_drift(times, 3e-8 * times + noise)
    # 3e-8 eV/fs are 30 meV/ns
    assert drift == pytest.approx(30, abs=4 * error)
    # that of a line through independent points: σ √12 / (√n · length)
    assert error == pytest.approx(np.sqrt(12 / 4000) / 0.04, rel=0.5)
    assert fluctuation == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize(
    ("heating", "noise", "expected"),  # meV/atom; the kinetic energy is 40 ± 5
    [(0.0, 0.2, 0.04), (2.0, 0.01, 0.05), (-8.0, 0.01, 0.2), (0.0, 1.0, 0.2)],
)
def test_dynamics_that_do_not_conserve_energy_are_not_called_sound(
    heating: float, noise: float, expected: float
) -> None:
    times = np.arange(2000) * 5.0
    random = np.random.default_rng(0)
    conserved = heating * times / times[-1] + random.normal(0, noise, len(times))
    columns = {
        "time_fs": times,
        "conserved_eV": 4e-3 * conserved,  # of four atoms
        "kinetic_eV": 4e-3 * random.normal(40, 5, len(times)),
        "temperature_K": np.full(len(times), 3e3),  # as if most of the four were held fixed
        "pressure_GPa": np.full(len(times), np.nan),
        "volume_A3": np.full(len(times), np.nan),
    }
    summary = summarize(columns, MDSettings(n_steps=9995, timestep=1.0), 4, 9995, 1.0)
    assert summary.energy_error == pytest.approx(expected, rel=0.05)
    assert ("not sound" in describe(summary, Path("md"))) == (expected > 0.1)


def test_the_frames_and_the_pressure_are_those_of_ase(tmp_path: Path) -> None:
    make(tmp_path, copper(), n_steps=10, trajectory_interval=5, log_interval=5)
    log = read_log(tmp_path)
    frames = ase.io.read(tmp_path / "trajectory.extxyz", index=":")
    for number, frame in enumerate(frames):
        energy, forces = frame.get_potential_energy(), frame.get_forces()
        kinetic = frame.get_kinetic_energy()
        frame.calc = EMT()
        assert energy == pytest.approx(frame.get_potential_energy(), abs=1e-6)
        np.testing.assert_allclose(forces, frame.get_forces(), atol=1e-6)
        stress = frame.get_stress(voigt=False, include_ideal_gas=True)
        assert log["pressure_GPa"][number] == pytest.approx(-np.trace(stress) / 3 / GPA, abs=1e-4)
        assert log["kinetic_eV"][number] == pytest.approx(kinetic, abs=1e-5)


@pytest.mark.parametrize("ensemble", ["nve", "nvt"])
def test_an_exploding_run_ends_with_its_step_and_atom(tmp_path: Path, ensemble: str) -> None:
    keywords: dict[str, Any] = {"ensemble": ensemble, "n_steps": 30, "checkpoint_interval": 5}
    with pytest.raises(ExplodedRunError, match=r"step 13: a force is not finite.* atom 1 \(Ar"):
        make(tmp_path, wells(fail_at=13), **keywords)
    with np.load(tmp_path / "restart.npz") as restart:
        assert json.loads(str(restart["record"]))["step"] == 10
        assert np.isfinite(restart["forces"]).all()
    make(tmp_path, wells(), **keywords)


def test_a_step_too_long_explodes(tmp_path: Path) -> None:
    with pytest.raises(ExplodedRunError, match="exploded in step"):
        make(tmp_path, wells(), n_steps=1000, timestep=500.0)


def test_a_molecule_neither_drifts_nor_turns(tmp_path: Path) -> None:
    atoms = ase.Atoms("Cu4", positions=[[0, 0, 0], [2.2, 0, 0], [0, 2.2, 0], [0, 0, 2.2]])
    atoms.calc = EMT()
    make(tmp_path, atoms, n_steps=50, timestep=2.0, trajectory_interval=50)
    # the input is not touched
    assert not atoms.has("momenta")
    last = ase.io.read(tmp_path / "trajectory.extxyz", index=-1)
    np.testing.assert_allclose(last.get_momenta().sum(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(last.get_angular_momentum(), 0, atol=1e-5)


def test_momenta_of_the_file_and_fixed_atoms_are_kept(tmp_path: Path) -> None:
    atoms = copper(1)
    momenta = np.random.default_rng(0).normal(size=(4, 3))
    atoms.set_momenta(momenta)
    make(tmp_path / "kept", atoms, n_steps=1, keep_momenta=True, fix_center=False)
    first = ase.io.read(tmp_path / "kept" / "trajectory.extxyz", index=0)
    np.testing.assert_allclose(first.get_momenta(), momenta, atol=1e-7)
    atoms.set_constraint(FixAtoms([2]))
    make(tmp_path / "fixed", atoms, n_steps=20, ensemble="nvt", timestep=4.0)
    with np.load(tmp_path / "fixed" / "restart.npz") as restart:
        moved = np.abs(restart["positions"] - atoms.positions).max(axis=1) > 1e-3
    assert moved.tolist() == [True, True, False, True]


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"ensemble": "nvu"}, "`ensemble`"),
        ({"timestep": -1.0}, "`timestep` must be positive"),
        ({"temperature": float("nan")}, "`temperature`"),
        ({"n_steps": 0}, "`n_steps`"),
        ({"log_interval": 1.5}, "`log_interval`"),
        ({"ensemble": "npt"}, "periodic"),
        ({"keep_momenta": True}, "`keep_momenta`"),
    ],
)
def test_what_cannot_run_is_told(tmp_path: Path, keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(tmp_path, wells(), **{"n_steps": 1, **keywords})
    assert not list(tmp_path.iterdir())


def test_durations_need_a_unit() -> None:
    assert parse_duration("1 ps") == 1000
    assert parse_duration("2.5ns") == 2.5e6
    assert parse_duration(" 500 fs ") == 500
    for text in ("1", "ps", "-1 ps", "1 hour", "nan ps", ""):
        with pytest.raises(ValueError, match="`time`"):
            parse_duration(text)


def test_a_potential_stopped_anywhere_gives_the_same_bits(tmp_path: Path) -> None:
    """No restart falls on a new neighbour list; the calculator's order of edges must hold."""
    potential = random_potential(dtype=torch.float32, repulsion=True)

    def silicon(skin: float) -> ase.Atoms:
        atoms = bulk("Si", cubic=True)
        atoms.calc = ASECalculator(potential, skin=skin)
        return atoms

    class Stopping(ASECalculator):
        """Gets a signal in its ninth call."""

        n_calls = 0

        def calculate(self, *arguments: Any, **more: Any) -> None:
            """Compute."""
            self.n_calls += 1
            if self.n_calls == 9:
                os.kill(os.getpid(), signal.SIGINT)
            super().calculate(*arguments, **more)

    keywords: dict[str, Any] = {
        "ensemble": "nvt",
        "n_steps": 20,
        "timestep": 1.0,
        "temperature": 1500,
        "log_interval": 1,
        "trajectory_interval": 3,
    }
    make(tmp_path / "whole", silicon(0.5), **keywords)
    make(tmp_path / "no skin", silicon(0.0), **keywords)
    atoms = silicon(0.5)
    atoms.calc = Stopping(potential, skin=0.5)
    with pytest.raises(InterruptedRunError, match="SIGINT") as caught:
        make(tmp_path / "parts", atoms, **keywords)
    assert caught.value.exit_code == 130
    make(tmp_path / "parts", silicon(0.5), **keywords)
    for name in ("md.csv", "trajectory.extxyz"):
        whole = (tmp_path / "whole" / name).read_bytes()
        assert whole == (tmp_path / "parts" / name).read_bytes()
        assert whole == (tmp_path / "no skin" / name).read_bytes()


def test_the_command_runs_goes_on_and_refuses(tmp_path: Path) -> None:
    potential, structure = tmp_path / "p.eqpot", tmp_path / "si.extxyz"
    save_potential(potential, random_potential(repulsion=True))
    first, last = bulk("Si", cubic=True), bulk("Si")
    ase.io.write(structure, [first, last])
    assert len(read_structure(str(structure))) == 2
    assert len(read_structure(f"{structure}@0")) == 8
    with pytest.raises(ValueError, match="`structure`"):
        read_structure(f"{structure}@first")
    with pytest.raises(FileNotFoundError, match=r"`structure`: .*none\.xyz: no such file"):
        read_structure(str(tmp_path / "none.xyz"))
    with pytest.raises(FileNotFoundError, match="no such file, but a folder"):
        read_structure(str(tmp_path))
    with pytest.raises(ValueError, match="it has no such frame"):
        read_structure(f"{structure}@99")

    def call(*more: str) -> Any:
        common = ["md", f"{structure}@0", "--potential", str(potential)]
        return CliRunner().invoke(app, [*common, "--output", str(tmp_path / "out"), *more])

    result = call("--time", "4 fs", "--ensemble", "npt", "--log-interval", "1")
    assert result.exit_code == 0, result.output
    for word in ("npt", "8 atoms", "8 steps", "0.004 ps", "drift", "ns/day"):
        assert word in result.output
    assert "finished" in call("--steps", "8", "--ensemble", "npt", "--log-interval", "1").output
    result = call("--steps", "8", "--ensemble", "nvt", "--log-interval", "1")
    assert "`ensemble` is 'nvt' and was 'npt'" in str(result.exception)
    assert "--time or as --steps" in str(call().exception)
    assert "--time or as --steps" in str(call("--time", "1 ps", "--steps", "4").exception)
    script = tmp_path / "p.pt"
    script.write_bytes(b"anything")
    assert "--trust" in str(call("--steps", "4", "--potential", str(script)).exception)


def test_atoms_that_meet_are_an_explosion(tmp_path: Path) -> None:
    class Refusing(EMT):  # type: ignore[misc]
        n_calls = 0

        def calculate(self, *arguments: Any, **more: Any) -> None:
            self.n_calls += 1
            if self.n_calls == 4:
                raise ValueError("atoms 1 and 2 are at one place")
            super().calculate(*arguments, **more)

    atoms = copper(1)
    atoms.calc = Refusing()
    with pytest.raises(ExplodedRunError, match=r"step 3: .*at one place.* is on atom \d"):
        make(tmp_path, atoms, n_steps=10)


def test_a_damaged_folder_is_told(tmp_path: Path) -> None:
    make(tmp_path, wells(), n_steps=20)
    log = tmp_path / "md.csv"
    whole = log.read_bytes()
    log.write_bytes(whole[:-10])
    with pytest.raises(OSError, match=r"md\.csv must have at least"):
        make(tmp_path, wells(), n_steps=20)
    log.write_bytes(whole)
    (tmp_path / "restart.npz").write_bytes(b"torn")
    with pytest.raises(ValueError, match="cannot be read"):
        make(tmp_path, wells(), n_steps=20)
