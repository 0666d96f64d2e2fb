"""Schedules: deciding which worker moves next, at database statements, at instructions, or at tasks of a loop."""
