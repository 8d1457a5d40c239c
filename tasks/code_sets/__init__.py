"""Public data sets of programming problems: readers that give each row's reference with the data set's own rules."""
