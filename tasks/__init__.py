"""Problems and data: what is asked and what the right answer is. No torch."""

from tasks.base import Message, Problem, Task, TaskError

__all__ = ["Message", "Problem", "Task", "TaskError"]
