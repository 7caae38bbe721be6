"""PDDL as people write it: any order, any names, any letter case; and what is not supported."""

from __future__ import annotations

import asyncio
import random
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from awrs_ppl.potentials import PddlGoal, PlanAchieves, Reachable
from awrs_ppl.potentials.planning import grounding

SECTIONS = [
    "(:requirements :strips :typing)",
    "(:types crate - thing thing)",
    "(:constants chest - crate)",
    "(:predicates (shut ?x - thing) (open ?x - thing))",
    "(:functions (total-cost) - number)",
    """(:action unlock :parameters (?x - crate) :precondition (shut ?x)
      :effect (and (open ?x) (not (shut ?x)) (increase (total-cost) 2)))""",
]
PARTS = [
    "(:domain locks)",
    "(:requirements :action-costs)",
    "(:objects a - crate b - thing)",
    "(:init (shut a) (shut b) (shut chest) (= (total-cost) 0))",
    "(:goal (and (open a)))",
    "(:metric minimize (total-cost))",
]


def domain(*sections: str) -> str:
    return f"(define (domain locks) {' '.join(sections)})"


def problem(*sections: str) -> str:
    return f"(define (problem two) {' '.join(sections)})"


def untyped(
    *, predicates: str = "(shut ?x) (open ?x)", action: str = "unlock", more: str = ""
) -> str:
    return domain(
        f"(:predicates {predicates})",
        more,
        f"(:action {action} :parameters (?x) :precondition (shut ?x) :effect (open ?x))",
    )


PAIR = problem("(:domain locks)", "(:objects a b)", "(:init (shut a))", "(:goal (and))")


def verdicts(domain: str, problem: str, goal: str) -> tuple[bool, bool]:
    """Whether a goal may be written, and may be reached."""
    one, other = (
        asyncio.run(kind(domain, problem).complete(goal.encode())) == 0
        for kind in (PddlGoal, Reachable)
    )
    return one, other


def error_of(domain: str, problem: str, kind: Any = Reachable) -> str:
    with pytest.raises(ValueError, match=r"PDDL|planned") as caught:
        kind(domain, problem)
    return str(caught.value)


def test_sections_in_any_order_are_read():
    orders = [*permutations(SECTIONS)]
    others = [*permutations(PARTS)]
    rng = random.Random(0)
    for _ in range(30):
        texts = domain(*rng.choice(orders)), problem(*rng.choice(others))
        assert verdicts(*texts, "(open a) (open chest) (shut b)))") == (True, True)
        assert verdicts(*texts, "(open b)))") == (True, False)
        assert verdicts(*texts, "(open a) (shut a)))") == (True, False)


def test_sections_and_parts_of_actions_may_be_absent():
    bare = "(define (domain d) (:predicates (p)) (:action go :effect (p)))"
    assert verdicts(bare, "(define (problem p))", "(p)))") == (True, True)
    idle = "(define (domain d) (:predicates (p)) (:action go :parameters ()))"
    assert verdicts(idle, "(define (problem p))", "(p)))") == (True, False)
    both = "(define (domain d) (:predicates (p)) (:predicates (q)) (:action go :effect (p)))"
    assert verdicts(both, "(define (problem p) (:init (q)))", "(p) (q)))") == (True, True)


@pytest.mark.parametrize(
    "name",
    [
        *("box", "object", "not-open", "nothing", "and-or", "define", "domain", "problem"),
        *("either", "when", "increase", "assign", "forall", "exists", "imply", "not", "and", "or"),
        *("number", "total-cost", "minimize", "o_o", "x", "locks", "<", "always"),
    ],
)
def test_one_name_for_everything_is_read(name: str):
    kind = "thing" if name == "object" else name
    texts = (
        domain(
            f"(:types {kind})",
            f"(:predicates ({name} ?{name} - {kind}) (open ?x - {kind}))",
            f"(:action {name} :parameters (?{name} - {kind}) :precondition ({name} ?{name})"
            f" :effect (and (open ?{name}) (not ({name} ?{name}))))",
        ),
        problem(f"(:objects {name} b - {kind})", f"(:init ({name} {name}) ({name} b))"),
    )
    assert verdicts(*texts, f"({name} {name}) (open b)))") == (True, True)
    assert verdicts(*texts, f"(open {name.upper()}) ({name} {name})))") == (True, False)
    reached = PlanAchieves(f"({name} {name})", *texts)
    assert asyncio.run(reached.complete(f"(open {name})))".encode())) == 0
    assert asyncio.run(reached.prefix(f"({name} {name}".encode())) < 0


