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
from rdkit.rdBase import BlockLogs
from transformers import AutoTokenizer

from awrs_ppl import LM, Context, infer
from awrs_ppl.constraints.potential import BooleanPotential
from awrs_ppl.errors import PotentialError
from awrs_ppl.lm.embedded import embedded_path
from awrs_ppl.potentials import _rdkit, molecules
from awrs_ppl.potentials.molecules import MoleculeProperty, Qed, Smiles
from awrs_ppl.testing import assert_prefix_closed

MOLECULES = (Path(__file__).parents[1] / "data" / "molecules.smi").read_text().split()
OTHERS = ["[Na+].[Cl-]", "N[C@@H](C)C(=O)O", r"F/C=C/F", "c1ccc2[nH]ccc2c1", "C%12CC%12", "[13CH4]"]


def verdict(potential: BooleanPotential, text: str | bytes) -> tuple[bool, bool]:
    """Whether an allowed text has this prefix, and whether it is one; read byte by byte."""
    data = text.encode() if isinstance(text, str) else text
    state: Any = potential.start()
    for at in range(len(data)):
        state = potential.advance(state, data[at : at + 1])
        if state is None:
            return False, False
    return True, bool(potential.accepts(state))


def contract_errors(potential: BooleanPotential, data: bytes) -> list[bytes]:
    """The prefixes of a text that get another verdict when read at once."""
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


@pytest.mark.slow
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


ELEMENTS = [Chem.GetPeriodicTable().GetElementSymbol(number) for number in range(1, 119)]
AROMATIC = [*"bcnops", "se", "as", "te", "si"]

PIECES = [
    *("C", "N", "O", "S", "Cl", "Br", "B", "c", "n", "o", "[nH]", "[N+]", "[C@H]", "[", "]", "H"),
    *("(", ")", "=", "#", "$", "-", "/", ":", ".", ">", "*", "1", "2", "%1", "%12", "%", "+"),
    *(" ", "\n", "é", "²", "٣"),
]


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from([*PIECES, *PIECES[:12], "1", "1", "(", ")"]), max_size=12))
def test_odd_texts_get_equal_verdicts_at_once_and_by_bytes(pieces: list[str]):
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
        ("c1cccc1C", (False, False)),
        ("cC", (False, False)),
        # Triangulene: two of its carbons can have no double bond.
        ("c1cc2cc3cccc4cc5cccc6cc(c1)c2c(c34)c65.C", (False, False)),
        ("CN(C)(C)C", (False, False)),
        ("CN(C)(C)(C", (False, False)),
        ("C$B", (True, False)),
        ("C$Br", (False, False)),
        ("[L", (True, False)),
        ("[Lx", (False, False)),
        ("[H@", (False, False)),
        ("C(=1)CC1", (False, False)),
        ("C1C1", (False, False)),
        ("C(.C)C", (False, False)),
        ("C%(", (True, False)),
        ("C->", (True, False)),
        ("C<=", (False, False)),
        ("C%(123456", (False, False)),
        ("C |c:1|", (False, False)),
        ("C(=O)(=O)=O", (False, False)),
        (b"\xff", (False, False)),
        (b"C\xc2", (False, False)),
    ],
)
def test_smiles_gives_the_listed_verdicts(text: str | bytes, expected: tuple[bool, bool]):
    assert verdict(Smiles(), text) == expected


