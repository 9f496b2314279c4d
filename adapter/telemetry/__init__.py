"""Logs, metrics and the resource that both tasks share."""
