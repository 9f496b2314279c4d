"""HTTP/1.1 as this service needs it: whole requests in, whole answers out. `server.py` listens, `connection.py` speaks."""
