"""Who gets in: addresses, tokens, what each resource asks for, and what a tenant may use. `gate.py` puts them in order."""
