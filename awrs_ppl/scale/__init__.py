"""Beyond one inference: a program on many inputs.

1. `infer_many` (`many`) starts an inference for each input, so many at once, and gives the
   posteriors in the order of the inputs. Those that share a language model share its passes.
2. With `save=` each posterior is kept in a folder as soon as it is there (`folder`), and is read
   from there when the same is done again.
"""
