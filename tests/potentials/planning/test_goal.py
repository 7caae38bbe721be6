"""Goals of planning problems: real ones, contradictory ones, and any domain against a search."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awrs_ppl import LM, Context, infer
from awrs_ppl.constraints.potential import BooleanPotential
from awrs_ppl.errors import PotentialError
from awrs_ppl.potentials.planning import PddlGoal, PlanAchieves, Reachable, grounding, strips
from awrs_ppl.potentials.planning.strips import Operator, Task
from awrs_ppl.testing import assert_prefix_closed
from awrs_ppl.tokens.vocabulary import Vocabulary

DATA = Path(__file__).parents[2] / "data" / "blocksworld"
DOMAIN = (DATA / "domain.pddl").read_text()
PROBLEMS = [
    json.loads(line)["problem"] for line in (DATA / "problems.jsonl").read_text().splitlines()
]
# Four blocks on the table.
FOUR = """(define (problem four) (:domain blocksworld) (:objects b1 b2 b3 b4)
  (:init (arm-empty) (clear b1) (clear b2) (clear b3) (clear b4)
    (on-table b1) (on-table b2) (on-table b3) (on-table b4))
  (:goal (and"""

TRUCKS = """(define (domain trucks) ; a comment ( that opens
  (:requirements :strips :typing :negative-preconditions :equality)
  (:types truck car - vehicle place)
  (:constants home - place)
  (:predicates (at ?v - vehicle ?p - place) (road ?a ?b - place) (broken ?v - vehicle)
    (loaded ?t - truck))
  (:action drive :parameters (?v - vehicle ?a ?b - place)
    :precondition (and (at ?v ?a) (road ?a ?b) (not (broken ?v)) (not (= ?a ?b)))
    :effect (and (at ?v ?b) (not (at ?v ?a))))
  (:action load :parameters (?t - truck)
    :precondition (and (at ?t home) (not (loaded ?t))) :effect (loaded ?t))
  (:action crash :parameters (?v - car) :precondition (and) :effect (broken ?v)))"""
TWO = """(define (problem two) (:domain trucks) (:objects T1 - truck c1 - car x y - place)
  (:init (at t1 x) (at c1 x) (road home x) (road x home)) (:goal (and"""

LIGHTS = """(define (domain lights) (:requirements :adl :action-costs) (:types lamp room)
  (:constants hall - room)
  (:predicates (on ?l - lamp) (in ?l - lamp ?r - room) (lit ?r - room) (dark) (done))
  (:functions (total-cost) - number)
  (:action press :parameters (?l - lamp)
    :precondition (or (not (on ?l)) (exists (?r - room) (lit ?r)))
    :effect (and (on ?l) (not (dark)) (increase (total-cost) 3)
      (forall (?r - room) (when (in ?l ?r) (lit ?r)))))
  (:action finish :parameters ()
    :precondition (forall (?l - lamp) (imply (in ?l hall) (on ?l))) :effect (done)))"""
LAMPS = """(define (problem lamps) (:domain lights) (:objects l1 l2 - lamp attic - room)
  (:init (dark) (in l1 hall) (= (total-cost) 0))
  (:goal (done)) (:metric minimize (total-cost)))"""


def read(potential: BooleanPotential, text: str) -> int | bool:
    """Whether a text is allowed, read byte by byte; or where it is rejected."""
    state: Any = potential.start()
    for at, byte in enumerate(text.encode()):
        state = potential.advance(state, bytes([byte]))
        if state is None:
            return at
    return bool(potential.accepts(state))


def verdict(potential: BooleanPotential, text: str) -> tuple[bool, bool]:
    state: Any = potential.advance(potential.start(), text.encode())
    return state is not None, state is not None and bool(potential.accepts(state))


def contract_errors(potential: BooleanPotential, text: str) -> list[str]:
    """The prefixes of a text that get another verdict when read at once."""
    wrong = []
    for end in range(len(text) + 1):
        by_bytes = read(potential, text[:end])
        begun = by_bytes is True or by_bytes is False
        if verdict(potential, text[:end]) != (begun, by_bytes is True):
            wrong.append(text[:end])
    return wrong


def split(problem: str) -> tuple[str, str]:
    end = problem.index("(:goal (and") + len("(:goal (and")
    return problem[:end], problem[end:]


@pytest.mark.parametrize("number", range(len(PROBLEMS)))
def test_real_goals_are_accepted(number: int):
    problem, goal = split(PROBLEMS[number])
    for potential in (PddlGoal(DOMAIN, problem), Reachable(DOMAIN, problem)):
        for text in (goal, goal.rstrip()[:-1], goal.upper(), goal.replace("(", "(\n\t ")):
            assert read(potential, text) is True
            assert verdict(potential, text) == (True, True)
        assert contract_errors(potential, goal[:40]) == []
        assert read(potential, goal.rstrip()[:-1].rstrip()[:-1]) is False
        assert read(potential, goal.replace("arm-empty", "arm-full")) is not True or (
            "arm-empty" not in goal
        )


@pytest.mark.parametrize(
    ("goal", "at"),
    [
        # The rejection falls on the first letter that leaves only contradictions.
        ("(on b1 b2) (on b1 b3)", "3"),
        ("(on b2 b1) (on b3 b1)", "1"),
        ("(on b1 b2) (on b2 b1)", "1"),
        ("(on b1 b2) (on b2 b3) (on b3 b1)", "1"),
        ("(on b4 b3) (on b1 b2) (on b2 b3)", "3"),
        ("(on b1 b2) (on b2 b3) (on b3 b4) (on b4 b1)", "4"),
        ("(on b1 b1)", "1"),
        ("(holding b1) (on-table b1)", "1"),
        ("(holding b1) (holding b2)", "2"),
        ("(holding b1) (arm-empty)", "a"),
        ("(arm-empty) (holding b", "h"),
        ("(on b1 b2) (clear b2)", "2"),
        ("(on b1 b2) (on-table b1)", "1"),
        ("(holding b1) (on b2 b1)", "1"),
        ("(clear b1) (on-table b1) (on b2 b1)", "1"),
    ],
)
def test_contradictory_goals_are_rejected(goal: str, at: str):
    rejected = read(Reachable(DOMAIN, FOUR), goal + "))")
    assert rejected is not True
    assert rejected is not False
    assert goal[rejected] == at
    assert goal.find(")", goal.rindex("(")) in (-1, len(goal) - 1)
    assert rejected >= goal.rindex("(")
    if goal.endswith(")"):
        assert read(PddlGoal(DOMAIN, FOUR), goal + "))") is True
    assert contract_errors(Reachable(DOMAIN, FOUR), goal) == []


def blocks_state(perm: list[int], cuts: list[bool]) -> list[str]:
    literals = []
    for at, block in enumerate(perm):
        top = at + 1 == len(perm) or cuts[at + 1]
        literals.append(f"(on-table b{block})" if not at or cuts[at] else "")
        if at and not cuts[at]:
            literals[-1] = f"(on b{block} b{perm[at - 1]})"
        if top:
            literals.append(f"(clear b{block})")
    return [*literals, "(arm-empty)"]


@settings(deadline=None, max_examples=60)
@given(st.permutations([1, 2, 3, 4]), st.lists(st.booleans(), min_size=4, max_size=4), st.data())
def test_parts_of_a_state_in_any_order_are_accepted(
    perm: list[int], cuts: list[bool], data: st.DataObject
):
    literals = data.draw(st.permutations(blocks_state(perm, cuts)))
    count = data.draw(st.integers(1, len(literals)))
    assert read(Reachable(DOMAIN, FOUR), " ".join(literals[:count]) + "))") is True


WORDS = [
    *("(", "(", ")", ")", ")", " ", "\n", "(on b1 b2)", "(on b2 b3)", "(clear b1)", "(arm-empty)"),
    *("(on b2 b1)", "on", "on ", "b1", "b2 ", " b3", "clear", "arm-empty", "not", "B1", "b", "x"),
    *("(not ", ";", "))", "é", "\x0b", "(ON"),
]


@pytest.mark.slow
@settings(deadline=None, max_examples=400)
@given(st.lists(st.sampled_from(WORDS), max_size=8).map("".join))
def test_odd_texts_get_equal_verdicts_at_once_and_by_bytes(text: str):
    goal, reachable = PddlGoal(DOMAIN, FOUR), Reachable(DOMAIN, FOUR)
    for potential in (goal, reachable):
        asyncio.run(assert_prefix_closed(potential, [text]))
        if text.isascii():
            assert contract_errors(potential, text) == []
    assert verdict(goal, text)[0] >= verdict(reachable, text)[0]
    assert verdict(goal, text)[1] >= verdict(reachable, text)[1]


TOKENS = Vocabulary(
    [
        *(b"(", b" (", b")", b"))", b")))", b" ", b"\n", b"(on", b" b", b"1", b"2", b" b1", b"b2"),
        *(b"on", b"-table", b"(on b1 b2", b") (clear", b"(arm-empty) (ar", b"A", b"\xc3", b"\xff"),
        *(b"n", b"(not(on", b"(broken", b" t1", b" c1", b"x", b"home", b"<end>"),
    ],
    ends=[28],
)


@pytest.mark.parametrize(
    "potential",
    [
        PddlGoal(DOMAIN, FOUR),
        PlanAchieves("(pickup b1)\n(stack b1 b2)", DOMAIN, FOUR),
        PddlGoal(TRUCKS, TWO),
    ],
    ids=str,
)
def test_masks_along_random_walks_agree_with_advance(potential: Any):
    rng = np.random.default_rng(0)
    for _ in range(20):
        state = potential.start()
        for _ in range(8):
            mask = potential.mask(state, TOKENS)
            expected = [
                bool(TOKENS.is_text[i]) and potential.advance(state, token) is not None
                for i, token in enumerate(TOKENS.tokens)
            ]
            assert mask.tolist() == expected
            allowed = np.flatnonzero(mask)
            if not len(allowed):
                break
            state = potential.advance(state, TOKENS.tokens[rng.choice(allowed)])


def test_states_after_other_orders_of_literals_are_equal():
    goal, reachable = PddlGoal(DOMAIN, FOUR), Reachable(DOMAIN, FOUR)
    one, other = b" (clear b1)(on b1  b2 ) (ON b2 ", b"(on b1 b2)\n(clear b1) (on b2 "
    for potential in (goal, reachable):
        state: Any = potential.advance(potential.start(), one)
        assert state == potential.advance(potential.start(), other)
        assert hash(state) == hash(potential.advance(potential.start(), other))
        assert potential.advance(state, b"") == state
    assert goal.advance(b"", b"(on b1 b2) (") == goal.advance(b"", b"(clear b3) (clear b1) (")
    assert reachable.advance((0, b""), b"(on b1 b2) (") != reachable.advance((0, b""), b"(")
    closed = reachable.advance((0, b""), b"(on b1 b2))")
    assert closed == reachable.advance((0, b""), b"(clear b3)) ")


def test_objects_of_a_wrong_type_are_rejected():
    goal, reachable = PddlGoal(TRUCKS, TWO), Reachable(TRUCKS, TWO)
    for text, begun in {
        "(at T1 home)))": True,
        "(at c1 x) (not (broken c1))))": True,
        "(not(loaded t1)) (not(at c1 y))))": True,
        "(loaded c1": False,
        "(at home t1": False,
        "(at t1 t1": False,
        "(= x y)": False,
        "(not (not (broken c1": False,
    }.items():
        assert verdict(goal, text) == (begun, begun), text
        assert verdict(reachable, text) == (begun, begun), text
    for text in ("(at t1 y", "(road x y", "(not(road x h", "(broken t", "(at t1 x) (at t1 home)"):
        assert verdict(goal, text)[0]
        assert not verdict(reachable, text)[0]
    assert not verdict(reachable, "(at t1 x) (not (at t1 x)")[0]
    assert not verdict(reachable, "(broken c1) (not (broken c1)")[0]
    assert read(reachable, "(broken c1) (at c1 home) (loaded t1) (at t1 x)))") is True
    assert not verdict(PddlGoal(DOMAIN, FOUR), "(not")[0]


def test_quantifiers_conditional_effects_and_costs_are_followed():
    goal, reachable = PddlGoal(LIGHTS, LAMPS), Reachable(LIGHTS, LAMPS)
    assert read(reachable, "(done) (not (dark)) (lit hall) (on l2)))") is True
    assert read(reachable, "(dark) (not (on l1))))") is True
    for text in ("(lit attic", "(done) (dark)", "(on l1) (not (lit hall)", "(total-cost"):
        assert not verdict(reachable, text)[0]
    assert read(goal, "(lit attic) (done) (dark)))") is True
    reached = PlanAchieves("(press l1)\n(finish)", LIGHTS, LAMPS)
    assert read(reached, "(done) (lit hall) (not (on l2)) (not (dark))))") is True
    assert not verdict(reached, "(done) (on l2")[0]
    assert not verdict(reached, "(not (lit hall")[0]


def test_plan_achieves_what_holds_after_its_last_step():
    plan = "(pickup b1)\n(STACK b1 b2)\n"
    reached = PlanAchieves(plan, DOMAIN, FOUR)
    assert read(reached, "(on b1 b2) (arm-empty) (clear b3)\n))") is True
    for text in ("(on-table b1", "(clear b2", "(h", "(on b1 b3", "(arm-empty) (on b2"):
        assert not verdict(reached, text)[0]
    assert read(reached, "))") == 0
    assert read(PlanAchieves("", DOMAIN, FOUR), "(on-table b1)))") is True
    assert not verdict(PlanAchieves("", DOMAIN, FOUR), "(on b")[0]
    assert read(PlanAchieves("; cost = 0", DOMAIN, FOUR), "(on-table b1)))") is True
    with pytest.raises(ValueError, match=r"step 2 of the plan, stack\(b2, b3\), is not possible"):
        PlanAchieves("(pickup b1)\n(stack b2 b3)", DOMAIN, FOUR)
    with pytest.raises(ValueError, match=r"the plan '\(fly b1\)' is not read"):
        PlanAchieves("(fly b1)", DOMAIN, FOUR)


def test_plans_of_the_planner_reach_their_goals():
    for problem in PROBLEMS[:6]:
        start, goal = split(problem)
        task = grounding.ground(DOMAIN, start)
        wanted = sum(1 << i for i, name in enumerate(task.names) if name in goal)
        steps = task.plan(wanted)
        assert steps is not None
        assert read(PlanAchieves("\n".join(steps), DOMAIN, start), goal) is True


OPERATORS = st.lists(
    st.tuples(*[st.sets(st.integers(0, 5), max_size=2)] * 3), min_size=1, max_size=7
)


def number(bits: set[int]) -> int:
    return sum(1 << i for i in bits)


def states(task: Task) -> set[int]:
    found, fresh = {task.start}, [task.start]
    while fresh:
        state = fresh.pop()
        for op in task.operators:
            then = state & ~op.deletes | op.adds
            if not op.needs & ~state and then not in found:
                found.add(then)
                fresh.append(then)
    return found


@settings(deadline=None, max_examples=150)
@given(st.sets(st.integers(0, 5)), OPERATORS)
def test_random_problems_agree_with_a_full_search(start: set[int], operators: list[Any]):
    task = Task(
        [f"({i})" for i in range(6)],
        number(start),
        [
            Operator(f"o{i}", number(needs), number(adds), number(deletes - adds))
            for i, (needs, adds, deletes) in enumerate(operators)
        ],
    )
    found = states(task)
    for goal in range(1, 64):
        reachable = any(not goal & ~state for state in found)
        # What can be reached is consistent, and so is each part of what is consistent.
        assert task.consistent(goal) >= reachable
        if task.consistent(goal):
            assert all(task.consistent(goal & ~(1 << i)) for i in range(6))
        else:
            assert not reachable
    for some in combinations(range(6), 3):
        goal = number(set(some))
        reachable = any(not goal & ~state for state in found)
        assert (task.plan(goal) is not None) == reachable


def test_goal_that_only_the_planner_refutes_is_rejected_where_it_closes():
    # Each two of three keys can be had, as many as there are pockets.
    keys = """(define (domain keys) (:requirements :strips) (:predicates (free ?p) (has ?k)
      (key ?k) (in ?k ?p))
      (:action take :parameters (?k ?p) :precondition (and (key ?k) (free ?p))
        :effect (and (has ?k) (not (free ?p)))))"""
    three = """(define (problem three) (:domain keys) (:objects a b c p q)
      (:init (key a) (key b) (key c) (free p) (free q)) (:goal (and"""
    goal = Reachable(keys, three)
    assert read(goal, "(has a) (has c)))") is True
    text = "(has a) (has b) (has c)))"
    assert read(goal, text) in (len(text) - 4, text.index("c)"), len(text) - 2)
    assert not verdict(goal, text)[0]


def test_search_over_its_time_limit_raises(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(strips, "TIME_LIMIT", 0.0)
    problem = FOUR.replace("four", "limited")
    tower = "(on b1 b2) (on b2 b3) (on b3 b4)"
    with pytest.raises(PotentialError, match=r"in 0 s neither a plan for \(on b1 b2\) "):
        read(Reachable(DOMAIN, problem), tower + "))")


def test_planner_leaves_logging_unchanged():
    root = logging.getLogger()
    before = root.handlers[:]
    task = grounding.ground(DOMAIN, FOUR)
    assert task.plan(1 << task.names.index("(holding b3)")) == ("(pickup b3)",)
    assert root.handlers == before


def test_goal_in_the_problem_is_not_read():
    whole = FOUR + " (on b1 b2))) (:metric minimize (x)))".replace("(:metric minimize (x))", "")
    start = FOUR[: FOUR.index("(:goal")]
    for problem in (whole, FOUR, FOUR + " (on b1", start, start + ")", "; (:goal\n" + FOUR):
        assert read(Reachable(DOMAIN, problem), " (on b1 b3)))") is True


def test_only_reachable_without_pyperplan_raises(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyperplan", None)
    problem = FOUR.replace("four", "alone")
    assert read(PddlGoal(DOMAIN, problem), "(on b1 b2)))") is True
    assert read(PlanAchieves("(pickup b1)", DOMAIN, problem), "(holding b1)))") is True
    with pytest.raises(ImportError, match=r"Reachable needs pyperplan: pip install .*\[planning\]"):
        Reachable(DOMAIN, problem)


def test_potentials_are_values(tmp_path: Path):
    (tmp_path / "domain.pddl").write_text(DOMAIN)
    (tmp_path / "problem.pddl").write_text(FOUR)
    for kind in (PddlGoal, Reachable):
        one = kind(DOMAIN, FOUR)
        assert one.key == kind(tmp_path / "domain.pddl", tmp_path / "problem.pddl").key
        assert hash(one.key) == hash(kind(DOMAIN, FOUR).key)
        assert one.key != kind(DOMAIN, FOUR.replace("four", "more")).key
        assert repr(one) == one.fingerprint == f"{kind.__name__}(four)"
    assert PlanAchieves("", DOMAIN, FOUR).key != PlanAchieves("(pickup b1)", DOMAIN, FOUR).key
    assert PddlGoal(DOMAIN, FOUR).key != Reachable(DOMAIN, FOUR).key
    assert Reachable(DOMAIN, FOUR).mask is None


@pytest.mark.parametrize("kind", [PddlGoal, Reachable])
def test_wrong_input_raises_with_the_reason(kind: Any):
    with pytest.raises(
        ValueError, match=r"got 'domain\.pddl', which is no PDDL: for a file give a"
    ):
        kind("domain.pddl", FOUR)
    with pytest.raises(TypeError, match="got 3: give the PDDL as a str"):
        kind(3, FOUR)
    with pytest.raises(ValueError, match="not read as PDDL"):
        kind("(define (domain", FOUR)
    with pytest.raises(ValueError, match="not read as PDDL"):
        kind(DOMAIN.replace("(holding ?ob)", "(flying ?ob)", 1), FOUR)
    with pytest.raises(ValueError, match="not read as PDDL"):
        kind(DOMAIN, FOUR.replace("(clear b4)", "(clear b5)"))


def test_reachable_with_conditions_on_numbers_raises():
    fuel = """(define (domain fuel) (:requirements :strips :numeric-fluents) (:predicates (far))
      (:functions (fuel)) (:action go :parameters () :precondition (> (fuel) 1)
      :effect (and (far) (decrease (fuel) 1))))"""
    start = "(define (problem p) (:domain fuel) (:init (= (fuel) 3)) (:goal (and"
    assert read(PddlGoal(fuel, start), "(far)))") is True
    with pytest.raises(ValueError, match="conditions on numbers"):
        Reachable(fuel, start)


@pytest.mark.parametrize(
    "potential",
    [
        PddlGoal(DOMAIN, FOUR),
        Reachable(DOMAIN, FOUR),
        PlanAchieves("(pickup b1)", DOMAIN, FOUR),
        PddlGoal(DOMAIN, FOUR) * Reachable(DOMAIN, FOUR),
    ],
    ids=str,
)
async def test_goal_potentials_pass_the_tests_of_genlm_control(potential: Any):
    contexts = [b"", b" (holding b1", b"(holding b1) ", b"(holding b1))", b"(holding b1)))"]
    for context in contexts:
        assert await potential.prefix(context) > -math.inf
        await potential.assert_logw_next_consistency(list(context))
        await potential.assert_autoreg_fact(list(context))
    await potential.assert_batch_consistency([list(c) for c in contexts])


@pytest.mark.slow
async def test_sampled_goals_are_reachable():
    lm = LM.embedded("smollm2-135m")
    prompt, _ = split(PROBLEMS[0])

    async def goal(ctx: Context) -> str:
        return await ctx.generate(
            lm(prompt, stop="\n") * PddlGoal(DOMAIN, prompt) * Reachable(DOMAIN, prompt),
            max_tokens=40,
        )

    posterior = await infer(goal, n_particles=4, seed=0, progress=False)
    texts = [text for text, p in posterior.probabilities.items() if p > 0]
    assert texts
    assert all(read(Reachable(DOMAIN, prompt), text) is True for text in texts)


def test_parameter_under_two_static_conditions_needs_both():
    rooms = """(define (domain rooms) (:requirements :strips)
      (:predicates (room ?r) (open ?r) (door ?a ?b) (at ?r))
      (:action walk :parameters (?a ?b)
        :precondition (and (at ?a) (room ?b) (open ?b) (door ?a ?b))
        :effect (and (at ?b) (not (at ?a)))))"""
    start = """(define (problem p) (:domain rooms) (:objects a b c d)
      (:init (at a) (room a) (room b) (room c) (open b) (open a) (door a b) (door b c))
      (:goal (and"""
    reachable = Reachable(rooms, start)
    assert read(reachable, "(at b) (door a b)))") is True
    assert not verdict(reachable, "(at c")[0]
    assert not verdict(reachable, "(at d")[0]