def test_names_with_signs_are_read():
    texts = (
        untyped(),
        PAIR.replace("a b", "a a.1 a+b c/d e*[2] $@").replace("(shut a)", "(shut a.1)"),
    )
    assert verdicts(*texts, "(open a.1)))") == (True, True)
    for name in ("a+b", "c/d", "e*[2]", "$@"):
        assert verdicts(*texts, f"(open {name})))") == (True, False)
    for name in ("ax1", "ab", "aab", "e2", "a.", "$"):
        assert verdicts(*texts, f"(open {name})))") == (False, False)


def test_static_negations_and_negated_implications_are_followed():
    texts = (
        domain(
            "(:predicates (heavy ?x) (lifted ?x) (tidy))",
            "(:action lift :parameters (?x) :precondition (not (heavy ?x)) :effect (lifted ?x))",
            "(:action put :parameters (?x) :precondition (lifted ?x) :effect (not (lifted ?x)))",
            """(:action rest :precondition (not (imply (heavy a) (not (lifted b))))
              :effect (tidy))""",
        ).replace("(:predicates", "(:constants a b) (:predicates", 1),
        "(define (problem two) (:init (heavy a)))",
    )
    assert verdicts(*texts, "(lifted b) (tidy)))") == (True, True)
    assert verdicts(*texts, "(lifted a)))") == (True, False)
    light = texts[1].replace("(heavy a)", "")
    assert verdicts(texts[0], light, "(lifted a) (lifted b)))") == (True, True)
    assert verdicts(texts[0], light, "(tidy)))") == (True, False)


def test_effect_under_two_conditions_leaves_its_action_possible():
    texts = (
        domain(
            "(:predicates (p ?x) (q ?x) (r ?x) (done))",
            "(:action set :parameters (?x) :effect (p ?x))",
            "(:action clear :parameters (?x) :precondition (r ?x) :effect (not (q ?x)))",
            """(:action go :parameters (?x)
              :effect (and (done) (when (p ?x) (when (q ?x) (r ?x)))))""",
        ),
        PAIR.replace("(shut a)", "(q a)"),
    )
    assert verdicts(*texts, "(r a) (done)))") == (True, True)
    assert verdicts(*texts, "(r b)))") == (True, False)
    # Possible where only the second condition is true, which no other action changes first.
    late = texts[0].replace("(?x) :effect (p ?x)", "(?x) :precondition (done) :effect (p ?x)")
    assert verdicts(late, texts[1].replace("a b", "a"), "(q a) (done)))") == (True, True)


def test_letter_case_makes_no_difference():
    texts = (
        "(DEFINE (Domain D) (:Requirements :STRIPS :Typing) (:TYPES Box) (:Predicates"
        " (Shut ?X - BOX) (OPEN ?x - box)) (:Action Unlock :Parameters (?X - Box)"
        " :Precondition (AND (shut ?x)) :EFFECT (And (Open ?X) (NOT (Shut ?x)))))",
        "(define (problem P) (:DOMAIN d) (:OBJECTS A b - BoX) (:INIT (SHUT a) (shut B))"
        " (:GOAL (AND",
    )
    assert verdicts(*texts, "(Open A) (SHUT B)))") == (True, True)
    assert verdicts(*texts, "(open a) (shut A)))") == (True, False)
    reached = PlanAchieves("(UNLOCK a)\n(unlock B)", *texts)
    assert asyncio.run(reached.complete(b"(OPEN a) (open B)))")) == 0


