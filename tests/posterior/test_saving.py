"""A saved posterior comes back as it was, or not at all."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import math
import os
import random
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from awrs_ppl import (
    LM,
    Bernoulli,
    Categorical,
    Context,
    Posterior,
    SavedFileError,
    ToyLM,
    errors,
    infer,
    run,
)
from awrs_ppl.models import (
    capitals,
    goal_inference,
    infilling,
    json_schema,
    molecules,
    pattern_matching,
    riddle,
    text_to_sql,
    two_prompts,
)
from awrs_ppl.posterior import saving
from awrs_ppl.posterior._plain_values import MOST_DEPTH, decoded, encoded
from awrs_ppl.posterior.posterior import Stats
from awrs_ppl.posterior.records import Effort, Sync
from awrs_ppl.potentials import Regex, Soft
from awrs_ppl.program.log import Record
from awrs_ppl.program.statements import Sample
from awrs_ppl.program.trace import Trace

DATA = Path(__file__).parents[1] / "data"


def of_values(*values: Any, choice: Any = 0) -> Posterior:
    """A posterior of particles with these values, of equal weight."""
    record = Record(Sample("choice", Categorical(["a"])), choice, 0.0)
    return Posterior(
        [Trace(value, 0.0, [record]) for value in values],
        history=[Sync(float(len(values)), len(values), None)],
        kills={},
        stats=Stats(0, 0, 0, {}, {}),
        seed=0,
        is_proper=True,
    )


async def two_texts(ctx: Context) -> Any:
    lm = ToyLM(["a", "b", " c"], seed=4)
    coin = await ctx.sample(Bernoulli(0.5), name="coin")
    soft = Soft(lambda text: -0.3 * len(text))
    first = await ctx.generate(lm("a") * Regex("[ab c]+") * soft, max_tokens=5)
    await ctx.condition("ba" not in first)
    return {"text": first, "more": await ctx.generate(lm("b"), max_tokens=3)} if coin else (first,)


def states(posterior: Posterior) -> Iterator[Any]:
    """Everything that a posterior and its parts have, as text that says the types."""
    state = posterior._state()
    for trace in state.pop("_traces"):
        yield repr((trace.value, trace.log_weight, trace.finished, trace.choices))
    for part in state.pop("parts"):
        yield from states(part)
    yield state.pop("log_weights").tolist()
    yield {name: repr(value) for name, value in state.items()}


def assert_same(again: Posterior, posterior: Posterior) -> None:
    assert list(states(again)) == list(states(posterior))
    assert str(again) == str(posterior)
    assert again._repr_html_() == posterior._repr_html_()
    assert str(again.explain()) == str(posterior.explain())
    assert str(again.diagnose()) == str(posterior.diagnose())
    assert again.to_json() == posterior.to_json()
    assert again.to_genlm_record() == posterior.to_genlm_record()


def assert_saved(posterior: Posterior, folder: Path) -> Posterior:
    for name in ("posterior.json", "posterior.json.gz"):
        posterior.save(folder / name)
        again = Posterior.load(folder / name)
        assert_same(again, posterior)
    assert (folder / "posterior.json.gz").read_bytes()[:2] == b"\x1f\x8b"
    json.loads((folder / "posterior.json").read_text("ascii"), parse_constant=pytest.fail)
    assert {file.name for file in folder.iterdir()} == {"posterior.json", "posterior.json.gz"}
    return again


# --- posteriors -----------------------------------------------------------------------------

OPTIONS: dict[str, dict[str, Any]] = {
    "children": {},
    "copies": {"resampling": "stratified", "ess_threshold": 0.9},
    "importance": {"ess_threshold": 0.0},
    "runs": {"runs": 3},
    "runs of copies": {"runs": 2, "resampling": "multinomial", "ess_threshold": 0.9},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_posterior_comes_back_as_it_was(options: dict[str, Any], tmp_path: Path) -> None:
    posterior = run(two_texts, n_particles=12, seed=1, progress=False, **options)
    again = assert_saved(posterior, tmp_path)
    assert again.marginal("coin") == posterior.marginal("coin")
    assert again.sample(5, seed=1) == posterior.sample(5, seed=1)
    assert_saved(again.map(str), tmp_path)


async def test_stopped_posterior_comes_back_as_it_was(tmp_path: Path, idle_clock: None) -> None:
    async def model(ctx: Context) -> int:
        import asyncio

        number = await ctx.sample(Categorical([1, 2, 3]))
        await ctx.condition(number < 3)
        await ctx.call(asyncio.sleep, 0 if number == 1 else 1000)
        await ctx.factor(-1.0)
        return number

    posterior = await infer(
        model, n_particles=9, seed=0, progress=False, timeout=5, partial=True, ess_threshold=0.0
    )
    assert posterior.stopped
    assert posterior.dead
    assert_saved(posterior, tmp_path)


def test_posterior_without_survivors_comes_back_as_it_was(tmp_path: Path) -> None:
    async def model(ctx: Context) -> None:
        await ctx.condition(await ctx.sample(Bernoulli(0.5)) == 2)

    posterior = run(model, n_particles=3, seed=0, progress=False)
    assert posterior.log_ml == -math.inf
    assert_saved(posterior, tmp_path)


def test_large_seed_odd_names_and_more_attributes_come_back(tmp_path: Path) -> None:
    posterior = of_values("a")
    posterior.seed = 2**200
    posterior.is_proper = False
    posterior.kills = {"\ud83d\ude00\udc80": 3}
    posterior.efforts = {"\ud83d\ude00": Effort("sample", True, 1, 0.5, math.inf)}
    vars(posterior)["bounds"] = {"a": (0.0, 1.0)}
    assert_saved(posterior, tmp_path)


def test_posterior_of_runs_pools_and_compares_when_loaded(tmp_path: Path) -> None:
    posterior = run(two_texts, n_particles=8, runs=3, seed=0, progress=False)
    posterior.save(tmp_path / "a.json")
    again = Posterior.load(tmp_path / "a.json")
    assert [part.log_ml for part in again.parts] == [part.log_ml for part in posterior.parts]
    assert again.heaviest.history[0] is again.history[0]
    pooled = Posterior.pool([again, posterior])
    assert len(pooled.parts) == 6
    assert pooled.log_ml == pytest.approx(posterior.log_ml)


def test_file_of_runs_has_each_particle_and_step_once(tmp_path: Path) -> None:
    posterior = run(two_texts, n_particles=8, runs=3, seed=0, progress=False)
    posterior.save(tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text())["content"]
    assert len(content["choices"]) == 24
    assert len(content["syncs"]["ess"]) == sum(len(part.history) for part in posterior.parts)


# --- the example programs -------------------------------------------------------------------


@pytest.fixture(scope="module")
def lm() -> LM:
    return LM.embedded("smollm2-135m")


def sql_task(folder: Path) -> Any:
    pairs = [(f"Singer {i}?", f"SELECT name FROM singer LIMIT {i}") for i in range(1, 5)]
    lines = [{"db_id": "concert_singer", "question": q, "query": s} for q, s in pairs]
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return text_to_sql.load(folder / "questions.jsonl", DATA / "concert_singer.sqlite")[0]


def goals(folder: Path) -> Any:
    problems = (DATA / "blocksworld" / "problems.jsonl").read_text().splitlines()[:2]
    lines = [
        {"problem": json.loads(line)["problem"], "init_text": "So it is.", "goal_text": "So be it."}
        for line in problems
    ]
    (folder / "tasks.jsonl").write_text("\n".join(map(json.dumps, lines)))
    first, second = goal_inference.load(
        folder / "tasks.jsonl", DATA / "blocksworld" / "domain.pddl"
    )
    return second, first


PROGRAMS: dict[str, tuple[Any, Callable[[Path], Any]]] = {
    "capitals": (capitals.capitals, lambda _: ()),
    "goal_inference": (partial(goal_inference.goal_inference, max_tokens=12), goals),
    "infilling": (infilling.infilling, lambda _: ("She opened the door, and", ", and closed it.")),
    "json_schema": (
        partial(json_schema.json_schema, max_tokens=30),
        lambda _: ({"properties": {"n": {"enum": [1, 22]}}, "required": ["n"]},),
    ),
    "molecules": (
        partial(molecules.molecules, max_tokens=12),
        lambda _: (molecules.load(DATA / "molecules.smi", count=3),),
    ),
    "pattern_matching": (pattern_matching.pattern_matching, lambda _: ("a{1,3}",)),
    "riddle": (riddle.riddle, lambda _: ()),
    "text_to_sql": (
        partial(text_to_sql.text_to_sql, max_tokens=12),
        lambda folder: (sql_task(folder),),
    ),
    "two_prompts": (two_prompts.two_prompts, lambda _: ("A fruit, like the", "Yellow, like the")),
}


def test_every_example_program_is_here() -> None:
    from awrs_ppl import models

    files = {file.stem for file in Path(models.__path__[0]).glob("*.py")} - {"__init__"}
    assert set(PROGRAMS) == files


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
async def test_posterior_of_an_example_program_comes_back(
    name: str, lm: LM, tmp_path: Path
) -> None:
    program, arguments = PROGRAMS[name]
    given = arguments(tmp_path)
    folder = tmp_path / "saved"
    folder.mkdir()
    posterior = await infer(program, lm, *given, n_particles=3, seed=1, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # every choice is plain data
        assert_saved(posterior, folder)


# --- values ---------------------------------------------------------------------------------


def told(value: Any) -> Any:
    """A value with the types of all its parts, NaNs and signs of zero as text; sets as sorted."""
    kind = type(value)
    if kind in (list, tuple):
        return kind.__name__, [told(item) for item in value]
    if kind in (set, frozenset):
        return kind.__name__, sorted(repr(told(item)) for item in value)
    if kind is dict:
        return "dict", [(told(name), told(item)) for name, item in value.items()]
    return kind.__name__, hex(value) if kind is int else repr(value)


NUMBERS = [
    *(np.bool_(True), np.int8(-3), np.uint64(2**64 - 1), np.longlong(5), np.float16(0.1)),
    *(np.float32("nan"), np.float64(-np.inf), np.complex64(1 + 2j), np.str_("a\udc80\0")),
    *(np.bytes_(b"\xff\0"), Decimal("1.50"), Decimal("-Infinity"), Fraction(10**400, 3)),
    *(-(10**400), -(2**53), 2**53 - 1, complex(-0.0, math.nan), -0.0, 5e-324, True, None),
]
HASHED = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.complex_numbers(),
        st.binary(max_size=8),
        st.text(st.characters(), max_size=8),
        st.text(st.sampled_from("a\ud83d\ude00\udc80\udfff\0"), max_size=6),
        st.decimals().filter(lambda number: not number.is_snan()),  # it has no hash
        st.fractions(),
        st.sampled_from(NUMBERS),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple), st.frozensets(inner, max_size=3)
    ),
    max_leaves=6,
)
VALUES = st.recursive(
    HASHED,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.sets(HASHED, max_size=3),
        st.dictionaries(HASHED, inner, max_size=3),
    ),
    max_leaves=8,
)


@given(VALUES)
def test_value_comes_back_of_the_same_types(value: Any) -> None:
    text = json.dumps(encoded(value), allow_nan=False)
    assert text.isascii()
    assert told(decoded(json.loads(text))) == told(value)


# Of more digits than Python writes.
@pytest.mark.parametrize("value", [*NUMBERS, 10**5000], ids=lambda value: type(value).__name__)
def test_number_comes_back_of_the_same_type(value: Any, tmp_path: Path) -> None:
    of_values(value).save(tmp_path / "a.json")
    assert told(Posterior.load(tmp_path / "a.json").values) == told([value])


@dataclass
class Point:
    x: Any
    y: Any = dataclasses.field(default=2, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Frozen:
    x: int


class Person(pydantic.BaseModel):
    name: str
    born: Any = None
    _secret: int = pydantic.PrivateAttr(3)


class Open(Person, extra="allow"):
    pass


def test_dataclass_and_pydantic_objects_come_back_as_dicts(tmp_path: Path) -> None:
    values = [Point({1}, Frozen(3)), Person(name="Ann", born=Point(1)), Open(name="Bo", age=7)]  # type: ignore[call-arg]
    of_values(*values).save(tmp_path / "a.json")
    again = Posterior.load(tmp_path / "a.json")
    assert again.values == [
        {"__type__": "Point", "x": {1}, "y": {"__type__": "Frozen", "x": 3}},
        {"__type__": "Person", "name": "Ann", "born": {"__type__": "Point", "x": 1, "y": 2}},
        {"__type__": "Open", "name": "Bo", "born": None, "age": 7},
    ]
    assert [next(iter(value)) for value in again.values] == ["__type__"] * 3
    people = of_values(*values[1:])
    people.save(tmp_path / "a.json")
    again = Posterior.load(tmp_path / "a.json")
    assert again.marginal(field="name") == people.marginal(field="name")


class Pair(NamedTuple):
    x: int


ODD: dict[str, Callable[[], Any]] = {
    "object": object,
    "function": lambda: len,
    "type": lambda: int,
    "named tuple": lambda: Pair(1),
    "Counter": lambda: Counter("a"),
    "array": lambda: np.arange(3),
    "bytearray": lambda: bytearray(b"a"),
    "range": lambda: range(3),
    "long double": lambda: np.longdouble(1),
    "in a list": lambda: ["a", {"b": (object(),)}],
    "as a key": lambda: {Frozen(1): 2},
    "in a set": lambda: {("a", Frozen(1))},
    "a field named __type__": lambda: dataclasses.make_dataclass("Odd", ["__type__"])(1),
}


@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
def test_value_of_another_type_is_named(make: Callable[[], Any], tmp_path: Path) -> None:
    posterior = of_values("a", make())
    with pytest.raises(TypeError, match=r"value of particle 1 cannot be saved: .*posterior\.map"):
        posterior.save(tmp_path / "a.json")
    assert not list(tmp_path.iterdir())
    posterior.map(repr).save(tmp_path / "a.json")


def test_deep_and_endless_values_are_named(tmp_path: Path) -> None:
    deep: list[Any] = []
    for _ in range(MOST_DEPTH - 1):
        deep = [deep]
    assert_saved(of_values(deep), tmp_path)
    endless: list[Any] = []
    endless.append(endless)
    for value in ([deep], {"a": endless}):
        with pytest.raises(TypeError, match=r"particle 0 .* nested more than 100 deep"):
            of_values(value).save(tmp_path / "b.json")


def test_choice_of_another_type_is_saved_as_text_with_a_warning(tmp_path: Path) -> None:
    posterior = of_values("a", "b", choice=Pair(1))
    with pytest.warns(UserWarning, match=r"2 of them: the first is 'choice' that is Pair\(x=1\)"):
        posterior.save(tmp_path / "a.json")
    again = Posterior.load(tmp_path / "a.json")
    assert again.values == ["a", "b"]
    assert again[0]["choice"] == {"__type__": "Pair", "repr": "Pair(x=1)"}


def test_value_of_weight_zero_never_fails(tmp_path: Path) -> None:
    posterior = of_values("a")
    posterior._traces.append(Trace(Pair(1), -math.inf, []))
    posterior.save(tmp_path / "a.json")
    assert Posterior.load(tmp_path / "a.json")[1].value["repr"] == "Pair(x=1)"


# --- files ----------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    posterior = run(two_texts, n_particles=3, runs=2, seed=1, progress=False)
    posterior.save(tmp_path / "a.json")
    posterior.save(tmp_path / "a.json.gz")
    return tmp_path / "a.json"


def with_checksum(found: dict[str, Any]) -> str:
    text = f"awrs_ppl posterior {found.get('version')!r} {json.dumps(found['content'])}"
    return json.dumps(found | {"sha256": hashlib.sha256(text.encode()).hexdigest()})


def outcome(path: Path) -> list[Any] | str:
    """All that is loaded, or the error, which names the file."""
    try:
        return list(states(Posterior.load(path)))
    except SavedFileError as error:
        return str(error).replace(repr(str(path)), "THE FILE")


def test_damaged_file_is_an_error_or_equal(saved: Path, fuzz: Any) -> None:
    """Cut anywhere, bytes flipped, inserted and removed: an error that names the file, or all."""
    posterior = Posterior.load(saved)
    wanted = list(states(posterior))
    outcomes: Counter[str] = Counter()
    for rng in fuzz.rngs(600):
        path = rng.choice([saved, saved.with_name("a.json.gz")])
        damaged = bytearray(path.read_bytes())
        for _ in range(rng.choice([1, 1, 1, 3])):
            at = rng.randrange(len(damaged)) if rng.random() < 0.8 else rng.randrange(120)
            kind = rng.choice(["cut", "flip", "digit", "remove", "insert"])
            if kind == "cut":
                del damaged[at:]
            elif kind == "flip":
                damaged[at] ^= 1 << rng.randrange(8)
            elif kind == "digit":
                damaged[at] = rng.choice(b'0123456789"{}[],:nulltrue ')
            elif kind == "remove":
                del damaged[at : at + rng.randint(1, 4)]
            else:
                damaged[at:at] = bytes([rng.randrange(256)])
            if len(damaged) < 120:
                break
        other = saved.with_name("b.json")
        other.write_bytes(damaged)
        found = outcome(other)
        assert found == wanted or str(found).startswith("THE FILE")
        kind = "equal" if found == wanted else "other"
        outcomes["damaged" if str(found).startswith("THE FILE is damaged") else kind] += 1
    assert outcomes["damaged"] > 300
    assert outcomes["other"] > 10
    assert outcomes["equal"] > 0


def places(data: Any) -> list[tuple[Any, Any]]:
    """Every place of a file's data: what holds it, and its key or index there."""
    found = []
    keys = data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
    for key in keys:
        found += [(data, key), *places(data[key])]
    return found


