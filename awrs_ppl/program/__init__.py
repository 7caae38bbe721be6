"""What users write: `async def model(ctx)`, and how it is driven.

`context` is the `ctx` of a model; each of its methods makes one of the `statements`.
`execution` drives the coroutines of the particles from statement to statement, and feeds a copy
the log of what it has drawn already. `trace` is that log, shared by clones, and what a posterior
shows.
"""
