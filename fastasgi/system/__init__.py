"""What the operating system is asked for: sockets, signals, users, files of process ids, the service manager.

Knows one process: this one. Must not know: Config, the application, how other processes are started.
"""
