"""The flow node's parameters: `settings` is the table, `declared` makes parameters of it, `files` documents."""