@pytest.mark.parametrize(
    "declared", ["(in ?obj ?obj)", "(in ?x ?x - object)", "(in ?a - object ?a )"]
)
def test_repeated_parameter_names_are_separate_arguments(declared: str):
    texts = untyped(predicates=f"{declared} (shut ?x) (open ?x)"), PAIR
    assert verdicts(*texts, "(in a b)))")[0]
    assert verdicts(*texts, "(in b b)))")[0]
    for text in ("(in a)))", "(in)))", "(in a b a)))"):
        assert verdicts(*texts, text) == (False, False)


EITHER = domain(
    "(:types car truck boat - (either vehicle asset) vehicle asset place)",
    "(:predicates (at ?v - vehicle ?p - place) (owned ?x - (either asset place)) (wet ?x - boat))",
    """(:action sell :parameters (?x - (either boat place)) :precondition (owned ?x)
      :effect (not (owned ?x)))""",
    """(:action flood :parameters (?p - place)
      :effect (forall (?x - (either boat car)) (when (at ?x ?p) (not (at ?x ?p)))))""",
)
FLEET = problem(
    "(:objects b - boat c - car t - truck amphibian - (either boat truck) p - place v - vehicle)",
    "(:init (at b p) (at t p) (at amphibian p) (owned b) (owned p) (owned t))",
)


def test_either_allows_objects_of_each_type():
    for text, written, reached in [
        ("(at b p) (at t p)", True, True),
        ("(at v p)", True, False),
        ("(at p p)", False, False),
        ("(owned p) (owned t)", True, True),
        ("(owned v)", False, False),
        ("(wet amphibian)", True, False),
        ("(wet b)", True, False),
        ("(wet t)", False, False),
    ]:
        assert verdicts(EITHER, FLEET, text + "))") == (written, reached), text
    plan = PlanAchieves("(sell b) (sell p) (flood p)", EITHER, FLEET)
    assert asyncio.run(plan.complete(b"(at t p) (owned t)))")) == 0
    for text in (b"(at b", b"(at amphibian", b"(owned b", b"(owned p"):
        assert asyncio.run(plan.prefix(text)) < 0
    with pytest.raises(ValueError, match=r"t in '\(sell t\)' is no object for \?x"):
        PlanAchieves("(sell t)", EITHER, FLEET)


def test_types_without_a_parent_and_with_several_are_read():
    texts = (
        domain(
            "(:types amphibian - boat amphibian - car boat car - vehicle wheel)",
            "(:predicates (swims ?x - boat) (drives ?x - car) (moves ?x - vehicle) (is ?x))",
            "(:action go :parameters (?x - object) :effect (is ?x))",
        ),
        problem("(:objects d - amphibian b - boat w - wheel o - object bare)"),
    )
    for goal in ("swims d", "drives d", "moves d", "moves b", "is w", "is o", "is bare"):
        assert verdicts(*texts, f"({goal})))")[0], goal
    for goal in ("drives b", "moves w", "moves o", "moves bare"):
        assert not verdicts(*texts, f"({goal})))")[0], goal
    assert verdicts(*texts, "(is d) (is w) (is bare) (is o)))") == (True, True)


def test_comments_and_blanks_anywhere_are_skipped(tmp_path: Path):
    text = domain(*SECTIONS), problem(*PARTS)
    one, two = (it.replace("(", "(;)\r\n\t").replace(" ", " ; (a ( comment\n") for it in text)
    assert verdicts(one, two, "(open a)))") == (True, True)
    # In the goal, where a prompt ends, too.
    begun = problem(*PARTS[:4])[:-1] + "(:goal (and ; what (is wanted\n"
    assert verdicts(text[0], begun, "(open a)))") == (True, True)
    # An encoding mark at the start, and comments in another encoding.
    files = tmp_path / "domain.pddl", tmp_path / "problem.pddl"
    files[0].write_bytes(b"\xef\xbb\xbf; by Andr\xe9\n" + text[0].encode())
    files[1].write_bytes(text[1].encode() + b"\n; \xff")
    assert asyncio.run(Reachable(*files).complete(b"(open a)))")) == 0


