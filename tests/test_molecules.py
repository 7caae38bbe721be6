"""Smiles and the critics of molecules, on real molecules, their mutations and odd texts."""

from __future__ import annotations

import asyncio
import builtins
import math
import random
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem
from rdkit.Chem.QED import qed

from awrs_ppl import LM, Context, infer
from awrs_ppl.errors import PotentialError
from awrs_ppl.potential import BooleanPotential
from awrs_ppl.potentials import molecules
from awrs_ppl.potentials.molecules import MoleculeProperty, Qed, Smiles
from awrs_ppl.testing import assert_prefix_closed

MOLECULES = (Path(__file__).parent / "data" / "molecules.smi").read_text().split()
OTHERS = ["[Na+].[Cl-]", "N[C@@H](C)C(=O)O", r"F/C=C/F", "c1ccc2[nH]ccc2c1", "C%12CC%12", "[13CH4]"]


def verdict(potential: BooleanPotential, text: str | bytes) -> tuple[bool, bool]:
    """Whether an allowed text begins so, and whether it is one; read byte by byte."""
    data = text.encode() if isinstance(text, str) else text
    state: Any = potential.start()
    for at in range(len(data)):
        state = potential.advance(state, data[at : at + 1])
        if state is None:
            return False, False
    return True, bool(potential.accepts(state))


def contract_errors(potential: BooleanPotential, data: bytes) -> list[bytes]:
    """The beginnings of a text that are judged otherwise when read at once."""
    wrong = []
    for end in range(len(data) + 1):
        state: Any = potential.advance(potential.start(), data[:end])
        at_once = state is not None, state is not None and bool(potential.accepts(state))
        if at_once != verdict(potential, data[:end]):
            wrong.append(data[:end])
    return wrong


def is_molecule(text: str) -> bool:
    mol = Chem.MolFromSmiles(text)
    return mol is not None and mol.GetNumAtoms() > 0


def test_real_molecules_are_accepted_byte_by_byte_and_their_mutations_are_not():
    assert len(MOLECULES) == 30
    for smiles in MOLECULES:
        assert verdict(Smiles(), smiles) == (True, True)
        assert contract_errors(Smiles(), smiles.encode()) == []
        # Six bonds at a carbon.
        crowded = smiles.replace("C1=", "C1(F)(F)=", 1)
        assert crowded != smiles
        assert verdict(Smiles(), crowded) == (False, False)
        # A ring that is not closed.
        at = smiles.rindex("1")
        open_ring = smiles[:at] + smiles[at + 1 :]
        assert not verdict(Smiles(), open_ring)[1]
        assert not is_molecule(open_ring)


def test_molecules_are_accepted_in_every_order_of_their_atoms():
    rng = random.Random(0)
    for smiles in [*MOLECULES[::3], *OTHERS]:
        mol = Chem.MolFromSmiles(smiles)
        for _ in range(5):
            order = list(range(mol.GetNumAtoms()))
            rng.shuffle(order)
            other = Chem.MolToSmiles(Chem.RenumberAtoms(mol, order), canonical=False)
            assert verdict(Smiles(), other) == (True, True), other


PIECES = [
    *("C", "N", "O", "S", "Cl", "Br", "B", "c", "n", "o", "[nH]", "[N+]", "[C@H]", "[", "]", "H"),
    *("(", ")", "=", "#", "$", "-", "/", ":", ".", ">", "*", "1", "2", "%1", "%12", "%", "+"),
    *(" ", "\n", "é", "²", "٣"),
]


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from([*PIECES, *PIECES[:12], "1", "1", "(", ")"]), max_size=12))
def test_odd_texts(pieces: list[str]):
    text = "".join(pieces)
    data = text.encode()
    potential = Smiles()
    assert contract_errors(potential, data) == []
    begun, done = verdict(potential, data)
    assert begun >= done
    if done:
        assert is_molecule(text.strip())
        assert text == text.strip() or text == " " + text.strip()
    asyncio.run(assert_prefix_closed(potential, [data]))


class Hasty(Smiles):
    """Judges a text without its beginnings."""

    def advance(self, state: Any, data: bytes) -> bytes | None:
        text = state + data
        return text if molecules._begins(text) else None


def test_beginnings_that_partialsmiles_rejects_stay_rejected():
    # Boron has no four bonds, and chlorine, phosphorus or bromine may.
    assert contract_errors(Hasty(), b"C$Br")
    assert contract_errors(Smiles(), b"C$Br") == []
    assert verdict(Smiles(), "C$Br") == (False, False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (True, False)),
        (" ", (True, False)),
        ("C", (True, True)),
        (" C", (True, True)),
        ("  C", (False, False)),
        ("C ", (False, False)),
        ("C C", (False, False)),
        ("C\n", (False, False)),
        ("C>O>N", (False, False)),
        ("C²", (False, False)),
        ("Cé", (False, False)),
        ("C%", (True, False)),
        ("C%1C", (False, False)),
        ("C%12CC%12", (True, True)),
        ("C%123CC%12CC3", (True, True)),
        ("[", (True, False)),
        ("[Xx]", (False, False)),
        ("c1ccccc1", (True, True)),
        ("c1cccc1.C", (False, False)),
        ("c1cccc1", (True, False)),
        ("C(=O)(=O)=O", (False, False)),
        (b"\xff", (False, False)),
        (b"C\xc2", (False, False)),
    ],
)
def test_what_is_a_molecule(text: str | bytes, expected: tuple[bool, bool]):
    assert verdict(Smiles(), text) == expected


