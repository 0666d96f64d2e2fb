"""Races: concurrent scenarios, explored schedule by schedule and judged by linearizability."""
