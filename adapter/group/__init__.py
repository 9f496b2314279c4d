"""The two tasks as one: what state the group is in, and why."""
