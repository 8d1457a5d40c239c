"""Problems and data sets: prompts, reference answers and the tasks that yield them. Imports no torch."""

from tasks.base import BadRow, Message, Problem, Task, TaskError, Turn, UnusableRow

__distribution__ = "reasoner-rl"
__all__ = ["BadRow", "Message", "Problem", "Task", "TaskError", "Turn", "UnusableRow"]
