"""Goals and plans of planning problems, written in PDDL.

`planning` has the potentials. `text` reads brackets, and `pddl` the domain and the problem, with
`types`, the `scope` of names, `formulas` and `numbers`. `plans` follows a plan; `grounding` writes
a problem without variables, and `strips` says what can hold together in that, and plans.
`goal_texts` has how goals are written.
"""

from awrs_ppl.potentials.planning.planning import PddlGoal, PlanAchieves, Reachable

__all__ = ["PddlGoal", "PlanAchieves", "Reachable"]
