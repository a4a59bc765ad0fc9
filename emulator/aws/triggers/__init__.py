"""Triggers: what happens in one service calls a function, or sends a message, in another one."""
