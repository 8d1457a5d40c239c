"""Problems and data: what is asked and what the right answer is. No torch."""

from tasks.base import BadRow, Message, Problem, Task, TaskError, Turn, UnusableRow

__distribution__ = "reasoner-rl"
__all__ = ["BadRow", "Message", "Problem", "Task", "TaskError", "Turn", "UnusableRow"]
