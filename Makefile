# Tandem's verbs. `make help` lists them.
