"""Random planning problems, against a search through all states that never sees their PDDL."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest

from awrs_ppl.potentials import PddlGoal, PlanAchieves, Reachable

# Names of predicates, types, objects, actions and variables: alike, and like keywords.
NAMES = [
    *("a", "A-b", "box", "object", "not-a", "either", "when", "not", "define", "domain", "at"),
    *("problem", "number", "increase", "a1", "forall", "o_o", "x", "b.2"),
]
MOST_STATES = 1500

Atom = tuple[str, ...]
State = frozenset[Atom]
Formula = tuple[Any, ...]


@dataclass
class World:
    """A problem as it is meant. All names are in small letters."""

    parents: dict[str, list[str]]
    objects: dict[str, list[str]]
    constants: list[str]
    predicates: dict[str, list[list[str]]]
    actions: dict[str, tuple[list[tuple[str, list[str]]], Formula, list[Formula]]]
    start: State
    negative: bool

    def above(self, name: str) -> set[str]:
        found = {name, "object"}
        for it in self.parents.get(name, []):
            found |= self.above(it)
        return found

    def fitting(self, types: list[str]) -> list[str]:
        return [
            it
            for it, its in self.objects.items()
            if any(set(types) & self.above(t) for t in its) or "object" in types
        ]

    def fits(self, atom: Atom) -> bool:
        arguments = self.predicates[atom[0]]
        return len(arguments) == len(atom) - 1 and all(
            it in self.fitting(types) for it, types in zip(atom[1:], arguments, strict=True)
        )

    def atoms(self) -> list[Atom]:
        return [
            (name, *objects)
            for name, arguments in self.predicates.items()
            for objects in product(*map(self.fitting, arguments))
        ]

    @staticmethod
    def ground(words: Iterable[str], env: dict[str, str]) -> Atom:
        return tuple(env.get(it, it) for it in words)

    def true(self, formula: Formula, state: State, env: dict[str, str]) -> bool:
        kind, *parts = formula
        match kind:
            case "and":
                return all(self.true(it, state, env) for it in parts)
            case "or":
                return any(self.true(it, state, env) for it in parts)
            case "not":
                return not self.true(parts[0], state, env)
            case "imply":
                return not self.true(parts[0], state, env) or self.true(parts[1], state, env)
            case "forall" | "exists":
                variable, types, part = parts
                found = [
                    self.true(part, state, {**env, variable: it}) for it in self.fitting(types)
                ]
                return all(found) if kind == "forall" else any(found)
            case "=":
                return env.get(parts[0], parts[0]) == env.get(parts[1], parts[1])
        return self.ground(parts, env) in state

    def after(self, effects: list[Formula], state: State, env: dict[str, str]) -> State:
        adds, deletes = set[Atom](), set[Atom]()

        def collect(effect: Formula, env: dict[str, str]) -> None:
            match effect:
                case ("when", needed, part):
                    if self.true(needed, state, env):
                        collect(part, env)
                case ("forall", variable, types, part):
                    for it in self.fitting(types):
                        collect(part, {**env, variable: it})
                case ("not", (_, *words)):
                    deletes.add(self.ground(words, env))
                case (_, *words):
                    adds.add(self.ground(words, env))

        for effect in effects:
            collect(effect, env)
        return state - deletes | adds

    def steps(self, state: State) -> Iterator[tuple[Atom, State | None]]:
        """Every action with objects, and the state after it, `None` where it is impossible."""
        for name, (parameters, needed, effects) in self.actions.items():
            for objects in product(*(self.fitting(types) for _, types in parameters)):
                env = dict(zip((it for it, _ in parameters), objects, strict=True))
                possible = self.true(needed, state, env)
                yield (name, *objects), self.after(effects, state, env) if possible else None

    def states(self) -> set[State] | None:
        found, fresh = {self.start}, [self.start]
        while fresh:
            for _, then in self.steps(fresh.pop()):
                if then is not None and then not in found:
                    found.add(then)
                    fresh.append(then)
            if len(found) > MOST_STATES:
                return None
        return found


def random_world(rng: random.Random) -> World:
    def names(least: int, most: int, *, but: str = "") -> list[str]:
        some = [it.lower() for it in NAMES if it != but]
        return rng.sample(some, rng.randint(least, most))

    kinds = names(1, 3, but="object") if rng.random() < 0.7 else []
    parents = {it: rng.sample(kinds[:i], rng.randint(0, min(i, 2))) for i, it in enumerate(kinds)}

    def types() -> list[str]:
        some = [*kinds, "object"]
        return rng.sample(some, 2 if len(some) > 1 and rng.random() < 0.25 else 1)

    objects = {it: types() for it in names(1, 4)}
    constants = rng.sample(list(objects), rng.randint(0, len(objects)))
    predicates = {it: [types() for _ in range(rng.randint(0, 2))] for it in names(1, 4)}
    world = World(parents, objects, constants, predicates, {}, frozenset(), rng.random() < 0.5)
    atoms = world.atoms()
    world.start = frozenset(rng.sample(atoms, rng.randint(0, len(atoms))))

    def atom(env: dict[str, list[str]], *, certain: bool) -> Formula | None:
        """An atom over variables that all fit it, or that may fit it."""
        name = rng.choice(list(predicates))
        words = []
        for types in predicates[name]:
            fitting = set(world.fitting(types))
            some = [it for it in world.constants if it in fitting]
            for variable, its in env.items():
                its = set(world.fitting(its))
                if its <= fitting or (not certain and its & fitting):
                    some.append(variable)
            if not some:
                return None
            words.append(rng.choice(some))
        return ("atom", name, *words)

    def variable(env: dict[str, list[str]]) -> str:
        return "?" + rng.choice(NAMES).lower()

    def condition(env: dict[str, list[str]], depth: int) -> Formula:
        kind = rng.choice(
            ["atom"] * 3 + ["and", "not", "not", "or", "imply", "forall", "exists", "="]
        )
        if kind == "=" and env:
            some = [*env, *world.constants]
            return ("=", rng.choice(some), rng.choice(some))
        if depth and kind in ("and", "or"):
            return (kind, *(condition(env, depth - 1) for _ in range(rng.randint(0, 3))))
        if depth and kind == "not":
            return (kind, condition(env, depth - 1))
        if depth and kind == "imply":
            return (kind, condition(env, depth - 1), condition(env, depth - 1))
        if depth and kind in ("forall", "exists"):
            bound, its = variable(env), types()
            return (kind, bound, its, condition({**env, bound: its}, depth - 1))
        return atom(env, certain=False) or ("and",)

    def effect(env: dict[str, list[str]], depth: int) -> Formula | None:
        kind = rng.choice(["atom", "atom", "not", "not", "when", "forall"])
        if depth and kind == "when":
            part = effect(env, depth - 1)
            return part and (kind, condition(env, 1), part)
        if depth and kind == "forall":
            bound, its = variable(env), types()
            part = effect({**env, bound: its}, depth - 1)
            return part and (kind, bound, its, part)
        part = atom(env, certain=True)
        return part and (("not", part) if kind == "not" else part)

    for name in names(1, 4):
        parameters: dict[str, list[str]] = {}
        for _ in range(rng.randint(0, 2)):
            parameters[variable(parameters)] = types()
        effects = [effect(parameters, 2) for _ in range(rng.randint(1, 4))]
        world.actions[name] = (
            list(parameters.items()),
            condition(parameters, 3),
            [it for it in effects if it],
        )
    return world


class Printer:
    """PDDL in a random hand: order, blanks, comments, letter case, groups of typed lists."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def text(self, tree: Any) -> str:
        if isinstance(tree, str):
            return "".join(self.rng.choice([it.lower(), it.upper()]) for it in tree)
        inner = " ".join(self.text(it) for it in tree)
        return f"({self.blank()}{inner}{self.blank()})"

    def blank(self) -> str:
        return self.rng.choice(["", "", "", " ", "\n", "\t ", " ; (a ) comment (\n", ";\r\n"])

    def typed(self, pairs: list[tuple[str, list[str]]]) -> list[Any]:
        words: list[Any] = []
        for at, (name, types) in enumerate(pairs):
            words.append(name)
            last = at + 1 == len(pairs)
            if not last and pairs[at + 1][1] == types and self.rng.random() < 0.7:
                continue
            if types == ["object"] and last and self.rng.random() < 0.7:
                continue
            words.extend(["-", types[0] if len(types) == 1 else ["either", *types]])
        return words

    def formula(self, it: Formula) -> list[Any]:
        match it:
            case ("atom", *words):
                return words
            case ("forall" | "exists" as kind, variable, types, part):
                return [kind, self.typed([(variable, types)]), self.formula(part)]
            case ("=", *words):
                return ["=", *words]
            case ("and",) if self.rng.random() < 0.5:
                return []
        return [it[0], *map(self.formula, it[1:])]

    def domain(self, world: World) -> str:
        rng = self.rng
        functions = rng.random() < 0.3
        sections: list[list[Any]] = [
            [
                ":predicates",
                *(
                    [n, *self.typed([("?x", t) for t in its])]
                    for n, its in world.predicates.items()
                ),
            ],
        ]
        if world.negative or rng.random() < 0.5:
            needs = rng.sample([":strips", ":typing", ":equality", ":conditional-effects"], 2)
            if world.negative:
                needs.insert(1, rng.choice([":negative-preconditions", ":ADL"]))
            sections.append([":requirements", *needs])
        if world.parents:
            pairs = [
                (name, [it]) for name, above in world.parents.items() for it in above or ["object"]
            ]
            rng.shuffle(pairs)
            sections.append([":types", *self.typed(pairs)])
        if world.constants:
            sections.append(
                [":constants", *self.typed([(it, world.objects[it]) for it in world.constants])]
            )
        if functions:
            sections.append([":functions", ["total-cost"], *rng.choice([["-", "number"], []])])
        for name, (parameters, needed, effects) in world.actions.items():
            made: list[Any] = [self.formula(it) for it in effects]
            if functions:
                made.insert(0, ["increase", ["total-cost"], "1.5"])
            parts = [
                [":parameters", self.typed(parameters)],
                [":precondition", self.formula(needed)],
                [":effect", made[0] if len(made) == 1 else ["and", *made]],
            ]
            rng.shuffle(parts)
            sections.append([":action", name, *(word for part in parts for word in part)])
        rng.shuffle(sections)
        return self.text(["define", ["domain", "d"], *sections])

    def problem(self, world: World) -> str:
        rng = self.rng
        objects = [(it, its) for it, its in world.objects.items() if it not in world.constants]
        start = list(world.start)
        rng.shuffle(start)
        sections: list[list[Any]] = [
            [":domain", "d"],
            [":objects", *self.typed(objects)],
            [":init", *start, *rng.choice([[], [["=", ["total-cost"], "0"]]])],
            [":goal", ["and", ["or"]]],
        ]
        if rng.random() < 0.3:
            sections.append([":metric", "minimize", ["total-cost"]])
        rng.shuffle(sections)
        return self.text(["define", ["problem", "p"], *sections])

    def goal(self, literals: list[tuple[Atom, bool]]) -> str:
        rng = self.rng
        return "".join(
            [
                rng.choice(["", " ", "\n"]) + self.word(it if true else ("not", it))
                for it, true in literals
            ]
            + [rng.choice(["))", ")))", " ) ) "])]
        )

    def word(self, tree: Any) -> str:
        text = self.text(tree) if isinstance(tree, str) else " ".join(map(self.word, tree))
        return text if isinstance(tree, str) else f"({self.rng.choice(['', ' '])}{text})"