OTHERS = [None, True, 0, -1, 7, 10**400, 1.5, "", "a", [], ["a"], {}, {"a": 1}, {"tuple": 1}]
OTHERS += [{"str": ["a"]}, {"int": "z"}, {"numpy": ["object", 1]}, {"set": [[1]]}, {"bytes": "\n"}]


def changed(rng: random.Random, found: dict[str, Any]) -> None:
    """Remove something at a random place of a file, or put something else there."""
    holder, key = rng.choice(places(found) if rng.random() < 0.7 else places_at_top(found))
    if rng.random() < 0.4:
        del holder[key]
    else:
        holder[key] = json.loads(json.dumps(rng.choice(OTHERS)))


def places_at_top(found: dict[str, Any]) -> list[tuple[Any, Any]]:
    content = found["content"]
    return [
        *((found, key) for key in found if key != "content"),
        *((holder, key) for holder in (content, content["posterior"]) for key in holder),
    ]


def test_changed_data_is_an_error_or_equal(saved: Path, fuzz: Any) -> None:
    text, wanted = saved.read_text(), list(states(Posterior.load(saved)))
    errors = 0
    for rng in fuzz.rngs(400):
        found = json.loads(text)
        changed(rng, found)
        saved.write_text(json.dumps(found))
        loaded = outcome(saved)
        assert loaded == wanted or str(loaded).startswith("THE FILE")
        errors += loaded != wanted
    assert errors > 300