def test_objects_declared_twice_are_of_all_their_types():
    texts = (
        domain(
            "(:types k l)",
            "(:constants a - k)",
            "(:predicates (p ?x - k) (q ?x - l))",
        ),
        problem("(:objects A - l b - l)", "(:init (p a) (q a))"),
    )
    assert verdicts(*texts, "(p a) (q a)))") == (True, True)
    assert verdicts(*texts, "(p b)))") == (False, False)


def test_equality_of_objects_needs_no_declaration():
    for declared in ("", "(= ?x ?y)"):
        texts = (
            domain(
                f"(:predicates {declared} (near ?x ?y))",
                "(:action meet :parameters (?x ?y) :precondition (not (= ?x ?y))"
                " :effect (near ?x ?y))",
            ),
            PAIR.replace("(:init (shut a))", "(:init)"),
        )
        assert verdicts(*texts, "(near a b) (near b a)))") == (True, True)
        assert verdicts(*texts, "(near a a)))") == (True, False)
        assert verdicts(*texts, "(= a a)))") == (False, False)


@pytest.mark.parametrize("requirement", [":negative-preconditions", ":adl", ":ADL"])
def test_negations_are_allowed_where_they_are_required(requirement: str):
    goal = "(not (open b)) (open a)))"
    plain = untyped()
    requiring = untyped(more=f"(:requirements :strips {requirement})")
    assert verdicts(plain, PAIR, goal) == (False, False)
    assert verdicts(requiring, PAIR, goal) == (True, True)
    in_problem = PAIR.replace("(:objects", f"(:requirements {requirement}) (:objects")
    assert verdicts(plain, in_problem, goal) == (True, True)


def test_variables_of_quantifiers_hide_those_of_actions():
    texts = (
        domain(
            "(:requirements :adl)",
            "(:predicates (p ?x) (q ?x) (r ?x))",
            """(:action go :parameters (?x) :precondition (and (p ?x) (exists (?x) (q ?x)))
              :effect (and (r ?x) (forall (?x) (when (q ?x) (p ?x)))))""",
        ),
        PAIR.replace("(shut a)", "(p a) (q b)"),
    )
    assert verdicts(texts[0], texts[1], "(r a) (r b) (p b)))") == (True, True)
    assert verdicts(texts[0], texts[1], "(r b) (not (p b))))") == (True, False)


def test_disjunctions_implications_and_negated_quantifiers_are_followed():
    texts = (
        domain(
            "(:requirements :adl)",
            "(:predicates (p ?x) (q ?x) (done) (odd))",
            "(:action set :parameters (?x) :effect (p ?x))",
            """(:action end :precondition (not (exists (?x) (not (or (p ?x) (q ?x)))))
              :effect (done))""",
            """(:action odd :precondition (and (imply (p a) (q b)) (not (forall (?x) (imply (q ?x)
              (p ?x))))) :effect (odd))""",
        ).replace("(:requirements", "(:constants a) (:requirements"),
        PAIR.replace("(shut a)", "(q b)"),
    )
    assert verdicts(*texts, "(done) (not (p b)) (odd)))") == (True, True)
    assert verdicts(*texts, "(done) (not (p a))))") == (True, False)


