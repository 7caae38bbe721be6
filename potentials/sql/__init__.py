"""SELECT statements that a SQLite database can run.

`sql` has the potential. `tokens` cuts bytes into tokens; `grammar` has SQLite's rules over them,
and `automaton` makes one machine of these. A `place` is where in a statement a token stands;
`reader` leads from one to the next, with the `names` of the database. `scan` reads a partial text
and evaluates it on the `database`, with `quotes`. `masks` gives all next tokens: `walk` reads a
vocabulary by its `pieces`, and collects `followers`.
"""

from awrs_ppl.potentials.sql.sql import Sql

__all__ = ["Sql"]
