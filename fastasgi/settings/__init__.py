"""What a setting is, and where settings come from.

Knows declarations, the command line, the environment and TOML. Must not know: Config, which declares the
settings and is handed in.
"""