def test_made_up_data_with_its_checksum_is_an_error_or_a_posterior(saved: Path, fuzz: Any) -> None:
    """Nobody is to write such a file; the error is the same."""
    text, errors = saved.read_text(), 0
    for rng in fuzz.rngs(400):
        found = json.loads(text)
        changed(rng, found)
        if "content" not in found:
            continue
        try:
            saved.write_text(with_checksum(found))
        except (TypeError, ValueError):
            continue
        loaded = outcome(saved)
        assert isinstance(loaded, list) or loaded.startswith("THE FILE")
        errors += isinstance(loaded, str)
    assert errors > 100


def test_compressed_file_that_is_cut_anywhere_is_damaged(saved: Path) -> None:
    path = saved.with_name("a.json.gz")
    data = path.read_bytes()
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(SavedFileError, match="is damaged" if length > 120 else "posterior"):
            Posterior.load(path)


def test_file_that_is_written_otherwise_is_read(saved: Path) -> None:
    posterior = Posterior.load(saved)
    saved.write_text(json.dumps(json.loads(saved.read_text()), indent=1) + "\n\n")
    assert_same(Posterior.load(saved), posterior)
    os.replace(saved, saved.with_name("c.json.gz"))  # by what is in it, not by its name
    assert_same(Posterior.load(saved.with_name("c.json.gz")), posterior)


