"""Rubrics: criteria with weights and gates, checked by a program or judged by a model."""

from verifiers.rubric.criteria import Criterion, parse_rubric, rubric_json

__all__ = ["Criterion", "parse_rubric", "rubric_json"]
