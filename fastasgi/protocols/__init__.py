"""What uvicorn's package of this name has for applications. The protocols are compiled: see ``sinks``."""
