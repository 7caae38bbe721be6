"""Ask a database a question in English.

A good answer: the rows of a query that this database can run. `Sql` sees to that, and a critic
prefers those that find something; that the query is what was asked is up to the model, so look
at it, and at the others that were found.
"""

import argparse
from pathlib import Path
from typing import Any

from awrs_ppl import LM, Context, run
from awrs_ppl.potentials import Soft, Sql

DATABASE = Path(__file__).parents[1] / "data" / "concert_singer.sqlite"
QUESTION = "What are the names of the singers from France?"


async def answer(ctx: Context, lm: LM, database: Sql, question: str) -> tuple[str, Any]:
    tables = "\n".join(f"{table}({', '.join(of)})" for table, of in database.schema.items())
    prompt = (
        f"Tables:\n{tables}\n\n"
        "Question: How many stadiums are there?\nSQL: SELECT count(*) FROM stadium;\n\n"
        "Question: Which concerts were in 2014?\n"
        "SQL: SELECT concert_Name FROM concert WHERE Year = '2014';\n\n"
        "Question: What are the locations of the stadiums called Somerset Park?\n"
        "SQL: SELECT Location FROM stadium WHERE Name = 'Somerset Park';\n\n"
        f"Question: {question}\nSQL:"
    )
    queries = lm(prompt, stop=[";", "\n"], temperature=0.5) * database
    finds = Soft(lambda query: 0.0 if database.rows(query) else -4.0)
    query = await ctx.generate(queries, critic=finds, max_tokens=40)
    rows = await ctx.call(database.rows, query)
    return query.strip(), rows


def main(lm: LM) -> tuple[str, Any]:
    posterior = run(answer, lm, Sql(DATABASE), QUESTION, n_particles=8, seed=0)
    print(posterior)
    query, rows = posterior.mode()
    print(QUESTION, query, rows, sep="\n")
    return query, rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    main(LM(parser.parse_args().model))
