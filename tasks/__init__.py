"""Problems and data: what is asked and what the right answer is. No torch."""

from tasks.base import Message, Problem, Task, TaskError

__distribution__ = "reasoner-rl"
__all__ = ["Message", "Problem", "Task", "TaskError"]
