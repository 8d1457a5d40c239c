"""Grading pool: grades rows in worker processes that can always be killed."""

from verifiers.pool.pool import GradingPool, PoolLimits
from verifiers.pool.work_queue import GradingRequest

__all__ = ["GradingPool", "GradingRequest", "PoolLimits"]
