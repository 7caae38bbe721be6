"""What users write: `async def model(ctx)`, and how it is driven.

`context` is the `ctx` of a model; each of its methods makes one of the `statements`.
`execution` drives the coroutines of the particles from statement to statement, and feeds a copy
the `log` of what it has drawn already, which clones share. `trace` is what a posterior shows of it.

A first reading can skip `arguments` and `text_arguments`, what statements may be given; `misuse`,
what is said of statements that are not awaited in turn; and `replay`, which compares a replay with
its log.
"""
