"""Public data sets of programming problems, as published: each row's reference, with that data set's own rules."""