def test_numbers_in_plans_are_followed():
    texts = (
        domain(
            "(:predicates (far) (rich))",
            "(:functions (fuel) (price ?x) - number (unset))",
            """(:action go :precondition (>= (fuel) 1.5)
              :effect (and (far) (decrease (fuel) (* 1.5 1)) (increase (unset) 1)))""",
            """(:action fill :parameters (?x)
              :effect (and (assign (fuel) (+ (price ?x) 0.1 0.2)) (scale-up (price ?x) 2)))""",
            "(:action boast :precondition (= (fuel) (- 0.8 (- 0.5))) :effect (rich))",
            "(:action dream :precondition (> (unset) 0) :effect (rich))",
        ),
        PAIR.replace("(shut a)", "(= (fuel) 2) (= (price a) 1) (= (price b) 0)"),
    )
    reached = PlanAchieves("(go) (fill a) (boast)", *texts)
    assert asyncio.run(reached.complete(b"(far) (rich)))")) == 0
    for plan, at in {"(go) (go)": 2, "(fill a) (go)": 2, "(go) (dream)": 2, "(boast)": 1}.items():
        with pytest.raises(ValueError, match=rf"step {at} of the plan, .* it needs '\("):
            PlanAchieves(plan, *texts)
    twice = PlanAchieves("(fill a) (fill a) (go)", *texts)
    assert asyncio.run(twice.complete(b"(far)))")) == 0
    assert asyncio.run(PddlGoal(*texts).complete(b"(far)))")) == 0
    with pytest.raises(ValueError, match=r"action go has conditions on numbers, '\(>= \(fuel\)"):
        Reachable(*texts)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (
            "(:durative-action fly :parameters () :duration (= ?duration 1))",
            "'(:durative-action fly :parameters () :du…ion (= ?duration 1))' is not supported: "
            "actions take no time here: write it as an :action",
        ),
        ("(:derived (open ?x) (shut ?x))", "'(:derived (open ?x) (shut ?x))' is not supported: "),
        ("(:axiom :vars (?x))", "'(:axiom :vars (?x))' is not supported: "),
        ("(:process rain :parameters ())", "'(:process rain :parameters ())' is not supported: "),
        ("(:event rain :parameters ())", "'(:event rain :parameters ())' is not supported: "),
        ("(:method m)", "'(:method m)' is not supported: "),
        ("(:constraints (always (p)))", "'(:constraints (always (p)))' is not supported: "),
        ("(:functions (place ?x) - object)", "(:functions … - object) is not supported"),
        ("(:predicate (p))", "'(:predicate (p))' is no section of a domain: write :requirements, "),
        ("p", "'p' is no section of a domain: "),
        ("(:action a :vars (?x))", "in the action a: ':vars (?x)' is not supported: an action has"),
        (
            "(:action a :effect (oneof (p) (q)))",
            "in the action a: '(oneof (p) (q))' is neither an atom of (:pred",
        ),
        (
            "(:action a :precondition (preference x (p)))",
            "'(preference x (p))' is neither an atom of ",
        ),
        (
            "(:action a :effect (when (p)))",
            "nor a whole effect by and, not, forall, when, increase",
        ),
        ("(:action a :effect (increase (fuel) 1))", "'(fuel)' is no number: write a decimal, a v"),
        ("(:action unlock)", "the action unlock is defined twice: rename one"),
        ("(:action a :parameters (?x ?x))", "in the action a: ?x stands twice in '(?x ?x)'"),
        ("(:action a :parameters (x))", "x in '(x)' is no variable: write ?x"),
        ("(:action a :effect (open ?y))", "?y in '(open ?y)' is not among the parameters"),
        ("(:action a :effect (open c))", "c in '(open c)' is no object: declare it"),
        ("(:action a :effect (open))", "'(open)' has 0 arguments, and open takes 1"),
        (
            "(:action a :effect (open (b)))",
            "'(open (b))' is no atom: give open names and variables",
        ),
        ("(:action a :parameters (?x - box))", "box is no type: declare it in (:types …)"),
        ("(:predicates (open ?x ?y))", "'(open ?x ?y)' is declared twice, with different"),
        ("(:predicates (and))", "(and) is the empty condition: rename the predicate"),
        ("(:predicates (tür))", "'tür' has a letter that is not ASCII"),
        ("(:types a -)", "'(a -)' is no list of names"),
        ("(:types a - (either))", "'(a - (either))' is no list of names: write a b - type c d"),
        ("(:types a - (either b (c)))", "'(a - (either b (c)))' is no list of names"),
        ("(:types a (either b c))", "'(a (either b c))' is no list of names"),
        ("(:types ?a)", "?a is no name: write it without ?"),
        ("(" * 200 + ")" * 200, "its brackets are nested more than 100 deep"),
    ],
)
def test_domain_with_an_unsupported_part_raises_and_quotes_it(section: str, words: str):
    for kind in (PddlGoal, Reachable):
        message = error_of(untyped(more=section), PAIR, kind)
        assert message.startswith("the domain '(define (domain locks) ")
        assert " is not read as PDDL: " in message
        assert words in message


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("(:init (at 5 (shut a)))", "'(at 5 (shut a))' is not supported: only actions change"),
        ("(:init (shut c))", "c in '(shut c)' is no object: declare it"),
        ("(:init (closed a))", "'(closed a)' is no atom of (:predicates shut open)"),
        ("(:init (= (fuel) 3))", "'(= (fuel) 3)' is no atom of "),
        ("(:init shut)", "'shut' is no atom: write it in brackets"),
        ("(:init (shut ?x))", "?x in '(shut ?x)' is not among the parameters"),
        ("(:objects c - box)", "box is no type: declare it in (:types …)"),
        ("(:htn :tasks ())", "'(:htn :tasks ())' is not supported: goals are sets of literals"),
        ("(:constraints (always (p)))", "'(:constraints (always (p)))' is not supported: "),
        ("(:inits)", "'(:inits)' is no section of a problem: write :domain, :requirements, "),
        (")", "a bracket closes nothing behind "),
        ("(:init (shut a)", "'(:goal (and))' stands inside another section: close that with"),
    ],
)
def test_problem_with_an_unsupported_part_raises_and_quotes_it(section: str, words: str):
    for kind in (PddlGoal, Reachable):
        message = error_of(untyped(), PAIR.replace("(:goal", f"{section} (:goal"), kind)
        assert message.startswith("the problem '(define (problem two) ")
        assert " is not read as PDDL: " in message
        assert words in message


