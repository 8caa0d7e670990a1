"""The engine's two sockets: `operator.sock` for people and the TUI, `gate.sock` for the gates' relays.

The way of a request: `sockets` (who may open it) -> `peers` (who it is) -> `access` (may they) -> `routes`
(what is asked) -> `port` (the engine behind). The state stream comes from the `hub`.
"""
