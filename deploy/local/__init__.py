"""Tandem on one machine: the local model server and the embedded group."""
