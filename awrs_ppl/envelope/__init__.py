"""The envelope trie: what is known for certain of all executions of a program.

1. A `Node` (`node`) is an execution up to a statement that draws, with the text drawn so far. Its
   `Table` has the next outcomes with their weights; each node knows bounds of the weight of all
   that can follow.
2. A `Trie` (`trie`) begins at the program's start; it takes one outcome of a node at a time
   (`follow`), runs the program on to its next statement (`programs`), and gives nodes their tables,
   for many texts in one forward pass (`tables`).
3. What has been met bounds what has not: `settle` (`bounds`) brings the bounds up to the root.

`inference.exact` grows it heaviest first, `inference.rejection` by attempts.
"""
