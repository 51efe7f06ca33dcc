"""Exercises, their known mistakes, and what is wrong with a function: `from hwnn.exercises import check, hint, compare`."""
from .base import EXERCISES, Exercise, exercise, find_exercise, mistake
from .diagnosis import Report, diagnose
from .notebook import check, compare, hint

__all__ = ['EXERCISES', 'Exercise', 'Report', 'check', 'compare', 'diagnose', 'exercise', 'find_exercise', 'hint', 'mistake']
