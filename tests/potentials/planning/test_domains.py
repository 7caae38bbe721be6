"""Domains of planning competitions: they are read, grounded and planned in."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from awrs_ppl.potentials import PddlGoal, PlanAchieves, Reachable
from awrs_ppl.potentials.planning.grounding import ground

DATA = Path(__file__).parents[2] / "data" / "planning"
SPACE_BEFORE_GOAL = re.compile(r"\(:goal\s*\(and")


def texts(name: str) -> tuple[str, str, str]:
    """A domain, a problem up to its goal, and the goal."""
    problem = (DATA / f"{name}-problem.pddl").read_text()
    cut = SPACE_BEFORE_GOAL.search(problem)
    assert cut is not None
    return (DATA / f"{name}.pddl").read_text(), problem[: cut.end()], problem[cut.end() :].rstrip()


def allowed(potential: PddlGoal | Reachable | PlanAchieves, goal: str) -> bool:
    return asyncio.run(potential.complete(goal.encode())) == 0


# For each domain: a plan by hand; goals that have a plan; goals without; no goals at all.
DOMAINS = {
    "logistics": (
        """(drive-truck van1 bos-airport bos-po bos)
        (load-truck parcel van1 bos-po)
        (DRIVE-TRUCK van1 bos-po bos-airport bos)
        (unload-truck parcel van1 bos-airport)
        (load-airplane letter plane pgh-airport)
        (fly-airplane plane pgh-airport bos-airport)
        (load-airplane parcel plane bos-airport)
        (unload-airplane letter plane bos-airport)
        (load-truck letter van1 bos-airport)
        (drive-truck van1 bos-airport bos-po bos)
        (unload-truck letter van1 bos-po)
        (fly-airplane plane bos-airport pgh-airport)
        (unload-airplane parcel plane pgh-airport)
        (drive-truck van2 pgh-po pgh-airport pgh)
        (load-truck parcel van2 pgh-airport)
        (drive-truck van2 pgh-airport pgh-po pgh)
        (unload-truck parcel van2 pgh-po)""",
        ["(in parcel van1) (in letter van1)", "(IN letter plane) (at plane bos-airport)"],
        [
            "(at van1 pgh-po)",
            "(at plane bos-po)",
            "(in van1 plane)",
            "(in letter plane) (in letter van2)",
        ],
        ["(in parcel)", "(in parcel van1 van2)", "(in-city bos)", "(at parcel paris)"],
    ),
    "gripper": (
        """(pick ball3 rooma left) (pick ball2 rooma right) (move rooma roomb)
        (drop ball3 roomb left) (drop ball2 roomb right) (move roomb rooma)
        (pick ball1 rooma left) (move rooma roomb) (drop ball1 roomb left)""",
        ["(carry ball1 left) (carry ball2 right) (at-robby roomb)", "(at ball1 roomb) (free left)"],
        [
            "(carry ball1 left) (free left)",
            "(carry ball1 left) (carry ball2 left)",
            "(carry ball1 left) (carry ball2 right) (at ball1 rooma)",
            "(at-robby rooma) (at-robby roomb)",
            "(ball left)",
        ],
        ["(carry ball1)", "(free)", "(room roomc)"],
    ),
    "ferry": (
        """(sail l2 l0) (board c0 l0) (sail l0 l1) (debark c0 l1)
        (board c1 l1) (sail l1 l0) (debark c1 l0)""",
        ["(on c0) (at c1 l2)", "(at-ferry l1) (empty-ferry)", "(not-eq l0 l1)"],
        ["(on c0) (on c1)", "(on c0) (empty-ferry)", "(at c0 l0) (at c0 l1)", "(not-eq l0 l0)"],
        ["(on l0)", "(at l0 c0)", "(at-ferry c0)", "(not (on c0))"],
    ),
    "depots": (
        """(Lift hoist1 crate0 pallet1 distributor0) (Drive truck0 distributor1 distributor0)
        (Load hoist1 crate0 truck0 distributor0) (Drive truck0 distributor0 distributor1)
        (Unload hoist2 crate0 truck0 distributor1) (Drop hoist2 crate0 pallet2 distributor1)
        (Drive truck0 distributor1 depot0) (Lift hoist0 crate1 pallet0 depot0)
        (Load hoist0 crate1 truck0 depot0) (Drive truck0 depot0 distributor1)
        (Unload hoist2 crate1 truck0 distributor1) (Drop hoist2 crate1 crate0 distributor1)""",
        ["(in crate0 truck0) (in crate1 truck0)", "(lifting hoist2 crate1) (clear pallet0)"],
        [
            "(on crate0 crate1) (on crate1 crate0)",
            "(at crate0 depot0) (at crate0 distributor0)",
            "(lifting hoist0 crate0) (available hoist0)",
            "(on crate0 pallet2) (on crate1 pallet2)",
            "(at hoist0 distributor0)",
        ],
        ["(on pallet0 crate0)", "(at depot0 truck0)", "(in crate0 pallet0)", "(clear truck0)"],
    ),
    "satellite": (
        """(switch_on instrument0 satellite0) (turn_to satellite0 groundstation1 phenomenon3)
        (calibrate satellite0 instrument0 groundstation1)
        (turn_to satellite0 phenomenon3 groundstation1)
        (take_image satellite0 phenomenon3 instrument0 thermograph0)
        (switch_off instrument0 satellite0) (switch_on instrument1 satellite0)
        (turn_to satellite0 star0 phenomenon3) (calibrate satellite0 instrument1 star0)
        (turn_to satellite0 star5 star0) (take_image satellite0 star5 instrument1 image1)""",
        ["(have_image star0 image1) (power_avail satellite0)", "(calibrated instrument0)"],
        [
            "(have_image star5 spectrograph2)",
            "(power_on instrument0) (power_on instrument1)",
            "(power_on instrument0) (power_avail satellite0)",
            "(pointing satellite0 star0) (pointing satellite0 star5)",
        ],
        ["(pointing star0 satellite0)", "(have_image image1 star5)", "(= star0 star0)"],
    ),
}


@pytest.mark.parametrize("name", DOMAINS)
def test_domain_goals_get_the_listed_verdicts(name: str):
    domain, problem, goal = texts(name)
    plan, reachable, contradictory, no_goals = DOMAINS[name]
    written, possible = PddlGoal(domain, problem), Reachable(domain, problem)
    assert allowed(written, goal)
    assert allowed(possible, goal)
    assert allowed(PlanAchieves(plan, domain, problem), goal)
    for text in reachable:
        assert allowed(written, text + "))"), text
        assert allowed(possible, text + ")))"), text
    for text in contradictory:
        assert allowed(written, text + "))"), text
        assert not allowed(possible, text + ")))"), text
    for text in no_goals:
        assert not allowed(written, text + "))"), text
        assert not allowed(possible, text + "))"), text


@pytest.mark.parametrize("name", DOMAINS)
def test_domain_plans_reach_their_goals(name: str):
    domain, problem, goal = texts(name)
    task = ground(domain, problem)
    wanted = sum(1 << i for i, atom in enumerate(task.names) if atom in goal)
    steps = task.plan(wanted)
    assert steps
    assert allowed(PlanAchieves("\n".join(steps), domain, problem), goal)
    assert not allowed(PlanAchieves("\n".join(steps[:-1]), domain, problem), goal)


@pytest.mark.parametrize("name", DOMAINS)
def test_domain_whole_problem_equals_its_prefix(name: str):
    domain, problem, goal = texts(name)
    files = DATA / f"{name}.pddl", DATA / f"{name}-problem.pddl"
    for potential in (PddlGoal(*files), Reachable(*files)):
        assert allowed(potential, goal)
    assert ground(domain, problem).operators == ground(domain, problem + goal).operators
