"""A small synthetic world with exact truth: scene → scanner → log in AV2 layout, all from one seed."""