# What RDKit writes and reads beyond the organic subset.
UNUSUAL = [
    *("[Li+].CC([O-])=O", "[Al+3].[Cl-].[Cl-].[Cl-]", "CC(C)(C)[Mg]Br", "C[As](C)C", "F[Xe]F"),
    *("c1cc[te]c1", "[se]1cccc1", "[as]1ccccc1", "[si]1ccccc1", "b1ccccc1", "[bH]1cccc1"),
    *("[Fe++].[Cl--]", "[O-2].[Zn+2]", "[HH]", "[H+]", "[2H]C([2H])[2H]", "[0CH4]", "[235U]"),
    *("[C@TH2](F)(Cl)(Br)I", "[Pt@SP3](F)(Cl)(Br)I", "[P@TB20](F)(Cl)(Br)(I)C", "CC=[C@AL1]=CC"),
    *("[Co@OH30](F)(Cl)(Br)(I)(C)N", "[CH3:1][OH:2]", "[*:1]c1cccc*1", "[#6]1C[#7]1"),
    *("C%(100)CC%(100)", "C%(7)CC7", "C=1CC-1", "C1.C=1", "C->1.[Fe]1", "C~1CC1", "C(C)1CC1"),
    *("[NH3]->[Pt](Cl)(Cl)<-[NH3]", "C~C", "C$C", "C:C", "c1:c:c:c:c:c1", "F\\\\C=C/F", "C(C)(C)"),
    *(
        "CN(=O)=O",
        "CN=N#N",
        "OCl(=O)(=O)=O",
        "OI(=O)=O",
        "O=n1ccccc1",
        "C=P(=O)C",
        "CP(Cl)(Cl)(Cl)Cl",
    ),
    *("CC(C)(C)(C)[Fe]", "CC(C)(C)(C):C", "F[P-](F)(F)(F)(F)F", "S(F)(F)(F)(F)(F)F", "[H-](C)C"),
    *("C1CcCC1", "c1ccccc1~c1ccccc1", "C1c2ccccc2c2ccccc12", "[cH-]1cccc1.[Fe+2].[cH-]1cccc1"),
    *("[HH]B([2H])[2H]", "[H]=C", "FC(F)(F)=[H]", "Cl(=O)(=O)(=O)[H]", "[H]=[Fe]", "C=1.[H]=1"),
    *("[Uuo]", "['Sg']", "[C@@](F)(Cl)(Br)I", "C(C.C)C"),
]


@pytest.mark.parametrize("text", UNUSUAL)
def test_unusual_smiles_that_rdkit_reads_are_accepted_byte_by_byte(text: str):
    assert is_molecule(text)
    assert verdict(Smiles(), text) == (True, True)
    assert contract_errors(Smiles(), text.encode()) == []


def test_elements_in_brackets_are_those_of_rdkit():
    for symbol in [*ELEMENTS, *AROMATIC]:
        for state in ("", "+", "--", "+3", "H2", "@", "@@H+"):
            text = f"[{symbol}{state}]"
            begun, done = verdict(Smiles(), text)
            assert done == is_molecule(text), text
            assert begun or not done
    for text in ("[D]", "[X]", "[sn]", "[Fe+++]", "[C+01]", "[Cx]", "[lI]", "[C@TB21]", "[C:1:2]"):
        assert not is_molecule(text)
        assert verdict(Smiles(), text) == (False, False)


def bracket(rng: random.Random) -> str:
    symbol = rng.choice([rng.choice(ELEMENTS), *("C", "N", "O", "P", "S", "*"), *AROMATIC])
    return "".join(
        (
            "[" + rng.choice(["", "", "", "13", "2", "0"]) + symbol,
            rng.choice(["", "", "", "@", "@@", "@TH1", "@SP2", "@TB10", "@OH25", "@AL1"]),
            rng.choice(["", "", "H", "H2", "H3", "H0"]),
            rng.choice(["", "", "", "+", "-", "++", "--", "+2", "-3", "+4", "+0"]),
            rng.choice(["", "", "", ":1", ":0"]) + "]",
        )
    )


def an_atom(rng: random.Random) -> str:
    return rng.choice([*"CCCCNNOSPFIB", "Cl", "Br", "*", *"ccnosp", *[bracket(rng)] * 6])


def a_bond(rng: random.Random) -> str:
    return rng.choice([*[""] * 10, "-", "=", "=", "#", "$", ":", "/", "\\", "~", "->", "<-"])


def chain(rng: random.Random, rings: list[str], depth: int = 0) -> str:
    text = ""
    for _ in range(rng.randint(1, 4)):
        text += (a_bond(rng) if text else "") + an_atom(rng)
        for _ in range(3):
            if rng.random() < 0.12:
                rings.append(rng.choice(["1", "2", "%10", "%(7)", "%(123)"]))
                text += a_bond(rng) + rings[-1]
        while depth < 3 and rng.random() < 0.25:
            text += f"({a_bond(rng)}{chain(rng, rings, depth + 1)})"
        if rng.random() < 0.03:
            text += "." + an_atom(rng)
    return text


