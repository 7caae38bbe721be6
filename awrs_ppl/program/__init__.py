"""What users write: `async def model(ctx)`, and how it is driven.

`context` is the `ctx` of a model; each of its methods makes one of the `statements`, a request.
`execution` drives the coroutines of the particles from request to request, and feeds a copy the log
of what it has drawn already. `trace` is that log, shared by clones, and what a posterior shows.
"""
