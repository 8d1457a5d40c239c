"""Instructions that a program can check: the 25 kinds of IFEval and the 58 of IFBench."""