def random_smiles(rng: random.Random) -> str:
    """Mostly SMILES by their grammar, some of molecules, some one or two slips away from one."""
    if rng.random() < 0.4:
        rings: list[str] = []
        text = chain(rng, rings)
        return text + "".join("CC" + n for n in sorted(set(rings)) if rings.count(n) % 2)
    mol = Chem.MolFromSmiles(rng.choice([*MOLECULES, *OTHERS, *UNUSUAL]))
    # RDKit draws its order from the numbers of the C library, so it is drawn here.
    order = rng.sample(range(mol.GetNumAtoms()), mol.GetNumAtoms())
    text = Chem.MolToSmiles(
        Chem.RenumberAtoms(mol, order),
        canonical=False,
        allBondsExplicit=rng.random() < 0.2,
        allHsExplicit=rng.random() < 0.2,
    )
    for _ in range(rng.randrange(3)):
        at = rng.randrange(len(text) + 1)
        text = text[:at] + rng.choice([*PIECES, bracket(rng), ""]) + text[at + rng.randrange(2) :]
    return text


def test_random_smiles_are_accepted_where_rdkit_reads_them(fuzz: Any):
    for rng in fuzz.rngs(250):
        text = random_smiles(rng)
        if not text.isascii() or " " in text or "\n" in text:
            continue
        verdicts = [
            Smiles().advance(b"", text[:end].encode()) is not None for end in range(len(text) + 1)
        ]
        with BlockLogs():
            valid = is_molecule(text)
        assert verdict(Smiles(), text)[1] == valid, text
        if valid:
            assert all(verdicts), (text, text[: verdicts.index(False)])
        assert verdicts == sorted(verdicts, reverse=True), text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gemma3-270m", "smollm2-135m"])
def test_molecules_are_accepted_however_embedded_tokens_spell_them(name: str):
    tokenizer = AutoTokenizer.from_pretrained(embedded_path(name))
    blank = tokenizer.convert_ids_to_tokens(tokenizer.encode("a b", add_special_tokens=False))[-1]
    tokens = {token.replace(blank.removesuffix("b"), " ") for token in tokenizer.get_vocab()}
    longest = max(len(token) for token in tokens if token.isascii())
    rng = random.Random(0)
    for text in [*UNUSUAL, *OTHERS, *MOLECULES[::5]]:
        state: Any = Smiles().start()
        rest = " " + text
        while rest:
            ends = [n for n in range(1, min(len(rest), longest) + 1) if rest[:n] in tokens]
            end = rng.choice(ends)
            state = Smiles().advance(state, rest[:end].encode())
            assert state is not None, (text, rest)
            rest = rest[end:]
        assert Smiles().accepts(state), text


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


async def test_property_is_a_log_weight():
    weighed = []

    def atoms(mol: Any) -> float:
        weighed.append(mol)
        return -mol.GetNumAtoms()

    assert await MoleculeProperty(atoms).complete(b"CCO") == -3.0
    assert await MoleculeProperty(atoms).complete(b"C1CO") == -math.inf
    assert len(weighed) == 1

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


def test_rdkit_in_several_threads_prints_nothing(capfd: pytest.CaptureFixture[str]):
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


def test_missing_rdkit_raises_with_what_to_install(monkeypatch: pytest.MonkeyPatch):
    real = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name.startswith("rdkit"):
            raise ImportError("No module named 'rdkit'")
        return real(name, *args)

    _rdkit.rdkit.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    for build in (Smiles, Qed, lambda: MoleculeProperty(len)):
        with pytest.raises(ImportError, match=r"pip install .*\[molecules\]"):
            build()


@pytest.mark.parametrize("potential", [Smiles(), Qed(), Smiles() * Qed()], ids=str)
async def test_molecule_potentials_pass_the_tests_of_genlm_control(potential: Any):
    contexts = [b"", b"C", b"C1=CN", b" C(", b"CO"]
    for context in contexts:
        if await potential.prefix(context) > -math.inf:
            await potential.assert_logw_next_consistency(list(context))
            await potential.assert_autoreg_fact(list(context))
    await potential.assert_batch_consistency([list(c) for c in contexts[:3]])


@pytest.mark.slow
async def test_sampled_molecules_are_valid():
    lm = LM.embedded("smollm2-135m")
    known = ("CCO", "CC(=O)O", "C1CCCCC1", "ClCCl", "CC#N", "c1ccccc1", "CC(C)O", "C[Mg]Br", "CCN")
    prompt = "".join(f"Molecule: {smiles}\n" for smiles in known) + "Molecule:"

    async def molecule(ctx: Context) -> str:
        return await ctx.generate(lm(prompt, stop="\n") * Smiles(), max_tokens=16, critic=Qed())

    posterior = await infer(molecule, n_particles=12, seed=0, progress=False)
    texts = [text for text, p in posterior.probabilities.items() if p > 0]
    assert texts
    assert all(is_molecule(text.strip()) for text in texts)