def allowed(potential: Any, goal: str) -> bool:
    return asyncio.run(potential.complete(goal.encode())) == 0


@pytest.mark.slow
def test_random_problems_agree_with_a_search_through_all_states(fuzz: Any):
    judged = 0
    for rng in fuzz.rngs(350):
        world, printer = random_world(rng), Printer(rng)
        states = world.states()
        if states is None or not world.atoms():
            continue
        if len(states) < 4 and rng.random() < 0.7:
            continue
        domain, problem = printer.domain(world), printer.problem(world)
        described = f"{world}\n{domain}\n{problem}"
        written, possible = PddlGoal(domain, problem), Reachable(domain, problem)
        signs = (True, False) if world.negative else (True,)
        literals = [(atom, sign) for atom in world.atoms() for sign in signs]
        for _ in range(12):
            goal = rng.sample(literals, min(rng.randint(1, 3), len(literals)))
            text = printer.goal(goal)
            assert allowed(written, text), f"{text}\n{described}"
            reachable = any(all((it in state) == true for it, true in goal) for state in states)
            assert allowed(possible, text) == reachable, f"{text} {reachable}\n{described}"
            for potential in (written, possible) if reachable else (written,):
                begun = text[: rng.randrange(len(text))].encode()
                assert asyncio.run(potential.prefix(begun)) == 0, f"{text} {begun}\n{described}"
        for _ in range(4):
            name = rng.choice(list(world.predicates))
            count = max(0, len(world.predicates[name]) + rng.choice([0, 0, 1, -1]))
            atom = (name, *(rng.choice(list(world.objects)) for _ in range(count)))
            text = printer.goal([(atom, True)])
            assert allowed(written, text) == world.fits(atom), f"{text}\n{described}"
            if not world.negative:
                assert not allowed(written, printer.goal([(literals[0][0], False)]))
        check_plans(rng, world, printer, domain, problem, described)
        judged += 1
    assert judged > 40


def check_plans(
    rng: random.Random, world: World, printer: Printer, domain: str, problem: str, described: str
) -> None:
    plan, state = [], world.start
    for _ in range(rng.randint(0, 4)):
        steps = [(step, then) for step, then in world.steps(state) if then is not None]
        if steps:
            step, state = rng.choice(steps)
            plan.append(printer.word(step))
    signs = (True, False) if world.negative else (True,)
    literals = [(atom, sign) for atom in world.atoms() for sign in signs]
    if not any((atom in state) == sign for atom, sign in literals):
        with pytest.raises(ValueError, match="so it reaches no goal"):
            PlanAchieves("\n".join(plan), domain, problem)
        return
    reached = PlanAchieves("\n".join(plan), domain, problem)
    for atom, sign in rng.sample(literals, min(6, len(literals))):
        text = printer.goal([(atom, sign)])
        assert allowed(reached, text) == ((atom in state) == sign), f"{plan} {text}\n{described}"
    impossible = [step for step, then in world.steps(state) if then is None]
    if impossible:
        plan.append(printer.word(rng.choice(impossible)))
        with pytest.raises(ValueError, match=f"step {len(plan)} of the plan, .* is not possible"):
            PlanAchieves("\n".join(plan), domain, problem)