def test_condition_with_too_many_cases_raises():
    cases = " ".join(f"(or (p{i}) (q{i}))" for i in range(20))
    declared = " ".join(f"(p{i}) (q{i})" for i in range(20))
    made = " ".join(f"(p{i}) (q{i})" for i in range(20))
    hard = domain(
        f"(:predicates {declared})",
        f"(:action start :effect (and {made}))",
        f"(:action a :precondition (and {cases}) :effect (p0))",
    )
    message = error_of(hard, "(define (problem p))")
    assert "cannot be planned in: the action a has conditions with more than 10000 cases" in message


def test_problem_with_too_many_actions_raises(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(grounding, "MAX_STEPS", 3)
    objects = PAIR.replace("a b", "a b c d").replace("(shut a)", "(shut a) (shut b) (shut c)")
    assert verdicts(untyped(), objects, "(open c)))") == (True, True)
    message = error_of(untyped(), objects.replace("(shut c)", "(shut c) (shut d)"))
    assert "the action unlock has, with those before it, more than 3 choices" in message


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ("(unlock a b)", "'(unlock a b)' has 2 objects, and unlock takes 1"),
        ("(unlock c)", "c in '(unlock c)' is no object for ?x"),
        ("(fly a)", "'(fly a)' is none of the actions unlock; write actions of the domain"),
        ("unlock(a)", "'unlock' is none of the actions unlock"),
        ("(unlock (a))", "(a) in '(unlock (a))' is no object for ?x"),
        ("(unlock a", "'(unlock a' is not closed: it lacks a bracket"),
    ],
)
def test_plan_with_a_wrong_step_raises_and_quotes_it(plan: str, words: str):
    with pytest.raises(ValueError, match=r"the plan .* is not read: ") as caught:
        PlanAchieves(plan, untyped(), PAIR)
    assert words in str(caught.value)


def test_plan_with_comments_is_read():
    reached = PlanAchieves("; by hand\n(unlock a) ; cost 1\n; cost = 1 (unit)", untyped(), PAIR)
    assert asyncio.run(reached.complete(b"(open a)))")) == 0
