"""How processes begin and end: signals and exit codes (`running`), nodes as children (`child`), and the middleware's
settings (`dds`) and leftovers (`shared_memory`)."""