def test_potentials_are_values():
    assert Smiles().key == Smiles().key
    state = Smiles().advance(b"C", b"=O")
    assert state == b"C=O"
    assert Smiles().advance(state, b"") == state
    assert (repr(Smiles()), Smiles().fingerprint) == ("Smiles()", "Smiles()")
    assert (repr(Qed()), Qed().fingerprint) == ("Qed()", "Qed()")
    assert repr(MoleculeProperty(len)) == "MoleculeProperty(len)"


def weigh(potential: Any, text: str | bytes) -> float:
    return asyncio.run(potential.complete(text.encode() if isinstance(text, str) else text))


def test_qed_weighs_by_log_qed():
    for smiles in MOLECULES[::5]:
        assert math.exp(weigh(Qed(), smiles)) == pytest.approx(qed(Chem.MolFromSmiles(smiles)))
        assert weigh(Qed(), " " + smiles) == weigh(Qed(), smiles)
    for wrong in ("", "C1CC", "CC(", "C C", "junk", b"\xff", "C\n"):
        assert weigh(Qed(), wrong) == -math.inf
    assert Qed().is_terminal_only()
    assert asyncio.run(Qed().prefix(b"junk")) == 0.0


async def test_a_property_is_a_log_weight():
    asked = []

    def atoms(mol: Any) -> float:
        asked.append(mol)
        return -mol.GetNumAtoms()

    assert await MoleculeProperty(atoms).complete(b"CCO") == -3.0
    assert await MoleculeProperty(atoms).complete(b"C1CO") == -math.inf
    assert len(asked) == 1

    async def slow(mol: Any) -> float:
        await asyncio.sleep(0)
        return 2.0

    assert await MoleculeProperty(slow).complete(b"C") == 2.0
    with pytest.raises(PotentialError, match=r"MoleculeProperty\(<lambda>\) gave .* nan to 'C'"):
        await MoleculeProperty(lambda mol: math.nan).complete(b"C")

    def fails(mol: Any) -> float:
        raise KeyError("logP")

    with pytest.raises(PotentialError, match=r"MoleculeProperty\(fails\) raised KeyError"):
        await MoleculeProperty(fails).complete(b"C")
    with pytest.raises(TypeError, match="MoleculeProperty got 3: it needs a function"):
        MoleculeProperty(3)  # pyright: ignore[reportArgumentType]


def test_rdkit_says_nothing_in_any_thread(capfd: pytest.CaptureFixture[str]):
    wrong = ["C1CC", "C(=O)(=O)=O", "c1cccc1", "C(C"] * 20

    def judge() -> None:
        for text in wrong:
            assert molecules.molecule(text.encode()) is None

    threads = [threading.Thread(target=judge) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert capfd.readouterr() == ("", "")
    Chem.MolFromSmiles("C1CC")
    assert "unclosed ring" in capfd.readouterr().err


def test_a_search_without_end_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(molecules, "MOST_STEPS", 10)
    # Triangulene: two of its carbons can have no double bond.
    triangulene = "c1cc2cc3cccc4cc5cccc6cc(c1)c2c(c34)c65.C"
    with pytest.raises(PotentialError, match="found no end in assigning the aromatic bonds"):
        verdict(Smiles(), triangulene)
    monkeypatch.undo()
    assert verdict(Smiles(), triangulene) == (False, False)


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    real = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name.startswith("rdkit"):
            raise ImportError("No module named 'rdkit'")
        return real(name, *args)

    molecules._libraries.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    for build in (Smiles, Qed, lambda: MoleculeProperty(len)):
        with pytest.raises(ImportError, match=r'pip install "awrs-ppl\[molecules\]"'):
            build()


@pytest.mark.parametrize("potential", [Smiles(), Qed(), Smiles() * Qed()], ids=str)
async def test_genlm_controls_own_tests_of_potentials(potential: Any):
    contexts = [b"", b"C", b"C1=CN", b" C(", b"CO"]
    for context in contexts:
        if await potential.prefix(context) > -math.inf:
            await potential.assert_logw_next_consistency(list(context))
            await potential.assert_autoreg_fact(list(context))
    await potential.assert_batch_consistency([list(c) for c in contexts[:3]])


async def test_sampled_molecules_are_valid():
    lm = LM.embedded("smollm2-135m")
    prompt = "".join(f"Molecule: {smiles}\n" for smiles in MOLECULES[:10]) + "Molecule:"

    async def molecule(ctx: Context) -> str:
        return await ctx.generate(lm(prompt, stop="\n") * Smiles(), max_tokens=24, critic=Qed())

    posterior = await infer(molecule, n_particles=12, seed=0, progress=False)
    texts = [text for text, p in posterior.probabilities.items() if p > 0]
    assert texts
    assert all(is_molecule(text.strip()) for text in texts)