def test_file_of_a_newer_version_says_so(saved: Path) -> None:
    found = json.loads(saved.read_text())
    for content in (found["content"], {"new": 1}):
        newer = {**found, "version": 2, "written_by": "awrs_ppl 9.1", "content": content}
        saved.write_text(json.dumps(newer))
        with pytest.raises(
            SavedFileError, match=r"a\.json' has version 2 .*awrs_ppl 9\.1.*update awrs_ppl"
        ):
            Posterior.load(saved)


def test_field_that_a_file_lacks_has_its_default(saved: Path) -> None:
    found = json.loads(saved.read_text())
    del found["content"]["syncs"]["survived"]
    saved.write_text(with_checksum(found))
    assert {sync.survived for sync in Posterior.load(saved).history} == {1.0}


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[1]", "null", '{"a": ', "\x80\x04\x95", "\x1f\x8b", "PK", "NaN", "[" * 10**5],
)
def test_file_that_is_no_posterior_says_so(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(SavedFileError, match=r"a\.json' is no posterior that posterior\.save"):
        Posterior.load(path)
    path.write_text(of_values("a").to_json())
    with pytest.raises(SavedFileError, match="what to_json writes"):
        Posterior.load(path)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    posterior, away = of_values("a"), tmp_path / "away" / "a.json"
    with pytest.raises(FileNotFoundError, match=r"no folder .*away': make it first.*a\.json'"):
        posterior.save(away)
    with pytest.raises(FileNotFoundError, match=r"no folder .*away'.*a\.json'"):
        Posterior.load(away)
    with pytest.raises(FileNotFoundError, match=r"no such file.*posterior\.save wrote.*b\.json'"):
        Posterior.load(str(tmp_path / "b.json"))
    with pytest.raises(IsADirectoryError, match=r"a folder: give the file"):
        Posterior.load(tmp_path)
    with pytest.raises(OSError, match=r"saved to a file, and this is none"):
        posterior.save(tmp_path)
    with pytest.raises(OSError, match="name too long"):
        posterior.save(tmp_path / ("x" * 300))
    assert not list(tmp_path.iterdir())


def test_file_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    of_values("old").save(path)
    mode = path.stat().st_mode

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(saving.os, "fsync", full)
        with pytest.raises(OSError, match=r"cannot be saved: No space left on device: .*a\.json'"):
            of_values("new").save(path)
    with pytest.raises(TypeError):
        of_values(object()).save(path)
    assert Posterior.load(path).values == ["old"]
    of_values("new").save(path)
    assert Posterior.load(path).values == ["new"]
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    assert path.stat().st_mode == mode
    os.symlink(path, tmp_path / "link.json")
    of_values("newer").save(tmp_path / "link.json")
    assert (tmp_path / "link.json").is_symlink()
    assert Posterior.load(path).values == ["newer"]


def test_same_posterior_is_the_same_file(tmp_path: Path) -> None:
    for name in ("a.json.gz", "b.json.gz"):
        of_values("a", {"b": 1}).save(tmp_path / name)
    first, second = (path.read_bytes() for path in tmp_path.iterdir())
    assert gzip.decompress(first) == gzip.decompress(second)
    assert first == second


def test_error_is_one_of_the_library() -> None:
    assert issubclass(errors.SavedFileError, errors.AwrsError)
    assert issubclass(errors.SavedFileError, ValueError)
